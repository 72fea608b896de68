"""Results from the provider to disk, byte for byte, complete or not there.

A final name appears only after the transfer finished, the size agreed with what the provider says, and the ids were
compared with the chunk's own; rows without a line make us fetch a second time before they count as missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import orjson

from batchctl.files import PART, crash_point, open_private, sha256_of, storage_failed, sync_directory, write_file
from batchctl.ledger import queries, transitions
from batchctl.ledger.queries import Chunk, Intent
from batchctl.model.batches import LineError
from batchctl.model.errors import ProviderError
from batchctl.providers.guard import Guarded
from batchctl.workflow.judge import expected, index
from batchctl.workflow.workspace import Workspace

TRANSFERS = 4
SUFFIX = {"output": "jsonl", "errors": "errors.jsonl"}


Files = Sequence[tuple[str, str]]
"""What a provider names as the results of a batch: kind and handle of each file."""


def fetch(
    workspace: Workspace, provider: Guarded, chunk: Chunk, intent: Intent, files: Files, *, given_up: str | None = None
) -> int:
    """Store every result file of an ended batch and record it; the number of requests without a line.

    `given_up`: a person's word that the other files do not come. What a crash left of them here is kept.
    """
    directory = workspace.directory(chunk.run) / "results"
    wanted = expected(workspace.directory(chunk.run) / "chunks", chunk.number)
    stem = f"{chunk.number:04d}.a{chunk.attempt}"
    names = [f"{stem}.{SUFFIX.get(kind, f'{kind}.jsonl')}" for kind, _ in files]
    missing = -1
    digests: list[str] = []
    for _ in range(TRANSFERS):
        for (_, handle), name in zip(files, names, strict=True):
            _download(provider, handle, directory / (name + PART), chunk)
        parts = [directory / (name + PART) for name in names]
        missing = index(parts, wanted, provider.traits.wire).missing
        if missing:
            missing = index(parts, wanted, provider.traits.wire, exact=True).missing
        again = [sha256_of(part) for part in parts]
        if not missing or again == digests:  # a row without a line is missing once a second transfer says the same
            break
        digests = again
    else:
        raise ProviderError(
            f"{missing:,} of {chunk.requests:,} requests have no result line, and every transfer brings other bytes",
            where=f"run {chunk.run}, chunk {chunk.number}, batch {intent.batch_id}",
            effect="nothing was changed; the answers are still at the provider",
            hint="run the same command again",
            code="unsteady_download",
        )
    crash_point("K13")
    for name in names:
        os.replace(directory / (name + PART), directory / name)
    if given_up is not None:
        names += sorted({one.name for one in directory.glob(f"{stem}.*jsonl")}.difference(names))
        here = [directory / name for name in names]
        missing = index(here, wanted, provider.traits.wire, exact=True).missing
    if f"{stem}.jsonl" not in names:
        write_file(directory / f"{stem}.jsonl", b"")
        names.append(f"{stem}.jsonl")
    sync_directory(directory)
    crash_point("K14")
    results = {name: sha256_of(directory / name) for name in names}
    with workspace.ledger.transaction() as db:
        if given_up is not None:
            transitions.give_answers_up(db, intent.id, because=given_up)
        transitions.fetched(db, chunk.run, chunk.number, results, because=f"batch {intent.batch_id} collected")
    return missing


def _download(provider: Guarded, handle: str, part: Path, chunk: Chunk) -> None:
    with ExitStack() as stack:
        opened: list[BinaryIO] = []

        def fresh() -> BinaryIO:
            """The sink of one transfer; what an earlier, broken one wrote is gone."""
            while opened:
                opened.pop().close()
            opened.append(stack.enter_context(open_private(part)))
            return opened[-1]

        size = provider.size_of(handle)
        written = provider.download(handle, fresh)
        try:
            opened[-1].flush()
            os.fsync(opened[-1].fileno())
        except OSError as error:
            raise storage_failed(error, part, needed_bytes=size) from error
    if size is not None and written != size:
        raise ProviderError(
            f"a result file arrived short: {written:,} of {size:,} bytes",
            where=f"run {chunk.run}, chunk {chunk.number}",
            effect="nothing was changed; the answers are still at the provider",
            hint="run the same command again",
            code="truncated_download",
        )


def record_refusal(workspace: Workspace, chunk: Chunk, intent: Intent, errors: tuple[LineError, ...]) -> None:
    """A batch refused as a whole: its complaints are kept as the result, and judged like one."""
    directory = workspace.directory(chunk.run) / "results"
    stem = f"{chunk.number:04d}.a{chunk.attempt}"
    facts = [{"code": one.code, "message": one.message, "line": one.line, "param": one.param} for one in errors]
    if not facts:
        facts = [{"code": "failed", "message": "the provider gave no reason", "line": None, "param": ""}]
    write_file(directory / f"{stem}.refused.json", orjson.dumps({"errors": facts}))
    write_file(directory / f"{stem}.jsonl", b"")
    results = {name: sha256_of(directory / name) for name in (f"{stem}.jsonl", f"{stem}.refused.json")}
    with workspace.ledger.transaction() as db:
        transitions.end(db, intent.id, because="refused in validation; nothing ran")
        transitions.fetched(db, chunk.run, chunk.number, results, because="complaints stored")


def last_intent(workspace: Workspace, chunk: Chunk) -> Intent:
    return queries.last_intents(workspace.ledger.db, chunk.run)[chunk.number]
