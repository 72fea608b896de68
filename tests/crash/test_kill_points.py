"""kill -9 at every named point and at every commit, then the same command again, as cron would.

Six rows in two chunks. Whatever is killed, wherever and however often: the provider billed every row once per attempt
and made one batch per chunk, every row is in one place, and the results are complete.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

CHUNKS = "chunk_rows = 3"
PREPARE = ("K1", "K2", "K3")
SEND = ("K4", "K5", "K6", "K7", "K10", "K11")
COLLECT = ("K12", "K13", "K14")
JUDGE = ("K14b", "K15")
COMMITS = ("before-commit", "after-commit")

Make = Callable[[], JobFolder]


@pytest.fixture
def make(new_job: NewJob, provider: Provider) -> Make:
    return lambda: new_job(provider, limits=CHUNKS)


def killed(job: JobFolder, at: str, *argv: str) -> bool:
    """Whether the command reached the point; if it did not, it ended as it always does."""
    return job.run(*argv, BATCHCTL_CRASH_AT=at).killed


def consistent(job: JobFolder) -> None:
    """True right after a kill already, before anything repaired anything."""
    has_ledger = (job.state / "ledger.db").exists() and job.sql("SELECT count(*) FROM sqlite_master")[0][0]
    if has_ledger and job.sql("SELECT count(*) FROM run")[0][0]:
        assert job.check_balance()["rows"] == 6
        job.check_money()


def finished(job: JobFolder, *, attempts: int = 1) -> None:
    """The state every test ends in: paid once, answered, one batch per chunk, nothing left to do."""
    job.check_money()
    rows = job.check_results([f"R-{number:03d}" for number in range(6)])
    assert {one["state"] for one in rows.values()} == {"completed"}
    books = job.books
    assert len(books.rows) == 6
    per_chunk = Counter(one["metadata"]["batchctl_chunk"] for one in books.creates)
    assert set(per_chunk.values()) == {1}, "a chunk was made into two batches"
    job.check_files()


# --- every command, killed once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", [*PREPARE, "K1:2"])
def test_prepare(make: Make, point: str) -> None:
    job = make()
    assert killed(job, point, "prepare")
    consistent(job)
    job.run("prepare", code=0)
    assert job.check_balance()["queued"] == 6
    job.run("run", "--wait", code=0)
    finished(job)


@pytest.mark.parametrize("point", [*SEND, "K7:2", "K10:2"])
def test_submit(make: Make, point: str) -> None:
    job = make()
    job.run("prepare", code=0)
    assert killed(job, point, "submit")
    consistent(job)
    job.run("submit", code=8)
    job.run("poll", "--wait", code=0)
    job.run("validate", code=0)
    finished(job)


@pytest.mark.parametrize("point", [*COLLECT, "K13:2"])
def test_poll(make: Make, point: str) -> None:
    job = make()
    job.run("prepare", code=0)
    job.run("submit", code=8)
    assert killed(job, point, "poll", "--wait")
    consistent(job)
    job.run("poll", "--wait", code=0)
    job.run("validate", code=0)
    finished(job)


@pytest.mark.parametrize("point", [*JUDGE, "K15:2"])
def test_validate(make: Make, point: str) -> None:
    job = make()
    job.run("prepare", code=0)
    job.run("submit", code=8)
    job.run("poll", "--wait", code=0)
    assert killed(job, point, "validate")
    consistent(job)
    job.run("validate", code=0)
    first = (job.directory / "results.jsonl").read_bytes()
    job.run("validate", "--again", code=0)
    assert (job.directory / "results.jsonl").read_bytes() == first
    finished(job)


@pytest.mark.parametrize("commit", COMMITS)
def test_run_at_every_commit(make: Make, commit: str) -> None:
    for number in itertools.count(1):
        job = make()
        if not killed(job, f"{commit}:{number}", "run", "--wait"):
            break
        consistent(job)
        job.until_done("run", "--wait", tries=3)
        finished(job)
    assert number > 15, "fewer commits than the steps of a run"


@pytest.mark.parametrize("point", [*PREPARE, *SEND, *COLLECT, *JUDGE])
def test_run(make: Make, point: str) -> None:
    job = make()
    assert killed(job, point, "run", "--wait")
    consistent(job)
    job.until_done("run", "--wait", tries=3)
    finished(job)


# --- killed again while it recovers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize("first", ["K10", *(pytest.param(one, marks=pytest.mark.slow) for one in ("K5", "K7", "K13"))])
def test_recovery_at_every_commit(make: Make, first: str, commit: str) -> None:
    for number in itertools.count(1):
        job = make()
        assert killed(job, first, "run", "--wait")
        if not killed(job, f"{commit}:{number}", "run", "--wait"):
            break
        consistent(job)
        job.until_done("run", "--wait", tries=3)
        finished(job)
    assert number > 5


@pytest.mark.parametrize("first", ["K4", "K7", "K10"])
@pytest.mark.parametrize("second", ["K4", "K7", "K10", "K14"])
def test_recovery_at_a_point(make: Make, first: str, second: str) -> None:
    job = make()
    assert killed(job, first, "run", "--wait")
    killed(job, second, "run", "--wait")
    consistent(job)
    job.until_done("run", "--wait", tries=3)
    finished(job)


@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again(make: Make, seed: int) -> None:
    """Some other point each time, with other commands in between: a job that is never left alone."""
    dice = random.Random(seed)
    job = make()
    names = [*PREPARE, *SEND, *COLLECT, *JUDGE, *(f"{one}:{number}" for one in COMMITS for number in range(1, 9))]
    for _ in range(8):
        at = dice.choice(names)
        command = dice.choice([("run", "--wait"), ("run",), ("prepare",), ("submit",), ("poll",), ("validate",)])
        job.run(*command, BATCHCTL_CRASH_AT=at)
        consistent(job)
    job.until_done("run", "--wait", tries=3)
    finished(job)


# --- lost answers and kills together --------------------------------------------------------------------------------------


@pytest.mark.parametrize("do", ["drop-after", "drop-before"])
@pytest.mark.parametrize("commit", COMMITS)
def test_settling_a_lost_create_is_killed(make: Make, provider: Provider, do: str, commit: str) -> None:
    for number in range(5, 9):  # the commits that follow the lost answer of chunk 1
        job = make()
        provider.fault("POST /v1/batches", do)
        job.run("run", BATCHCTL_CRASH_AT=f"{commit}:{number}")
        consistent(job)
        job.until_done("run", "--wait", tries=3)
        provider.clear_faults()
        finished(job)


# --- reruns and cancels -----------------------------------------------------------------------------------------------


@pytest.fixture
def slow(new_provider: NewProvider) -> Provider:
    """A provider at which nothing ends before it is told to."""
    return new_provider(latency="1h")


@pytest.fixture
def expired(new_job: NewJob, slow: Provider) -> Make:
    """A job of which chunk 1 expired and chunk 2 completed, judged."""

    def begin() -> JobFolder:
        job = new_job(slow, limits=CHUNKS)
        job.run("run", code=8)
        first, second = (one["id"] for one in job.books.creates)
        slow.force(first, status="expired")
        slow.force(second, status="completed")
        job.run("poll", "--wait", code=7)
        job.run("validate", code=7)
        return job

    return begin


def ended(job: JobFolder) -> None:
    assert job.provider is not None
    for one in job.books.creates:
        if one["status"] not in ("completed", "failed", "cancelled", "expired"):
            job.provider.force(one["id"], status="completed")


@pytest.mark.parametrize("commit", COMMITS)
def test_rerun_at_every_commit(expired: Make, commit: str) -> None:
    for number in itertools.count(1):
        job = expired()
        if not killed(job, f"{commit}:{number}", "rerun"):
            break
        consistent(job)
        job.run("rerun", code=8)
        assert job.check_balance()["provider_error"] == 0
        ended(job)
        job.run("rerun", "--wait", code=0)
        finished(job)
    assert number > 3


@pytest.mark.parametrize("point", ["K1", *SEND])
def test_rerun(expired: Make, point: str) -> None:
    job = expired()
    assert killed(job, point, "rerun")
    consistent(job)
    job.run("rerun", code=8)
    ended(job)
    job.until_done("run", "--wait", tries=3)
    finished(job)


@pytest.mark.parametrize("point", ["K17", "K17:2", "after-commit:1", "before-commit:2"])
def test_cancel(new_job: NewJob, slow: Provider, point: str) -> None:
    job = new_job(slow, limits=CHUNKS)
    job.run("run", code=8)
    assert killed(job, point, "cancel")
    consistent(job)
    job.run("cancel", "--wait", code=0)
    job.run("run", "--wait", code=3)
    assert [(one["status"], one["rows_billed"]) for one in job.books.creates] == [("cancelled", 0)] * 2
    assert {one["state"] for one in job.check_results().values()} == {"provider_error"}
    job.run("rerun", code=8)
    ended(job)
    job.until_done("run", "--wait", tries=3)
    job.check_money()
    assert sorted(job.books.requests.values()) == [1] * 6


@pytest.mark.parametrize("commit", COMMITS)
def test_resolve(new_job: NewJob, provider: Provider, commit: str) -> None:
    for decision in ("--not-sent", "--abandon"):
        job = new_job(provider, limits=CHUNKS, lane='on_ambiguous = "hold"')
        provider.fault("POST /v1/batches", "drop-before")
        job.run("run", "--wait", code=11)
        for number in itertools.count(1):
            if not killed(job, f"{commit}:{number}", "resolve", decision):
                break
            consistent(job)
        job.run("resolve", code=0)
        job.run("run", "--wait", code=0 if decision == "--not-sent" else 3)
        job.check_money()
        job.check_results()
        provider.clear_faults()
