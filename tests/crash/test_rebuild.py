"""P27: losing the ledger does not lose the job. At any moment it can be made again from its journal, and nothing is
bought a second time."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from batchctl.ledger import journal
from batchctl.ledger.store import Ledger
from tests.conftest import NewJob
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

CHUNKS = "chunk_rows = 3"
POINTS = ("K3", "K4", "K7", "K10", "K11", "K12", "K14", "K14b", "K15", "before-commit:4", "before-commit:6")


def content(ledger: Path) -> list[str]:
    """Everything a ledger says, but which part of which journal is its own, and which were before it."""
    with sqlite3.connect(ledger) as db:
        return [line for line in db.iterdump() if "'journal" not in line and "sqlite_sequence" not in line]


def remove(ledger: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)


def zero(ledger: Path) -> None:
    ledger.write_bytes(bytes(ledger.stat().st_size))


def flip(ledger: Path) -> None:
    with sqlite3.connect(ledger) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(ledger.read_bytes())
    content[4096:] = b"\x55" * (len(content) - 4096)
    ledger.write_bytes(content)


@pytest.mark.parametrize("point", POINTS)
def test_a_ledger_lost_at_any_moment(new_job: NewJob, provider: Provider, point: str) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("run", "--wait", BATCHCTL_CRASH_AT=point)
    remove(job.state / "ledger.db")
    job.run("run", "--wait", code=12)
    job.run("check", "--rebuild", code=0)
    job.run("run", "--wait", code=0)
    job.check_money()
    rows = job.check_results([f"R-{number:03d}" for number in range(6)])
    assert {one["state"] for one in rows.values()} == {"completed"}
    assert len(job.books.creates) == 2


@pytest.mark.parametrize("harm", [remove, zero, flip])
def test_what_is_rebuilt_is_what_was_there(new_job: NewJob, provider: Provider, harm: Callable[[Path], None]) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("run", "--wait", code=0)
    ledger = job.state / "ledger.db"
    before = content(ledger)
    harm(ledger)
    assert "check --rebuild" in job.run("status", code=12).err
    job.run("check", "--rebuild", code=0)
    assert content(ledger) == before
    assert ledger.stat().st_mode & 0o777 == 0o600
    kept = list(job.state.glob("ledger.db.damaged-1*"))
    assert bool(kept) == (harm is not remove)
    assert "was not rebuilt" in job.run("check", "--rebuild", code=0).out


def cut_log(job: JobFolder) -> None:
    """The write-ahead log loses what was written last."""
    log = job.ledger.with_name("ledger.db-wal")
    assert log.stat().st_size
    os.truncate(log, 0)


def put_back(job: JobFolder) -> None:
    """An older copy of the ledger, from before anything was sent."""
    remove(job.ledger)
    shutil.copy(job.path / "copy.db", job.ledger)


@pytest.mark.parametrize("harm", [cut_log, put_back])
def test_an_older_ledger_is_not_believed(
    new_job: NewJob, provider: Provider, harm: Callable[[JobFolder], None]
) -> None:
    """It does not know what was sent since: without its journal the same chunks would be bought again."""
    job = new_job(provider, limits=CHUNKS)
    job.run("prepare", code=0)
    shutil.copy(job.ledger, job.path / "copy.db")
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT="K12").killed
    harm(job)
    for command in (("run", "--wait"), ("submit",), ("check",)):
        assert "older than its journal" in job.run(*command, code=12).err
    assert len(job.books.creates) == 2
    job.run("check", "--rebuild", code=0)
    job.run("run", "--wait", code=0)
    job.check_money()
    assert {one["state"] for one in job.check_results().values()} == {"completed"}
    assert len(job.books.creates) == 2


def test_an_older_ledger_is_not_believed_after_the_journal_was_written_anew(
    new_job: NewJob, provider: Provider
) -> None:
    """A purge makes the journal one line. That line is no transaction which a crash kept from the older ledger."""
    rows = [{"id": f"R-{number:03d}", "text": f"Where is parcel {number}?"} for number in range(9)]
    job = new_job(provider, rows=rows[:6], limits=CHUNKS)
    job.run("run", "--wait", code=0)
    first = job.run_id
    shutil.copy(job.ledger, job.path / "copy.db")
    job.write(rows, limits=CHUNKS)
    job.run("run", "--wait", code=0)
    job.number = 2
    job.run("purge", first, "--yes", code=0)
    assert len((job.state / journal.NAME).read_bytes().splitlines()) == 1
    put_back(job)
    for command in (("run", "--wait"), ("check",)):
        assert "older than its journal" in job.run(*command, code=12).err
    assert len(job.books.creates) == 1
    job.run("check", "--rebuild", code=0)
    job.run("run", "--wait", code=0)
    assert len(job.books.creates) == 1


@pytest.mark.parametrize("collected", [True, False])
def test_a_run_that_the_ledger_does_not_know_is_not_sent_again(
    collected: bool, new_job: NewJob, provider: Provider
) -> None:
    """Ledger and journal of an older backup beside the runs of today: together they look whole."""
    rows = [{"id": f"R-{number:03d}", "text": f"Where is parcel {number}?"} for number in range(9)]
    job = new_job(provider, rows=rows[:6], limits=CHUNKS)
    job.run("run", "--wait", code=0)
    backup = {name: (job.state / name).read_bytes() for name in ("ledger.db", journal.NAME)}
    job.write(rows, limits=CHUNKS)
    job.run("run", "--wait", code=0 if collected else None, BATCHCTL_CRASH_AT=None if collected else "K12")
    job.number = 2
    there = sorted(job.directory.rglob("*"))
    remove(job.ledger)
    for name, content in backup.items():
        (job.state / name).write_bytes(content)
    for command in (("run", "--wait"), ("prepare",)):
        assert "it was sent" in job.run(*command, code=12).err
    assert sorted(job.directory.rglob("*")) == there
    assert len(job.books.creates) == 1


def test_an_older_journal_that_is_put_back_counts_for_nothing(new_job: NewJob, provider: Provider) -> None:
    """The ledger is the newer one: making it again from that journal would forget what was bought since."""
    rows = [{"id": f"R-{number:03d}", "text": f"Where is parcel {number}?"} for number in range(9)]
    job = new_job(provider, rows=rows[:6], limits=CHUNKS)
    job.run("run", "--wait", code=0)
    first, older = job.run_id, (job.state / journal.NAME).read_bytes()
    job.write(rows, limits=CHUNKS)
    job.run("run", "--wait", code=0)
    job.run("purge", first, "--yes", code=0)
    before = content(job.ledger)
    (job.state / journal.NAME).write_bytes(older)
    assert "was not rebuilt" in job.run("check", "--rebuild", code=0).out
    job.write([*rows, {"id": "R-009", "text": "Where is parcel 9?"}], limits=CHUNKS)
    job.run("run", "--wait", code=0)
    job.number = 2
    assert len(job.books.creates) == 1
    after = content(job.ledger)
    assert set(before) < set(after)
    remove(job.ledger)
    job.run("check", "--rebuild", code=0)
    assert content(job.ledger) == after


def test_a_lost_ledger_of_purged_runs_is_not_begun_anew(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("run", "--wait", code=0)
    job.run("purge", job.run_id, "--yes", code=0)
    before = content(job.ledger), (job.state / journal.NAME).read_bytes()
    remove(job.ledger)
    for command in ("run", "prepare", "status"):
        assert "check --rebuild" in job.run(command, code=12).err
    assert (job.state / journal.NAME).read_bytes() == before[1]
    job.run("check", "--rebuild", code=0)
    assert content(job.ledger) == before[0]


def test_a_compaction_killed_before_its_commit_is_no_older_ledger(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("run", "--wait", code=0)
    for _ in range(2):
        shutil.copy(job.ledger, job.path / "copy.db")
        ledger = Ledger.open(job.state)
        assert ledger is not None
        with closing(ledger):
            ledger.compact_journal()
        put_back(job)  # as a kill before the commit leaves it: a new journal, and a ledger that does not know it
    job.run("check", code=0)
    job.run("run", "--wait", code=0)
    before = content(job.ledger)
    remove(job.ledger)
    job.run("check", "--rebuild", code=0)
    assert content(job.ledger) == before
    assert len(job.books.creates) == 2


def test_a_journal_that_is_gone_is_written_anew(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("prepare", code=0)
    (job.state / journal.NAME).unlink()
    job.run("run", "--wait", code=0)
    before = content(job.state / "ledger.db")
    remove(job.state / "ledger.db")
    job.run("check", "--rebuild", code=0)
    assert content(job.state / "ledger.db") == before


def test_without_ledger_and_journal_nothing_is_guessed(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("run", "--wait", code=0)
    remove(job.state / "ledger.db")
    (job.state / journal.NAME).unlink()
    assert "no journal" in job.run("check", "--rebuild", code=12).err
    job.run("run", "--wait", code=12)
    assert len(job.books.creates) == 2


def test_the_journal_holds_no_row_text(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits=CHUNKS)
    job.run("run", "--wait", code=0)
    said = (job.state / journal.NAME).read_text("utf-8")
    rows = [json.loads(line)["row"] for line in (job.directory / "results.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 6
    for row in rows:
        assert row["text"] not in said
