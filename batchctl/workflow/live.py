"""The live lane: the requests of a chunk one by one through the synchronous endpoint, many under way at once.

Every call is on record in the ledger before it leaves, with the most it can cost. An answer is synced to disk before it
counts; a call that was certainly not acted upon is free to be made again; of any other nobody knows, and it is never made
again by itself: its row is held for a person. So a kill at any moment loses no answer that was recorded and repeats no
call that may be billed; the same command goes on with the rows that are left.

Some calls are on record before there is room for them, so that one leaves the moment another is answered and does not wait
for a disk. Those that never left are given back when the command ends; after a kill nobody can tell them from the others.

What comes back is written in the order it comes, one line a row: `{"custom_id", "live": {"status", "request_id", "body"}}`
with the body's own bytes. When no row is left the file becomes the chunk's result file, and everything after that
(validate, rerun, report) is the same as for a batch.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from batchctl.chunks.names import lines_name, live_name, results_name
from batchctl.files import BLOCK_BYTES, crash_point, open_private, sha256_of, storage_failed, sync_directory
from batchctl.judging.wires import READERS
from batchctl.ledger import asked, live_calls, queries, transitions
from batchctl.ledger.live_calls import Closed
from batchctl.ledger.queries import Chunk
from batchctl.ledger.transitions import ChunkState
from batchctl.model.batches import LiveAnswer
from batchctl.model.errors import (
    BatchctlError,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from batchctl.model.ids import intent_id
from batchctl.providers.guard import Guarded
from batchctl.providers.live import caller
from batchctl.workflow import money
from batchctl.workflow.live_signals import signals
from batchctl.workflow.live_width import MOST_AT_ONCE, Row, Width, line_of
from batchctl.workflow.reports import plural
from batchctl.workflow.request_file import request_file
from batchctl.workflow.workspace import Workspace

REFUSALS_BEFORE_GIVING_UP = 8
LOST_BEFORE_GIVING_UP = 5
GATHER_SECONDS = 0.004
DRAIN_SECONDS = 4.0  # after a signal, for answers that are under way and may be paid


def send(workspace: Workspace, provider: Guarded, run: queries.Run, chunk: Chunk) -> None:
    """Send a planned chunk live, or go on with one that was begun, until every row has an answer or is held.

    Raises what stopped it; what was answered until then is on disk, and another call goes on from there.
    """
    request_file(workspace, run, chunk)
    workspace.still_ours()
    work = Sending(workspace, provider, run, chunk)
    work.begin()
    work.recover()
    with work.writing():
        work.send_rest()
    work.finish()


def close(workspace: Workspace, provider: Guarded, run: queries.Run, chunk: Chunk, why: str) -> None:
    """End a chunk that was begun: what is answered counts, what was never sent can be rerun, the lost rows are held."""
    work = Sending(workspace, provider, run, chunk)
    work.recover()
    with work.writing():
        work.leave_rest(why)
    work.finish()


def begun(chunk: Chunk, lane: str = money.LIVE) -> bool:
    """Whether a chunk is under way in the live lane, or another that sends row by row."""
    return chunk.lane == lane and chunk.state is ChunkState.SUBMITTED


Booked = tuple[str, int | None, Mapping[str, int] | None]
"""What became of a call, its cost and its tokens."""
LOST: Booked = ("lost", None, None)
MAY_BE_BILLED = ("open", "answered", "untold")
_Outcome = tuple[Row, LiveAnswer | BaseException]


class Sending:
    """One chunk on its way."""

    lane = money.LIVE

    def __init__(self, workspace: Workspace, provider: Guarded, run: queries.Run, chunk: Chunk) -> None:
        from batchctl.workflow.judge import expected  # tables: `status` and `submit --help` come by here and read none

        self.workspace = workspace
        self.provider = provider
        self.run = run
        self.chunk = chunk
        self.plan = workspace.frozen_plan(chunk.settings)
        self.codec = self.plan.codec()
        self.reader = READERS[self.plan.wire]
        self.bounds = money.bounds_of(workspace, run, chunk.settings, "live")
        directory = workspace.directory(run.id)
        self.lines = directory / "chunks" / lines_name(chunk.number)
        self.ids = [one.decode() for one in expected(directory / "chunks", chunk.number)]
        self.path = directory / "results" / live_name(chunk.number, chunk.attempt)
        self.target = directory / "results" / results_name(chunk.number, chunk.attempt)
        self.settled: set[str] = set()  # answered or lost: not sent again
        self.left: int | None = None  # of the budget
        self.failure: BatchctlError | None = None
        self.short: int | None = None  # what the call that the budget has no room for could cost
        self.signal = 0
        self.signals: tuple[int, ...] = ()  # those that the loop catches
        self.tasks: set[asyncio.Task[None]] = set()
        self.ready: deque[Row] = deque()  # on record, and not sent yet
        self.pace = 0  # answers that came back together the last time: so many more calls go on record
        self.flying = 0  # sent, and nothing has come back
        self.under_way = 0  # those, and what has come back and is not recorded
        most = workspace.policy.limits.calls_at_once or MOST_AT_ONCE
        learnt = queries.window(workspace.ledger.db, self._window)
        self.width = Width(most, learnt, provider.waits)
        limit = workspace.options.max_wait_seconds
        self.end = None if limit is None else time.monotonic() + limit

    @property
    def _window(self) -> str:
        return f"{self.provider.name} live"

    # --- before ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Put on record that the chunk is sent live."""
        account = self.workspace.account(self.provider)
        ledger, chunk = self.workspace.ledger, self.chunk
        if begun(chunk, self.lane):
            intent = queries.live_intents(ledger.db, self.run.id)[chunk.number]
            self.workspace.same_account(self.provider, intent.account, intent.id)
            return
        self.left = money.live_room(self.workspace, self.run, self.bounds)
        first = next(self._rows()).bound
        if self.left is not None and first is not None and first > self.left:  # nothing is begun that cannot be paid
            raise money.budget_reached(self.workspace, self.run, f"the next {self.lane} call", first, self.left)
        number = queries.sends(ledger.db, self.run.id, chunk.number) + 1
        tag = intent_id(ledger.workspace, self.run.id, chunk.number, chunk.attempt, number, chunk.sha256)
        self.workspace.mark_sent(self.run.id)
        with ledger.transaction() as db:
            live_calls.begin(
                db,
                intent=tag,
                run=self.run.id,
                chunk=chunk.number,
                lane=self.lane,
                account=account,
                sha256=chunk.sha256,
                epoch=int(time.time()),
            )

    def recover(self) -> None:
        """What an earlier command left: its answers are booked, calls without an answer are lost."""
        if self.target.exists() and not self.path.exists():  # it ended between the rename and the record of it
            os.replace(self.target, self.path)
        answers = self._stored()
        calls = queries.calls_of(self.workspace.ledger.db, self.run.id, self.chunk.number)
        answered = [key for key, state in calls.items() if state in ("open", "running") and key in answers]
        lost = [key for key, state in calls.items() if state in MAY_BE_BILLED and key not in answers]
        if answered or lost:
            with self.workspace.ledger.transaction() as db:
                closed: list[Closed] = [(key, *self._booking(*answers[key])) for key in answered]
                live_calls.close_calls(db, self.run.id, closed)
                live_calls.lose_calls(db, self.run.id, lost)
        if lost:
            self.workspace.options.note(
                f"chunk {self.chunk.number}: {plural(len(lost), 'call')} had no answer when an earlier command ended; "
                "they may be billed and are not sent again"
            )
        running = asked.running_calls(self.workspace.ledger.db, self.run.id, self.chunk.number)
        self.running = {key: handle for key, handle in running.items() if key not in answers}
        gone = {key for key, state in calls.items() if state in ("lost", "absent", "abandoned")}
        self.settled = gone.union(lost, answers)

    def _stored(self) -> dict[str, tuple[int, Any]]:
        """custom_id to (status, body) of calls that are still open; of the others only that they are answered."""
        found: dict[str, tuple[int, Any]] = {}
        if not self.path.exists():
            return found
        whole = 0
        calls = queries.calls_of(self.workspace.ledger.db, self.run.id, self.chunk.number)
        with self.path.open("rb", buffering=BLOCK_BYTES) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    value = orjson.loads(line)
                except orjson.JSONDecodeError:
                    break  # a power cut left something else: what was in it is lost
                whole += len(line)
                answer = value["live"]
                wanted = answer is not None and calls.get(value["custom_id"]) in ("open", "running")
                status = 0 if answer is None else answer["status"]
                found[value["custom_id"]] = (status, answer["body"] if wanted else None)
        if whole != self.path.stat().st_size:  # what was being written when the process was killed
            os.truncate(self.path, whole)
        return found

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The file of answers, open for appending."""
        fresh = not self.path.exists()
        with open_private(self.path, append=True) as self.out:
            if fresh:
                sync_directory(self.path.parent)
            yield

    # --- during ---------------------------------------------------------------------------------------------------

    def send_rest(self) -> None:
        """Every row that is left, as far as budget, provider and time allow."""
        self.left = money.live_room(self.workspace, self.run, self.bounds)
        self.waiting = self._rows()
        self.again: deque[Row] = deque()
        with signals(self):
            asyncio.run(self._all())
        if self.width.narrowed:
            with self.workspace.ledger.transaction() as db:
                transitions.set_window(db, self._window, self.width.now)
        if self.failure is not None:
            raise self.failure
        if self.short is not None:
            raise money.budget_reached(self.workspace, self.run, "the next live call", self.short, self.left or 0)

    def _rows(self) -> Iterator[Row]:
        with self.lines.open("rb", buffering=BLOCK_BYTES) as file:
            for custom_id, line in zip(self.ids, file, strict=True):
                if custom_id not in self.settled:
                    yield Row(custom_id, line, self.bounds.most(len(line), 1))

    @property
    def _stopping(self) -> bool:
        over = self.end is not None and time.monotonic() >= self.end
        return self.failure is not None or self.signal > 0 or over

    async def _all(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.came: asyncio.Queue[_Outcome | None] = asyncio.Queue()
        for number in self.signals:
            self.loop.add_signal_handler(number, self._signalled, number)
        done: list[_Outcome] = []
        async with caller(self.provider, self.plan.endpoint, self.width.most) as self.call:
            while True:
                going = self._next()
                await self._record(done, going)
                done.clear()
                self.ready += going
                self._leave()
                if not self.under_way and not self.ready and not self._goes_on():
                    return
                done += await self._outcomes()
                if self.signal:
                    await self._drained(done)
                    return

    def _leave(self) -> None:
        """Calls that are on record are made, as far as there is room."""
        while self.ready and self.flying < self.width.now and not self._stopping and not self.width.pause:
            row = self.ready.popleft()
            row.turn = self.width.turn
            self.flying += 1
            self.under_way += 1
            task = self.loop.create_task(self._one(row))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _goes_on(self) -> bool:
        """Nothing is under way: is there a row that only has to wait?"""
        return not self._stopping and self.short is None and bool(self.again or self._peek())

    def _peek(self) -> bool:
        row = next(self.waiting, None)
        if row is not None:
            self.again.append(row)
        return row is not None

    def _next(self) -> list[Row]:
        """The rows whose calls go on record now: those that leave at once, and some that leave when there is room."""
        going: list[Row] = []
        self.short = None
        wanted = self.width.now + min(self.pace, self.width.now // 2) - self.flying - len(self.ready)
        while not self._stopping and not self.width.pause and len(going) < wanted:
            row = self.again.popleft() if self.again else next(self.waiting, None)
            if row is None:
                break
            if self.left is not None and row.bound is not None:
                if row.bound > self.left:
                    self.again.appendleft(row)
                    self.short = row.bound
                    break
                self.left -= row.bound
            going.append(row)
        return going

    def _signalled(self, number: int) -> None:
        """The first signal wakes the loop, which records what still comes; a second gives that up."""
        if self.signal:
            for task in self.tasks:
                task.cancel()
        self.signal = number
        self.came.put_nowait(None)

    async def _one(self, row: Row) -> None:
        try:
            answer: LiveAnswer | BaseException = await self.call.ask(self.codec.live_body(row.line))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # every outcome goes to the one place that records it
            answer = error
        self.flying -= 1
        self.came.put_nowait((row, answer))
        if isinstance(answer, LiveAnswer):  # after anything else the width is looked at before the next call
            self.width.answered(row, answer)
            self._leave()

    async def _outcomes(self) -> list[_Outcome]:
        """What has come back, at least one of it unless a pause ends first."""
        pause = self.width.pause
        try:
            first = await asyncio.wait_for(self.came.get(), pause if pause or not self.under_way else None)
        except TimeoutError:
            return []
        if self.ready:  # nobody waits for the record of it: what comes in the next moment shares one
            await asyncio.sleep(GATHER_SECONDS)
        return self._taken(first)

    def _taken(self, first: _Outcome | None = None) -> list[_Outcome]:
        """Everything that waits to be recorded; None in the queue only wakes."""
        found = [] if first is None else [first]
        while not self.came.empty():
            one = self.came.get_nowait()
            found += [] if one is None else [one]
        self.under_way -= len(found)
        return found

    async def _drained(self, done: list[_Outcome]) -> None:
        """After a signal: record what still comes within seconds. Nothing more is sent."""
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=DRAIN_SECONDS)
        await self._record([*done, *self._taken()], [])
        for task in list(self.tasks):
            task.cancel()

    def _given_back(self) -> list[Row]:
        """Once nothing more is sent: the rows whose calls are on record and never left."""
        if not self._stopping:
            return []
        rows = list(self.ready)
        self.ready.clear()
        self.again.extendleft(reversed(rows))
        return rows

    async def _record(self, done: list[_Outcome], going: list[Row]) -> None:
        """Answers to disk, then what became of their calls and which calls leave next, in one transaction."""
        self.pace = len(done)
        back = self._given_back()
        if not done and not going and not back:
            return
        closed: list[Closed] = [(row.custom_id, "refused", None, None) for row in back]
        for row in back:
            self._refund(row, "refused", None)
        settled = []
        wrote = False
        for row, answer in done:
            if isinstance(answer, LiveAnswer):
                self.out.write(line_of(row.custom_id, answer))
                wrote = True
                booked = self._booking(answer.status, answer.body)
            else:
                booked = (self._failed(row, answer), None, None)
            if isinstance(answer, LiveAnswer) or booked == LOST:
                settled.append(row.custom_id)
            closed.append((row.custom_id, *booked))
            self._refund(row, *booked[:2])
        if wrote:
            self._flush()
            crash_point("L2")
            synced = self.loop.run_in_executor(None, os.fsync, self.out.fileno())  # beside the ledger's own
        self.workspace.still_ours()
        with self.workspace.ledger.transaction() as db:
            if closed:
                live_calls.close_calls(db, self.run.id, closed)
            opened = [(row.custom_id, row.bound) for row in going]
            live_calls.open_calls(db, self.run.id, self.chunk.settings, money.LIVE, opened, chunk=self.chunk.number)
        if wrote:
            try:
                await synced
            except OSError as error:
                raise storage_failed(error, self.path) from error
        self.settled.update(settled)
        self.workspace.options.progress("live", len(self.settled), len(self.ids))
        crash_point("L1")

    def _flush(self) -> None:
        try:
            self.out.flush()
        except OSError as error:
            raise storage_failed(error, self.path) from error

    def _refund(self, row: Row, state: str, cost: int | None) -> None:
        """What a call did not cost of what it could have is free for others again."""
        if self.left is None or row.bound is None:
            return
        if state in ("refused", "declined"):
            self.left += row.bound
        elif state == "answered" and cost is not None:
            self.left += row.bound - cost

    def _booking(self, status: int, body: Any) -> Booked:
        """How an answered call is booked. An error is not billed; an answer without tokens costs nobody knows how much."""
        if status != 200:
            return "declined", None, None
        found = self.reader.body(body, self.plan.endpoint, self.plan.job.output.mode)
        usage = found.usage
        if usage is None:
            return "untold" if found.paid else "declined", None, None
        price = self.bounds.price
        return "answered", None if price is None else price.rates.cost(usage), usage.as_dict()

    def _failed(self, row: Row, error: BaseException) -> str:
        """What a call that raised means for its row and for the others."""
        if isinstance(error, Throttled) and not error.billing:
            self.again.append(row)
            self.width.refused(row, error.wait_seconds)
            if self.width.refusals >= REFUSALS_BEFORE_GIVING_UP:
                self.failure = error
            return "refused"
        if isinstance(error, (Throttled, NotAllowed, NotFound, Rejected)):
            self.again.append(row)
            self.failure = self.failure or error
            return "refused"
        self.width.unknown(row)
        if not isinstance(error, OutcomeUnknown):
            raise error
        if self.width.lost >= LOST_BEFORE_GIVING_UP:
            self.failure = self.failure or OutcomeUnknown(
                f"{self.width.lost} live calls in a row got no answer: {error.what}",
                where=(*error.where, f"run {self.run.id}, chunk {self.chunk.number}"),
                effect="they may be billed and are not sent again; no further call was made",
                hint="run the same command again when the provider answers: it goes on with the other rows",
            )
        return "lost"

    # --- after ----------------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        return len(self.settled) == len(self.ids)

    def leave_rest(self, why: str) -> None:
        """Rows that were never sent get a line that says so."""
        for custom_id in self.ids:
            if custom_id not in self.settled:
                self.out.write(orjson.dumps({"custom_id": custom_id, "live": None, "why": why}) + b"\n")
                self.settled.add(custom_id)
        self._flush()
        os.fsync(self.out.fileno())

    def finish(self) -> None:
        """Once no row is left, the answers become the chunk's results."""
        if not self.complete:
            return
        os.replace(self.path, self.target)
        sync_directory(self.target.parent)
        crash_point("L3")
        db = self.workspace.ledger.db
        most = asked.most_lost(db, self.run.id, self.chunk.number)
        intent = queries.live_intents(db, self.run.id)[self.chunk.number]
        with self.workspace.ledger.transaction() as transaction:
            live_calls.finish(
                transaction,
                intent.id,
                {self.target.name: sha256_of(self.target)},
                bound=None if most is None else most * self.chunk.requests,
                because=f"every row was asked for in the {self.lane} lane",
            )
