"""Decisions as the ledger and their files have them. The ledger holds no text; notes and edited answers are in files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import orjson

from batchctl.files import make_directory, write_file
from batchctl.ledger import queries
from batchctl.model.errors import StorageFailed
from batchctl.model.rows import Action, Decision

PLACE = "review"


def decisions(directory: Path, db: Any, run_id: str) -> dict[int, dict[int, Decision]]:
    """The decisions of a run that stand: chunk to position to decision. Those of a purged run have no text."""
    found: dict[int, dict[int, Decision]] = {}
    run = queries.run(db, run_id)
    gone = run.outputs_purged_at is not None or "outputs" in (
        run.purging or ""
    )  # its files go before the ledger says so
    for row in queries.decisions(db, run_id):
        one = Decision(Action(row.action), row.by, row.at, purged=True) if gone else _decision(directory / PLACE, row)
        found.setdefault(row.chunk, {})[row.position] = one
    return found


def _decision(place: Path, row: queries.DecisionRow) -> Decision:
    action = Action(row.action)
    if row.edit is None:
        return Decision(action, row.by, row.at)
    path = place / row.edit
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != row.sha256:
        raise StorageFailed(
            "a stored decision is not what was decided",
            where=str(path),
            effect="nothing was changed",
            hint="restore it from a backup",
            code="damaged",
        )
    facts = orjson.loads(content)
    answer = facts["answer"]
    output = orjson.dumps(facts["output"]) if action is Action.EDIT or answer is not None else None
    return Decision(action, row.by, row.at, facts["note"], output, answer)


def keep(directory: Path, note: str, output: Any, answer: int | None = None) -> tuple[str, str]:
    """Write note and edited or chosen answer of one decision; the file's name and digest. It counts when the ledger
    names it."""
    place = directory / PLACE
    make_directory(place)
    name = f"{os.urandom(8).hex()}.json"
    content = orjson.dumps({"note": note, "output": output, "answer": answer})
    write_file(place / name, content)
    return name, hashlib.sha256(content).hexdigest()
