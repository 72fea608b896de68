"""The emulator as the vendor of the provider contract."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any, ClassVar

from tests.support.provider import Provider, until

ENDED = ("completed", "failed", "expired", "cancelled")


class Emulated:
    """What the contract does to a vendor, done to the emulator, whatever wire it speaks.

    `calls_of` names a fault's target by what it is for; `create_path` is where batches are asked for.
    """

    calls_of: ClassVar[Mapping[str, str]]
    create_path: ClassVar[str]

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.url = provider.url

    def strike(self, call: str, do: str, **more: Any) -> None:
        self.provider.fault(self.calls_of[call], do, **more)

    def creates(self) -> int:
        return len([one for one in self.provider.calls("POST") if one["path"] == self.create_path])

    def batches(self) -> list[str]:
        return [one["id"] for one in self.provider.books().creates]

    def calls(self) -> int:
        return len(self.provider.calls())

    def rows_billed(self) -> int:
        return len(self.provider.books().rows)

    def show(self, batch_id: str, **fields: Any) -> None:
        self.provider.force(batch_id, **fields)

    def end(self, batch_id: str, how: str, *, after: int) -> None:
        """The emulator tells by the clock how far a batch is, so the batch's times are moved."""
        self.reach(batch_id, after)
        self.provider.force(batch_id, status=how)

    def reach(self, batch_id: str, after: int) -> None:
        """The batch runs and has answered `after` of its requests; it takes for ever for the others."""
        self._change(batch_id, "validate_due = 0")
        until(lambda: self._shown(batch_id)["status"] == "in_progress")
        now, total = time.time(), self._shown(batch_id)["requests"]
        span = 1e6
        begun = now - span * (after + 0.5) / total
        self._change(batch_id, f"in_progress_at = {begun}, finalize_due = {begun + span}, end_due = {begun + 2 * span}")

    def _change(self, batch_id: str, what: str) -> None:
        with closing(sqlite3.connect(self.provider.state / "emulator.sqlite", timeout=60)) as db, db:
            db.execute(f"UPDATE batch SET {what} WHERE id = ?", (batch_id,))

    def settle(self, batch_id: str) -> None:
        until(lambda: self._shown(batch_id)["status"] in ENDED)

    def _shown(self, batch_id: str) -> Any:
        return next(one for one in self.provider.books().creates if one["id"] == batch_id)

    def mark_again(self, batch_id: str) -> str:
        raise NotImplementedError
