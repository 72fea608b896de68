"""A batch that is over, or unknown to the provider, and whose answers cannot be had: a person gives them up.

Such a batch was paid for. Its rows stay submitted until a person says otherwise: no answer may still come, and sending the
rows again pays for them twice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from batchctl.ledger import queries, transitions
from batchctl.ledger.queries import Chunk, Intent
from batchctl.ledger.transitions import ChunkState
from batchctl.model.batches import BatchState, BatchStatus
from batchctl.model.errors import ConsentMissing, NotFound, UsageError
from batchctl.providers.guard import Guarded
from batchctl.workflow import collect
from batchctl.workflow.collect import Files
from batchctl.workflow.reports import plural
from batchctl.workflow.workspace import Workspace

LOOKS = 3
SECONDS_BETWEEN = 5.0


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A sent chunk without answers to be had. `status` is None when the provider does not know its batch."""

    chunk: Chunk
    intent: Intent
    status: BatchStatus | None
    why: str
    there: Files = ()
    """Result files that can be had."""

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
    status = _asked(workspace, provider, intent.batch_id)
    if status is None:
        return Unreachable(chunk, intent, None, f"{provider.name} does not know this batch")
    if status.state is BatchState.ENDED and status.owes_results and not status.files:
        return Unreachable(
            chunk, intent, status, f"{provider.name} says {status.vendor_status} and names no result file"
        )
    if status.state is BatchState.ENDED:
        there = tuple(one for one in status.files if _is_there(provider, one[1]))
        if gone := len(status.files) - len(there):
            why = f"{provider.name} has {gone} of {plural(len(status.files), 'result file')} no more"
            return Unreachable(chunk, intent, status, f"{why} (it keeps {provider.traits.retention})", there)
    running = status.state is BatchState.RUNNING
    raise UsageError(
        f"batch `{intent.batch_id}` is {status.vendor_status}"
        + (": it is still at work" if running else ", and its answers can be had"),
        where=f"run {run.id}, chunk {number}",
        effect="nothing was changed",
        hint=f"`batchctl {'cancel' if running else 'poll'} {run.id}`",
    )


def _asked(workspace: Workspace, provider: Guarded, batch_id: str) -> BatchStatus | None:
    """What the provider says of a batch; that it does not know it, or has no files of it, only when it says so repeatedly."""
    options = workspace.options
    status = None
    for look in range(LOOKS):
        if look:
            options.sleep(options.seconds("BATCHCTL_RETRY_SECONDS", SECONDS_BETWEEN))
        try:
            status = provider.poll(batch_id)
        except NotFound:
            status = None
        if status is not None and (status.files or not status.owes_results):
            break
    return status


def _is_there(provider: Guarded, handle: str) -> bool:
    """Whether a result file can be read to its end. Raises what else went wrong."""
    try:
        with open(os.devnull, "wb") as nowhere:
            provider.download(handle, lambda: nowhere)
    except NotFound:
        return False
    return True


def give_up(workspace: Workspace, found: Unreachable) -> str:
    """Its rows end without results, like rows that a result file lacks. Asks for a person's word first."""
    options, chunk, intent = workspace.options, found.chunk, found.intent
    rest = " but for those in the files that are there" if found.there else ""
    question = (
        f"Its rows are paid for and end without an answer{rest}; a rerun pays for them again. Give the answers up?"
    )
    if not options.yes and not (options.ask and options.ask(question)):
        raise ConsentMissing(
            "giving answers up needs your word",
            where=f"run {chunk.run}, chunk {chunk.number}",
            effect="nothing was changed",
            hint="add --yes when you are sure that they will not come",
        )
    provider = workspace.provider(workspace.frozen_plan(chunk.settings))
    status, because = found.status, f"given up by a person: {found.why}"
    usage = None if status is None or status.usage is None else status.usage.as_dict()
    with workspace.ledger.transaction() as db:
        # what was counted while a batch ran says nothing of what it has cost
        counts = {} if status is None else status.counts
        transitions.observe(db, intent.id, "unknown" if status is None else status.vendor_status, counts)
        if chunk.state is ChunkState.SUBMITTED:
            transitions.end(db, intent.id, because=because, usage=usage)
    missing = collect.fetch(workspace, provider, chunk, intent, found.there, given_up=because)
    if not missing:
        return f"every answer of chunk {chunk.number} was there"
    return f"{plural(missing, 'answer')} of chunk {chunk.number} given up; a rerun asks for their rows again"
