"""Publishing into a PostgreSQL table: COPY into a temporary table, then one transaction that makes the rows the table's.

Readers see the rows of before or of after (MVCC); other writers wait while the rows are merged. The table is made when
it is missing; indexes, views and grants of one that exists stay. `psycopg` is an optional extra. Credentials are libpq's:
PGPASSWORD, ~/.pgpass, a service file.
"""

from __future__ import annotations

import re
from typing import Any

from batchctl.files import crash_point
from batchctl.model.errors import BatchctlError, NotAllowed, ProviderError, UsageError
from batchctl.tables.columns import Column, Gone, Kind, Load, Loaded, fitted
from batchctl.tables.destinations import Destination
from batchctl.tables.merging import merge, quoted

TYPES = {
    Kind.TEXT: "text",
    Kind.INTEGER: "bigint",
    Kind.NUMBER: "double precision",
    Kind.BOOLEAN: "boolean",
    Kind.TIME: "timestamptz",
    Kind.JSON: "jsonb",
}
STAGE = "pg_temp." + quoted("batchctl_stage")
CONNECT_SECONDS = 15
_NOT_TEXT = re.compile(r"smallint|integer|bigint|numeric|real|double|boolean|character\(|bytea")
UNCHANGED = "the table is what it was"


def write(place: Destination, load: Load) -> Loaded:
    """Make the table hold what `load` says, in one transaction."""
    psycopg = _client()
    try:
        with psycopg.connect(
            place.address, connect_timeout=CONNECT_SECONDS, application_name="batchctl", client_encoding="UTF8"
        ) as connection:
            return _write(connection, place, load)
    except psycopg.Error as error:
        raise _failed(error, place) from error


def _client() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise UsageError(
            "publishing to PostgreSQL needs the package `psycopg`, which is not installed",
            effect="nothing was published there; every other kind of target works without it",
            hint='pip install "batchctl[postgres]"',
            code="missing_extra",
        ) from error
    return psycopg


def _write(connection: Any, place: Destination, load: Load) -> Loaded:
    with connection.cursor() as cursor:
        table = _ready(cursor, place, load)
        names = ", ".join(quoted(one) for one in load.names)
        cursor.execute(f"CREATE TEMP TABLE batchctl_stage ON COMMIT DROP AS SELECT {names} FROM {table} WITH NO DATA")  # noqa: S608
        rows = _copy(cursor, f"COPY {STAGE} ({names}) FROM STDIN", load, place)
        crash_point("K19b")
        if load.key:
            cursor.execute(f"ALTER TABLE {STAGE} ADD PRIMARY KEY ({', '.join(quoted(one) for one in load.key)})")
        cursor.execute(f"ANALYZE {STAGE}")
        cursor.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
        facts = {"added": 0, "changed": 0, "removed": 0}
        for what, statement in merge(
            table,
            STAGE,
            load.names,
            load.key,
            upsert=load.upsert,
            differs=lambda one: f"t.{one}::text IS DISTINCT FROM s.{one}::text",
        ):
            facts[what] += cursor.execute(statement).rowcount
            crash_point("K19m")
        crash_point("K19c")
    connection.commit()
    return Loaded(rows, facts)


def _ready(cursor: Any, place: Destination, load: Load) -> str:
    """The table, made or given the columns it lacks; its quoted name."""
    table = quoted(*place.table)
    found = cursor.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        (table,),
    ).fetchall()
    known = dict(found)
    if not known and load.partial:
        raise Gone
    if not known:
        columns = [f"{quoted(one.name)} {TYPES[one.kind]}" for one in load.columns]
        if load.key:
            columns.append(f"PRIMARY KEY ({', '.join(quoted(one) for one in load.key)})")
        cursor.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
    for column in load.columns if known else ():
        _fits(column, known.get(column.name), place, load)
        if column.name not in known:
            cursor.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(column.name)} {TYPES[column.kind]}")
    return table


def _fits(column: Column, declared: str | None, place: Destination, load: Load) -> None:
    where = f"{place.shown}, table {'.'.join(place.table)}"
    if declared is None and column.name in load.key:
        raise UsageError(f"the table has no column `{column.name}`, which is to be the key", where=where,
                         effect=UNCHANGED, hint="name a key the table has, or publish into another table")  # fmt: skip
    if declared is not None and column.kind is Kind.TEXT and _NOT_TEXT.match(declared):
        raise UsageError(f"column `{column.name}` is {declared} there, which would change text such as 007",
                         where=where, effect=UNCHANGED, hint="make it text, or publish into another table")  # fmt: skip


def _copy(cursor: Any, statement: str, load: Load, place: Destination) -> int:
    count = 0
    with cursor.copy(statement) as copy:
        for row in load.rows():
            cells = [fitted(value, column) for value, column in zip(row, load.columns, strict=True)]
            for cell, column in zip(cells, load.columns, strict=True):
                if type(cell) is str and ("\0" in cell or (column.kind is Kind.JSON and "\\u0000" in cell)):
                    raise UsageError(
                        f"column `{column.name}` of row {count + 1:,} holds a NUL character, which PostgreSQL cannot store",
                        where=place.shown,
                        effect=UNCHANGED,
                        hint="leave the column out of `include`, or publish into a file or SQLite",
                    )
            copy.write_row(cells)
            count += 1
    return count


def _failed(error: Any, place: Destination) -> BatchctlError:
    """The server's complaint in our words. Never its detail, which quotes rows."""
    state = error.sqlstate or ""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    where = place.shown
    again = "remove the cause and publish again"
    if state.startswith("28") or state == "42501" or "password" in str(error).lower():
        return NotAllowed(
            f"PostgreSQL refuses: {name}", where=where, effect=UNCHANGED, hint="set PGUSER and PGPASSWORD, or ~/.pgpass"
        )
    if state[:2] in ("22", "23", "42", "3F", "3D"):
        place_of = re.search(r", (line \d+, column [^:]+)", error.diag.context or "")
        column = error.diag.column_name or error.diag.constraint_name or (place_of[1] if place_of else "")
        said = "" if state[:2] in ("22", "23") else f": {error.diag.message_primary}"
        return UsageError(
            f"PostgreSQL refuses the rows: {name}{f' ({column})' if column else ''}{said}",
            where=where,
            effect=UNCHANGED,
            hint="`key` must name columns without repeats; types and constraints are the table's own",
        )
    return ProviderError(
        f"PostgreSQL cannot be used now: {name}", where=where, effect=UNCHANGED, hint=again, code="target"
    )
