"""Reading which rows were asked for by a call of their own: of a chunk that is sent live, and of a dry run."""

from __future__ import annotations

import sqlite3
from collections import Counter

from batchctl.model.rows import RowState


def state_of_call(state: str | None) -> RowState:
    """The state of a row that is asked for by a call of its own, while its chunk is under way; None: no call was made."""
    if state is None or state == "refused":
        return RowState.QUEUED
    return RowState.HELD if state == "lost" else RowState.SUBMITTED


def state_of_copies(queued: int) -> RowState:
    """Rows that copy an answer of such a chunk: on their way once every call of it is made."""
    return RowState.QUEUED if queued else RowState.SUBMITTED


def rows_by_state(db: sqlite3.Connection, run_id: str, chunk: int) -> Counter[str]:
    """Rows of a chunk for which a call is on record, by the state that call gives them."""
    rows = db.execute(
        "SELECT state, COUNT(*) FROM (SELECT state, MAX(seq) FROM live_call WHERE run = ? AND chunk = ? GROUP BY key)"
        " GROUP BY state",
        (run_id, chunk),
    )
    found: Counter[str] = Counter()
    for state, count in rows:
        found[state_of_call(state)] += count
    return found


def open_samples(db: sqlite3.Connection, run_id: str) -> dict[str, int]:
    """Digest to calls on record, for requests of a dry run that was killed before one of them had an outcome."""
    rows = db.execute(
        "SELECT key, COUNT(*) AS calls FROM live_call WHERE run = ? AND chunk IS NULL GROUP BY key"
        " HAVING SUM(state = 'open') > 0",
        (run_id,),
    )
    return {row["key"]: row["calls"] for row in rows}


def lost_samples(db: sqlite3.Connection, run_id: str) -> set[str]:
    """Digests of requests that a dry run of this run sent, and whose answer was lost: they may be billed."""
    rows = db.execute("SELECT key FROM live_call WHERE run = ? AND chunk IS NULL AND state = 'lost'", (run_id,))
    return {row["key"] for row in rows}
