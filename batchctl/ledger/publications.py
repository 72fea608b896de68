"""What went to which target: an intent before a target is touched, a record after, and which rows are `published`.

Rows become `published` a chunk at a time, once every target of the job has them. The mark names the verdicts it was made
for, so that judging again takes it back by itself when an answer counts differently (`transitions.apply`); a decision of
a person takes it back by `withdraw`. Every function runs inside a transaction its caller opened.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchctl.ledger.store import utc_now
from batchctl.ledger.transitions import ChunkState, record_event, rename_tally
from batchctl.model.errors import StaleState
from batchctl.model.rows import RowState


@dataclass(frozen=True, slots=True)
class Publication:
    """One turn of bringing one content to one target."""

    seq: int
    id: str
    turn: int
    run: str
    target: str
    state: str
    rows: int | None
    facts: dict[str, Any]
    opened_at: str
    done_at: str | None

    @property
    def mark(self) -> str:
        """Names this turn at the target: letters, digits, hyphens. The same after a crash, another one on purpose."""
        return f"{self.id[:24]}-{self.turn}"


def _publication(row: sqlite3.Row) -> Publication:
    facts = dict(row)
    facts["facts"] = json.loads(facts["facts"] or "{}")
    return Publication(**facts)


def newest(db: sqlite3.Connection, target: str) -> Publication | None:
    """What was last begun for a target."""
    row = db.execute("SELECT * FROM publication WHERE target = ? ORDER BY seq DESC LIMIT 1", (target,)).fetchone()
    return None if row is None else _publication(row)


def of_run(db: sqlite3.Connection, run: str) -> list[Publication]:
    """Every publication that was asked for with this run, oldest first."""
    rows = db.execute("SELECT * FROM publication WHERE run = ? ORDER BY seq", (run,))
    return [_publication(row) for row in rows]


def open_publication(db: sqlite3.Connection, content: str, run: str, target: str) -> Publication:
    """The durable word that a target is about to be touched. An interrupted turn of the same content is carried on."""
    last = newest(db, target)
    if last is not None and last.id == content and last.state == "open":
        return last
    turn = db.execute("SELECT COALESCE(MAX(turn), 0) + 1 FROM publication WHERE id = ?", (content,)).fetchone()[0]
    db.execute(
        "INSERT INTO publication (id, turn, run, target, state, opened_at) VALUES (?, ?, ?, ?, 'open', ?)",
        (content, turn, run, target, utc_now()),
    )
    record_event(db, run, "publishing", target)
    opened = newest(db, target)
    assert opened is not None
    return opened


def close_publication(db: sqlite3.Connection, one: Publication, rows: int, facts: Mapping[str, Any]) -> None:
    """The target has it, whole."""
    changed = db.execute(
        "UPDATE publication SET state = 'done', rows = ?, facts = ?, done_at = ? WHERE seq = ? AND state = 'open'",
        (rows, json.dumps(dict(facts)), utc_now(), one.seq),
    ).rowcount
    if changed != 1:
        raise StaleState(f"publication {one.mark} is not `open`")
    record_event(db, one.run, "published", f"{rows} rows: {one.target}")


def mark_published(db: sqlite3.Connection, run: str) -> int:
    """The completed rows of a run are published; how many became so just now."""
    moved = 0
    for number, verdicts in db.execute(
        "SELECT number, verdicts_sha256 FROM chunk WHERE run = ? AND state = ?", (run, ChunkState.APPLIED)
    ).fetchall():
        db.execute("UPDATE chunk SET published = ? WHERE run = ? AND number = ?", (verdicts, run, number))
        moved += rename_tally(db, run, number, RowState.COMPLETED, RowState.PUBLISHED)
    return moved


def withdraw(db: sqlite3.Connection, run: str, chunk: int) -> None:
    """An answer of this chunk counts differently now: its rows are completed, and published again by the next `publish`."""
    db.execute("UPDATE chunk SET published = NULL WHERE run = ? AND number = ?", (run, chunk))
    rename_tally(db, run, chunk, RowState.PUBLISHED, RowState.COMPLETED)


def is_published(db: sqlite3.Connection, run: str) -> bool:
    """Whether every judged chunk of a run has been published as it is judged now."""
    row = db.execute(
        "SELECT COUNT(*) FROM chunk WHERE run = ? AND state = ? AND published IS NOT verdicts_sha256",
        (run, ChunkState.APPLIED),
    ).fetchone()
    return not row[0]
