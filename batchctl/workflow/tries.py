"""What came of a row's earlier attempts, read from the verdicts of the chunks it was in before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, rows_name, verdicts_name
from batchctl.judging.caps import after
from batchctl.ledger.queries import Chunk
from batchctl.ledger.transitions import ChunkState
from batchctl.model.rows import Reason, Retry, RowState, Tries, Verdict
from batchctl.workflow.workspace import Workspace


def tries_before(workspace: Workspace, chunk: Chunk, chunks: list[Chunk]) -> dict[int, Tries]:
    """By position, for the rows of a chunk: the counters of all attempts before it. Empty for a first attempt."""
    older = [one for one in chunks if one.attempt < chunk.attempt and one.state is ChunkState.APPLIED]
    if chunk.attempt == 1 or not older:
        return {}
    base = workspace.directory(chunk.run) / "chunks"
    names = [rows_name(chunk.number)] + ([copies_name(chunk.number)] if chunk.copies else [])
    mine = pa.chunked_array(
        [segments.column(base / name, "position").combine_chunks() for name in names]
    ).combine_chunks()
    found: dict[int, Tries] = {}
    for one in sorted(older, key=lambda other: other.attempt):
        for position, verdict in _verdicts(workspace, one, mine):
            found[position] = after(found.get(position, Tries()), verdict)
    return found


def _verdicts(workspace: Workspace, chunk: Chunk, mine: pa.Array) -> Iterator[tuple[int, Verdict]]:
    """What an older chunk made of these positions, as far as the counters need it."""
    directory = workspace.directory(chunk.run)
    verdicts = segments.read(
        directory / "results" / verdicts_name(chunk.number, chunk.attempt), ["reason", "retry", "paid"]
    )
    for name in [rows_name(chunk.number)] + ([copies_name(chunk.number)] if chunk.copies else []):
        rows = segments.read(directory / "chunks" / name, ["position", "line"])
        hit = rows.filter(pc.is_in(rows.column("position").combine_chunks(), value_set=mine))
        taken = verdicts.take(hit.column("line").combine_chunks())
        columns: list[list[Any]] = [taken.column(one).to_pylist() for one in ("reason", "retry", "paid")]
        for position, reason, retry, paid in zip(hit.column("position").to_pylist(), *columns, strict=True):
            kind = Reason(reason) if reason else None
            yield position, replace(_ANY, reason=kind, retry=Retry(retry), paid=paid)


_ANY = Verdict(RowState.PROVIDER_ERROR)
