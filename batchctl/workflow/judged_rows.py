"""Rows of a judged chunk with what they are: the verdict, and the decision that stands. For reruns and review.

Copies come with the request that pays for them, or with their own verdict where rules look at the row. In source order.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, rows_name, verdicts_name
from batchctl.judging.decide import settled
from batchctl.ledger.queries import Chunk
from batchctl.model.rows import Decision

_COLUMNS = ("state", "reason", "detail", "output", "retry", "paid")


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """One row. `verdict` are state and reason before any decision."""

    chunk: Chunk
    position: int
    source_id: str
    line: int
    row: bytes
    copied: bool
    state: str
    reason: str
    detail: str
    output: bytes | None
    retry: str
    paid: bool
    verdict: tuple[str, str]
    judged: bytes | None  # the answer before any decision
    decision: Decision | None


def judged_rows(
    directory: Path, chunk: Chunk, decided: Mapping[int, Decision], states: Collection[str] | None
) -> Iterator[JudgedRow]:
    """The rows of an applied chunk that are in one of `states` (None: all), rows taken over by a newer chunk included."""
    table = segments.read(directory / "results" / verdicts_name(chunk.number, chunk.attempt), _COLUMNS)
    columns: list[list[Any]] = [table.column(name).to_pylist() for name in _COLUMNS]
    known = columns[0]
    if states is not None and not decided and not set(states).intersection(known):
        return
    first = segments.first_of_copies(len(known), chunk.requests)
    streams = [_rows(directory / "chunks" / rows_name(chunk.number), first=None, copied=False)]
    if chunk.copies:
        streams.append(_rows(directory / "chunks" / copies_name(chunk.number), first=first, copied=True))
    for position, source_id, line, row, place, copied in heapq.merge(*streams, key=lambda one: one[0]):
        decision = decided.get(position)
        if decision is None and states is not None and known[place] not in states:
            continue
        state, reason, detail, output, retry, paid = (column[place] for column in columns)
        verdict, judged = (state, reason), None if output is None else output.encode()
        answer = judged
        if decision is not None:
            now = settled(state, reason, detail, judged, decision)
            state, reason, detail, answer = str(now.state), str(now.reason), now.detail, now.output
        if states is None or state in states:
            yield JudgedRow(
                chunk, position, source_id.decode(), line, row, copied, state, reason, detail, answer, retry, paid,
                verdict, judged, decision,
            )  # fmt: skip


def _rows(path: Path, *, first: int | None, copied: bool) -> Iterator[tuple[Any, ...]]:
    """Position, id, line, row, place of its verdict, whether it is a copy."""
    for number, (position, source_id, line, row) in enumerate(segments.tuples(path, ("position", "id", "line", "row"))):
        yield position, source_id, line, row, line if first is None else first + number, copied
