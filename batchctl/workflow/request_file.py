"""The file with the requests of a chunk, looked at before anything of it is sent."""

from __future__ import annotations

from pathlib import Path

from batchctl.chunks.names import lines_name
from batchctl.files import sha256_of
from batchctl.ledger import queries
from batchctl.ledger.queries import Chunk
from batchctl.model.errors import StorageFailed
from batchctl.workflow.workspace import Workspace


def request_file(workspace: Workspace, run: queries.Run, chunk: Chunk) -> Path:
    """Its path. Raises `StorageFailed` unless it has the bytes that were prepared."""
    path = workspace.directory(run.id) / "chunks" / lines_name(chunk.number)
    if not path.is_file() or sha256_of(path) != chunk.sha256:
        raise StorageFailed(
            "a request file is not what was prepared",
            where=str(path),
            effect="it was not sent",
            hint="restore it from a backup, or prepare the rows again",
            code="damaged",
        )
    return path
