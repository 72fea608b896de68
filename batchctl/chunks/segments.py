"""Parquet segments: what is true of every row, written once beside its chunk, never updated.

`NNNN.rows.parquet` has one row per request line, in line order; `NNNN.copies.parquet` the source rows whose request is
byte-identical to one of these lines and that take its answer; `NNNN.aK.verdicts.parquet` one verdict per request line and,
where rules look at the row, then one per copy in the order of the copies.
A segment counts only once the ledger names it with its SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batchctl.files import open_private, storage_failed
from batchctl.model.errors import StorageFailed
from batchctl.model.ids import DIGEST_BYTES

GROUP_ROWS = 2_000

ROWS = pa.schema(
    [
        ("position", pa.int64()),  # of the row in the source, from 0
        ("id", pa.string()),
        ("key", pa.binary(DIGEST_BYTES)),
        ("request", pa.binary(DIGEST_BYTES)),
        ("custom_id", pa.string()),
        ("line", pa.int32()),  # in the chunk file, from 0
        ("row", pa.string()),  # the source columns, one JSON object
    ]
)
COPIES = pa.schema(
    [
        ("position", pa.int64()),
        ("id", pa.string()),
        ("key", pa.binary(DIGEST_BYTES)),
        ("line", pa.int32()),  # of the request whose answer is copied
        ("copied_from", pa.string()),  # the source id that paid
        ("row", pa.string()),
    ]
)
VERDICTS = pa.schema(
    [
        ("state", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("output", pa.string()),  # JSON text on one line, null without a usable answer
        ("retry", pa.string()),
        ("paid", pa.bool_()),
        ("usage", pa.string()),  # JSON, null when the provider reported none
        ("request_id", pa.string()),
        ("model", pa.string()),
        ("created_at", pa.int64()),  # Unix seconds, the provider's clock
        ("cost", pa.int64()),  # picodollars this request was billed; null when unknown
    ]
)
PLAIN = {"row", "output", "custom_id", "key", "request", "id", "position", "line", "request_id", "copied_from"}


class _Hashing(io.RawIOBase):
    """A sink that knows the SHA-256 of what went through it, so that a written segment is not read again for it."""

    def __init__(self, out: BinaryIO) -> None:
        super().__init__()
        self._out = out
        self._state = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, block: Any) -> int:
        self._state.update(block)
        return self._out.write(block)

    def hexdigest(self) -> str:
        return self._state.hexdigest()


class SegmentWriter:
    """Writes one segment in row groups, so that memory does not grow with the chunk. Synced on a clean close."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self.sha256 = ""  # of the file, after a clean close
        self._schema = schema
        self._columns: tuple[list[Any], ...] = tuple([] for _ in schema)
        self._batches: list[pa.RecordBatch] = []
        try:
            self._out = open_private(path)
            self._sink = _Hashing(self._out)
            self._file = pq.ParquetWriter(
                self._sink,
                schema,
                compression="snappy",
                write_statistics=False,
                store_schema=False,
                use_dictionary=[name for name in schema.names if name not in PLAIN],
            )
        except OSError as error:
            raise storage_failed(error, path) from error

    def add(self, *values: Any) -> None:
        """One row, in schema order."""
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        if len(self._columns[0]) >= GROUP_ROWS:
            self._flush()

    def add_columns(self, columns: Sequence[Sequence[Any]]) -> None:
        """Many rows at once, as columns in schema order."""
        for column, values in zip(self._columns, columns, strict=True):
            column.extend(values)
        if len(self._columns[0]) >= GROUP_ROWS:
            self._flush()

    def mark(self, word: str) -> None:
        """Something to know of the whole segment, which `is_marked` tells again."""
        self._file.add_key_value_metadata({word: "yes"})

    def add_arrays(self, columns: Sequence[pa.Array]) -> None:
        """Many rows at once, as arrays of the schema's types."""
        if self._columns[0]:
            self._flush()
        self._batches.append(pa.RecordBatch.from_arrays(list(columns), schema=self._schema))
        if sum(one.num_rows for one in self._batches) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._columns[0]:
            arrays = [pa.array(values, kind.type) for values, kind in zip(self._columns, self._schema, strict=True)]
            self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
            for column in self._columns:
                column.clear()
        if not self._batches:
            return
        table = pa.Table.from_batches(self._batches)
        self._batches.clear()
        try:
            self._file.write_table(table, row_group_size=table.num_rows)
        except OSError as error:
            raise storage_failed(error, self.path) from error
        self.rows += table.num_rows

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
            self._file.close()
            self.sha256 = self._sink.hexdigest()
            with self._out:
                self._out.flush()
                if error is None:
                    os.fsync(self._out.fileno())
        except OSError as failure:
            raise storage_failed(failure, self.path) from failure


def is_marked(path: Path, word: str) -> bool:
    """Whether the writer of a segment marked it so."""
    try:
        return word.encode() in (pq.read_metadata(path).metadata or {})
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def column(path: Path, name: str) -> pa.ChunkedArray:
    """One whole column."""
    return read(path, [name]).column(0)


def read(path: Path, names: Sequence[str]) -> pa.Table:
    """Some columns of a whole segment."""
    try:
        return pq.read_table(path, columns=list(names), use_threads=False, memory_map=False)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def batches(path: Path, names: Sequence[str], *, size: int = GROUP_ROWS) -> Iterator[list[list[Any]]]:
    """A segment in order, as lists of column values. Text columns come as UTF-8 bytes, ready to be spliced."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=size, columns=list(names), use_threads=False):
                yield [_values(one) for one in batch.columns]
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def tuples(path: Path, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """A segment in order, one tuple a row."""
    for columns in batches(path, names):
        yield from zip(*columns, strict=True)


def first_of_copies(verdicts: int, requests: int) -> int | None:
    """Where in a verdict segment of so many rows the copies' own verdicts begin; None: they take the request's."""
    return requests if verdicts > requests else None


class RandomRows:
    """Rows of one segment by number, a few row groups kept in memory."""

    def __init__(self, path: Path, names: Sequence[str], *, groups: int = 32) -> None:
        self._file = pq.ParquetFile(path)
        self._names = list(names)
        self._limit = groups
        self._groups: dict[int, list[list[Any]]] = {}
        self._starts = [0]
        for group in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)

    @property
    def rows(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        from bisect import bisect_right

        group = bisect_right(self._starts, number) - 1
        if group not in self._groups:
            if len(self._groups) >= self._limit:
                del self._groups[next(iter(self._groups))]
            table = self._file.read_row_group(group, columns=self._names, use_threads=False)
            self._groups[group] = [_values(one) for one in table.columns]
        place = number - self._starts[group]
        return tuple(values[place] for values in self._groups[group])

    def close(self) -> None:
        self._file.close()


def _values(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    if pa.types.is_string(array.type):
        array = array.cast(pa.binary())
    values: list[Any] = array.to_pylist()
    return values


def damaged(path: Path, error: BaseException) -> StorageFailed:
    return StorageFailed(
        f"a stored file cannot be read: {error}".split("\n")[0][:300] if path.exists() else "a stored file is missing",
        where=str(path),
        effect="nothing was changed",
        hint="`batchctl check` names what is damaged",
        code="damaged",
    )
