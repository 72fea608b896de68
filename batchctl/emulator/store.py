"""Everything the emulator remembers: one SQLite file and plain files beside it, all readable by their owner only.

State survives SIGKILL at any moment, because the emulator is started anew by every command: a fact is either committed
or did not happen. One `Store` per thread; several processes may open the same directory (WAL, busy timeout).
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from batchctl.emulator.faults import CallFault

TERMINAL = ("completed", "failed", "expired", "cancelled")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS file (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, wire TEXT NOT NULL, filename TEXT NOT NULL,
  purpose TEXT NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER,
  visible_at REAL NOT NULL, deleted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS batch (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, wire TEXT NOT NULL, endpoint TEXT NOT NULL,
  input_file_id TEXT NOT NULL, metadata TEXT, output_seconds INTEGER, settings TEXT NOT NULL, status TEXT NOT NULL,
  model TEXT, errors TEXT, output_file_id TEXT, error_file_id TEXT,
  created REAL NOT NULL, visible_at REAL NOT NULL, expires_at INTEGER NOT NULL,
  validate_due REAL NOT NULL, finalize_due REAL NOT NULL, end_due REAL NOT NULL, expire_due REAL,
  in_progress_at REAL, finalizing_at REAL, completed_at REAL, failed_at REAL, expired_at REAL, cancelling_at REAL,
  cancelled_at REAL,
  total INTEGER NOT NULL DEFAULT 0, completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
  tokens INTEGER NOT NULL DEFAULT 0, cut INTEGER, cut_code TEXT, held TEXT, patch TEXT,
  hidden INTEGER NOT NULL DEFAULT 0, others INTEGER NOT NULL DEFAULT 0,
  billed INTEGER NOT NULL DEFAULT 0, billed_rows INTEGER NOT NULL DEFAULT 0, input_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0, cached_tokens INTEGER NOT NULL DEFAULT 0,
  reasoning_tokens INTEGER NOT NULL DEFAULT 0, usd TEXT NOT NULL DEFAULT '0');
CREATE INDEX IF NOT EXISTS batch_status ON batch (status);
CREATE TABLE IF NOT EXISTS upload (
  id TEXT PRIMARY KEY, filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL,
  created_at INTEGER NOT NULL, expires_after INTEGER, status TEXT NOT NULL, file_id TEXT);
CREATE TABLE IF NOT EXISTS part (id TEXT PRIMARY KEY, upload_id TEXT NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS live (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, endpoint TEXT NOT NULL, digest TEXT NOT NULL,
  input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, usd TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS background (
  id TEXT PRIMARY KEY, digest TEXT NOT NULL, body TEXT NOT NULL, tokens TEXT NOT NULL, due REAL NOT NULL,
  status TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS added_fault (seq INTEGER PRIMARY KEY AUTOINCREMENT, definition TEXT NOT NULL);
"""


def private_directory(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def private_file(path: Path) -> Any:
    """Open for writing, from nothing, owner only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=1 << 20)


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(16)}"


class Store:
    """One thread's view of a state directory. Close it in the thread that made it."""

    def __init__(self, state_dir: Path) -> None:
        self.root = private_directory(state_dir)
        self.files = private_directory(state_dir / "files")
        self.work = private_directory(state_dir / "work")
        self.billed = private_directory(state_dir / "billed")
        database = state_dir / "emulator.sqlite"
        # SQLite gives its side files the same mode. Only a file made here may be closed here: closing any other handle
        # of a database takes away the locks that this process holds on it (sqlite.org/howtocorrupt.html, section 2.2).
        with suppress(FileExistsError):
            os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self.db = sqlite3.connect(database, timeout=60, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        # SIGKILL cannot lose a committed transaction at NORMAL, only power loss can: no fsync per call.
        self.db.execute("PRAGMA busy_timeout = 60000")
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")
        self.db.executescript(_SCHEMA)

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    # -- counting calls

    def next_call(self, method: str, path: str, scripted: tuple[CallFault, ...]) -> tuple[int, CallFault | None]:
        """Number this call and find the fault that strikes it, if any; every fault that fits counts the call."""
        struck = None
        with self.transaction() as db:
            number = self._count("call")
            for key, fault in [*_keyed(scripted), *self._added()]:
                if fault.fits(method, path) and fault.strikes(self._count(key)) and struck is None:
                    struck = fault
            _ = db
        return number, struck

    def add_fault(self, fault: CallFault) -> None:
        with self.transaction() as db:
            db.execute("INSERT INTO added_fault (definition) VALUES (?)", (orjson.dumps(fault.as_dict()).decode(),))

    def clear_faults(self) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM added_fault")

    def _added(self) -> list[tuple[str, CallFault]]:
        rows = self.db.execute("SELECT seq, definition FROM added_fault ORDER BY seq").fetchall()
        return [(f"added {seq}", CallFault(**orjson.loads(definition))) for seq, definition in rows]

    def _count(self, name: str) -> int:
        row = self.db.execute(
            "INSERT INTO counter VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
            (name,),
        ).fetchone()
        return int(row[0])

    # -- files

    def add_file(
        self,
        path: Path,
        *,
        wire: str,
        file_id: str,
        filename: str,
        purpose: str,
        created: float,
        keep_seconds: int | None,
        visible_at: float = 0.0,
    ) -> None:
        """Move `path` into the store and record it. A crash between the two leaves a file that nothing names.

        Joins the caller's transaction if there is one.
        """
        size = path.stat().st_size
        path.replace(self.files / file_id)
        self.db.execute(
            "INSERT INTO file (id, wire, filename, purpose, bytes, created_at, expires_at, visible_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                file_id,
                wire,
                filename,
                purpose,
                size,
                int(created),
                None if keep_seconds is None else int(created) + keep_seconds,
                visible_at,
            ),
        )

    def file(self, wire: str, file_id: str) -> sqlite3.Row | None:
        """A file that is there: not deleted, not yet to come, not past its expiry."""
        now = time.time()
        row: sqlite3.Row | None = self.db.execute(
            "SELECT * FROM file WHERE wire = ? AND id = ? AND NOT deleted AND visible_at <= ?"
            " AND (expires_at IS NULL OR expires_at > ?)",
            (wire, file_id, now, now),
        ).fetchone()
        return row

    def delete_file(self, file_id: str) -> None:
        with self.transaction() as db:
            db.execute("UPDATE file SET deleted = 1 WHERE id = ?", (file_id,))
        (self.files / file_id).unlink(missing_ok=True)

    def page_of_files(
        self, wire: str, *, purpose: str | None, newest_first: bool, after: str | None, limit: int
    ) -> list[sqlite3.Row]:
        sign, order = ("<", "DESC") if newest_first else (">", "ASC")
        return self.db.execute(  # two fixed words are put in
            "SELECT * FROM file WHERE wire = ? AND NOT deleted AND visible_at <= ? AND (? IS NULL OR purpose = ?)"  # noqa: S608
            f" AND (? IS NULL OR seq {sign} (SELECT seq FROM file WHERE id = ?)) ORDER BY seq {order} LIMIT ?",
            (wire, time.time(), purpose, purpose, after, after, limit),
        ).fetchall()

    # -- batches

    def insert_batch(self, **columns: Any) -> None:
        names = ", ".join(columns)
        marks = ", ".join("?" * len(columns))
        self.db.execute(f"INSERT INTO batch ({names}) VALUES ({marks})", tuple(columns.values()))  # noqa: S608

    def batch(self, wire: str, batch_id: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.db.execute(
            "SELECT * FROM batch WHERE wire = ? AND id = ? AND visible_at <= ?", (wire, batch_id, time.time())
        ).fetchone()
        return row

    def change_batch(self, batch_id: str, *, only_in: tuple[str, ...] = (), **columns: Any) -> bool:
        """Set columns; with `only_in`, only while the batch has one of these statuses. Tells whether it did."""
        sets = ", ".join(f"{name} = ?" for name in columns)
        guard = f" AND status IN ({', '.join('?' * len(only_in))})" if only_in else ""
        done = self.db.execute(f"UPDATE batch SET {sets} WHERE id = ?{guard}", (*columns.values(), batch_id, *only_in))  # noqa: S608
        return done.rowcount == 1

    def page_of_batches(
        self, wire: str, *, after: str | None, limit: int, before: str | None = None
    ) -> list[sqlite3.Row]:
        """Newest first; a batch hidden by a fault stays out of one answer less each time.

        `after` starts behind a batch; `before` is the page that ends just ahead of one.
        """
        sign, order = (">", "ASC") if before else ("<", "DESC")
        with self.transaction() as db:
            rows = db.execute(  # two fixed words are put in
                "SELECT * FROM batch WHERE wire = ? AND visible_at <= ? AND hidden = 0"  # noqa: S608
                f" AND (? IS NULL OR seq {sign} (SELECT seq FROM batch WHERE id = ?)) ORDER BY seq {order} LIMIT ?",
                (wire, time.time(), before or after, before or after, limit),
            ).fetchall()
            if not after:
                db.execute("UPDATE batch SET hidden = hidden - 1 WHERE hidden > 0")
        return rows

    def open_batches(self) -> list[sqlite3.Row]:
        """Batches that have not ended and are not held back, oldest first."""
        return self.db.execute(
            "SELECT * FROM batch WHERE status NOT IN ('completed', 'failed', 'expired', 'cancelled') AND held IS NULL"
            " AND others = 0 ORDER BY seq"
        ).fetchall()


def _keyed(faults: tuple[CallFault, ...]) -> list[tuple[str, CallFault]]:
    """Scripted faults with the name their count is kept under: the same fault counts on after a restart."""
    return [(f"{place} {orjson.dumps(fault.as_dict()).decode()}", fault) for place, fault in enumerate(faults)]
