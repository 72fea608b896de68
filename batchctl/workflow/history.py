"""Rows that earlier runs of a job have: what is settled or under way is not bought again.

Earlier segments are read one chunk at a time: memory holds two chunks' ids and keys, however long the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, rows_name, verdicts_name
from batchctl.judging.decide import settled
from batchctl.ledger import queries
from batchctl.ledger.transitions import ChunkState
from batchctl.model.ids import purged_id
from batchctl.model.rows import RowState
from batchctl.workflow.decided import decisions
from batchctl.workflow.workspace import Workspace

WAITING = (ChunkState.PLANNED, ChunkState.UPLOADED)
DONE = (RowState.COMPLETED, RowState.PUBLISHED)
PAID = (*DONE, RowState.HELD)  # held: a live call may have been billed, and only a person says that it was not
SETTLED = (*PAID, RowState.REVIEW_REQUIRED, RowState.INVALID_OUTPUT)


@dataclass(frozen=True, slots=True)
class Met:
    """For each row asked about, in the same order, one boolean array a question."""

    key: pa.Array  # its record key is settled or under way in an earlier run
    id_elsewhere: pa.Array  # its id was completed under other settings
    id_here: pa.Array  # its id was completed under these settings
    failed: pa.Array  # its record key failed in an earlier run, and may be sent again


@dataclass(frozen=True, slots=True)
class History:
    """The earlier runs of a job. `settled` are the states in which a row is not sent again."""

    workspace: Workspace
    runs: Sequence[queries.Run]
    settings: str
    settled: tuple[RowState, ...]

    def met(self, ids: pa.Array, keys: pa.Array) -> Met:
        """What the earlier runs have of these rows."""
        key = elsewhere = here = failed = pa.array([False] * len(ids))
        for run in self.runs:
            goes_on = queries.was_submitted(self.workspace.ledger.db, run.id)
            for chunk in queries.chunks(self.workspace.ledger.db, run.id):
                if chunk.state in WAITING and not goes_on:
                    continue  # what waits behind a canary makes way for the newer run
                for seen_ids, seen_keys, done, lost in self._rows(run, chunk):
                    key = pc.or_(key, pc.is_in(keys, value_set=seen_keys))
                    failed = pc.or_(failed, pc.is_in(keys, value_set=lost))
                    hit = are_in(ids, seen_ids.filter(done), run)
                    if chunk.settings == self.settings:
                        here = pc.or_(here, hit)
                    else:
                        elsewhere = pc.or_(elsewhere, hit)
        return Met(key, elsewhere, here, pc.and_not(failed, key))

    def _rows(self, run: queries.Run, chunk: queries.Chunk) -> Iterator[tuple[pa.Array, pa.Array, pa.Array, pa.Array]]:
        """Ids of a chunk, the keys that must not be sent again, which ids are completed, and the keys of the rest."""
        directory = self.workspace.state / run.id
        names = [rows_name(chunk.number), *([copies_name(chunk.number)] if chunk.copies else [])]
        for name in names:
            table = segments.read(directory / "chunks" / name, ["id", "key", "line", "position"])
            ids, keys = (table.column(one).combine_chunks() for one in ("id", "key"))
            if chunk.state is not ChunkState.APPLIED:
                yield ids, keys, pa.array([False] * len(ids)), keys.slice(0, 0)
                continue
            states = self._states(run, chunk, table, copied=name != names[0])
            kept = pc.is_in(states, value_set=pa.array([str(one) for one in self.settled]))
            yield ids, keys.filter(kept), pc.equal(states, str(RowState.COMPLETED)), keys.filter(pc.invert(kept))

    def _states(self, run: queries.Run, chunk: queries.Chunk, table: pa.Table, *, copied: bool) -> pa.Array:
        """The state of each row of a segment: its verdict, or what a person decided."""
        directory = self.workspace.state / run.id
        path = directory / "results" / verdicts_name(chunk.number, chunk.attempt)
        verdicts = segments.read(path, ["state", "reason", "output"])
        own = segments.first_of_copies(len(verdicts), chunk.requests)
        if own is not None and copied:
            places = pa.array(range(own, len(verdicts)))
        else:
            places = table.column("line").combine_chunks()
        states = verdicts.column("state").combine_chunks().take(places)
        decided = decisions(directory, self.workspace.ledger.db, run.id).get(chunk.number)
        if not decided:
            return states
        now = states.to_pylist()
        for number, position in enumerate(table.column("position").to_pylist()):
            if position in decided:
                place = places[number].as_py()
                reason, output = (verdicts.column(name)[place].as_py() for name in ("reason", "output"))
                answer = None if output is None else output.encode()
                now[number] = str(settled(now[number], reason, "", answer, decided[position]).state)
        return pa.array(now, pa.string())


def are_in(ids: pa.Array, seen: pa.Array, run: queries.Run) -> pa.Array:
    """Which source ids are among those of a run's segments. A purged run has what stands for them, and one whose purge was
    interrupted has either."""
    plain = pc.is_in(ids, value_set=seen)
    if not run.is_purged:
        return plain
    stand_ins = pa.array([purged_id(one) for one in ids.to_pylist()], pa.string())
    return pc.or_(plain, pc.is_in(stand_ins, value_set=seen))
