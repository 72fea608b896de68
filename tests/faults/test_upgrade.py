"""P19: an older ledger is upgraded after a copy was made of it, in one step that a kill cannot halve; a running older batchctl
is waited for. The format after today's is one table more (`forkserver.next_format`)."""

from __future__ import annotations

import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from batchctl.ledger import formats, journal
from batchctl.ledger.store import Ledger
from batchctl.model.errors import UsageError
from tests.cli.desk import held_lock
from tests.conftest import NewJob
from tests.crash.matrix import shim
from tests.faults import released
from tests.support.commands import Commands
from tests.support.forkserver import NEXT_FORMAT
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

KEPT_JOBS = sorted(Path(__file__).with_name("formats").iterdir())
NEXT = {NEXT_FORMAT: "1"}
CHUNKS = "chunk_rows = 3"
KEPT = f"ledger.db.format-{formats.VERSION}"


def version(ledger: Path) -> int:
    with closing(sqlite3.connect(ledger)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def content(ledger: Path) -> list[str]:
    with closing(sqlite3.connect(ledger)) as db:
        return list(db.iterdump())


def finish(job: JobFolder) -> None:
    """The later batchctl carries on, and the provider's books show each row once."""
    job.run("run", "--wait", code=0, **NEXT)
    job.check_money()
    states = {one["id"]: one["state"] for one in job.lines("results.jsonl")}
    assert states == {f"R-{number:03d}": "completed" for number in range(6)}
    assert len(job.books.creates) == 2
    assert version(job.ledger) == formats.VERSION + 1


@pytest.mark.parametrize("first", [("status",), ("run", "--wait"), ("check",)], ids=lambda one: one[0])
def test_an_older_ledger_is_upgraded(first: tuple[str, ...], new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits=CHUNKS)
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT="K12").killed
    before = content(job.ledger)
    job.run(*first, **NEXT)
    kept = job.state / KEPT
    assert content(kept) == before
    assert kept.stat().st_mode & 0o777 == 0o600
    assert job.sql("SELECT * FROM novelty") == [(job.run_id,)]
    finish(job)
    assert content(kept) == before


def test_the_older_batchctl_leaves_the_newer_ledger_alone(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("prepare", code=0)
    job.run("status", **NEXT)
    upgraded = content(job.ledger)
    for command in ("run", "status", "check"):
        assert "upgrade batchctl" in job.run(command, code=2).err
    assert content(job.ledger) == upgraded
    finish(job)


@pytest.mark.parametrize("lost", ["before", "after"])
def test_an_upgraded_ledger_can_be_made_again(lost: str, new_job: NewJob, provider: Provider) -> None:
    """From the journal of the older format, or from the one that the upgrade wrote."""
    job = new_job(provider, limits=CHUNKS)
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT="K12").killed
    if lost == "after":
        job.run("status", **NEXT)
    for suffix in ("", "-wal", "-shm"):
        job.ledger.with_name(job.ledger.name + suffix).unlink(missing_ok=True)
    job.run("check", "--rebuild", code=0, **NEXT)
    finish(job)


def test_a_whole_older_ledger_is_upgraded_and_not_rebuilt(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("prepare", code=0)
    assert "was not rebuilt" in job.run("check", "--rebuild", code=0, **NEXT).out
    finish(job)


def test_while_an_older_batchctl_is_at_work_nothing_is_upgraded(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("prepare", code=0)
    before = content(job.ledger)
    with held_lock(job.state / f"{job.name}.lock"):
        for command in ("run", "status"):
            assert "another batchctl" in job.run(command, code=9, **NEXT).err
    assert version(job.ledger) == formats.VERSION
    assert content(job.ledger) == before
    finish(job)


def test_an_older_batchctl_that_has_it_open_writes_no_more(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("prepare", code=0)
    older = Ledger.open(job.state)
    assert older is not None
    job.run("status", **NEXT)
    upgraded = content(job.ledger)
    with closing(older), pytest.raises(UsageError, match="knows formats up to"), older.transaction() as db:
        db.execute("UPDATE run SET stopped = 1")
    assert content(job.ledger) == upgraded
    finish(job)


def test_killed_at_every_call_it_is_the_old_or_the_new_one(new_job: NewJob, provider: Provider, tmp_path: Path) -> None:
    preload = shim(tmp_path)
    if preload is None:
        pytest.skip("needs a C compiler")
    job = new_job(provider, limits=CHUNKS)
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT="K12").killed
    whole = job.state.with_name("whole")
    shutil.copytree(job.state, whole)
    before = content(whole / "ledger.db")
    commands = Commands(tmp_path, {"LD_PRELOAD": str(preload)})
    struck = JobFolder(job.path, commands, None, job.name)
    found, calls = set(), 0
    try:
        while True:
            shutil.rmtree(job.state)
            shutil.copytree(whole, job.state)
            calls += 1
            done = struck.run("status", CRASH_ROOT=str(job.path), CRASH_AT=str(calls), CRASH_HOW="before", **NEXT)
            if not done.killed:
                break
            found.add(version(job.ledger))
            if found == {formats.VERSION}:
                assert content(job.ledger) == before
            struck.run("check", code=0, **NEXT)
            assert content(job.state / KEPT) == before
            assert len(list(journal.transactions(job.state / journal.NAME))) == 1
    finally:
        commands.close()
    assert found == {formats.VERSION, formats.VERSION + 1}
    assert calls > 10
    finish(job)


def test_a_purge_leaves_no_older_ledger(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("run", "--wait", code=0)
    job.run("status", **NEXT)
    assert (job.state / KEPT).exists()
    job.run("purge", job.run_id, "--yes", code=0, **NEXT)
    assert not (job.state / KEPT).exists()


def test_the_format_of_today_is_kept() -> None:
    """`python -m tests.faults.released` keeps it."""
    assert [f"format-{number}.tar.gz" for number in range(1, formats.VERSION + 1)] == sorted(
        one.name for one in KEPT_JOBS
    )


@pytest.mark.parametrize("kept", KEPT_JOBS, ids=lambda one: one.name)
def test_a_job_of_every_released_format_is_carried_on(kept: Path, new_job: NewJob, provider: Provider) -> None:
    """What it had bought is there, and only what waited is sent."""
    job = new_job(provider, name=released.NAME)
    with tarfile.open(kept) as archive:
        archive.extractall(job.path, filter="data")
    job.run("check", code=0)
    done = job.check_balance()["completed"]
    assert done == 3
    job.run("run", "--wait", code=0)
    assert [one["state"] for one in job.lines("results.jsonl")] == ["completed"] * 6
    assert len(job.books.creates) == 1
    assert sum(job.books.requests.values()) == 6 - done
    job.run("check", code=0)
