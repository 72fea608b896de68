"""A batch that is over, or unknown to the provider, and whose answers cannot be had: a person gives them up.

Such a batch was paid for. Its rows stay submitted until a person says otherwise: no answer may still come, and sending the
rows again pays for them twice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from batchctl.files import sha256_of, write_file
from batchctl.ledger import queries, transitions
from batchctl.ledger.queries import Chunk, Intent
from batchctl.ledger.transitions import ChunkState
from batchctl.model.batches import BatchState, BatchStatus
from batchctl.model.errors import ConsentMissing, NotFound, UsageError
from batchctl.providers.guard import Guarded
from batchctl.workflow.reports import plural
from batchctl.workflow.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A sent chunk without answers to be had. `status` is None when the provider does not know its batch."""

    chunk: Chunk
    intent: Intent
    status: BatchStatus | None
    why: str

    @property
    def lines(self) -> list[str]:
        requests = plural(self.chunk.requests, "request")
        return [
            f"chunk {self.chunk.number} of {self.chunk.run}: {requests}, sent {self.intent.sent_at}",
            f"  batch     {self.intent.batch_id}",
            f"  {self.why}",
            "  paid      most likely; whether its answers still come, nobody knows",
        ]

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "chunk": self.chunk.number,
            "attempt": self.chunk.attempt,
            "requests": self.chunk.requests,
            "batch_id": self.intent.batch_id,
            "vendor_status": None if self.status is None else self.status.vendor_status,
            "why": self.why,
            "lines": self.lines,
        }


def look(workspace: Workspace, run: queries.Run, number: int) -> Unreachable | None:
    """What keeps a chunk's answers away; None when it is in no batch. Raises `UsageError` when poll would get them."""
    db = workspace.ledger.db
    chunk = next((one for one in queries.chunks(db, run.id) if one.number == number), None)
    intent = queries.live_intents(db, run.id).get(number)
    if chunk is None or intent is None or intent.batch_id is None:
        return None
    if chunk.state not in (ChunkState.SUBMITTED, ChunkState.ENDED):
        return None
    provider = workspace.provider(workspace.frozen_plan(chunk.settings))
    workspace.same_account(provider, intent.account, intent.batch_id)
    try:
        status = provider.poll(intent.batch_id)
    except NotFound:
        return Unreachable(chunk, intent, None, f"{provider.name} does not know this batch")
    if status.state is BatchState.ENDED and not status.files:
        why = f"{provider.name} says {status.vendor_status} and names no result file"
        return Unreachable(chunk, intent, status, why)
    if status.state is BatchState.ENDED and _are_gone(provider, status):
        why = f"{provider.name} says {status.vendor_status} and has its results no more (it keeps {provider.traits.retention})"
        return Unreachable(chunk, intent, status, why)
    running = status.state is BatchState.RUNNING
    raise UsageError(
        f"batch `{intent.batch_id}` is {status.vendor_status}"
        + (": it is still at work" if running else ", and its answers can be had"),
        where=f"run {run.id}, chunk {number}",
        effect="nothing was changed",
        hint=f"`batchctl {'cancel' if running else 'poll'} {run.id}`",
    )


def _are_gone(provider: Guarded, status: BatchStatus) -> bool:
    """Whether the provider itself says of a result file that it is not there."""
    for _, handle in status.files:
        try:
            with open(os.devnull, "wb") as nowhere:
                provider.download(handle, lambda: nowhere)
        except NotFound:
            return True
    return False


def give_up(workspace: Workspace, found: Unreachable) -> str:
    """Its rows end without results, like rows that a result file lacks. Asks for a person's word first."""
    options, chunk, intent = workspace.options, found.chunk, found.intent
    question = "Its rows are paid for and end without an answer; a rerun pays for them again. Give the answers up?"
    if not options.yes and not (options.ask and options.ask(question)):
        raise ConsentMissing(
            "giving answers up needs your word",
            where=f"run {chunk.run}, chunk {chunk.number}",
            effect="nothing was changed",
            hint="add --yes when you are sure that they will not come",
        )
    name = f"{chunk.number:04d}.a{chunk.attempt}.jsonl"
    path = workspace.directory(chunk.run) / "results" / name
    write_file(path, b"")
    status = found.status
    usage = None if status is None or status.usage is None else status.usage.as_dict()
    with workspace.ledger.transaction() as db:
        if status is None:  # what was counted while it ran says nothing of what it has cost
            transitions.observe(db, intent.id, "unknown", {})
        because = f"given up by a person: {found.why}"
        transitions.give_answers_up(db, intent.id, {name: sha256_of(path)}, usage=usage, because=because)
    return f"the answers of chunk {chunk.number} are given up; a rerun asks for its rows again"
