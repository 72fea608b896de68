"""The live lane from the command line: the same files, books and promises as a batch, without one."""

from __future__ import annotations

import random
import signal
from collections import Counter
from decimal import ROUND_CEILING, Decimal
from typing import Any

import pytest

from batchctl.emulator import billed_rows
from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

LIVE = "POST /v1/responses"
MODEL = 'provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 64 }'
IDS = [f"R-{number:03d}" for number in range(30)]


def slow(*cases: Any) -> list[Any]:
    """Cases of a matrix that are run where there is time."""
    return [pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=pytest.mark.slow) for one in cases]


@pytest.fixture
def own(new_provider: NewProvider) -> Provider:
    return new_provider()


@pytest.fixture
def job(new_job: NewJob, own: Provider) -> JobFolder:
    return new_job(own, rows=30, limits="chunk_rows = 20", model=MODEL, lane='prefer = "live"')


def billed(job: JobFolder) -> Counter[str]:
    """How often each request body was billed live; every row's text is another."""
    assert job.provider is not None
    return Counter(one["digest"] for one in billed_rows(job.provider.state) if one["batch_id"] is None)


def check_live(job: JobFolder, *, unknown: int = 0) -> None:
    """No body billed twice, no batch made, and what is booked is the meter's own figure."""
    bill, cost = billed(job), job.status()["cost"]
    assert not [digest for digest, times in bill.items() if times > 1]
    assert job.books.creates == []
    assert cost["unmetered"] == unknown
    if unknown:
        assert Decimal(cost["usd"]) <= job.books.live_usd <= Decimal(cost["usd_at_most"])
    else:
        assert Decimal(cost["usd"]) == Decimal(cost["usd_live"]) == job.books.live_usd


def test_a_job_runs_live(job: JobFolder) -> None:
    done = job.run("run", "--json", code=0)
    assert done.json["balance"]["completed"] == 30
    results = job.check_results(IDS)
    assert {one["batch_id"] for one in results.values()} == {None}
    assert sum(Decimal(one["cost_usd"]) for one in results.values()) == job.books.live_usd > 0
    check_live(job)
    assert len(billed(job)) == 30
    job.check_files()
    job.run("run", code=0)
    assert len(billed(job)) == 30


def test_lost_answers_are_held_and_only_a_person_frees_them(job: JobFolder, own: Provider) -> None:
    own.fault(LIVE, "drop-after", nth=3, count=2)
    own.fault(LIVE, "500-after", nth=9)
    done = job.run("run", code=11)
    assert "resolve" in done.err + done.out
    held = [one for one in job.check_results(IDS).values() if one["state"] == "held"]
    assert len(held) == 3
    assert all("not sent again" in one["detail"] for one in held)
    check_live(job, unknown=3)
    assert len(billed(job)) == 30
    for command in (["run"], ["submit"], ["poll"], ["rerun"], ["validate"]):
        job.run(*command, code=(0, 3, 11))
        assert sum(billed(job).values()) == 30
    assert job.run("resolve", code=11, BATCHCTL_YES=None).out.count("live call") >= 1
    job.run("resolve", "--not-sent", code=6, BATCHCTL_YES=None)
    job.run("resolve", "--adopt", "batch_1", code=2)
    job.run("resolve", "--abandon", code=0)
    assert {one["reason"] for one in job.check_results(IDS).values()} == {None, "missing"}
    check_live(job, unknown=3)
    job.run("run", code=3)
    assert sum(billed(job).values()) == 30
    job.run("rerun", code=0)
    assert {one["state"] for one in job.check_results(IDS).values()} == {"completed"}
    assert sum(billed(job).values()) == 33


def test_a_held_row_is_not_sent_by_a_later_run_either(job: JobFolder, own: Provider) -> None:
    own.fault(LIVE, "drop-after", nth=4)
    job.run("run", code=11)
    rows = (job.path / "rows.csv").read_text()
    (job.path / "rows.csv").write_text(rows + "R-030,one more row\n")
    job.run("run", code=0)
    assert set(billed(job).values()) == {1}
    assert len(billed(job)) == 31


def test_calls_declared_not_sent_cost_nothing(job: JobFolder, own: Provider) -> None:
    own.fault(LIVE, "drop-before", nth=4)
    job.run("run", code=11)
    check_live(job, unknown=1)
    job.run("resolve", "--not-sent", code=0)
    job.run("rerun", code=0)
    assert {one["state"] for one in job.check_results(IDS).values()} == {"completed"}
    check_live(job)
    assert sum(billed(job).values()) == 30


def test_rows_are_queued_until_their_call_is_made(new_job: NewJob, own: Provider) -> None:
    rows = [{"id": f"R-{number:03d}", "text": f"text {number % 20}"} for number in range(30)]
    job = new_job(own, rows=rows, prompt="{{ text }}", model=MODEL, limits="calls_at_once = 2", lane='prefer = "live"')
    own.fault(LIVE, "drop-after", nth=2)
    own.fault(LIVE, "400", nth=4)
    assert job.run("run", BATCHCTL_CRASH_AT="L1:6").killed
    calls = dict(job.sql("SELECT key, state FROM live_call"))
    assert {"answered", "lost", "declined"} <= set(calls.values())
    lost = sum(state == "lost" for state in calls.values())
    balance = job.check_balance()
    assert 0 < len(calls) < 20
    wanted = {"queued": 20 - len(calls) + 10, "submitted": len(calls) - lost, "held": lost}  # copies wait for all calls
    assert {state: balance[state] for state in wanted} == wanted
    job.run("validate", code=11)
    job.check_results()  # the file says the same
    job.run("run", code=11)
    assert job.check_balance()["queued"] == 0
    assert set(billed(job).values()) == {1}


@pytest.mark.parametrize(
    "point",
    [
        "L1:3",
        "L2:2",
        "before-commit:9",
        *slow("L1", "L2", "L2:4", "L3", "before-commit:4", "before-commit:7", "K14b", "K15"),
    ],
)
def test_a_kill_anywhere_repeats_no_call(point: str, job: JobFolder) -> None:
    assert job.run("run", BATCHCTL_CRASH_AT=point).killed
    first = billed(job)
    for _ in range(3):
        done = job.run("run", code=(0, 11))
    results = job.check_results(IDS)
    held = sum(one["state"] == "held" for one in results.values())
    assert (done.code == 11) == (held > 0)
    assert Counter(one["state"] for one in results.values())["completed"] == 30 - held
    check_live(job, unknown=held)
    assert first <= billed(job)
    job.check_files()


def test_refusals_are_waited_out_and_burn_no_attempt(job: JobFolder, own: Provider) -> None:
    own.fault(LIVE, "429", nth=5, count=6, retry_after=1)
    job.run("run", code=0)
    assert {one["attempt"] for one in job.check_results(IDS).values()} == {1}
    check_live(job)
    assert len(own.calls("POST", "/v1/responses")) == 36


@pytest.mark.parametrize(("do", "code"), [("429", 10), *slow(("insufficient_quota", 10), ("401", 4), ("404", 10))])
def test_what_does_not_pass_stops_and_the_rows_wait(do: str, code: int, job: JobFolder, own: Provider) -> None:
    own.fault(LIVE, do, nth="every")
    job.run("run", code=code)
    assert billed(job) == Counter()
    own.clear_faults()
    job.run("run", code=0)
    check_live(job)


def test_an_outage_loses_few_calls(job: JobFolder, own: Provider) -> None:
    own.fault(LIVE, "503", nth="every")
    job.run("run", code=11)
    assert len(own.calls("POST", "/v1/responses")) <= 16
    own.clear_faults()
    job.run("run", code=11)
    check_live(job, unknown=job.status()["cost"]["unmetered"])
    assert sum(billed(job).values()) >= 14


def test_bad_answers_are_judged_as_in_a_batch(new_job: NewJob, new_provider: NewProvider) -> None:
    provider = new_provider(seed=3, invalid=0.2, truncated=0.2, refused=0.2)
    job = new_job(provider, rows=30, model=MODEL, lane='prefer = "live"')
    job.run("run", code=3)
    reasons = {one["reason"] for one in job.check_results(IDS).values()}
    assert reasons >= {"truncated", "refused"}
    check_live(job)
    job.run("rerun", "--same-prompt", code=3)
    job.check_results(IDS)
    assert Decimal(job.status()["cost"]["usd_live"]) == job.books.live_usd


def test_one_cent_below_the_next_call_sends_nothing_more(job: JobFolder, own: Provider) -> None:
    job.run("prepare", code=0)
    job.run("run", "--set", "limits.budget=0.000001 USD", code=6)
    assert billed(job) == Counter()
    job.run("run", "--set", "limits.budget=0.004 USD", code=6)
    spent, calls = job.books.live_usd, sum(billed(job).values())
    assert 0 < calls < 30
    assert Decimal(job.status()["cost"]["usd"]) == spent <= Decimal("0.004")
    for command in (["run"], ["submit"], ["poll", "--wait"], ["run", "--wait"]):
        limit = spent.quantize(Decimal("0.000001"), ROUND_CEILING) + Decimal("0.0001")
        job.run(*command, "--set", f"limits.budget={limit} USD", code=6)
        assert sum(billed(job).values()) == calls
    job.run("run", "--set", "limits.budget=1 USD", code=0)
    check_live(job)


def test_lane_on_the_command_line_is_kept_by_later_commands(new_job: NewJob, own: Provider) -> None:
    job = new_job(own, rows=30, limits="chunk_rows = 10", model=MODEL)
    job.run("prepare", code=0)
    job.run("submit", "--lane", "sideways", code=2)
    assert job.run("submit", "--lane", "live", BATCHCTL_CRASH_AT="L1:3").killed
    job.run("poll", "--wait", code=(0, 11))
    job.run("validate", code=(0, 11))
    held = job.check_balance()["held"]
    check_live(job, unknown=held)


def test_cancel_ends_what_was_begun(job: JobFolder, own: Provider) -> None:
    assert job.run("run", BATCHCTL_CRASH_AT="L1:3").killed
    calls = len(own.calls("POST", "/v1/responses"))
    job.run("cancel", code=0)
    job.run("validate", code=(3, 11, 8))
    assert len(own.calls("POST", "/v1/responses")) == calls
    results = job.check_results(IDS)
    assert any("not sent" in (one["detail"] or "") for one in results.values())


@pytest.mark.parametrize("number", [signal.SIGINT, *slow(signal.SIGTERM)])
def test_a_signal_lets_answers_under_way_arrive(number: int, job: JobFolder, own: Provider) -> None:
    own.fault(LIVE, "429", nth=20, count=1000, retry_after=60)
    going = job.start("run", BATCHCTL_RETRY_SECONDS="5")
    until(lambda: len(own.calls("POST", "/v1/responses")) >= 20)
    going.signal(number)
    assert going.wait().code in (130, 143)
    own.clear_faults()
    job.run("run", code=(0, 11))  # an answer that took longer than the signal may wait is held
    check_live(job, unknown=job.check_balance()["held"])


def test_a_server_without_a_batch_api_will_do(new_job: NewJob, own: Provider) -> None:
    model = f'provider = "openai-compatible"\nname = "llama"\nbase_url = "{own.base_url}"\nendpoint = "/v1/chat/completions"'
    job = new_job(own, rows=5, model=model, lane='prefer = "live"')
    for path in ("batches", "files"):
        own.fault(f"* /v1/{path}*", "404", nth="every")
    job.run("run", code=0)
    assert job.check_balance()["completed"] == 5
    assert {one["path"] for one in own.calls()} == {"/v1/chat/completions"}


def test_anthropic_runs_live(new_job: NewJob, own: Provider) -> None:
    model = 'provider = "anthropic"\nname = "claude-haiku-4-5"\nparams = { max_tokens = 100 }'
    job = new_job(own, rows=5, model=model, lane='prefer = "live"')
    own.fault("POST /v1/messages", "529", nth=2)
    job.run("run", code=11)
    assert Counter(one["state"] for one in job.check_results().values()) == {"completed": 4, "held": 1}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again(seed: int, job: JobFolder, own: Provider) -> None:
    """SIGKILL after so many calls, whatever it was doing; the same command carries on each time."""
    dice = random.Random(seed)
    for _ in range(6):
        wanted = len(own.calls("POST", "/v1/responses")) + dice.randint(1, 9)
        going = job.start("run")
        until(lambda: len(own.calls("POST", "/v1/responses")) >= wanted or going.ended)  # noqa: B023
        if not going.ended:
            going.signal(signal.SIGKILL)
        going.wait()
        assert set(billed(job).values()) <= {1}
    job.run("run", code=(0, 11))
    held = job.check_balance()["held"]
    assert Counter(one["state"] for one in job.check_results(IDS).values())["completed"] == 30 - held
    check_live(job, unknown=held)
