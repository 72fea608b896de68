"""What values look like in a text, and the one way in which a row fails to become one."""

from __future__ import annotations

import json
import math
from datetime import date, time
from decimal import Decimal
from typing import Any, NoReturn


class Unrenderable(Exception):
    """This row cannot become a text. The reason names columns and lines, never what a row holds."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def as_text(value: Any) -> str:
    """What a value looks like in a text: as JSON has it, but text as it is and null as nothing.

    Raises `Unrenderable` for what has no JSON form (NaN, bytes, objects): its Python form would reach a model unseen.
    """
    if isinstance(value, str):
        return str.__str__(value)  # the text itself, whatever a subclass would print
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float.__repr__(value)
        raise Unrenderable("a value is NaN or infinite, which has no text")
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() else _no_text(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, dict | list | tuple):
        return as_json(value)
    return _no_text(value)


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON as `as_text` inserts it: compact, non-ASCII kept, keys in their own order."""
    separators = (",", ":") if indent is None else (",", ": ")
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=separators, indent=indent, default=_inside_json
        )
    except (TypeError, ValueError, RecursionError):
        raise Unrenderable("a value inside a list or table has no JSON form") from None


def _inside_json(value: Any) -> str:
    if isinstance(value, Decimal | date | time):
        return as_text(value)
    raise TypeError


def _no_text(value: Any) -> NoReturn:
    raise Unrenderable(f"a value of type {type(value).__name__} has no text")


def column_text(name: str, value: Any) -> str:
    try:
        return as_text(value)
    except Unrenderable as exc:
        raise Unrenderable(f"column `{name}`: {exc.reason}") from None
