"""The paid calls of a dry run: each on record before it leaves, its answer on disk before it counts.

`dry-run.jsonl` has one line an answer, under the digest of its request. What a killed dry run left is put straight by the
next one: an answer that is on disk is booked, a call without one may have been paid, counts against the budget with the
most it can cost, and is never made again.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import orjson

from batchctl.files import crash_point, open_private, storage_failed, sync_directory
from batchctl.judging.wires import READERS
from batchctl.ledger import asked, live_calls, queries
from batchctl.model.batches import LiveAnswer
from batchctl.model.errors import BatchctlError, NotAllowed, NotFound, Rejected, Throttled
from batchctl.providers.guard import Guarded
from batchctl.workflow import money
from batchctl.workflow.sampling import Sampled
from batchctl.workflow.workspace import Plan, Workspace

NAME = "dry-run.jsonl"
AT_ONCE = 8
DRAIN_SECONDS = 4.0
THROTTLED_TRIES = 5
REFUSED, LOST = -1, 0
"""Statuses of calls without an answer: certainly not acted upon, and nobody knows."""


Answer = Future[dict[str, Any]]


class SampleCalls:
    """The calls of one run's dry runs."""

    def __init__(self, workspace: Workspace, run: queries.Run, plan: Plan) -> None:
        self.workspace = workspace
        self.run = run
        self.plan = plan
        self.path = workspace.directory(run.id) / NAME
        self.price = money.price_of(workspace, run, run.settings, "live")

    def recover(self) -> set[str]:
        """Close what a killed dry run left open. The keys of all calls whose answer is not here: not to be asked again."""
        self._cut_half_line()
        db = self.workspace.ledger.db
        left = asked.open_samples(db, self.run.id)
        if left:
            answers = {one["key"]: one for one in self._lines() if left.get(one["key"]) == 1}  # else: of which call?
            with self.workspace.ledger.transaction() as transaction:
                for key in sorted(left):
                    self._close(transaction, answers.get(key, {"key": key, "status": LOST}))
        paid = asked.paid_samples(db, self.run.id)
        here = {one["key"] for one in self._lines() if one["status"] == 200}
        return {key for key, state in paid.items() if state == "lost" or key not in here}

    def stored(self, max_age: float) -> dict[str, Any]:
        """Answers of earlier dry runs of this run that are young enough, by key."""
        oldest = time.time() - max_age
        return {one["key"]: one for one in self._lines() if one["at"] >= oldest and one["status"] == 200}

    def ask(self, provider: Guarded, fresh: list[Sampled]) -> dict[str, Any]:
        """One live call for each; answers are on disk before they are counted."""
        self.answers: dict[str, Any] = {}
        self.failure: BatchctlError | None = None
        if not fresh:
            return self.answers
        waiting = deque(zip(fresh, self._most(fresh), strict=True))
        under_way: dict[Answer, Sampled] = {}
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            fresh_file = not self.path.exists()
            with open_private(self.path, append=True) as out:
                if fresh_file:
                    sync_directory(self.path.parent)  # its name must survive what its content survives
                try:
                    while under_way or (waiting and self.failure is None):
                        while waiting and self.failure is None and len(under_way) < AT_ONCE:
                            one, bound = waiting.popleft()
                            self._open(one, bound)
                            under_way[pool.submit(self._call, provider, one)] = one
                            crash_point("S1")
                        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                            self._record(out, under_way[future], future)
                            del under_way[future]
                            self.workspace.options.progress("dry-run", len(self.answers), len(fresh))
                except BaseException as stopped:
                    if not isinstance(stopped, Exception):  # a signal; a second one ends the process at once
                        self._drain(out, under_way)
                    raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # a signal does not wait for slow answers
        if self.failure is not None:
            raise self.failure
        return self.answers

    def _open(self, one: Sampled, bound: int | None) -> None:
        """A call on record, before it leaves."""
        self.workspace.still_ours()
        with self.workspace.ledger.transaction() as db:
            live_calls.open_calls(db, self.run.id, self.run.settings, "dry-run", [(one.key, bound)])

    def _record(self, out: Any, one: Sampled, future: Answer) -> None:
        """What came back to disk, then into the books. A failure ends the sending; what is under way is still kept."""
        try:
            answer = future.result()
        except BatchctlError as error:
            self.failure = self.failure or error
            answer = {"key": one.key, "status": REFUSED}
        else:
            self._keep(out, answer)
            crash_point("S2")
            self.answers[one.key] = answer
        with self.workspace.ledger.transaction() as db:
            self._close(db, answer)

    def _drain(self, out: Any, under_way: dict[Answer, Sampled]) -> None:
        """After a signal: record what comes within seconds, for it is paid. Nothing more is sent."""
        done = wait(under_way, timeout=DRAIN_SECONDS).done
        still_open = asked.open_samples(self.workspace.ledger.db, self.run.id)
        for future in done:
            if under_way[future].key in still_open:
                self._record(out, under_way[future], future)

    def _most(self, fresh: list[Sampled]) -> list[int | None]:
        """What each call can cost at most. Raises `BudgetReached` when together they could break the budget."""
        price, cap = self.price, money.output_cap(self.plan)
        most = [None if price is None or cap is None else price.rates.at_most(len(one.body), cap) for one in fresh]
        money.require_calls(self.workspace, self.run, most, priced=price is not None)
        return most

    def _call(self, provider: Guarded, one: Sampled) -> dict[str, Any]:
        """One call and what came back. Raises only what was certainly not acted upon."""
        try:
            answer = self._answered(provider, one.body)
        except (NotAllowed, NotFound, Throttled, Rejected):
            raise
        except BatchctlError as error:  # unknown outcome: it may be paid, so it is not asked again
            return {"key": one.key, "at": int(time.time()), "status": LOST, "body": {"error": {"message": error.what}}}
        return {
            "key": one.key,
            "at": int(time.time()),
            "status": answer.status,
            "body": answer.body,
            "seconds": round(answer.seconds, 3),
        }

    def _answered(self, provider: Guarded, body: bytes) -> LiveAnswer:
        """One live call; a certain refusal for lack of room is waited out, nothing else is repeated."""
        for turn in range(THROTTLED_TRIES):
            try:
                return provider.call(body, self.plan.endpoint)
            except Throttled as error:
                if error.billing or turn == THROTTLED_TRIES - 1:
                    raise
                pause = error.wait_seconds if error.wait_seconds is not None else 2.0**turn
                self.workspace.options.sleep(min(30.0, pause) * provider.waits)
        raise AssertionError("unreachable")

    def _keep(self, out: Any, answer: dict[str, Any]) -> None:
        try:
            out.write(orjson.dumps(answer) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        except OSError as error:
            raise storage_failed(error, self.path) from error

    def _close(self, db: Any, answer: dict[str, Any]) -> None:
        """Book one call from its answer. An error is not billed; a lost answer may be, and nobody knows how much."""
        state, usage, cost = "refused", None, None
        if answer["status"] == 200:
            plan = self.plan
            state, usage = (
                "answered",
                READERS[plan.wire].body(answer["body"], plan.endpoint, plan.job.output.mode).usage,
            )
            cost = None if self.price is None or usage is None else self.price.rates.cost(usage)
            state = "lost" if usage is None else state
        elif answer["status"] == LOST:
            state = "lost"
        facts = None if usage is None else usage.as_dict()
        live_calls.close_call(db, self.run.id, answer["key"], state, cost=cost, usage=facts)

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Every answer on disk, oldest first; what a power cut left of a line is passed over."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for line in file:
                try:
                    answer = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                yield answer

    def _cut_half_line(self) -> None:
        """The line that was being written when a dry run was killed: another behind it could not be read."""
        if not self.path.is_file():
            return
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                whole += len(line) if line.endswith(b"\n") else 0
        if whole != self.path.stat().st_size:
            os.truncate(self.path, whole)
