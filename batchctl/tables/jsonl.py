"""JSON Lines: one object a line, values as they are, no row ever stops the others.

orjson reads at its full speed, but it keeps the last of two equal keys and turns integers beyond 64 bits into floats
without a word (measured, orjson 3.11). So a line goes to the strict reader when it *may* contain either: a float beyond
2^63, or more key-like places (`":`, or a colon after white space) than keys were read. So does every line that orjson
refuses, so that one reader words the reasons. The strict reader is Python's `json` with a hook that sees every pair.

A line ends at LF only: U+2028 and its like are text. CRLF and a UTF-8 mark at the start are tolerated, blank lines are
skipped. A line that is not one JSON object, repeats a key, holds NaN, a number beyond a float or a lone surrogate, is
nested deeper than 128, or is not UTF-8, is an `Unusable` row with the reason. Integers of any size up to 4,300 digits
(Python's own bound) stay exact.
"""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from batchctl.model.errors import UsageError
from batchctl.model.rows import Unusable
from batchctl.tables.streams import (
    MAGIC_BYTES,
    NOTHING_WRITTEN,
    PIECE_BYTES,
    RECORD_BYTES,
    SourceFile,
    check_magic,
    is_utf8,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BOM = b"\xef\xbb\xbf"
BATCH_ROWS = 2000
MAX_DEPTH = 128
_WHITE = b" \t\r"
_EXACT = 9.2e18  # orjson makes floats of integers only beyond 2^63
_UNSURE = -(1 << 60)  # plus any number of keys: still equal to no count


class JsonLines:
    """One JSONL file. `block_bytes` exists for tests."""

    def __init__(self, file: SourceFile, *, block_bytes: int = PIECE_BYTES) -> None:
        self._file = file
        self._block_bytes = block_bytes

    def batches(self, columns: Sequence[str] | None) -> Iterator[list[dict[str, Any] | Unusable]]:
        """Rows in file order; with `columns`, only those keys, and only where a row has them."""
        wanted = None if columns is None else frozenset(columns)
        for _, lines in self._blocks():
            rows: list[dict[str, Any] | Unusable] = []
            for line in lines:
                if not line or not line.strip(_WHITE):
                    continue
                row = parse_row(line)
                if wanted is not None and type(row) is dict:
                    row = {key: value for key, value in row.items() if key in wanted}
                rows.append(row)
                if len(rows) == BATCH_ROWS:
                    yield rows
                    rows = []
            if rows:
                yield rows
        self._file.check_still_unchanged()

    def locate(self, positions: Sequence[int]) -> dict[int, str]:
        """Physical lines of ascending 0-based `positions`; reads up to the last of them."""
        wanted = list(reversed(positions))
        found: dict[int, str] = {}
        position = 0
        for first, lines in self._blocks():
            for number, line in enumerate(lines, first):
                if line.strip(_WHITE):
                    if wanted and wanted[-1] == position:
                        found[wanted.pop()] = f"{self._file.name}:{number}"
                    position += 1
            if not wanted:
                break
        return found

    def _blocks(self) -> Iterator[tuple[int, list[bytes]]]:
        """Number of the first line, and about `block_bytes` of whole lines, without their LF."""
        line = 1
        with self._pieces() as pieces:
            held: list[bytes] = []  # a line that began earlier: joined once, when its end arrives
            held_bytes = 0
            for piece in pieces:
                cut = piece.rfind(b"\n")
                if cut < 0:
                    held.append(piece)
                    held_bytes += len(piece)
                    if held_bytes > RECORD_BYTES:
                        raise UsageError(
                            f"a line is longer than {RECORD_BYTES >> 20} MB",
                            where=f"{self._file.name}:{line}",
                            effect=NOTHING_WRITTEN,
                            hint="JSON Lines needs one object a line",
                            code="endless_row",
                        )
                    continue
                held.append(piece[:cut])
                lines = b"".join(held).split(b"\n")
                yield line, lines
                line += len(lines)
                held = [piece[cut + 1 :]]
                held_bytes = len(held[0])
            yield line, [b"".join(held)]

    @contextmanager
    def _pieces(self) -> Iterator[Iterator[bytes]]:
        stream = self._file.open()
        try:
            start = b""
            while len(start) < MAGIC_BYTES and (more := stream.read(max(MAGIC_BYTES, self._block_bytes))):
                start += more
            if is_utf8(self._file.encoding):
                check_magic(self._file, start[:MAGIC_BYTES])
            yield _chain(start.removeprefix(BOM), stream.read, self._block_bytes)
        finally:
            stream.close()


def _chain(first: bytes, read: Any, size: int) -> Iterator[bytes]:
    if first:
        yield first
    while piece := read(size):
        yield piece


def parse_row(line: bytes) -> dict[str, Any] | Unusable:
    """One line (without LF) as an object, or why it cannot be one."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return parse_strictly(line)  # it words the reason, and takes integers that even a float cannot hold
    if type(row) is not dict:
        return parse_strictly(line)
    keys = len(row)
    for value in row.values():
        kind = type(value)
        if kind is dict or kind is list:
            keys += _keys(value, 2)
        elif kind is float and not -_EXACT < value < _EXACT:
            return parse_strictly(line)
    # Each key is followed by a colon, at once or after white space. Each count is an upper bound on the number of keys
    # in the line, so where one equals the number of keys that were read, no key was read twice.
    if line.count(b":") != keys:
        places = line.count(b'":') + line.count(b" :") + line.count(b"\t:") + line.count(b"\r:")
        if places != keys:
            return parse_strictly(line)
    return row


def parse_strictly(line: bytes) -> dict[str, Any] | Unusable:
    """The same by the strict reader alone: the reference for `parse_row`."""
    try:
        row = json.loads(line.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant, parse_float=_finite)
        if type(row) is not dict:
            return Unusable(f"the line is {_kind(row)}, not a JSON object", line)
        _check_depth(row, 1)
        if b"\\u" in line:
            _check_text(row)
    except _RefusedError as refusal:
        return Unusable(str(refusal), line)
    except RecursionError:
        return Unusable(f"nested deeper than {MAX_DEPTH} levels", line)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        return Unusable(_wording(line, error), line)
    except ValueError:  # Python's bound on the digits of an integer
        return Unusable("not usable JSON: an integer of more than 4,300 digits", line)
    return row


class _RefusedError(Exception):
    """Valid for `json`, not for us; the text is the reason."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(f"the key {json.dumps(key)} appears twice in one object")
            seen.add(key)
    return row


def _no_constant(word: str) -> Any:
    raise _RefusedError(f"not valid JSON: {word} is not a JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _RefusedError("not usable JSON: a number is too large")
    return number


def _keys(value: Any, depth: int) -> int:
    """Keys of all objects in `value`, or far below zero when only the strict reader can tell what it holds."""
    if depth > MAX_DEPTH:
        return _UNSURE
    count = 0
    if type(value) is dict:
        count = len(value)
        value = value.values()
    for child in value:
        kind = type(child)
        if kind is dict or kind is list:
            count += _keys(child, depth + 1)
        elif kind is float and not -_EXACT < child < _EXACT:
            return _UNSURE
    return count


def _check_depth(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _RefusedError(f"nested deeper than {MAX_DEPTH} levels")
    for child in value.values() if type(value) is dict else value:
        if type(child) is dict or type(child) is list:
            _check_depth(child, depth + 1)


def _check_text(value: Any) -> None:
    """Half a surrogate pair is no character: UTF-8, and so a request, cannot hold it."""
    if type(value) is str:
        if not _encodable(value):
            raise _RefusedError("not usable JSON: half a surrogate pair in a text")
    elif type(value) is dict:
        for key, child in value.items():
            _check_text(key)
            _check_text(child)
    elif type(value) is list:
        for child in value:
            _check_text(child)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _wording(line: bytes, error: Exception) -> str:
    """The reason without any of the row's text: reasons go to logs, rows do not."""
    try:
        line.decode()
    except UnicodeDecodeError as undecodable:
        return f"not valid UTF-8 at byte {undecodable.start} of the line"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} at character {error.pos + 1}"
    return "not valid JSON"
