"""`rejects.jsonl`: source rows that cannot become a request, with the line they start on and why.

While rows stream by, rejects are spilled to disk; the source lines are added at the end, in one look at the source.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from batchctl.chunks.splice import row_json
from batchctl.files import lines, open_private
from batchctl.model.rows import Unusable
from batchctl.tables.source import Source

REASONS_SHOWN = 5
RAW_BYTES = 10_000


class Rejects:
    """The rejects of one `prepare`. A context manager; without a reject no file is ever made."""

    def __init__(self, path: Path, source: Source) -> None:
        self.count = 0
        self.by_reason: dict[str, int] = {}
        self._path = path
        self._spill = path.with_name("rejects.spill")
        self._source = source
        self._file: BinaryIO | None = None
        self._positions: list[int] = []
        self._reasons: list[str] = []

    def __enter__(self) -> Rejects:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, position: int, source_id: str | None, reason: str, row: Any) -> bytes:
        """One more; the line that stands for it."""
        if isinstance(row, Unusable):
            row = row.row or {"_raw": row.raw[:RAW_BYTES].decode("utf-8", "backslashreplace")}
        text = row_json({"position": position, "id": source_id, "reason": reason, "row": row})
        if isinstance(text, Unusable):
            text = orjson.dumps({"position": position, "id": None, "reason": reason, "row": {}})
        if self._file is None:
            self._file = open_private(self._spill)
        self._file.write(text + b"\n")
        self.count += 1
        kind = reason.split(":")[0][:80]
        self.by_reason[kind] = self.by_reason.get(kind, 0) + 1
        self._positions.append(position)
        if len(self._reasons) < REASONS_SHOWN:
            self._reasons.append(reason)
        return text

    def places(self) -> list[str]:
        """Where the first of them stand and why they were rejected."""
        shown = self._positions[:REASONS_SHOWN]
        where = self._source.locate(shown)
        told = [f"{where[one]}: {reason}" for one, reason in zip(shown, self._reasons, strict=True)]
        return told + ([f"and {self.count - len(shown):,} more"] if self.count > len(shown) else [])

    def finish(self) -> None:
        """Add the source lines, in source order, and take the final name."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        where = self._source.locate(self._positions)
        with open_private(self._path) as out:
            for one in sorted(self._spilled(), key=lambda one: int(one["position"])):
                place = where[one["position"]]
                text = row_json({"where": place, "line": _line_number(place), **one})
                assert isinstance(text, bytes)
                out.write(text + b"\n")
        self._spill.unlink()

    def _spilled(self) -> Iterator[dict[str, Any]]:
        with self._spill.open("rb") as file:
            yield from (_exact(line) for line in lines(iter(lambda: file.read(1 << 20), b"")))


def _exact(line: bytes) -> dict[str, Any]:
    value = json.loads(line)  # not orjson: integers of any size stay what they are
    assert isinstance(value, dict)
    return value


def _line_number(place: str) -> int | None:
    tail = place.replace(" row ", ":").rpartition(":")[2]
    return int(tail) if tail.isdigit() else None
