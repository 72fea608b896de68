"""Reading which rows were asked for by a call of their own: of a chunk that is sent live, and of a dry run."""

from __future__ import annotations

import sqlite3
from collections import Counter

from batchctl.ledger.transitions import SECOND_BATCH
from batchctl.model.rows import RowState

UNMETERED = ("open", "running", "lost", "untold", "abandoned")
"""States of live calls that may be billed and whose tokens nobody has told us."""


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


def paid_samples(db: sqlite3.Connection, run_id: str) -> dict[str, str]:
    """Digest to `answered` or `lost`, for requests of a dry run that are billed, or may be."""
    rows = db.execute(
        "SELECT key, MAX(state) AS state FROM live_call WHERE run = ? AND chunk IS NULL AND state IN ('answered', 'lost')"
        " GROUP BY key",
        (run_id,),
    )
    return {row["key"]: row["state"] for row in rows}


def second_batches(db: sqlite3.Connection, run_id: str) -> dict[int, int]:
    """By chunk: further batches that carried its mark and were cancelled. What they cost is in no answer."""
    rows = db.execute(
        "SELECT chunk, COUNT(DISTINCT because) FROM event WHERE run = ? AND became = ? GROUP BY chunk",
        (run_id, SECOND_BATCH),
    )
    return {row[0]: row[1] for row in rows}


def running_calls(db: sqlite3.Connection, run_id: str, chunk: int) -> dict[str, str]:
    """custom_id to the provider's id, for every background request of a chunk that has not ended."""
    rows = db.execute(
        "SELECT key, handle FROM live_call WHERE run = ? AND chunk = ? AND state = 'running' ORDER BY seq",
        (run_id, chunk),
    )
    return {row["key"]: row["handle"] for row in rows}


def most_lost(db: sqlite3.Connection, run_id: str, chunk: int) -> int | None:
    """The most that any call of a chunk with unknown tokens can cost; None when one has no bound."""
    found = [
        row["bound"]
        for row in db.execute("SELECT bound, state FROM live_call WHERE run = ? AND chunk = ?", (run_id, chunk))
        if row["state"] in UNMETERED
    ]
    return None if None in found else max(found, default=0)
