"""The ledger's format, and the way from every older one to it.

An older ledger is kept beside the new one as `ledger.db.format-N`. Its steps are made in one transaction that nobody else
has a part in: a kill leaves the old ledger or the new one. A new step gets a fixture ledger of the format it starts from
in `tests/faults/formats`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib import resources
from pathlib import Path

from batchctl.files import PART, sync_directory, sync_file

VERSION = 1
STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {}
"""What makes the next format, by the format it starts from: 1 to `VERSION` - 1. Tables only; no pragma, no commit."""


def create(db: sqlite3.Connection) -> None:
    """The tables of the newest format, in an empty ledger."""
    script = resources.files("batchctl.ledger").joinpath("schema.sql").read_text("utf-8")
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {VERSION}")


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Every step from `version` on. Raises `sqlite3.DatabaseError` when rows refer to what is no longer there."""
    for older in range(version, VERSION):
        STEPS[older](db)
    if db.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise sqlite3.DatabaseError(f"format {version} cannot be made format {VERSION}: a part is missing")
    db.execute(f"PRAGMA user_version = {VERSION}")


def keep(path: Path, version: int) -> None:
    """A copy of a ledger as it is, beside it and on disk. One that is there is from an upgrade that was killed.

    The caller keeps others from writing, by a transaction that has changed nothing yet.
    """
    kept = path.with_name(f"{path.name}.format-{version}")
    part = kept.with_name(kept.name + PART)
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(part)) as copy:
        db.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
    sync_file(part)
    os.replace(part, kept)
    sync_directory(path.parent)


def kept(path: Path) -> list[Path]:
    """Every ledger that was put aside: by an upgrade, or by a rebuild."""
    return [one for kind in ("format", "damaged") for one in sorted(path.parent.glob(f"{path.name}.{kind}-*"))]
