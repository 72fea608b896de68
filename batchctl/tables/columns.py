"""Columns of a published table: a name, a kind, and how a value fits into it. One column set for every target.

Kinds are few because they must mean the same in Parquet, SQLite, PostgreSQL and BigQuery. A value that does not fit its
column is an error and never a guess: a published table is read by programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson


class Kind(StrEnum):
    """What the values of a column are; each target has one type for it."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIME = "time"  # RFC 3339, UTC, as text
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a publication, by the name it has at the target."""

    name: str
    kind: Kind = Kind.TEXT


Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """What a target is to hold afterwards.

    `rows` begins a fresh pass over the rows, in the order of `columns`, with values as JSON has them; a target may ask
    for several. `key` names columns whose values are never null and never repeat, or is empty. With `upsert` other rows
    of the target stay; without it they go. `mark` names this publication at the target. `spool` is a private directory.
    `partial`: the target has further rows of ours from before, so that it must be there already.
    """

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    upsert: bool
    rows: Callable[[], Iterator[Row]]
    mark: str
    spool: Path
    raw_csv: bool = False
    partial: bool = False

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a target did: rows it was given, and facts for the report."""

    rows: int
    facts: dict[str, Any]


class Gone(Exception):
    """A table that was to have rows of ours already is not there any more."""


class Misfit(ValueError):
    """A value that its column cannot hold. The text names the column and the kind, never the value."""


def fitted(value: Any, column: Column) -> Any:
    """A JSON value as typed targets take it: str, int, float, bool or None."""
    if value is None:
        return None
    kind = column.kind
    if kind is Kind.TEXT or kind is Kind.TIME:
        return value if type(value) is str else json_text(value)
    if kind is Kind.JSON:
        return json_text(value)
    if kind is Kind.BOOLEAN and type(value) is bool:
        return value
    if kind is Kind.INTEGER:
        if type(value) is int and -(2**63) <= value < 2**63:
            return value
        if type(value) is float and value.is_integer() and abs(value) < 2**53:
            return int(value)  # JSON Schema's `integer` takes 1.0
    if kind is Kind.NUMBER and type(value) in (int, float):
        return float(value)
    raise Misfit(f"column `{column.name}` is for {kind} values, and this row has another")


def json_text(value: Any) -> str:
    """A value as JSON on one line; exact for integers of any size."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits
        import json

        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
