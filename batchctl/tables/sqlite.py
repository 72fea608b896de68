"""Publishing into one table of a SQLite file: staged in a temporary table, merged in one transaction.

Readers see the rows of before or of after; other tables of the file are not touched. What a kill leaves is rolled back
by SQLite itself at the next look.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from batchctl.files import PRIVATE_FILE, crash_point, make_directory, storage_failed
from batchctl.model.errors import Locked, StorageFailed, UsageError
from batchctl.tables.columns import Column, Gone, Kind, Load, Loaded, fitted
from batchctl.tables.destinations import Destination
from batchctl.tables.merging import merge, quoted

BUSY_SECONDS = 30.0
BATCH_ROWS = 1_000
TYPES = {
    Kind.TEXT: "TEXT",
    Kind.INTEGER: "INTEGER",
    Kind.NUMBER: "REAL",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.TIME: "TEXT",
    Kind.JSON: "TEXT",
}
STAGE = 'temp."batchctl_stage"'


def write(place: Destination, load: Load) -> Loaded:
    """Make the table hold what `load` says. Raises `UsageError` for a table that cannot take it."""
    try:
        with closing(_opened(place.path)) as db:
            rows = _stage(db, load)
            crash_point("K19b")
            db.execute("BEGIN IMMEDIATE")
            try:
                facts = _merge(db, place, load)
                crash_point("K19c")
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
            return Loaded(rows, facts)
    except sqlite3.Error as error:
        raise _failed(error, place) from error


def _opened(path: Path) -> sqlite3.Connection:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UsageError("refused to write into something that is not a regular file", where=str(path))
    make_directory(path.parent)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE))
    except OSError as error:
        raise storage_failed(error, path) from error
    return sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)


def _stage(db: sqlite3.Connection, load: Load) -> int:
    """All rows in a temporary table, outside of the transaction that readers would wait for."""
    _create(db, STAGE, load)
    marks = ", ".join("?" * len(load.columns))
    insert = f"INSERT INTO {STAGE} VALUES ({marks})"  # noqa: S608  (names are the job file's, quoted)
    count = 0
    db.execute("BEGIN")
    rows = load.rows()
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        db.executemany(
            insert, [[fitted(value, column) for value, column in zip(row, load.columns, strict=True)] for row in batch]
        )
        count += len(batch)
    db.execute("COMMIT")
    return count


def _create(db: sqlite3.Connection, table: str, load: Load) -> None:
    columns = [
        f"{quoted(one.name)} {TYPES[one.kind]}{' NOT NULL' if one.name in load.key else ''}" for one in load.columns
    ]
    if load.key:
        columns.append(f"PRIMARY KEY ({', '.join(quoted(one) for one in load.key)})")
    db.execute(f"CREATE TABLE {table} ({', '.join(columns)})")


def _merge(db: sqlite3.Connection, place: Destination, load: Load) -> dict[str, int]:
    table = f"main.{quoted(*place.table)}"
    known = {row[1]: row[2] for row in db.execute(f"PRAGMA main.table_info({quoted(*place.table)})")}
    if not known and load.partial:
        raise Gone
    if not known:
        _create(db, table, load)
    for column in load.columns if known else ():
        if column.name not in known:
            _addable(column, place, load)
            db.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(column.name)} {TYPES[column.kind]}")
        elif TYPES[column.kind] == "TEXT" and not _keeps_text(known[column.name]):
            raise UsageError(
                f"column `{column.name}` is {known[column.name]} there, which would change text such as 007",
                where=f"{place.shown}, table {place.table[0]}",
                effect="nothing was published",
                hint="make it TEXT, or publish into another table",
            )
    facts = {"added": 0, "changed": 0, "removed": 0}
    for what, statement in merge(
        table, STAGE, load.names, load.key, upsert=load.upsert, differs=lambda one: f"t.{one} IS NOT s.{one}"
    ):
        facts[what] += db.execute(statement).rowcount
        crash_point("K19m")
    return facts


def _addable(column: Column, place: Destination, load: Load) -> None:
    if column.name in load.key:
        raise UsageError(
            f"the table has no column `{column.name}`, which is to be the key",
            where=f"{place.shown}, table {place.table[0]}",
            effect="nothing was published",
            hint="name a key the table has, or publish into another table",
        )


def _keeps_text(declared: str) -> bool:
    """SQLite's own rules of affinity: whether text stays what it is in a column declared so.

    sqlite.org/datatype3.html, section 3.1, read 2026-11-21.
    """
    name = declared.upper()
    if "INT" in name:
        return False
    return any(word in name for word in ("CHAR", "CLOB", "TEXT", "BLOB")) or not name


def _failed(error: sqlite3.Error, place: Destination) -> Exception:
    where = place.shown
    if isinstance(error, sqlite3.IntegrityError):
        return UsageError(
            f"the table refuses the rows: {error}",
            where=where,
            effect="it is what it was",
            hint="`key` must name columns without repeats; other constraints are the table's own",
        )
    text = str(error)
    if "locked" in text or "busy" in text:
        return Locked(
            "another process is writing this database and does not end",
            where=where,
            effect="it is what it was",
            hint="let it finish, and publish again",
        )
    if "not a database" in text:
        return UsageError("this file is not a SQLite database", where=where, effect="it is what it was",
                          hint="name another file")  # fmt: skip
    return StorageFailed(f"the database cannot be written: {error}", where=where, effect="it is what it was",
                         hint="remove the cause and publish again")  # fmt: skip
