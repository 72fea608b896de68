"""Asking the provider to stop batches: for `cancel`, and for a deadline that may be missed.

A cancel costs nothing and may be repeated. What was asked is in the ledger, so that a command that goes on after a kill
asks for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchctl.files import crash_point
from batchctl.ledger import queries, transitions
from batchctl.model.errors import NotFound
from batchctl.workflow.workspace import Workspace

if TYPE_CHECKING:
    from batchctl.providers.guard import Guarded

ASKED = "cancel asked"


def stop_batches(workspace: Workspace, provider: Guarded, run: queries.Run, *, again: bool) -> list[str]:
    """Ask for a stop of each batch of the run that has not ended; their ids. `again`: also where it was asked before."""
    ledger = workspace.ledger
    before = set() if again else {one["intent"] for one in queries.events(ledger.db, run.id) if one["became"] == ASKED}
    asked = []
    for intent in queries.live_intents(ledger.db, run.id).values():
        if intent.batch_id is None or intent.ended_at is not None or intent.id in before:
            continue
        workspace.same_account(provider, intent.account, intent.batch_id)
        try:
            provider.cancel(intent.batch_id)
        except NotFound:  # the others are still to be stopped
            workspace.options.note(f"{provider.name} does not know batch {intent.batch_id}: it was not cancelled")
            continue
        crash_point("K17")
        with ledger.transaction() as db:
            transitions.record_event(db, run.id, ASKED, intent.batch_id, chunk=intent.chunk, intent=intent.id)
        asked.append(intent.batch_id)
    return asked
