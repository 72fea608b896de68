"""Which rows are the same, in memory that does not grow with them.

While rows are packed, two 16-byte digests of each are spilled to disk: of its source id and of its request. Afterwards
the spills are read in partitions by their first byte, counted by Arrow, and only digests that occur twice ever become
Python objects. 128 bits of SHA-256: equal digests are equal rows.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc

from batchctl.chunks.arrays import fixed, numbers
from batchctl.files import BLOCK_BYTES, open_private
from batchctl.model.ids import DIGEST_BYTES

PARTITION_ROWS = 131_072
KEEP, REJECT, KNOWN, COPY = range(4)


class Spill:
    """Digests on disk, in packing order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file = open_private(path)

    def add(self, digests: bytes | memoryview) -> None:
        """More of them, one after another."""
        self._file.write(digests)
        self.count += len(digests) // DIGEST_BYTES

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def repeated(self) -> Iterator[list[int]]:
        """Groups of ordinals (places in packing order, ascending) whose digests are equal; two or more each."""
        parts = 1
        while parts < 256 and self.count > parts * PARTITION_ROWS:
            parts *= 2
        for part in range(parts):
            yield from self._repeated_in(part, parts)

    def _repeated_in(self, part: int, parts: int) -> Iterator[list[int]]:
        kind = pa.binary(DIGEST_BYTES)
        found = [digests for _, digests, _ in self._select(part, parts)]
        if not found:
            return
        counted = pc.value_counts(pa.chunked_array(found, kind))
        twice = counted.field("values").filter(_more_than_one(counted.field("counts")))
        del found, counted
        if not len(twice):
            return
        groups: dict[bytes, list[int]] = {}
        for start, digests, places in self._select(part, parts):
            mask = pc.is_in(digests, value_set=twice)
            here = pc.indices_nonzero(mask)
            here = here if places is None else places.take(here)
            for digest, place in zip(digests.filter(mask).to_pylist(), here.to_pylist(), strict=True):
                groups.setdefault(digest, []).append(start + place)
        yield from groups.values()

    def _select(self, part: int, parts: int) -> Iterator[tuple[int, pa.Array, pa.Array | None]]:
        """(first ordinal, digests of one partition, their places; None: all), block by block."""
        table = bytes(1 if byte % parts == part else 0 for byte in range(256))
        start = 0
        with self.path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digests, places = fixed(block, DIGEST_BYTES), None
                count = len(digests)
                if parts > 1:
                    flags = pa.py_buffer(block[::DIGEST_BYTES].translate(table))
                    mask = pa.Array.from_buffers(pa.uint8(), count, [None, flags]).cast(pa.bool_())
                    digests, places = digests.filter(mask), pc.indices_nonzero(mask)
                yield start, digests, places
                start += count


def _more_than_one(counts: pa.Array) -> pa.Array:
    return pc.greater(counts, numbers([1])[0])


class Fates:
    """What becomes of each packed row, one byte a row, and where the kept ones end up."""

    STRIDE = 4_096

    def __init__(self, count: int) -> None:
        self._fate = bytearray(count)
        self._kept: list[int] = []

    def set(self, ordinal: int, fate: int) -> None:
        self._fate[ordinal] = fate

    def __getitem__(self, ordinal: int) -> int:
        return self._fate[ordinal]

    def count(self, fate: int) -> int:
        return self._fate.count(fate)

    @property
    def untouched(self) -> bool:
        return not any(self._fate)

    def settle(self) -> None:
        """No `set` after this: index the kept rows."""
        self._kept = [0]
        for start in range(0, len(self._fate), self.STRIDE):
            self._kept.append(self._kept[-1] + self._fate.count(KEEP, start, start + self.STRIDE))

    def new_ordinal(self, ordinal: int) -> int:
        """The place of a kept row among the kept rows."""
        block = ordinal // self.STRIDE
        return self._kept[block] + self._fate.count(KEEP, block * self.STRIDE, ordinal)


class Leaders:
    """Which row pays for which copy: two integers a copy, however many there are."""

    def __init__(self) -> None:
        self._copies = array("q")
        self._payers = array("q")

    def add(self, copy: int, payer: int) -> None:
        self._copies.append(copy)
        self._payers.append(payer)

    def settle(self) -> None:
        """No `add` after this: sort by copy, so that a payer is found by bisection."""
        order = pc.sort_indices(numbers(self._copies))
        self._copies = array("q", numbers(self._copies).take(order).to_pylist())
        self._payers = array("q", numbers(self._payers).take(order).to_pylist())

    def __getitem__(self, copy: int) -> int:
        return self._payers[bisect_left(self._copies, copy)]

    def __len__(self) -> int:
        return len(self._copies)

    def payers(self) -> frozenset[int]:
        return frozenset(self._payers)


def place_of(starts: list[int], ordinal: int) -> tuple[int, int]:
    """Index of the chunk that holds `ordinal`, and its line there; `starts` are the chunks' first ordinals."""
    chunk = bisect_right(starts, ordinal) - 1
    return chunk, ordinal - starts[chunk]
