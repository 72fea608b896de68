"""Finds the line of every key in TOML text, so that an error can name it; `tomllib` keeps no positions.

Assumes text that `tomllib` has accepted, so it only has to know where keys, strings and brackets begin and end.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Sequence

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")' + r"|'''.*?'{3,5}(?!')" + r'|"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'", re.DOTALL
)
_KEY = re.compile(r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+|[ \t]*\.[ \t]*)+""")
_BARE_VALUE = re.compile(r"[^,\]}\n#]*")


class Lines:
    """The line of each key; list items count from 0: `("rules", 1, "name")`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._last_index: dict[Path, int] = {}
        self._line_of: dict[Path, int] = {}
        self._read_document()

    def line_of(self, path: Sequence[str | int]) -> int | None:
        """The key's own line, else that of the nearest table around it; None for the top of the file."""
        for length in range(len(path), 0, -1):
            if (line := self._line_of.get(tuple(path[:length]))) is not None:
                return line
        return None

    def _read_document(self) -> None:
        table: Path = ()
        self._skip_blank()
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                brackets = 2 if self._text.startswith("[[", self._at) else 1
                self._at += brackets
                self._skip_blank()
                start = self._at
                table = self._resolved(self._read_key())
                self._skip_blank()
                self._at += brackets
                if brackets == 2:
                    index = self._last_index[table] = self._last_index.get(table, -1) + 1
                    self._note((), table, start)
                    table = (*table, index)
                self._note((), table, start)
            else:
                self._read_pair(table)
            self._skip_blank()

    def _resolved(self, key: Path) -> Path:
        """`[rules.x]` after `[[rules]]` is a table of the newest rule; the last part itself is left as written."""
        path: Path = ()
        for number, part in enumerate(key):
            path = (*path, part)
            if number < len(key) - 1 and path in self._last_index:
                path = (*path, self._last_index[path])
        return path

    def _read_pair(self, table: Path) -> None:
        start = self._at
        key = self._read_key()
        self._note(table, key, start)
        self._skip_blank()
        self._at += 1  # the equals sign
        self._skip_blank()
        self._read_value((*table, *key))

    def _read_value(self, path: Path) -> None:
        opening = self._text[self._at : self._at + 1]
        if opening in {"[", "{"}:
            closing = {"[": "]", "{": "}"}[opening]
            index = 0
            self._at += 1
            self._skip_blank()
            while self._at < len(self._text) and self._text[self._at] != closing:
                if opening == "{":
                    self._read_pair(path)
                else:
                    self._note(path, (index,), self._at)
                    self._read_value((*path, index))
                    index += 1
                self._skip_blank()
                if self._text.startswith(",", self._at):
                    self._at += 1
                    self._skip_blank()
            self._at += 1
        else:
            match = _STRING.match(self._text, self._at) or _BARE_VALUE.match(self._text, self._at)
            self._at = match.end() if match else len(self._text)

    def _read_key(self) -> Path:
        match = _KEY.match(self._text, self._at)
        written = match[0] if match else ""
        self._at += max(1, len(written))  # at least one: never stand still on text this reader does not know
        return key_path(written) or ()

    def _skip_blank(self) -> None:
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _note(self, table: Path, key: Path, offset: int) -> None:
        line = bisect_right(self._newlines, offset - 1) + 1
        for length in range(1, len(key) + 1):
            self._line_of.setdefault((*table, *key[:length]), line)


def key_path(written: str) -> Path | None:
    """`model."odd key".x` as its parts, read as TOML reads it; None when it is no key."""
    if "\n" in written:
        return None
    try:
        table = tomllib.loads(f"{written} = 0")
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    path: list[str | int] = []
    node: object = table
    while isinstance(node, dict):
        if len(node) != 1:
            return None
        [(part, node)] = node.items()
        path.append(part)
    return tuple(path)
