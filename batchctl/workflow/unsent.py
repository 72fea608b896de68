"""Which rows an upsert has to bring: those of chunks that the target does not have as they are judged now.

A row is dirty when a chunk it is in changed: new, judged anew, decided about, taken back. Of a dirty row the newest
completed answer goes out, whichever run has it, so that an answer taken back in a later run gives way to the earlier one.
Ids are kept on disk: there may be many.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, rows_name
from batchctl.ledger import holdings, queries
from batchctl.ledger.holdings import Judgements
from batchctl.model.ids import id_digest
from batchctl.workflow.workspace import Workspace


class Ids:
    """A set of source ids in a file."""

    def __init__(self, path: Path, ids: Iterable[bytes]) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = OFF")
            db.execute("PRAGMA synchronous = OFF")
            db.execute("CREATE TABLE dirty (id BLOB PRIMARY KEY) WITHOUT ROWID")
            db.execute("BEGIN")
            db.executemany("INSERT OR IGNORE INTO dirty VALUES (?)", ((id_digest(one),) for one in ids))
            db.execute("COMMIT")
        self._db = sqlite3.connect(path, isolation_level=None)

    def __contains__(self, source_id: str) -> bool:
        row = self._db.execute("SELECT 1 FROM dirty WHERE id = ?", (id_digest(source_id.encode()),)).fetchone()
        return row is not None

    def close(self) -> None:
        """The file goes with the directory it is in."""
        self._db.close()


@dataclass(frozen=True, slots=True)
class Unsent:
    """What a target lacks. `chunks`: those that changed; `everything`: it is to get every row of the job."""

    shape: str
    now: Judgements
    chunks: tuple[tuple[str, int], ...]
    everything: bool

    @property
    def nothing(self) -> bool:
        """Whether the target has all of it."""
        return not self.everything and not self.chunks

    def whole(self) -> Unsent:
        """The same for a target that is to get every row."""
        return Unsent(self.shape, self.now, tuple(self.now), True)

    def ids(self, workspace: Workspace, path: Path) -> Ids | None:
        """The rows of the changed chunks; None stands for every row."""
        return None if self.everything else Ids(path, self._ids(workspace))

    def _ids(self, workspace: Workspace) -> Iterable[bytes]:
        by_name = {run: {one.number: one for one in queries.chunks(workspace.ledger.db, run)} for run, _ in self.chunks}
        for run, number in self.chunks:
            chunk, place = by_name[run][number], workspace.directory(run) / "chunks"
            for name in [rows_name(number)] + ([copies_name(number)] if chunk.copies else []):
                for (ids,) in segments.batches(place / name, ("id",)):
                    yield from ids


def unsent(
    workspace: Workspace, target: str, shape: str, runs: list[queries.Run], *, upsert: bool, everything: bool
) -> Unsent:
    """What a target lacks of some runs. Only an upsert may leave out what is there."""
    db = workspace.ledger.db
    now = holdings.judgements(db, runs)
    there = {} if everything or not upsert else holdings.held(db, target, workspace.run.job, shape)
    if not there:
        return Unsent(shape, now, tuple(now), True)
    return Unsent(shape, now, tuple(place for place, judged in now.items() if there.get(place) != judged), False)
