"""The background lane: one or a few long requests that the provider runs by itself (OpenAI Responses, `background=true`).

Each is created once: on record in the ledger before it leaves, with the provider's id as soon as the answer is there. Then
it is looked up by that id until it has ended, and its answer is kept as one of the live lane is. Nothing lists such
requests: one whose create got no answer cannot be found, so its row is held for a person and never asked again by itself.
The provider keeps answers for a short time only ("roughly 10 minutes", developers.openai.com/api/docs/guides/background,
read 2026-11-21): keep `poll --wait` going.
"""

from __future__ import annotations

import os

from batchctl.files import crash_point, storage_failed
from batchctl.ledger import live_calls, queries
from batchctl.ledger.queries import Chunk
from batchctl.model.batches import LiveAnswer
from batchctl.model.errors import BatchctlError, NotFound, OutcomeUnknown
from batchctl.providers.guard import Guarded
from batchctl.workflow import money
from batchctl.workflow.live import Booked, Sending, begun
from batchctl.workflow.live_width import Row, line_of
from batchctl.workflow.workspace import Workspace

MOST_AT_ONCE = 16


def under_way(chunk: Chunk) -> bool:
    """Whether a chunk's requests run in background."""
    return begun(chunk, money.BACKGROUND)


def look(workspace: Workspace, provider: Guarded, run: queries.Run, chunk: Chunk) -> bool:
    """Collect what has ended, create what there is room for; whether every row of the chunk has its end."""
    work = _Long(workspace, provider, run, chunk)
    work.begin()
    work.recover()
    with work.writing():
        work.collect()
        work.create()
    work.finish()
    return work.complete


def close(workspace: Workspace, provider: Guarded, run: queries.Run, chunk: Chunk, why: str) -> bool:
    """Stop what runs, collect it once it has ended, and leave the rest unsent."""
    work = _Long(workspace, provider, run, chunk)
    work.recover()
    for name in work.running.values():
        provider.stop(name)
    with work.writing():
        work.collect()
        if not work.running:
            work.leave_rest(why)
    work.finish()
    return work.complete


class _Long(Sending):
    """One chunk of long requests."""

    lane = money.BACKGROUND

    def collect(self) -> None:
        """The answers of requests that have ended, to disk and into the books."""
        for custom_id, name in list(self.running.items()):
            try:
                answer = self.provider.look(name)
            except NotFound as error:
                self.workspace.options.note(
                    f"{self.provider.name} does not know `{name}` any more: {error.what}; its row is held"
                )
                self._lose(custom_id)
                continue
            if answer is not None:
                self._keep(custom_id, answer)

    def create(self) -> None:
        """Begin requests while there is room, within the budget."""
        left = money.live_room(self.workspace, self.run, self.bounds)
        most = self.workspace.policy.limits.calls_at_once or MOST_AT_ONCE
        for row in self._rows():
            if row.custom_id in self.running:
                continue
            if len(self.running) >= most:
                return
            if left is not None and row.bound is not None:
                if row.bound > left:
                    if self.running:
                        return  # what runs now may cost less than it could
                    raise money.budget_reached(self.workspace, self.run, "the next background call", row.bound, left)
                left -= row.bound
            self._create(row)

    def _create(self, row: Row) -> None:
        ledger, run = self.workspace.ledger, self.run.id
        self.workspace.still_ours()
        with ledger.transaction() as db:
            calls = [(row.custom_id, row.bound)]
            live_calls.open_calls(db, run, self.chunk.settings, self.lane, calls, chunk=self.chunk.number)
        crash_point("B1")
        try:
            name = self.provider.start(self.codec.live_body(row.line), self.plan.endpoint)
        except OutcomeUnknown as error:
            self.workspace.options.note(f"a background request got no answer ({error.what}): its row is held")
            self._lose(row.custom_id)
            return
        except BatchctlError:  # every other outcome of ours is a certain refusal
            self._close(row.custom_id, ("refused", None, None))
            raise
        crash_point("B2")
        with ledger.transaction() as db:
            live_calls.run_call(db, run, row.custom_id, name)
        self.running[row.custom_id] = name

    def _keep(self, custom_id: str, answer: LiveAnswer) -> None:
        self.out.write(line_of(custom_id, answer))
        self._flush()
        try:
            os.fsync(self.out.fileno())
        except OSError as error:
            raise storage_failed(error, self.path) from error
        crash_point("B3")
        self._close(custom_id, self._booking(answer.status, answer.body))
        del self.running[custom_id]
        self.settled.add(custom_id)

    def _close(self, custom_id: str, booked: Booked) -> None:
        with self.workspace.ledger.transaction() as db:
            live_calls.close_calls(db, self.run.id, [(custom_id, *booked)])

    def _lose(self, custom_id: str) -> None:
        with self.workspace.ledger.transaction() as db:
            live_calls.lose_calls(db, self.run.id, [custom_id])
        self.running.pop(custom_id, None)
        self.settled.add(custom_id)
