"""P25: the clock on the wall jumps between commands and inside them (`shim.c`); nothing that matters rests on it.

What is bought, found and given up goes by the provider's own clock, by order and by the monotonic clock.
"""

from __future__ import annotations

from typing import Any

import pytest

from batchctl.emulator import ADDRESSES
from tests.crash.matrix import ROWS, Bench
from tests.faults.test_neighbours import AT
from tests.support.jobs import JobFolder
from tests.support.judge import harms
from tests.support.provider import Provider, until

DAY = 86_400
MODELS = {
    "openai": 'provider = "openai"\nname = "gpt-5.4-mini"',
    "anthropic": 'provider = "anthropic"\nname = "claude-haiku-4-5"',
    "mistral": 'provider = "mistral"\nname = "m"\nbase_url = "{url}' + ADDRESSES["mistral"] + '"',
}
"""Found by mark over whole pages; found by its results, among those made since then; found by mark, by a filter on time."""


def slow(values: Any) -> Any:
    return pytest.param(*(values if isinstance(values, tuple) else (values,)), marks=pytest.mark.slow)


def at(job: JobFolder) -> Provider:
    assert job.provider is not None
    return job.provider


def job_at(bench: Bench, name: str) -> JobFolder:
    job = bench.job()
    job.write(model=MODELS[name].format(url=at(job).url), limits="chunk_rows = 3")
    job.env["MISTRAL_API_KEY"] = "sk-test-key"
    job.strangers = {one["id"] for one in at(job).books().creates}
    job.run("prepare", code=0)
    return job


def creates(job: JobFolder, name: str) -> int:
    path = {"openai": "/v1/batches", "anthropic": "/v1/messages/batches", "mistral": AT["mistral"][1]}[name]
    return len([one for one in at(job).calls("POST", path) if one["path"] == path])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("sent", "looked"), [(3 * DAY, 0), *map(slow, [(-3 * DAY, 3 * DAY), (400 * DAY,) * 2])])
def test_a_lost_create_is_found_whatever_the_clock_said(bench: Bench, name: str, sent: int, looked: int) -> None:
    """Killed between the create and its receipt. A window that began with our clock would begin after the batch."""
    job = job_at(bench, name)
    before = creates(job, name)
    assert job.run("submit", BATCHCTL_CRASH_AT="K10", CRASH_CLOCK=str(sent)).killed
    job.env["CRASH_CLOCK"] = str(looked)
    job.until_done("run", "--wait")
    assert creates(job, name) - before == 2, "the batch was there"
    assert job.check_balance()["completed"] == 6
    job.check_money()


@pytest.mark.parametrize("jump", [30 * DAY, -30 * DAY, slow(9_000), slow(-9_000)])
def test_batches_in_flight_are_waited_for_whatever_the_clock_says(bench: Bench, jump: int) -> None:
    """A deadline of a day, and a clock that leaps over it: nothing is cancelled or sent again. Ends are told by our clock,
    which may call them late."""
    job = bench.job().write(limits="chunk_rows = 2", lane='deadline = "1d"\non_deadline_risk = "stop"')
    job.run("prepare", code=0)
    job.run("submit", "--max-batches", "1", code=8)
    (batch,) = (one["id"] for one in job.books.creates)
    at(job).force(batch, status="in_progress")
    job.run("poll", code=8, CRASH_CLOCK=str(jump))
    shown = job.run("status", "--json", code=8, CRASH_CLOCK=str(jump)).json
    ages = [one["age_seconds"] for one in shown["chunks"] if one.get("age_seconds") is not None]
    assert all(age >= 0 for age in ages)
    assert not [one for one in job.books.creates if one["status"].startswith("cancel")]
    at(job).force(batch, status=None)
    until(lambda: at(job).ask("GET", f"/v1/batches/{batch}")["status"] == "completed")
    job.run("run", "--wait", code=(0, 7), CRASH_CLOCK=str(jump))
    assert len(job.books.creates) == 3
    assert harms(job, ROWS) == []
