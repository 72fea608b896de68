"""Packing request lines into chunks, in source order, with bounded memory.

A chunk is closed when the next line would pass its limit of rows or bytes. Its custom_ids name the chunk, so they are
made here, once the line's chunk is known. A line is a `Frame` around its custom_id and its middle: the bytes that
differ from row to row. Rows come in columns and stay in columns; nothing here looks at a single row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from operator import add
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from batchctl.chunks import arrays
from batchctl.chunks.names import copies_name, lines_name, rows_name
from batchctl.chunks.segments import ROWS, SegmentWriter, batches
from batchctl.chunks.splice import Frame
from batchctl.files import BLOCK_BYTES, crash_point, open_private, storage_failed, sync_file
from batchctl.model.ids import CUSTOM_ID_LENGTH, chunk_mark

GATHERED_ROWS = 2_000
WRITE_BYTES = 4 << 20
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


@dataclass(frozen=True, slots=True)
class Block:
    """Requests in source order, as columns of equal length without nulls."""

    positions: pa.Int64Array
    ids: pa.StringArray
    keys: pa.FixedSizeBinaryArray
    requests: pa.FixedSizeBinaryArray
    rows: pa.StringArray
    middles: pa.StringArray

    def __len__(self) -> int:
        return len(self.middles)

    def part(self, start: int, end: int) -> Block:
        return Block(*(getattr(self, one.name).slice(start, end - start) for one in fields(self)))

    @classmethod
    def of(
        cls,
        positions: Sequence[int],
        ids: Sequence[bytes],
        keys: Sequence[bytes],
        requests: Sequence[bytes],
        rows: Sequence[bytes],
        middles: Sequence[bytes],
    ) -> Block:
        """From the values themselves; texts are UTF-8."""
        key, request = ROWS.field("key").type.byte_width, ROWS.field("request").type.byte_width
        return cls(
            arrays.numbers(positions),
            arrays.texts(ids),
            arrays.fixed(b"".join(keys), key),
            arrays.fixed(b"".join(requests), request),
            arrays.texts(rows),
            arrays.texts(middles),
        )


class Packer:
    """Writes chunks into `directory`. Use as a context manager; `chunks` is complete after a clean exit."""

    def __init__(
        self,
        directory: Path,
        *,
        run: str,
        settings: str,
        attempt: int,
        frame: Frame,
        max_rows: int,
        max_bytes: int,
        first_number: int = 1,
        separator: str = "-",
    ) -> None:
        self.chunks: list[Packed] = []
        self._directory = directory
        self._run = run
        self._settings = settings
        self._attempt = attempt
        self._frame = frame
        self._fixed = frame.length
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._next = first_number
        self._separator = separator.encode()
        self._file: BinaryIO | None = None
        self._rows: SegmentWriter | None = None
        self._mark = ""
        self._count = 0
        self._bytes = 0
        self._first = 0
        self._last = 0
        self._gathered: list[tuple[int, bytes, bytes, bytes, bytes, bytes]] = []

    def add(self, position: int, source_id: bytes, key: bytes, request: bytes, row: bytes, middle: bytes) -> None:
        """One request."""
        self._gathered.append((position, source_id, key, request, row, middle))
        if len(self._gathered) >= GATHERED_ROWS:
            self._pack_gathered()

    def add_block(self, block: Block) -> None:
        """Many requests."""
        self._pack_gathered()
        self._pack(block)

    def _pack_gathered(self) -> None:
        if self._gathered:
            columns = zip(*self._gathered, strict=True)
            self._gathered = []
            self._pack(Block.of(*columns))

    def _pack(self, block: Block) -> None:
        ends = _ends(block.middles, self._fixed)
        start, before = 0, 0  # rows and bytes of the block that are written
        while start < len(block):
            end = self._fitting(ends, start, before)
            if end == start:
                self._close()
                self._open(block.positions[start].as_py())
                end = max(self._fitting(ends, start, before), start + 1)
            self._write(block, ends, start, end)
            start, before = end, ends[end - 1]

    def _fitting(self, ends: list[int], start: int, before: int) -> int:
        """Up to where the open chunk has room; `start` when it has none, or none is open."""
        if self._file is None:
            return start
        end = bisect_right(ends, before + self._max_bytes - self._bytes)
        return max(start, min(end, start + self._max_rows - self._count))

    def _write(self, block: Block, ends: list[int], start: int, end: int) -> None:
        """Lines are put together a few megabytes at a time, whatever a row needs around its own text."""
        assert self._file is not None
        assert self._rows is not None
        while start < end:
            before = ends[start - 1] if start else 0
            stop = min(end, max(start + 1, bisect_right(ends, before + WRITE_BYTES)))
            part = block.part(start, stop)
            places = range(self._count, self._count + len(part))
            custom_ids = self._custom_ids(part.keys, places)
            try:
                self._file.write(arrays.data_of(_lines(self._frame, custom_ids, part.middles)))
            except OSError as error:
                raise storage_failed(error, self._directory, needed_bytes=self._max_bytes) from error
            lines = arrays.numbers(places).cast(pa.int32())
            self._rows.add_arrays([part.positions, part.ids, part.keys, part.requests, custom_ids, lines, part.rows])
            self._bytes += ends[stop - 1] - before
            self._count = places.stop
            start = stop
        self._last = block.positions[end - 1].as_py()

    def _custom_ids(self, keys: pa.FixedSizeBinaryArray, places: range) -> pa.StringArray:
        """`model.ids.custom_id` of each key."""
        width = keys.type.byte_width * 2
        digits = arrays.fixed(arrays.fixed_data_of(keys).hex().encode(), width).cast(pa.binary()).cast(pa.string())
        offsets = arrays.fixed((b"%06x" * len(places)) % tuple(places), 6).cast(pa.binary()).cast(pa.string())
        between = self._separator
        return arrays.concatenated(
            self._mark.encode() + between,
            pc.utf8_slice_codeunits(digits, 0, 16),
            between,
            offsets,
            between + b"%02d" % self._attempt,
        )

    def _open(self, position: int) -> None:
        number = self._next
        self._next += 1
        self._mark = chunk_mark(self._run, self._settings, number)
        self._file = open_private(self._directory / lines_name(number))
        self._rows = SegmentWriter(self._directory / rows_name(number), ROWS)
        self._count = self._bytes = 0
        self._first = position

    def _close(self) -> None:
        if self._file is None or self._rows is None:
            return
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
            self._pack_gathered()
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


def _lines(frame: Frame, custom_ids: pa.StringArray, middles: pa.StringArray) -> pa.StringArray:
    return arrays.concatenated(frame.head, custom_ids, frame.before, middles, frame.after + b"\n")


def _ends(middles: pa.StringArray, around: int) -> list[int]:
    """Where each line ends, counted from the start of the first; `around` bytes stand around a middle."""
    ends = memoryview(middles.buffers()[1]).cast("i")[middles.offset : middles.offset + len(middles) + 1].tolist()
    begins = range(-ends[0], around * len(ends), around)
    return list(map(add, ends, begins))[1:]


def stored(directory: Path, chunk: Packed, frame: Frame) -> Iterator[tuple[int, bytes, bytes, bytes, bytes, bytes]]:
    """The requests of a written chunk as `Packer.add` took them: position, id, key, request, row, middle."""
    start, end = len(frame.head) + CUSTOM_ID_LENGTH + len(frame.before), -len(frame.after) - 1
    with (directory / chunk.file).open("rb", buffering=BLOCK_BYTES) as file:
        names = ("position", "id", "key", "request", "row")
        for columns in batches(directory / rows_name(chunk.number), names):
            for values in zip(*columns, strict=True):
                yield (*values, file.readline()[start:end])
