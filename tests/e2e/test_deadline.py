"""`[lane] deadline`: cancelled, collected and the rest sent live; never a row twice; exit code 7 when it was missed."""

from __future__ import annotations

from collections import Counter

import pytest

from batchctl.emulator import billed_rows
from tests.conftest import NewJob, NewProvider
from tests.support.emulated import Emulated
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

MODEL = 'provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 64 }'
IDS = [f"R-{number:03d}" for number in range(30)]
TAIL = 'deadline = "2026-01-01T00:00:00Z"\non_deadline_risk = "live-tail"'


@pytest.fixture
def slow(new_provider: NewProvider) -> Provider:
    """Batches that run for ever."""
    return new_provider(latency=100_000)


def half_done(provider: Provider, after: int) -> None:
    """The running batch of a provider has answered `after` of its requests."""
    Emulated(provider).reach(until(lambda: provider.books().creates)[0]["id"], after)


def billed(job: JobFolder) -> Counter[str]:
    assert job.provider is not None
    return Counter(one["digest"] for one in billed_rows(job.provider.state))


def check_once(job: JobFolder) -> None:
    assert set(billed(job).values()) == {1}
    assert len(billed(job)) == 30


def test_live_tail_sends_only_what_the_batch_did_not_finish(new_job: NewJob, slow: Provider) -> None:
    job = new_job(slow, rows=30, model=MODEL)
    job.run("prepare", code=0)
    job.run("submit", code=8)
    half_done(slow, 22)
    text = (job.path / "job.toml").read_text()
    (job.path / "job.toml").write_text(text + f'\n[lane]\n{TAIL}\nlive_tail_max = "50%"\n')
    done = job.run("run", "--wait", "--json", code=7)
    assert done.json["balance"]["completed"] == 30
    results = job.check_results(IDS)
    assert Counter(one["batch_id"] is None for one in results.values()) == {False: 22, True: 8}
    check_once(job)
    assert job.books.live == 8
    job.run("run", "--wait", code=7)
    check_once(job)


@pytest.mark.parametrize(
    "point", ["D1", "D2", *(pytest.param(one, marks=pytest.mark.slow) for one in ("K17", "K14", "K15", "L1", "L2"))]
)
def test_a_kill_during_a_live_tail_pays_for_no_row_twice(point: str, new_job: NewJob, slow: Provider) -> None:
    job = new_job(slow, rows=30, model=MODEL, lane=TAIL)
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT=point).killed
    done = job.run("run", "--wait", code=(7, 11))
    done = job.run("run", "--wait", code=(7, 11))
    held = job.check_balance()["held"]
    assert (done.code == 11) == (held > 0)
    assert Counter(one["state"] for one in job.check_results(IDS).values())["completed"] == 30 - held
    assert set(billed(job).values()) == {1}


def test_too_many_rows_for_a_live_tail_are_waited_for(new_job: NewJob, slow: Provider) -> None:
    job = new_job(slow, rows=30, model=MODEL, lane=TAIL + '\nlive_tail_max = "5%"')
    done = job.run("run", "--max-wait", "1s", code=7)
    assert "100.0% are more than live_tail_max = 5.0%" in done.err
    assert job.books.live == 0
    assert job.check_balance()["submitted"] == 30


def test_a_live_tail_keeps_to_the_budget(new_job: NewJob, slow: Provider) -> None:
    job = new_job(slow, rows=30, model=MODEL)
    job.run("prepare", code=0)
    job.run("submit", code=8)
    half_done(slow, 22)
    text = (job.path / "job.toml").read_text()
    (job.path / "job.toml").write_text(text + f"\n[lane]\n{TAIL}\n")
    job.run("run", "--wait", "--budget", "0.000001USD", code=6)
    for command in (["run", "--wait"], ["poll", "--wait"], ["submit"], ["rerun"]):
        job.run(*command, code=6)
        assert job.books.live == 0
    job.run("run", "--wait", "--budget", "1USD", code=7)
    assert job.check_balance()["completed"] == 30
    check_once(job)


def test_auto_keeps_to_the_budget(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(), lane='prefer = "auto"\ndeadline = "2h"', model=MODEL)
    for command in (["run", "--wait"], ["submit"], ["run", "--wait", "--lane", "live"]):
        job.run(*command, "--budget", "0.000001USD", code=6)
        assert (job.books.creates, job.books.live) == ([], 0)
    job.run("run", "--wait", "--budget", "1USD", code=0)


def test_stop_cancels_and_sends_nothing_more(new_job: NewJob, slow: Provider) -> None:
    job = new_job(
        slow,
        rows=30,
        model=MODEL,
        lane='deadline = "0s"\non_deadline_risk = "stop"',
        limits="chunk_rows = 10\nin_flight = 2",
    )
    job.run("run", "--wait", code=7)
    assert len(job.books.creates) == 2
    assert {one["status"] for one in job.books.creates} == {"cancelled"}
    for _ in range(2):
        job.run("run", code=7)
    assert len(job.books.creates) == 2
    assert job.books.live == 0


def test_a_stop_that_was_killed_is_carried_out(new_job: NewJob, slow: Provider) -> None:
    job = new_job(
        slow, rows=30, model=MODEL, lane='deadline = "0s"\non_deadline_risk = "stop"', limits="chunk_rows = 10"
    )
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT="D1").killed
    assert {one["status"] for one in job.books.creates} == {"validating"}
    job.run("run", "--wait", code=7)
    assert {one["status"] for one in job.books.creates} == {"cancelled"}
    assert job.check_balance()["submitted"] == 0


def test_a_deadline_that_is_kept_changes_nothing(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, lane='deadline = "5d"\non_deadline_risk = "live-tail"')
    done = job.run("run", "--wait", code=0)
    assert "kept" in done.out + done.err
    assert [one["status"] for one in job.books.creates] == ["completed"]


@pytest.mark.parametrize(
    ("lane", "more", "lane_taken", "why"),
    [
        ('prefer = "auto"', [], "batch", "nobody waits, 6 rows"),
        ('prefer = "auto"\ndeadline = "2h"', [], "live", "a batch may take a day"),
        ('prefer = "auto"\ndeadline = "3d"', [], "batch", "batches end within"),
        ('prefer = "auto"', ["--max-wait", "50m"], "live", "a batch may take a day"),
        ('prefer = "auto"\ndeadline = "2h"', ["--set", "limits.budget=0.002 USD"], "batch", "has no room"),
    ],
)
def test_auto_chooses_and_says_why(
    lane: str, more: list[str], lane_taken: str, why: str, new_job: NewJob, provider: Provider
) -> None:
    job = new_job(provider, lane=lane, model=MODEL)
    done = job.run("run", "--wait", *more, code=0)
    assert f"lane: {lane_taken}; " in done.err
    assert why in done.err
    assert bool(job.books.creates) == (lane_taken == "batch")
