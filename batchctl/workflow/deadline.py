"""`[lane] deadline`: when it is at risk, what is done then, and whether it was missed.

A deadline is at risk when what is left at the provider could not be cancelled, collected and asked live in time any more:
`on_deadline_risk` says what happens then. `live-tail` cancels the batches, collects what they have finished, and sends only
the rest row by row; `stop` cancels and sends nothing more; `wait` tells and waits. What was decided is in the ledger, so
that a killed command goes on with it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

from batchctl.files import crash_point
from batchctl.ledger import chosen, queries, transitions
from batchctl.ledger.queries import Chunk
from batchctl.ledger.transitions import ChunkState
from batchctl.workflow import money
from batchctl.workflow.reports import plural
from batchctl.workflow.stopping import stop_batches
from batchctl.workflow.workspace import Workspace

if TYPE_CHECKING:
    from batchctl.providers.guard import Guarded

CANCEL_SECONDS = 600  # "up to 10 minutes" (developers.openai.com/api/docs/guides/batch, read 2026-11-21)
CALL_SECONDS = 5  # of one live answer, for an estimate
WAITING = (ChunkState.PLANNED, ChunkState.UPLOADED)
AT_PROVIDER = (ChunkState.INTENT, ChunkState.HELD, ChunkState.SUBMITTED, ChunkState.ENDED)
TAILED = "tailed"  # a live tail whose rows are in live chunks
STOP = "stop"


def due(workspace: Workspace, run: queries.Run) -> datetime | None:
    """The run's deadline; a time of day and a duration count from when it was prepared."""
    wanted = workspace.policy.lane.deadline
    return None if wanted is None else wanted.after(_instant(run.created_at))


def missed(workspace: Workspace, run: queries.Run) -> bool:
    """Whether the deadline passed, or was given up, before every row had its answer."""
    at = due(workspace, run)
    if at is None:
        return False
    now = queries.run(workspace.ledger.db, run.id)
    if now.risk == STOP:
        return True
    if any(one.state in (*WAITING, *AT_PROVIDER) for one in queries.chunks(workspace.ledger.db, run.id)):
        return workspace.now() >= at
    last = queries.last_end(workspace.ledger.db, run.id)
    return last is not None and _instant(last) > at


def owes_tail(workspace: Workspace, run: queries.Run) -> bool:
    """Whether batches were cancelled for a deadline, and what they left is not yet in live chunks."""
    return queries.run(workspace.ledger.db, run.id).risk == "live-tail"


def told(workspace: Workspace, run: queries.Run) -> str | None:
    """One line for summaries; None without a deadline."""
    at = due(workspace, run)
    if at is None:
        return None
    word = "missed" if missed(workspace, run) else "kept" if _finished(workspace, run) else "not reached yet"
    return f"  deadline              {at:%Y-%m-%dT%H:%M:%SZ}   {word}"


def keep(workspace: Workspace, provider: Guarded, run: queries.Run) -> None:
    """Look at the clock, and do what the job file says when the deadline is at risk. Sends nothing itself."""
    db = workspace.ledger.db
    run = queries.run(db, run.id)
    at = due(workspace, run)
    # Decided: batches that a killed command did not come to, or that were found late.
    if run.stopped and run.risk == STOP:
        stop_batches(workspace, provider, run, again=False)
    if at is None or run.stopped or not queries.was_submitted(db, run.id):  # a canary is no reason to hurry
        return
    unfinished = [one for one in queries.chunks(db, run.id) if one.lane == money.BATCH and _open(one)]
    if run.risk == TAILED:
        return
    if run.risk == "live-tail":
        _tail(workspace, provider, run, unfinished)
        return
    left = _left(workspace, run, unfinished)
    wanted = workspace.policy.lane.on_deadline_risk
    if not unfinished or run.risk == wanted or workspace.now() < at - _lead(workspace, run, at, left):
        return
    why = f"{plural(left, 'row')} of {run.id} may miss the deadline of {at:%Y-%m-%dT%H:%M:%SZ}"
    total = max(1, sum(one.requests for one in queries.chunks(db, run.id) if one.attempt == 1))
    most = workspace.policy.lane.live_tail_max
    if wanted == "live-tail" and most is not None and Fraction(left, total) > most:
        if run.risk is None:
            told = f"{why}; {left / total:.1%} are more than live_tail_max = {float(most):.1%}: they are waited for"
            workspace.options.note(told)
            _decide(workspace, run, "wait", told)
        return
    workspace.options.note(f"{why}; on_deadline_risk = {wanted}")
    _decide(workspace, run, wanted, why)
    if wanted != "wait":
        stop_batches(workspace, provider, run, again=False)


def _decide(workspace: Workspace, run: queries.Run, what: str, why: str) -> None:
    with workspace.ledger.transaction() as db:
        transitions.set_risk(db, run.id, what, because=why)
        if what == "live-tail":
            chosen.set_lane(db, run.id, money.LIVE, because="deadline")
        if what == STOP:
            transitions.stop(db, run.id, True, because="deadline")
    if what == "live-tail":
        workspace.chosen_lane = money.LIVE
    crash_point("D1")


def _tail(workspace: Workspace, provider: Guarded, run: queries.Run, unfinished: list[Chunk]) -> None:
    """Once every batch has ended: what none of them answered becomes chunks of a new attempt, which go out live."""
    from batchctl.workflow.rerun import rest_of_batches
    from batchctl.workflow.validate import judged

    stop_batches(workspace, provider, run, again=False)
    if any(one.state in AT_PROVIDER and one.state is not ChunkState.HELD for one in unfinished):
        return
    judged(workspace, run)
    rows = rest_of_batches(workspace, run)
    crash_point("D2")
    with workspace.ledger.transaction() as db:
        transitions.set_risk(db, run.id, TAILED, because=f"{rows} rows are asked live")
    if rows:
        workspace.options.note(f"{run.id}: the batches are collected; {plural(rows, 'row')} go out live")


def _lead(workspace: Workspace, run: queries.Run, at: datetime, left: int) -> timedelta:
    """How long before the deadline something must be done: twice what it takes, but no more than half of all the time."""
    from batchctl.workflow.live_width import MOST_AT_ONCE

    at_once = workspace.policy.limits.calls_at_once or MOST_AT_ONCE
    needed = timedelta(seconds=2 * (CANCEL_SECONDS + left * CALL_SECONDS // at_once))
    return min(needed, max(timedelta(0), (at - _instant(run.created_at)) / 2))


def _left(workspace: Workspace, run: queries.Run, unfinished: list[Chunk]) -> int:
    """Requests without an answer, as far as the provider's counts tell."""
    intents = queries.live_intents(workspace.ledger.db, run.id)
    left = 0
    for chunk in unfinished:
        counts = intents[chunk.number].counts if chunk.number in intents else {}
        done = sum(counts.get(name, 0) for name in ("completed", "failed", "succeeded", "errored"))
        left += max(0, chunk.requests - done)
    return left


def _open(chunk: Chunk) -> bool:
    return chunk.state in (*WAITING, *AT_PROVIDER)


def _finished(workspace: Workspace, run: queries.Run) -> bool:
    return not any(_open(one) for one in queries.chunks(workspace.ledger.db, run.id))


def _instant(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
