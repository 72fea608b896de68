"""What can be said of a CEL expression from its text: the fields it reads, the names it binds, its words.

The library compiles and evaluates; it does not say which fields of a variable an expression reads. Knowing them, a rule
with a misspelt field is refused before anything is paid, and only these fields are handed over for each row.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MACROS = ("all", "exists", "exists_one", "existsOne", "map", "filter")
_TOKEN = re.compile(
    r"(?P<blank>\s+|//[^\n]*)"
    r"|(?P<string>(?:[rR][bB]?|[bB][rR]?)?(?:'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\""
    r"|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"))"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>[0-9][0-9A-Za-z.]*)"
    r"|(?P<sign>.)",
    re.DOTALL,
)
SIZE = "size"
_OWN_SIZE = "siz_"  # as long, so that columns in messages stay true


@dataclass(frozen=True, slots=True)
class Token:
    """One word or sign, and where it stands."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Reads:
    """`fields` of `output` and `row` by variable (None: it is used as a whole), and names that macros bind."""

    fields: dict[str, dict[str, int] | None]
    bound: frozenset[str]


def tokens(text: str) -> list[Token]:
    """The expression in pieces, blanks and comments left out."""
    return [
        Token(str(match.lastgroup), match[0], match.start())
        for match in _TOKEN.finditer(text)
        if match.lastgroup != "blank"
    ]


def reads(text: str, variables: tuple[str, ...]) -> Reads:
    """Which fields of `variables` the expression names: field to its column, from 1. Sound: in doubt, the whole."""
    found = tokens(text)
    fields: dict[str, dict[str, int] | None] = {}
    bound = frozenset(_bound(found))
    for place, token in enumerate(found):
        before = found[place - 1].text if place else ""
        if token.kind != "name" or token.text not in variables or before == ".":
            continue
        field = _field(found[place + 1 : place + 5])
        known = fields.setdefault(token.text, {})
        if field is None:
            fields[token.text] = None
        elif known is not None:
            known.setdefault(field.text, field.at + 1)
    return Reads(fields, bound)


def _bound(found: list[Token]) -> Iterator[str]:
    """`x` of `list.all(x, ...)`."""
    for one, two, three in zip(found, found[1:], found[2:], strict=False):
        if one.text in MACROS and two.text == "(" and three.kind == "name":
            yield three.text


def _field(after: list[Token]) -> Token | None:
    """The field behind a variable: `.name`, unless it is a call, or `["name"]`."""
    kinds = [one.kind for one in after]
    texts = [one.text for one in after]
    if texts[:1] == ["."] and kinds[1:2] == ["name"] and texts[2:3] != ["("]:
        return after[1]
    if texts[:1] == ["["] and kinds[1:2] == ["string"] and texts[2:3] == ["]"] and after[1].text[0] in "'\"":
        try:
            value = ast.literal_eval(after[1].text)
        except (SyntaxError, ValueError):
            return None
        return Token("string", value, after[1].at) if isinstance(value, str) else None
    return None


def with_own_size(text: str) -> str:
    """`size(...)` as our own function: the library counts the bytes of a text, CEL its characters."""
    found = tokens(text)
    out, end = [], 0
    for place, token in enumerate(found):
        if token.kind == "name" and token.text == SIZE and [one.text for one in found[place + 1 : place + 2]] == ["("]:
            out += [text[end : token.at], _OWN_SIZE]
            end = token.at + len(SIZE)
    return "".join(out) + text[end:]


def own_functions() -> dict[str, Callable[[object], int]]:
    """What `with_own_size` needs."""
    return {_OWN_SIZE: _size}


def _size(value: object) -> int:
    if isinstance(value, str | bytes | list | tuple | dict):
        return len(value)
    raise TypeError("size() takes text, bytes, a list or a map")
