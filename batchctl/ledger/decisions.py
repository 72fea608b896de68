"""What people decide about single rows: the moves of a row between tallies, guarded like those of a chunk.

Decisions are sparse facts beside the verdicts: a row's state is its verdict and, if there is one, the decision that
stands. A decision names the judgement it saw; if the chunk was judged again since, it raises `StaleState`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from batchctl.ledger.publications import withdraw
from batchctl.ledger.store import utc_now
from batchctl.ledger.transitions import ChunkState, record_event
from batchctl.model.errors import StaleState


@dataclass(frozen=True, slots=True)
class Turn:
    """How a decision (or taking it back) moves one row: state and reason before and after, and the share rules that
    count it before and after."""

    run: str
    chunk: int
    position: int
    was: tuple[str, str]
    became: tuple[str, str]
    shares_before: tuple[str, ...]
    shares_after: tuple[str, ...]
    copied: bool
    judged_with: str


def decide(
    db: sqlite3.Connection, turn: Turn, *, action: str, by: str, edit: str | None = None, sha256: str | None = None
) -> None:
    """Record what a person decided about a row, and move it. `edit` names the file with the edited answer."""
    _turn(db, turn)
    db.execute(
        "INSERT INTO decision (run, chunk, position, action, by, at, edit, sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (turn.run, turn.chunk, turn.position, action, by, utc_now(), edit, sha256),
    )
    _record_turn(db, turn, f"{action} by {by}")


def undo(db: sqlite3.Connection, turn: Turn, *, because: str) -> None:
    """Take a decision back: the row is what its verdict says again."""
    _turn(db, turn)
    _take_back(db, turn.run, turn.chunk, turn.position)
    _record_turn(db, turn, because)


def drop_decision(db: sqlite3.Connection, run: str, chunk: int, position: int, *, because: str) -> None:
    """Take a decision back in the transaction that applies new verdicts, whose tallies already leave it out."""
    _take_back(db, run, chunk, position)
    record_event(db, run, f"row {position} undecided", because, chunk=chunk)


def _take_back(db: sqlite3.Connection, run: str, chunk: int, position: int) -> None:
    changed = db.execute(
        "UPDATE decision SET undone_at = ? WHERE run = ? AND chunk = ? AND position = ? AND undone_at IS NULL",
        (utc_now(), run, chunk, position),
    ).rowcount
    if changed != 1:
        raise StaleState(f"row {position} of {run} has no decision to take back")


def _turn(db: sqlite3.Connection, turn: Turn) -> None:
    """Move one row between tallies, if the chunk is still judged as the decision saw it. What is published is so no more."""
    withdraw(db, turn.run, turn.chunk)
    place = (turn.run, turn.chunk)
    row = db.execute("SELECT state, judged_with FROM chunk WHERE run = ? AND number = ?", place).fetchone()
    if row is None or row[0] != ChunkState.APPLIED or row[1] != turn.judged_with:
        raise StaleState(f"chunk {turn.chunk} of {turn.run} was judged again since the row was looked at")
    copied = int(turn.copied)
    changed = db.execute(
        "UPDATE tally SET rows = rows - 1, copied = copied - ? WHERE run = ? AND chunk = ? AND state = ? AND reason = ?"
        " AND rows > 0 AND copied >= ?",
        (copied, *place, *turn.was, copied),
    ).rowcount
    if changed != 1:
        raise StaleState(f"chunk {turn.chunk} of {turn.run} has no row in `{turn.was[0]}` to move")
    db.execute(
        "INSERT INTO tally (run, chunk, state, reason, rows, copied) VALUES (?, ?, ?, ?, 1, ?)"
        " ON CONFLICT DO UPDATE SET rows = rows + 1, copied = copied + excluded.copied",
        (*place, *turn.became, copied),
    )
    for rules, step in ((turn.shares_before, -1), (turn.shares_after, 1)):
        db.executemany(
            "UPDATE share SET rows = rows + ? WHERE run = ? AND chunk = ? AND rule = ?",
            [(step, *place, rule) for rule in rules],
        )


def _record_turn(db: sqlite3.Connection, turn: Turn, because: str) -> None:
    record_event(db, turn.run, f"row {turn.position} {turn.became[0]}", because, chunk=turn.chunk, was=turn.was[0])
