"""What a person chose on the command line, and later commands of the run keep to: its lane, its budget."""

from __future__ import annotations

import sqlite3

from batchctl.ledger.transitions import record_event


def set_lane(db: sqlite3.Connection, run: str, lane: str, *, because: str) -> None:
    """The lane a person asked for, or that was chosen: later commands keep to it."""
    db.execute("UPDATE run SET lane = ? WHERE id = ?", (lane, run))
    record_event(db, run, f"lane {lane}", because)


def set_budget(db: sqlite3.Connection, run: str, budget: str, *, because: str) -> None:
    """The budget a person gave on the command line: later commands keep to it."""
    db.execute("UPDATE run SET budget = ? WHERE id = ?", (budget, run))
    record_event(db, run, "budget", because)
