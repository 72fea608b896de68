"""Read a model's answer as JSON, refusing what two readers could understand differently.

orjson decides what is JSON at all: it refuses trailing text, NaN, infinities, `1e999`, lone surrogates and byte order
marks. Three things it lets pass, measured with orjson 3.13.0 in November 2026, are findings here: of two equal keys it
keeps the last, an integer beyond 64 bits becomes a float, and it follows nesting down to 1,024 levels.

The common answer pays for none of this: a few counts over its bytes prove that nothing of the kind can be there, and
only where they cannot does the exact and slow reader look.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from batchctl.judging.text import printable

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 128

_ANY_DIGIT_IS_0 = bytes(0x30 if 0x30 <= byte <= 0x39 else byte for byte in range(256))
_LONG_NUMBER = b"0" * 19  # -2^63 and 2^64-1 have 19 and 20 digits
_INTEGERS = range(-(2**63), 2**64)
_LINE_BREAKS = re.compile(rb"[\r\n][ \t\r\n]*")


class NotJson(ValueError):
    """The text is not one unambiguous JSON value. `detail` says why, bounded and fit to be shown."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def encoded(text: str | bytes) -> bytes:
    """The bytes of `text`, or `NotJson` for a lone surrogate, which has none."""
    if isinstance(text, bytes):
        return text
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise NotJson(f"the text holds a lone surrogate at character {exc.start + 1:,}") from exc


def parse(text: str | bytes) -> Any:
    """The value of `text`, or `NotJson`.

    Refused: anything but one complete JSON value, equal keys in one object at any depth, NaN and infinities, integers
    outside -2^63..2^64-1, nesting beyond `MAX_DEPTH`, lone surrogates, empty text, more than `MAX_BYTES`.
    """
    data = encoded(text)
    if len(data) > MAX_BYTES:
        raise NotJson(f"the text has {len(data):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise NotJson(_why(data, exc)) from exc

    objects = data.count(b"{")
    if objects + data.count(b"[") > MAX_DEPTH and deeper_than(value, MAX_DEPTH):  # levels are at most brackets
        raise NotJson(f"nested more than {MAX_DEPTH} levels deep")
    if objects and _may_repeat_a_key(data, value, objects):
        return _exact(data)
    if len(data) > 18 and _LONG_NUMBER in data.translate(_ANY_DIGIT_IS_0):
        return _exact(data)
    return value


def one_line(text: str | bytes) -> bytes:
    """Valid JSON text on one line, every value and number written as it was.

    A string in JSON cannot hold a raw line break, so each one, and the indentation after it, stands between tokens.
    """
    data = encoded(text).strip(b" \t\r\n")
    return _LINE_BREAKS.sub(b"", data) if b"\n" in data or b"\r" in data else data


def _may_repeat_a_key(data: bytes, value: Any, objects: int) -> bool:
    """Whether two equal keys cannot be excluded by counting colons. Never a false "no".

    A text has one colon for each key, those that parsing dropped included, and one for each colon inside a string.
    Written again, the parsed value has one for each key left, and the same ones inside strings unless such a colon
    was escaped (`\\u003a`). A dropped pair therefore leaves the text with more colons than the value.
    """
    colons = data.count(b":")
    if objects == 1 and type(value) is dict:  # the only object; one colon a key: no colon in a string, no key dropped
        if colons == len(value):
            return False
    elif not colons:
        return False
    return b"\\u003" in data or colons != orjson.dumps(value).count(b":")


def _exact(data: bytes) -> Any:
    """Read again with the standard library, which shows every pair and every integer before they are lost."""
    return _EXACT.decode(data.decode())


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise NotJson(f'the key "{printable(key, 80)}" appears twice in one object')
            seen.add(key)
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20 or int(digits) not in _INTEGERS:  # int() of thousands of digits is an error of its own
        raise NotJson(f"the integer {printable(digits, 40)} does not fit 64 bits")
    return int(digits)


_EXACT = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_integer)


def deeper_than(value: Any, limit: int) -> bool:
    """Whether containers stand in each other more than `limit` levels deep; level by level, never by recursion."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(limit):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return bool(level)


def _why(data: bytes, error: orjson.JSONDecodeError) -> str:
    """orjson's reason and place, with what stands there; in the answer's own words when it is not JSON at all."""
    if not data.strip(b" \t\r\n"):
        return "the answer is empty"
    reason = str(error.msg).partition(": line ")[0]
    place = f"line {error.lineno} column {error.colno}"
    excerpt = data.decode("utf-8", "replace")[max(0, error.pos - 20) : error.pos + 20]
    return printable(f"not JSON: {reason} ({place}), near: {excerpt}")
