"""Reading settings that people write: shares, durations and words, each refusal naming the nearest right spelling."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from batchctl.model.addresses import is_loopback
from batchctl.model.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def refuse(what: str, where: str, hint: str = "") -> UsageError:
    return UsageError(what, where=where, effect="nothing was sent", hint=hint)


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint for an unknown word: the closest known one, or all of them."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known: {', '.join(words)}"


def known_keys(mapping: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    keys = set(known)
    for key in mapping:
        if key not in keys:
            raise refuse(f"unknown emulator setting `{key}`", where, nearest(str(key), keys))


def share(value: Any, key: str, where: str) -> float:
    """A part of all rows: 0..1 or `"3%"`; true and false mean all and none."""
    number: float | None = None
    if isinstance(value, bool | int | float):
        number = float(value)
    elif isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", value)
        if match:
            number = float(match[1]) / (100 if match[2] else 1)
    if number is None or not 0 <= number <= 1:
        raise refuse(f"`{key}` must be a share of the rows, not {value!r}", where, f'write `{key} = 0.03` or `"3%"`')
    return number


def seconds(value: Any, key: str, where: str) -> float:
    """Seconds as a number, or text such as `"250ms"`, `"2s"`, `"5m"`, `"24h"`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", value)
        if match:
            return float(match[1]) * _UNITS[match[2] or "s"]
    raise refuse(f"`{key}` must be a time, not {value!r}", where, f'write `{key} = 2.5` (seconds) or `"5m"`')


def whole(value: Any, key: str, where: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise refuse(f"`{key}` must be a whole number of at least {least}, not {value!r}", where)
    return value


def words(value: Any, key: str, where: str, known: Iterable[str] = ()) -> tuple[str, ...]:
    """A list of words, each among `known` unless `known` is empty."""
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise refuse(f"`{key}` must be a list of words, not {value!r}", where)
    allowed = set(known)
    for word in value:
        if allowed and word not in allowed:
            raise refuse(f"`{key}` does not know `{word}`", where, nearest(word, allowed))
    return tuple(value)


def address(value: Any, key: str, where: str) -> str:
    """The http address of a server on this machine."""
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme != "http" or not is_loopback(parts.hostname):
        hint = f'write `{key} = "http://127.0.0.1:5000"`'
        raise refuse(f"`{key}` must be the http address of a server on this machine, not {value!r}", where, hint)
    return str(value).rstrip("/")
