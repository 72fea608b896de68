"""What is recorded of a purge: the intent before a file is touched, the new digests after, and no word of any text."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from batchctl.ledger.store import utc_now
from batchctl.ledger.transitions import record_event
from batchctl.model.errors import StaleState


@dataclass(frozen=True, slots=True)
class Stripped:
    """The digests of a chunk's segments once their texts are out of them."""

    number: int
    rows: str
    copies: str | None
    verdicts: str | None


def begin(db: sqlite3.Connection, run: str, what: str) -> None:
    """Files of a run are about to go. Until `finish`, its files need not be what the ledger says."""
    db.execute("UPDATE run SET purging = ? WHERE id = ?", (what, run))
    record_event(db, run, "purging", what)


def finish(db: sqlite3.Connection, run: str, chunks: Iterable[Stripped], *, inputs: bool, outputs: bool) -> None:
    """The texts are gone. Words that others put into the ledger may quote them, and go as well."""
    now = utc_now()
    for one in chunks:
        changed = db.execute(
            "UPDATE chunk SET published = CASE WHEN published = verdicts_sha256 THEN ? ELSE published END,"
            " rows_sha256 = ?, copies_sha256 = ?, verdicts_sha256 = ?, note = NULL WHERE run = ? AND number = ?",
            (one.verdicts, one.rows, one.copies, one.verdicts, run, one.number),
        ).rowcount
        if changed != 1:
            raise StaleState(f"chunk {one.number} of {run} is gone")
    if outputs:
        db.execute("UPDATE chunk SET results_sha256 = '{}' WHERE run = ?", (run,))
        db.execute("UPDATE decision SET edit = NULL, sha256 = NULL WHERE run = ?", (run,))
        db.execute("UPDATE run SET outputs_purged_at = ? WHERE id = ?", (now, run))
    if inputs:
        db.execute("UPDATE run SET inputs_purged_at = ? WHERE id = ?", (now, run))
    db.execute("UPDATE intent SET note = NULL WHERE run = ?", (run,))
    db.execute("UPDATE event SET because = '' WHERE run = ?", (run,))
    db.execute("UPDATE run SET purging = NULL WHERE id = ?", (run,))
    record_event(db, run, "purged", " and ".join(["inputs"] * inputs + ["outputs"] * outputs))


def remote(db: sqlite3.Connection, run: str, files: int) -> None:
    """The files of a run at the provider are deleted."""
    db.execute("UPDATE run SET remote_purged_at = ? WHERE id = ?", (utc_now(), run))
    record_event(db, run, "remote files deleted", f"{files} files")
