"""Shell completion of targets: job files here and runs of the workspace. Offline, and without the ledger's own code."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path


def targets(incomplete: str) -> list[str]:
    """Job files in this directory and run ids that begin with what was typed."""
    found = [path.name for path in sorted(Path().glob("*.toml")) if path.name.startswith(incomplete)]
    ledger = Path(os.environ.get("BATCHCTL_STATE") or ".batchctl") / "ledger.db"
    if ledger.is_file():
        try:
            with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
                rows = db.execute("SELECT id FROM run WHERE withdrawn = 0 ORDER BY rowid DESC LIMIT 200").fetchall()
        except sqlite3.Error:
            return found  # a ledger that cannot be read completes nothing; the command itself will say why
        found += [row[0] for row in rows if row[0].startswith(incomplete)]
    return found
