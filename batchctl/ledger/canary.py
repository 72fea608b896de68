"""Canaries: a first small batch of a run, cut from a chunk that waits. The chunk it was cut from is withdrawn."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from batchctl.ledger import transitions
from batchctl.ledger.transitions import ChunkState, NewChunk


def cut_canary(db: sqlite3.Connection, run: str, chunk: int, parts: Sequence[NewChunk]) -> int:
    """The first of `parts`, which take the place of a waiting chunk, is a canary; without parts the chunk is. Its number."""
    if parts:
        transitions.move(db, run, chunk, ChunkState.WITHDRAWN, because="cut for a canary")
        for one in parts:
            transitions.add_chunk(db, run, one)
    number = parts[0].number if parts else chunk
    db.execute("UPDATE chunk SET canary = 1 WHERE run = ? AND number = ?", (run, number))
    transitions.record_event(db, run, "canary", "a first small batch", chunk=number)
    return number


def withdrawn_chunks(db: sqlite3.Connection, run_id: str) -> list[int]:
    """Numbers of the chunks of a run that were never sent and never will be."""
    rows = db.execute("SELECT number FROM chunk WHERE run = ? AND state = 'withdrawn' ORDER BY number", (run_id,))
    return [row[0] for row in rows]


def last_chunk(db: sqlite3.Connection, run_id: str) -> int:
    """The highest chunk number ever used in a run, withdrawn chunks included."""
    return int(db.execute("SELECT COALESCE(MAX(number), 0) FROM chunk WHERE run = ?", (run_id,)).fetchone()[0])
