"""Every change of the ledger a second time, in a file that SQLite never touches: from it a lost ledger is made again.

`ledger.journal` has one JSON line for each committed transaction: `{"format": 1, "changes": [[statement, parameters], ...]}`.
The line is on disk before the commit, so nothing is paid for that only the ledger knows. A line that a crash left without
its commit is cut off by the next transaction; the ledger remembers (`meta`, key `journal`) which journal is its own and
how many bytes of it count. More than one such line is no crash: that ledger is older than its journal, and is refused.
A journal that was written anew names what the ledger remembered until then, so that it is known for a later one, too.
Replayed by a rebuild, such a line is harmless: it says what was about to be sent, and reconciling asks the provider.

Like the ledger it holds no row text, unless a person put some into a decision; `compact` writes it anew from the ledger.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchctl.files import PRIVATE_FILE, replacing

NAME = "ledger.journal"
FORMER = "journals"  # the key in `meta`: the ids of journals that were written anew since
MARK = "journal"  # the key in `meta`: which journal, and how many bytes of it count
_READS = ("SELECT", "PRAGMA", "BEGIN", "COMMIT", "ROLLBACK", "EXPLAIN")

_HEAD = b'{"journal": "%b", '
_AFTER = b'"after": "%b", '
_HEAD_BYTES = 200
_KNOWN = re.compile(rb'\{"journal": "([^"]*)", (?:"after": "([^"]*)", )?')
_OF_A_RUN = re.compile(r'INSERT INTO "?run"? ')

Change = list[Any]
"""A statement and its parameters."""


class Recording(sqlite3.Connection):
    """A connection that remembers what it changed since `recorded` was emptied."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.recorded: list[Change] | None = None

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        done = super().execute(sql, parameters)
        if self.recorded is not None and not sql.lstrip().upper().startswith(_READS):
            self.recorded.append([sql, parameters if isinstance(parameters, dict) else list(parameters)])
        return done

    def executemany(self, sql: str, many: Iterable[Any], /) -> sqlite3.Cursor:
        rows = [one if isinstance(one, dict) else list(one) for one in many]
        done = super().executemany(sql, rows)
        if self.recorded is not None:
            self.recorded += [[sql, row] for row in rows]
        return done


def line_of(changes: Sequence[Change], version: int) -> bytes:
    return json.dumps({"format": version, "changes": changes}, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def append(path: Path, offset: int, line: bytes) -> int:
    """Put a line after the first `offset` bytes, synced; what was there without a commit is cut off. The new offset."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        if os.fstat(descriptor).st_size > offset:
            os.ftruncate(descriptor, offset)
        at = offset
        while line:
            written = os.pwrite(descriptor, line, at)
            at, line = at + written, line[written:]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return at


def holds(path: Path, mark: str) -> bool:
    """Whether this is the journal that MARK (`id offset`) means, with all the bytes that count."""
    if not mark:
        return False
    name, _, offset = mark.partition(" ")
    try:
        with path.open("rb") as file:
            head = file.read(len(_HEAD % name.encode()))
            file.seek(int(offset) - 1)
            return head == _HEAD % name.encode() and file.read(1) == b"\n"
    except FileNotFoundError:
        return False


def is_ahead(path: Path, mark: str, former: str) -> bool:
    """Whether a journal has more beyond MARK than the one transaction of a crash just before its commit. Then the ledger is
    older than the one that was there before: a copy put back, or a write-ahead log that lost its end.

    FORMER names the journals that the ledger has outlived: one of those was put back itself, and counts for nothing.
    """
    name, _, offset = mark.partition(" ")
    try:
        with path.open("rb") as file:
            head = _KNOWN.match(file.read(_HEAD_BYTES))
            ours = head is not None and head[1] == name.encode()
            if head is not None and head[1].decode() in former.split():
                return False
            if head is not None and not ours and head[2] not in (None, mark.encode()):
                return True
            file.seek(int(offset) if ours else 0)
            return sum(line.endswith(b"\n") for line in file) > 1
    except FileNotFoundError:
        return False


def knows_runs(path: Path) -> bool:
    """Whether a journal tells of any run: a ledger that is begun beside it would forget what was paid."""
    if not path.is_file():
        return False
    return any(_OF_A_RUN.match(str(sql)) for _, _, changes in transactions(path) for sql, _ in changes)


def compact(path: Path, db: sqlite3.Connection, version: int, mark: str) -> str:
    """Write the journal anew: one line that makes the ledger as it is now. MARK is that of the journal before, or empty.
    Gives the mark of the new journal."""
    changes: list[Change] = []
    tables = []
    made = "SELECT name, type, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'index'"
    for name, kind, sql in db.execute(made):
        if name.startswith("sqlite_"):
            continue
        changes.append([sql, []])
        if kind == "table":
            tables.append(name)
    for name in tables:
        columns = [row[1] for row in db.execute(f'PRAGMA table_info("{name}")')]
        holes = ", ".join("?" * len(columns))
        into = f'INSERT INTO "{name}" ({", ".join(columns)}) VALUES ({holes})'  # noqa: S608 - names of our own schema
        rows = db.execute(f'SELECT {", ".join(columns)} FROM "{name}" ORDER BY rowid')  # noqa: S608 - the same
        changes += [[into, list(row)] for row in rows]
    name = secrets.token_hex(16)
    line = _HEAD % name.encode() + _AFTER % mark.encode() + line_of(changes, version)[1:]
    with replacing(path) as file:
        file.write(line)
    return f"{name} {len(line)}"


def transactions(path: Path) -> Iterator[tuple[int, int, list[Change]]]:
    """Format, end (bytes) and changes of each whole line. A torn or foreign line ends the journal."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            end += len(line)
            if not line.endswith(b"\n"):
                return
            try:
                read = json.loads(line)
                version, changes = read["format"], read["changes"]
            except (ValueError, TypeError, KeyError):
                return
            yield version, end, changes


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a journal held: the ledger's format, whole transactions, and the mark of the part that was replayed."""

    version: int
    transactions: int
    mark: str


def replay(path: Path, db: sqlite3.Connection) -> Replayed:
    """Make the changes of the journal in an empty database. Raises `sqlite3.DatabaseError` for one that does not fit."""
    found, count, reached = 0, 0, 0
    for version, end, changes in transactions(path):
        db.execute("BEGIN IMMEDIATE")
        for sql, parameters in changes:
            db.execute(sql, parameters)
        db.execute("COMMIT")
        found, count, reached = version, count + 1, end
    with path.open("rb") as file:
        name = file.read(len(_HEAD) + 32).decode("latin-1").split('"')[3:4]
    return Replayed(found, count, f"{''.join(name)} {reached}")
