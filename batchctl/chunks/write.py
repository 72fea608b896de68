"""Packing request lines into chunks, in source order, with bounded memory.

A chunk is closed when the next line would pass its limit of rows or bytes. Its custom_ids name the chunk, so they are
made here, once the line's chunk is known: a line is `head` + custom_id + `tail`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from batchctl.chunks.names import copies_name, lines_name, rows_name
from batchctl.chunks.segments import ROWS, SegmentWriter, batches
from batchctl.chunks.splice import Splice
from batchctl.files import BLOCK_BYTES, blocks_of, crash_point, lines, open_private, storage_failed, sync_file
from batchctl.model.errors import UsageError
from batchctl.model.ids import CUSTOM_ID_LENGTH, chunk_mark

FLUSH_LINES = 500
LEFT_AT_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Packed:
    """One written chunk: file names are relative to the run's `chunks` directory."""

    number: int
    mark: str
    requests: int
    bytes: int
    first_position: int
    last_position: int
    rows_sha256: str

    @property
    def file(self) -> str:
        return lines_name(self.number)


class Packer:
    """Writes chunks into `directory`. Use as a context manager; `chunks` is complete after a clean exit."""

    def __init__(
        self,
        directory: Path,
        *,
        run: str,
        settings: str,
        attempt: int,
        head: bytes,
        max_rows: int,
        max_bytes: int,
        first_number: int = 1,
        separator: str = "-",
    ) -> None:
        self.chunks: list[Packed] = []
        self._directory = directory
        self._run = run
        self._settings = settings
        self._suffix = f"{attempt:02d}"
        self._head = head
        self._fixed = len(head) + CUSTOM_ID_LENGTH
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._next = first_number
        self._separator = separator
        self._file: BinaryIO | None = None
        self._rows: SegmentWriter | None = None
        self._mark = ""
        self._count = 0
        self._bytes = 0
        self._lines: list[bytes] = []
        self._columns: tuple[list[object], ...] = tuple([] for _ in ROWS)
        self._first = 0
        self._last = 0

    def add(self, position: int, source_id: str, key: bytes, request: bytes, row: bytes, tail: bytes) -> None:
        """One request. `tail` is the line after its custom_id, newline included."""
        self.add_many((position,), (source_id,), (key,), (request,), (row,), (tail,))

    def add_many(
        self,
        positions: Sequence[int],
        ids: Sequence[str],
        keys: Sequence[bytes],
        requests: Sequence[bytes],
        rows: Sequence[bytes],
        tails: Sequence[bytes],
    ) -> None:
        """Requests as columns of equal length, in source order."""
        start = 0
        while start < len(tails):
            end = self._fitting(tails, start)
            if end == start:
                self._close()
                self._open(positions[start])
                end = max(self._fitting(tails, start), start + 1)
            self._write(positions, ids, keys, requests, rows, tails, start, end)
            start = end

    def _fitting(self, tails: Sequence[bytes], start: int) -> int:
        """Up to where the open chunk has room; `start` when it has none, or none is open."""
        if self._file is None:
            return start
        end = min(len(tails), start + self._max_rows - self._count)
        sizes = list(map(len, tails[start:end]))
        room = self._max_bytes - self._bytes
        if sum(sizes) + self._fixed * len(sizes) <= room:
            return end
        for place, size in enumerate(sizes, start):
            room -= size + self._fixed
            if room < 0:
                return place
        return end

    def _write(
        self,
        positions: Sequence[int],
        ids: Sequence[str],
        keys: Sequence[bytes],
        requests: Sequence[bytes],
        rows: Sequence[bytes],
        tails: Sequence[bytes],
        start: int,
        end: int,
    ) -> None:
        suffix, count, head, between = self._suffix, self._count, self._head, self._separator
        mark, suffix = self._mark + between, between + suffix
        places = range(count, count + end - start)
        custom_ids = [
            f"{mark}{key.hex()[:16]}{between}{place:06x}{suffix}"
            for key, place in zip(keys[start:end], places, strict=True)
        ]
        lines = self._lines
        for custom_id, tail in zip(custom_ids, tails[start:end], strict=True):
            lines += (head, custom_id.encode(), tail)
            self._bytes += len(tail)
        self._bytes += self._fixed * (end - start)
        columns = (positions, ids, keys, requests, custom_ids, places, rows)
        for column, values in zip(self._columns, columns, strict=True):
            column.extend(values if values is custom_ids or values is places else values[start:end])
        self._count = places.stop
        self._last = positions[end - 1]
        if len(self._columns[0]) >= FLUSH_LINES:
            self._flush()

    def _open(self, position: int) -> None:
        number = self._next
        self._next += 1
        self._mark = chunk_mark(self._run, self._settings, number)
        self._file = open_private(self._directory / lines_name(number))
        self._rows = SegmentWriter(self._directory / rows_name(number), ROWS)
        self._count = self._bytes = 0
        self._first = position

    def _flush(self) -> None:
        if self._file is None or self._rows is None:
            return
        try:
            self._file.write(b"".join(self._lines))
        except OSError as error:
            raise storage_failed(error, self._directory, needed_bytes=self._max_bytes) from error
        self._lines.clear()
        self._rows.add_columns(self._columns)
        for column in self._columns:
            column.clear()

    def _close(self) -> None:
        if self._file is None or self._rows is None:
            return
        self._flush()
        crash_point("K1")
        with self._rows:
            pass
        number = self._next - 1
        path = self._directory / lines_name(number)
        try:
            self._file.close()
            sync_file(path)
        except OSError as error:
            raise storage_failed(error, path, needed_bytes=self._bytes) from error
        self.chunks.append(
            Packed(number, self._mark, self._count, self._bytes, self._first, self._last, self._rows.sha256)
        )
        self._file = self._rows = None

    def __enter__(self) -> Packer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._close()
        elif self._file is not None:
            self._file.close()


def clear_chunks(directory: Path, first: int) -> None:
    """Remove chunk files from number `first` on, which a crash has left: no ledger row names them."""
    for number in range(first, first + LEFT_AT_MOST):
        names = [lines_name(number), rows_name(number), copies_name(number)]
        if not any((directory / name).exists() for name in names):
            return
        for name in names:
            (directory / name).unlink(missing_ok=True)


def stored(directory: Path, chunk: Packed, head_length: int) -> Iterator[tuple[int, bytes, bytes, bytes, bytes, bytes]]:
    """The requests of a written chunk as `Packer.add` took them: position, id, key, request, row, tail."""
    skip = head_length + CUSTOM_ID_LENGTH
    with (directory / chunk.file).open("rb", buffering=BLOCK_BYTES) as file:
        names = ("position", "id", "key", "request", "row")
        for columns in batches(directory / rows_name(chunk.number), names):
            for values in zip(*columns, strict=True):
                yield (*values, file.readline()[skip:])


def verify(directory: Path, chunk: Packed, check: Callable[[bytes], str | None], splice: Splice) -> str:
    """Read a chunk back as it is on disk and check every line; its SHA-256.

    The codec wrote these bytes once; this reads them as the provider will. `check` parses a whole line; a line that has
    the very bytes of a checked one around a hole that is a JSON string needs no second look at the rest. Raises
    `UsageError` naming file and line.
    """
    path = directory / chunk.file
    state = hashlib.sha256()
    ids = (one for (column,) in batches(directory / rows_name(chunk.number), ("custom_id",)) for one in column)
    same = _same_frame(splice)
    begin = len(splice.head)
    end = begin + CUSTOM_ID_LENGTH
    number = 0
    with path.open("rb", buffering=0) as file:
        for line in lines(_hashed(blocks_of(file), state)):
            number += 1
            problem = check(line) if number == 1 or not same(line) else None
            if problem is None and line[begin:end] != next(ids, None):
                problem = "its custom_id is not the one recorded for this row"
            if problem is not None:
                raise UsageError(
                    f"the provider would refuse a request: {problem}",
                    where=f"chunks/{chunk.file}:{number}",
                    effect="nothing was sent",
                    hint="look at [model] and the prompt; `batchctl prepare` writes the chunk again",
                )
    if number != chunk.requests:
        raise UsageError(
            f"a chunk has other lines than were written: {number:,} of {chunk.requests:,}",
            where=f"chunks/{chunk.file}",
            effect="nothing was sent",
            hint="run `batchctl prepare` again",
        )
    return state.hexdigest()


def _same_frame(splice: Splice) -> Callable[[bytes], bool]:
    """Whether a line is the constant bytes around one hole, and the hole a JSON string. False for other shapes."""
    if len(splice.pieces) != 2:
        return lambda _line: False
    head, (before, after) = splice.head, splice.pieces
    from_id, to_hole = len(head) + CUSTOM_ID_LENGTH, len(head) + CUSTOM_ID_LENGTH + len(before)
    tail = len(after)
    loads = orjson.loads

    def same(line: bytes) -> bool:
        if not (line.startswith(head) and line.startswith(before, from_id) and line.endswith(after)):
            return False
        try:
            return type(loads(b'"%b"' % line[to_hole:-tail])) is str
        except orjson.JSONDecodeError:
            return False

    return same


def _hashed(blocks: Iterator[bytes], state: Any) -> Iterator[bytes]:
    for block in blocks:
        state.update(block)
        yield block
