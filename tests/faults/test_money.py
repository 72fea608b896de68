"""What is booked against the provider's own meter in money: to the last digit, whatever goes wrong."""

from __future__ import annotations

import signal
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from batchctl.emulator import billed_rows
from tests.conftest import NewJob, NewProvider
from tests.faults.test_lost_answers import CREATE
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

MODEL = 'provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 200 }'
ROWS = 40
SCRIPTS: dict[str, dict[str, Any]] = {
    "well": {},
    "cached and thinking": {"cached": 0.4, "thinking": 30},
    "every bad answer": {
        "invalid": 0.1,
        "truncated": 0.1,
        "refused": 0.1,
        "filtered": 0.05,
        "expired": 0.1,
        "500": 0.1,
        "429": 0.05,
        "timeout": 0.05,
        "unknown": 0.05,
        "missing": 0.1,
    },
    "doubled": {"duplicated": 0.3, "conflict": 0.3, "reordered": 1.0},
    "odd files": {"results": ["stranger", "null-id", "crlf", "blank", "both-files", "u2028"]},
    "a line cut off": {"results": ["cut-last"]},
    "no last newline": {"results": ["no-final-newline"], "missing": 0.2},
}


def check_everything(job: JobFolder) -> None:
    """Batches to the last digit; live calls too, but for those whose answer was lost, which are counted and bounded."""
    cost = job.status()["cost"]
    assert Decimal(cost["usd_first_attempts"]) + Decimal(cost["usd_reruns"]) == job.books.usd > 0
    if cost["unmetered"]:
        assert Decimal(cost["usd"]) <= job.books.usd + job.books.live_usd <= Decimal(cost["usd_at_most"])
    else:
        assert Decimal(cost["usd"]) == Decimal(cost["usd_at_most"]) == job.books.usd + job.books.live_usd


@pytest.mark.parametrize("script", SCRIPTS)
def test_booked_cost_is_the_meter(script: str, new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(
        new_provider(seed=5, **SCRIPTS[script]),
        name="metered",  # fates are drawn by the request, which holds it: the same ones in any order of tests
        rows=ROWS,
        limits="chunk_rows = 15",
        model=MODEL,
        sample='rows = 6\nmin_valid = "0%"',
        retry="transient = 2",
    )
    job.run("run", "--wait", code=(0, 3, 7))
    job.check_results()
    check_everything(job)
    job.run("rerun", "--wait", "--same-prompt", code=(0, 3, 7))
    job.run("validate", "--again", code=(0, 3, 7))  # judging again books nothing twice
    job.check_results()
    check_everything(job)


def test_the_rows_of_results_add_up_and_copies_cost_nothing(new_job: NewJob, new_provider: NewProvider) -> None:
    rows = [{"id": f"R-{number}", "text": f"text {number % 4}"} for number in range(12)]
    job = new_job(new_provider(cached=0.5), rows=rows, prompt="{{ text }}", model=MODEL)
    job.run("run", "--wait", code=0)
    results = job.lines("results.jsonl")
    assert sum(Decimal(one["cost_usd"]) for one in results) == job.books.usd > 0
    assert {one["cost_usd"] for one in results if one["copied_from"]} == {"0"}
    cost = job.status()["cost"]
    assert Decimal(cost["usd_per_1000_completed"]) == pytest.approx(job.books.usd / 12 * 1000)
    assert "genai-prices" in cost["prices_from"]
    assert "checked 2026-10-14" in cost["prices_from"]


def test_an_unknown_price_is_unknown_until_the_job_file_gives_one(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, model='provider = "openai"\nname = "gpt-of-next-year"')
    done = job.run("run", "--wait", code=0)
    assert "unknown" in done.err
    cost = job.status()["cost"]
    assert (cost["usd"], cost["usd_per_1000_completed"], cost["prices_from"]) == (None, None, None)
    assert {one["cost_usd"] for one in job.lines("results.jsonl")} == {None}
    text = (job.path / "job.toml").read_text()
    (job.path / "job.toml").write_text(text + "\n[prices]\ninput = 0.375\noutput = 2.25\n")
    job.run("validate", code=0)
    assert Decimal(job.status()["cost"]["usd"]) == job.books.usd
    assert len(job.books.creates) == 1


def test_a_lost_create_is_booked_once(job: JobFolder, provider: Provider) -> None:
    provider.fault(CREATE, "drop-after")
    job.run("run", "--wait", code=0)
    assert Decimal(job.status()["cost"]["usd"]) == job.books.usd > 0


def test_a_lost_live_answer_is_never_called_free(new_job: NewJob, new_provider: NewProvider) -> None:
    provider = new_provider()
    job = new_job(provider, sample='rows = 4\nmin_valid = "0%"', model=MODEL)
    job.run("prepare", code=0)
    provider.fault("POST /v1/responses", "drop-after")
    job.run("dry-run", code=(0, 5))
    cost = job.status()["cost"]
    assert cost["unmetered"] == 1
    assert Decimal(cost["usd"]) < job.books.live_usd <= Decimal(cost["usd_at_most"])


def test_a_kill_between_a_live_call_and_its_booking_leaves_it_on_record(
    new_job: NewJob, new_provider: NewProvider
) -> None:
    job = new_job(new_provider(), sample='rows = 4\nmin_valid = "0%"', model=MODEL)
    job.run("prepare", code=0)
    assert job.run("dry-run", BATCHCTL_CRASH_AT="before-commit:6").killed
    cost = job.status()["cost"]
    assert cost["unmetered"] > 0
    assert Decimal(cost["usd"]) <= job.books.live_usd <= Decimal(cost["usd_at_most"])


def test_a_second_batch_with_our_mark_counts_with_the_most_it_can_cost(new_job: NewJob, provider: Provider) -> None:
    """A middlebox repeated the create: one batch is adopted, the other is cancelled, and may have run."""
    job = new_job(provider, model=MODEL)
    job.run("run", BATCHCTL_CRASH_AT="K10")
    (first,) = job.books.creates
    again = {name: first[name] for name in ("input_file_id", "endpoint", "metadata")}
    provider.ask("POST", "/v1/batches", {**again, "completion_window": "24h"})
    until(lambda: all(one["status"] == "completed" for one in job.books.creates))
    job.run("run", "--wait", code=0)
    cost = job.status()["cost"]
    assert cost["unmetered"] == 6
    assert Decimal(cost["usd"]) < job.books.usd <= Decimal(cost["usd_at_most"])


def bought_live(job: JobFolder) -> Counter[str]:
    """How often each request body was billed live."""
    assert job.provider is not None
    return Counter(one["digest"] for one in billed_rows(job.provider.state) if one["batch_id"] is None)


@pytest.mark.parametrize(("point", "others"), [("S1:3", True), ("S2", True), ("before-commit:6", True), ("S1", False)])
def test_a_killed_dry_run_pays_for_no_row_twice(
    point: str, others: bool, new_job: NewJob, new_provider: NewProvider
) -> None:
    rows = 30 if others else 4
    job = new_job(new_provider(), rows=rows, sample='rows = 4\nmin_valid = "100%"', model=MODEL)
    job.run("prepare", code=0)
    assert job.run("dry-run", BATCHCTL_CRASH_AT=point).killed
    done = job.run("dry-run", "--json", code=0)
    lost = job.sql("SELECT COUNT(*) FROM live_call WHERE state = 'lost'")[0][0]
    assert job.sql("SELECT COUNT(*) FROM live_call WHERE state = 'open'")[0][0] == 0
    assert done.json["sample"] == (4 if others else 4 - lost)  # others stand in, as long as there are any
    assert set(bought_live(job).values()) == {1}
    assert ("may be paid" in done.err) == (lost > 0)
    cost = job.status()["cost"]
    assert Decimal(cost["usd"]) <= job.books.live_usd <= Decimal(cost["usd_at_most"])
    assert cost["unmetered"] == lost
    assert job.run("dry-run", "--json", code=0).json["calls"] == 0  # and the same rows again


def test_a_signal_during_a_dry_run_keeps_the_answers_that_are_there(new_job: NewJob, new_provider: NewProvider) -> None:
    provider = new_provider()
    job = new_job(provider, rows=30, sample='rows = 12\nmin_valid = "100%"', model=MODEL)
    job.run("prepare", code=0)
    provider.fault("POST /v1/responses", "hang", nth=1, seconds=60)
    process = job.start("dry-run")
    until(lambda: len(provider.calls("POST", "/v1/responses")) >= 11)
    process.signal(signal.SIGTERM)
    assert process.wait().code == 143
    provider.clear_faults()
    done = job.run("dry-run", "--json", code=0)
    assert (done.json["sample"], done.json["calls"]) == (12, 1)
    assert job.status()["cost"]["unmetered"] == 1
    assert set(bought_live(job).values()) == {1}


def test_a_sample_that_lost_every_answer_is_not_asked_again(new_job: NewJob, new_provider: NewProvider) -> None:
    provider = new_provider()
    job = new_job(provider, rows=3, sample='rows = 3\nmin_valid = "0%"', model=MODEL)
    provider.fault("POST /v1/responses", "drop-after", count=3)
    job.run("run", code=(0, 8))
    provider.clear_faults()
    assert "no row is asked twice" in job.run("dry-run", code=5).err
    assert set(bought_live(job).values()) == {1}


def test_answers_of_a_dry_run_that_are_gone_are_not_bought_again(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(), rows=20, sample="rows = 4", model=MODEL)
    job.run("prepare", code=0)
    job.run("dry-run", code=0)
    (job.directory / "dry-run.jsonl").unlink()
    assert job.run("dry-run", "--json", code=0).json["calls"] == 4
    assert sorted(bought_live(job).values()) == [1] * 8


def test_half_a_line_of_a_killed_dry_run_spoils_no_answer_after_it(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(), sample="rows = 4", model=MODEL)
    job.run("prepare", code=0)
    job.run("dry-run", "--rows", "2", code=0)
    with (job.directory / "dry-run.jsonl").open("ab") as file:
        file.write(b'{"key": "half')
    job.run("dry-run", code=0)
    assert job.run("dry-run", "--json", code=0).json["calls"] == 0
    assert set(bought_live(job).values()) == {1}
