"""Strings to order: of a length, of a format, or matching a regular expression.

Patterns are walked with the parser of Python's own `re`. JSON Schema means ECMA-262 ones; the constructs that differ
and are common (named groups, Unicode classes) are rewritten first, and a result that does not match is drawn again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

_MASK = (1 << 64) - 1
_PRINTABLE = [chr(code) for code in range(32, 127)]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORDS = ("steady", "amber", "river", "plain", "report", "given", "small", "clear", "north", "paper", "answer", "early")
MARK = "[simulated]"
_REPEATS = 3


class Dice:
    """A small deterministic source of numbers (linear congruential): quick to seed, which `random.Random` is not."""

    __slots__ = ("_state",)

    def __init__(self, seed: bytes) -> None:
        self._state = int.from_bytes(seed[:8], "big")

    def bits(self) -> int:
        """31 bits."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return self._state >> 33

    def below(self, count: int) -> int:
        """0 .. count - 1; `count` of any size."""
        if count <= 1:
            return 0
        if count < 1 << 24:
            return (self.bits() * count) >> 31
        return ((self.bits() << 62 | self.bits() << 31 | self.bits()) * count) >> 93


def plain(dice: Dice, hint: str, shortest: int, longest: int | None) -> str:
    """Text that says it is simulated, within the lengths (in characters)."""
    text = f"{MARK} {hint or 'text'} {_WORDS[dice.below(12)]} {_WORDS[dice.below(12)]}"
    while len(text) < shortest:
        text += " " + _WORDS[dice.below(12)]
        if shortest - len(text) > 1000:
            text += " filler" * ((shortest - len(text)) // 8)
    if longest is not None and len(text) > longest:
        text = text[:longest]
    return text


def _date(dice: Dice) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=dice.below(300 * 86400))


def _word(dice: Dice, length: int = 6) -> str:
    return "".join(_LETTERS[dice.below(26)] for _ in range(length))


FORMATS: dict[str, Callable[[Dice], str]] = {
    "date": lambda dice: _date(dice).strftime("%Y-%m-%d"),
    "date-time": lambda dice: _date(dice).strftime("%Y-%m-%dT%H:%M:%SZ"),
    "time": lambda dice: _date(dice).strftime("%H:%M:%SZ"),
    "duration": lambda dice: f"P{1 + dice.below(30)}D",
    "email": lambda dice: f"simulated.{_word(dice)}@example.com",
    "idn-email": lambda dice: f"simulated.{_word(dice)}@example.com",
    "uuid": lambda dice: str(UUID(int=dice.below(1 << 128), version=4)),
    "uri": lambda dice: f"https://example.com/simulated/{_word(dice)}",
    "uri-reference": lambda dice: f"/simulated/{_word(dice)}",
    "iri": lambda dice: f"https://example.com/simulated/{_word(dice)}",
    "hostname": lambda dice: f"{_word(dice)}.example.com",
    "ipv4": lambda dice: f"192.0.2.{1 + dice.below(254)}",
    "ipv6": lambda dice: f"2001:db8::{1 + dice.below(9999)}",
    "json-pointer": lambda dice: f"/{_word(dice)}",
    "regex": lambda dice: f"^{_word(dice)}$",
}


def _as_python(pattern: str) -> str:
    pattern = re.sub(r"\(\?<(?![=!])", "(?P<", pattern)
    pattern = re.sub(r"\\p\{(?:L[a-z]?|Letter|Alphabetic)\}", "a-zA-Z", _outside_classes(pattern))
    return re.sub(r"\\p\{(?:N[a-z]?)\}", "0-9", pattern)


def _outside_classes(pattern: str) -> str:
    """Put brackets round a Unicode class that stands alone, so that it can be replaced by a range everywhere."""
    out, inside, place = [], False, 0
    while place < len(pattern):
        match = re.match(r"\\p\{\w+\}", pattern[place:])
        if match:
            out.append(match[0] if inside else f"[{match[0]}]")
            place += len(match[0])
            continue
        if pattern[place] == "\\":
            out.append(pattern[place : place + 2])
            place += 2
            continue
        inside = pattern[place] == "[" or (inside and pattern[place] != "]")
        out.append(pattern[place])
        place += 1
    return "".join(out)


@lru_cache(maxsize=512)
def _parsed(pattern: str) -> tuple[Any, re.Pattern[str]] | None:
    from re import _parser  # type: ignore[attr-defined]

    try:
        python = _as_python(pattern)
        return _parser.parse(python), re.compile(python, re.ASCII)
    except (re.error, OverflowError, RecursionError):
        return None


def matching(dice: Dice, pattern: str, shortest: int = 0, longest: int | None = None) -> str | None:
    """A string that matches `pattern` within the lengths, or None when none was found."""
    parsed = _parsed(pattern)
    if parsed is None:
        return None
    tree, compiled = parsed
    for spread in (_REPEATS, 1, 0, _REPEATS, 8, 16, 64, 256, 1024, 4096):
        text = "".join(_walk(tree, dice, spread, {}))
        if len(text) < shortest and not _ends_fixed(pattern):
            text += "x" * (shortest - len(text))
        if len(text) >= shortest and (longest is None or len(text) <= longest) and compiled.search(text):
            return text
    return None


def _ends_fixed(pattern: str) -> bool:
    return pattern.endswith("$")


def _walk(tree: Any, dice: Dice, spread: int, groups: dict[int, str]) -> list[str]:
    out: list[str] = []
    for code, value in tree:
        name = str(code)
        if name == "LITERAL":
            out.append(chr(value))
        elif name == "NOT_LITERAL":
            out.append("a" if value != ord("a") else "b")
        elif name == "ANY":
            out.append(_LETTERS[dice.below(26)])
        elif name == "IN":
            out.append(_member(value, dice))
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, most, inner = value
            most = min(int(most), int(least) + spread)
            for _ in range(int(least) + dice.below(most - int(least) + 1)):
                out.extend(_walk(inner, dice, spread, groups))
        elif name == "SUBPATTERN":
            text = "".join(_walk(value[-1], dice, spread, groups))
            if value[0]:
                groups[value[0]] = text
            out.append(text)
        elif name == "ATOMIC_GROUP":
            out.extend(_walk(value, dice, spread, groups))
        elif name == "BRANCH":
            out.extend(_walk(value[1][dice.below(len(value[1]))], dice, spread, groups))
        elif name == "GROUPREF":
            out.append(groups.get(value, ""))
    return out


_CATEGORIES = {
    "CATEGORY_DIGIT": "0123456789",
    "CATEGORY_WORD": _LETTERS,
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_DIGIT": _LETTERS,
    "CATEGORY_NOT_WORD": "-",
    "CATEGORY_NOT_SPACE": _LETTERS,
}


def _member(items: Any, dice: Dice) -> str:
    """One character of a set such as `[a-z0-9_]` or `[^,]`."""
    if str(items[0][0]) == "NEGATE":
        allowed = [character for character in _PRINTABLE[16:] if not _holds(items[1:], ord(character))]
        letters = [character for character in allowed if character.isalnum()]
        return (letters or allowed or ["\u00e9"])[dice.below(len(letters or allowed or ["\u00e9"]))]
    code, value = items[dice.below(len(items))]
    name = str(code)
    if name == "RANGE":
        return chr(value[0] + dice.below(value[1] - value[0] + 1))
    if name == "CATEGORY":
        choices = _CATEGORIES.get(str(value), _LETTERS)
        return choices[dice.below(len(choices))]
    return chr(value)


def _holds(items: Any, code_point: int) -> bool:
    character = chr(code_point)
    for code, value in items:
        name, category = str(code), str(value)
        if name == "LITERAL" and value == code_point:
            return True
        if name == "RANGE" and value[0] <= code_point <= value[1]:
            return True
        if name == "CATEGORY":
            tests = {"DIGIT": character.isdigit(), "WORD": character.isalnum() or character == "_"}
            test = tests.get(category.rsplit("_", 1)[-1], character.isspace())
            if test != ("_NOT_" in category):
                return True
    return False
