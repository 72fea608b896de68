"""What the provider has of a run, against what the ledger says of it. Asks only what is free, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from batchctl.ledger import queries
from batchctl.ledger.queries import Intent
from batchctl.model.batches import BatchState
from batchctl.model.errors import NotFound
from batchctl.providers.guard import Guarded
from batchctl.workflow.reconcile import window_start
from batchctl.workflow.reports import plural
from batchctl.workflow.workspace import Workspace


@dataclass
class Remote:
    """`differences` are for a person to see, `notes` are not; `batches` are the ledger's, as the provider has them."""

    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        found = len(self.differences)
        told = plural(found, "difference") if found else "as the ledger says"
        first = f"{plural(len(self.batches), 'batch', 'batches')} at the provider: {told}"
        return [first, *(f"  {one}" for one in [*self.differences, *self.notes])]


def compared(workspace: Workspace, run: queries.Run) -> Remote:
    """Every submission of a run: its batch is there, has the counts that were recorded, and is the only one with our mark.

    Raises `NotAllowed` when the key is not the one the run was submitted with: another key would see nothing.
    """
    found = Remote()
    intents = queries.intents(workspace.ledger.db, run.id)
    if not intents:
        found.notes.append("nothing of this run was sent")
        return found
    provider = workspace.provider(workspace.frozen_plan())
    known = queries.batches_claimed(workspace.ledger.db)
    for intent in intents:
        workspace.same_account(provider, intent.account, intent.batch_id or intent.id)
        if intent.batch_id is not None:
            _batch(provider, intent, intent.batch_id, found)
        if provider.traits.searchable:
            since = window_start(intent)
            for one in provider.find(intent.staged, tag=intent.id, since=since, known=known):
                if one.batch_id not in known and intent.state != "open":
                    found.differences.append(
                        f"chunk {intent.chunk}: batch {one.batch_id} ({one.vendor_status}) carries its mark and is not in "
                        "the ledger; it may be charged"
                    )
        if intent.state == "open":
            found.differences.append(f"chunk {intent.chunk}: its outcome is unknown; see `batchctl resolve {run.id}`")
    if not provider.traits.searchable:
        found.notes.append(f"batches at {provider.name} carry no mark: second ones cannot be looked for")
    return found


def _batch(provider: Guarded, intent: Intent, batch_id: str, found: Remote) -> None:
    facts: dict[str, Any] = {"chunk": intent.chunk, "batch_id": batch_id, "recorded": intent.vendor_status}
    try:
        status = provider.poll(batch_id)
    except NotFound:
        found.batches.append(facts | {"vendor_status": None, "counts": None})
        if intent.ended_at is None:
            found.differences.append(f"chunk {intent.chunk}: the provider does not know batch {batch_id}")
        else:
            found.notes.append(
                f"chunk {intent.chunk}: batch {batch_id} is not kept there any more; its results are here"
            )
        return
    found.batches.append(facts | {"vendor_status": status.vendor_status, "counts": dict(status.counts)})
    if intent.ended_at is None:
        if status.state is BatchState.ENDED:
            found.notes.append(f"chunk {intent.chunk}: batch {batch_id} has ended; `batchctl poll` collects it")
        return
    if dict(status.counts) != intent.counts:
        now, then = _counts(status.counts), _counts(intent.counts)
        found.differences.append(f"chunk {intent.chunk}: batch {batch_id} counts {now}, it was {then} when collected")


def _counts(counts: Any) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items())) or "nothing"
