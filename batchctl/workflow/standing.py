"""Where a run stands, as several reports tell it. Reads the ledger and loads nothing else: `status` is to be instant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from batchctl.ledger import queries
from batchctl.model.rows import RowState
from batchctl.workflow.workspace import Workspace


def chunk_lines(workspace: Workspace, run: queries.Run) -> Iterator[str]:
    """One line per chunk, for summaries."""
    intents = queries.last_intents(workspace.ledger.db, run.id)
    for chunk in queries.chunks(workspace.ledger.db, run.id):
        intent = intents.get(chunk.number)
        batch = intent.batch_id if intent is not None and intent.batch_id else ""
        vendor = intent.vendor_status if intent is not None and intent.vendor_status else ""
        kind = f" (attempt {chunk.attempt})" if chunk.attempt > 1 else " (canary)" if chunk.canary else ""
        label = f"chunk {chunk.number}{kind}"
        noun = "request " if chunk.requests == 1 else "requests"
        yield f"  {label:<22} {chunk.state:<10} {chunk.requests:>8,} {noun}  {vendor:<12} {batch}".rstrip()


def is_simulated(workspace: Workspace) -> bool:
    settings = queries.settings(workspace.ledger.db, workspace.run.id)
    return any(one.provider == "emulator" for one in settings.values())


@dataclass(frozen=True, slots=True)
class BrokenShare:
    """A share rule that does not hold for a run."""

    name: str
    rows: int
    of: int
    most: Fraction

    @property
    def words(self) -> str:
        """For a summary."""
        return (
            f"{self.name}: {self.rows / self.of:.1%} of {self.of:,} rows; at most {float(self.most * 100):g}% allowed"
        )


def share_facts(broken: list[BrokenShare]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [
        {"name": one.name, "rows": one.rows, "of": one.of, "share": one.rows / one.of, "max_share": float(one.most)}
        for one in broken
    ]


def broken_shares(workspace: Workspace, run: queries.Run) -> list[BrokenShare]:
    """The share rules a run breaks as it is now: while there is one, it must not be published.

    A chunk that was judged before a rule was written counts nothing for it: `judged` comes first.
    """
    job = workspace.policy
    if not any(rule.max_share is not None for rule in job.rules):
        return []
    counted = queries.shares(workspace.ledger.db, run.id)
    balance = queries.balance(workspace.ledger.db, run.id)
    of = balance[RowState.COMPLETED] + balance[RowState.PUBLISHED]
    return [
        BrokenShare(rule.name, counted.get(rule.name, 0), of, rule.max_share)
        for rule in job.rules
        if rule.max_share is not None and rule.check is None and counted.get(rule.name, 0) > rule.max_share * of
    ]
