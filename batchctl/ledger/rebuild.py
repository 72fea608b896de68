"""A lost or damaged ledger made again from its journal."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from batchctl.files import PART, PRIVATE_FILE, sync_directory, sync_file
from batchctl.ledger import formats, journal
from batchctl.ledger.store import Ledger, storage_errors
from batchctl.model.errors import StorageFailed

_FILES = ("", "-wal", "-shm")  # what SQLite keeps beside the database


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many transactions the new ledger is made of, and where the old one lies now, if there was one."""

    transactions: int
    kept: Path | None


def is_whole(path: Path) -> bool:
    """Whether the ledger at `path` is one that SQLite finds nothing wrong with."""
    if not path.is_file() or not path.stat().st_size:
        return False
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA query_only = ON")
            found = [row[0] for row in db.execute("PRAGMA integrity_check")]
            return found == ["ok"] and bool(db.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError:
        return False


def is_newest(path: Path) -> bool:
    """Whether a whole ledger, of any format, knows all that its journal says."""
    with closing(sqlite3.connect(path, isolation_level=None, factory=journal.Recording)) as db:
        try:
            Ledger(db, path).check_newest()
        except StorageFailed:
            return False
    return True


def rebuild(state: Path) -> Rebuilt:
    """Replay the journal into a new ledger and put it in the place of the old one, which is kept beside it.

    The caller holds the lock of every job. A ledger of an older format is upgraded when it is opened. Raises
    `StorageFailed` when there is no journal, or it has a newer format.
    """
    path, source = state / "ledger.db", state / journal.NAME
    if not source.is_file():
        raise _cannot(source, "there is no journal to rebuild the ledger from")
    part = path.with_name(path.name + PART)
    for suffix in (*_FILES, "-journal"):
        part.with_name(part.name + suffix).unlink(missing_ok=True)
    with storage_errors(part):
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, PRIVATE_FILE))
        with closing(sqlite3.connect(part, isolation_level=None)) as db:
            try:
                found = journal.replay(source, db)
            except sqlite3.DatabaseError as error:
                raise _cannot(source, f"the journal cannot be replayed: {error}") from error
            if not 0 < found.version <= formats.VERSION:
                what = f"the journal has format {found.version}; this batchctl knows formats up to {formats.VERSION}"
                raise _cannot(source, what)
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (journal.MARK, found.mark))
            db.execute(f"PRAGMA user_version = {found.version}")
            if db.execute("PRAGMA foreign_key_check").fetchone() is not None:
                raise _cannot(source, "the journal lacks a part of what it refers to")
        sync_file(part)
        kept = _put_aside(path)
        os.replace(part, path)
        sync_directory(state)
    return Rebuilt(found.transactions, kept)


def _put_aside(path: Path) -> Path | None:
    number = 1
    while path.with_name(f"{path.name}.damaged-{number}").exists():
        number += 1
    kept = None
    for suffix in reversed(_FILES):  # the database last: a crash before leaves it where a rebuild looks for it
        old = path.with_name(path.name + suffix)
        if old.exists():
            kept = path.with_name(f"{path.name}.damaged-{number}{suffix}")
            os.replace(old, kept)
    return kept


def _cannot(path: Path, what: str) -> StorageFailed:
    return StorageFailed(
        what,
        where=str(path),
        effect="nothing was changed",
        hint="restore ledger.db from a backup; request and result files beside it are not touched",
        code="damaged",
    )
