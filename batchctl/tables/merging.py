"""How a staged table becomes the target's rows in SQL: the same few statements for SQLite and PostgreSQL.

They run in one transaction of the caller's. With a key only what differs is touched, so that publishing twice changes
nothing, and indexes, views and grants of the table stay. No unique index is needed: the caller locks out other writers.
"""

# ruff: noqa: S608  (every name in a statement is quoted, and comes from the job file or is ours)
from __future__ import annotations

from collections.abc import Callable, Sequence


def quoted(*names: str) -> str:
    """Identifiers as SQL writes them, joined by dots."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def merge(
    target: str,
    stage: str,
    columns: Sequence[str],
    key: Sequence[str],
    *,
    upsert: bool,
    differs: Callable[[str], str],
) -> list[tuple[str, str]]:
    """(what it does to rows, statement), in order: `removed`, `changed`, `added`.

    `target` and `stage` are quoted already, `columns` and `key` are not. `differs` words the comparison of one quoted
    column in both tables, called `t` and `s`.
    """
    names = ", ".join(quoted(one) for one in columns)
    if not key:
        return [
            ("removed", f"DELETE FROM {target}"),
            ("added", f"INSERT INTO {target} ({names}) SELECT {names} FROM {stage}"),
        ]
    same = " AND ".join(f"t.{quoted(one)} = s.{quoted(one)}" for one in key)
    statements = []
    if not upsert:
        statements.append(
            ("removed", f"DELETE FROM {target} AS t WHERE NOT EXISTS (SELECT 1 FROM {stage} AS s WHERE {same})")
        )
    others = [quoted(one) for one in columns if one not in key]
    if others:
        sets = ", ".join(f"{one} = s.{one}" for one in others)
        changed = " OR ".join(differs(one) for one in others)
        statements.append(
            ("changed", f"UPDATE {target} AS t SET {sets} FROM {stage} AS s WHERE {same} AND ({changed})")
        )
    unknown = f"NOT EXISTS (SELECT 1 FROM {target} AS t WHERE {same})"
    statements.append(("added", f"INSERT INTO {target} ({names}) SELECT {names} FROM {stage} AS s WHERE {unknown}"))
    return statements
