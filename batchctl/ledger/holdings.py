"""What a target has of a job's rows, chunk by chunk: so that an upsert sends only what is not there as it is judged now.

Written with the record that a publication is done. The ledger knows what was brought, never what others did to the table
since: that is what `publish --all` is for.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence

from batchctl.ledger import queries

Judgements = Mapping[tuple[str, int], str]
"""Run and chunk to a digest of what its rows are: verdicts, and what people decided."""


def judgements(db: sqlite3.Connection, runs: Sequence[queries.Run]) -> dict[tuple[str, int], str]:
    """What the rows of every chunk of some runs are now. A chunk that is not judged has nothing to bring."""
    found = {}
    for run in runs:
        decided: dict[int, list[object]] = {}
        for one in queries.decisions(db, run.id):
            decided.setdefault(one.chunk, []).append((one.position, one.action, one.by, one.at, one.sha256))
        for chunk in queries.chunks(db, run.id):
            said = (chunk.verdicts_sha256, decided.get(chunk.number, []))
            found[run.id, chunk.number] = hashlib.sha256(repr(said).encode()).hexdigest()[:32]
    return found


def held(db: sqlite3.Connection, target: str, job: str, shape: str) -> dict[tuple[str, int], str]:
    """What the target was given of a job in this shape; nothing when the shape changed since."""
    rows = db.execute(
        "SELECT run, chunk, judged FROM held WHERE target = ? AND job = ? AND shape = ?", (target, job, shape)
    )
    return {(row[0], row[1]): row[2] for row in rows}


def record(db: sqlite3.Connection, target: str, job: str, shape: str, now: Judgements, *, alone: bool) -> None:
    """The target has this of the job, in this shape. `alone`: and nothing else, whoever brought it."""
    if alone:
        db.execute("DELETE FROM held WHERE target = ?", (target,))
    else:
        db.execute("DELETE FROM held WHERE target = ? AND job = ?", (target, job))
    db.executemany(
        "INSERT INTO held (target, job, run, chunk, shape, judged) VALUES (?, ?, ?, ?, ?, ?)",
        [(target, job, run, chunk, shape, judged) for (run, chunk), judged in now.items()],
    )
