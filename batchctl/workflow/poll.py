"""One look at the provider: statuses read, ended batches collected, chunks sent that now fit. `--wait` repeats it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from batchctl.files import crash_point
from batchctl.ledger import queries, transitions
from batchctl.ledger.queries import Chunk, Intent
from batchctl.ledger.transitions import ChunkState
from batchctl.model.batches import BatchState, BatchStatus, Refusal
from batchctl.model.errors import BatchctlError, Exit, NotAllowed, ProviderError, StorageFailed, Throttled
from batchctl.providers.guard import Guarded
from batchctl.workflow import background, collect, deadline, live, notify, reconcile
from batchctl.workflow.money import BATCH, LIVE, budget_of, cost, input_tokens, settle_budget
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.standing import chunk_lines, is_simulated
from batchctl.workflow.submit import FIRST_WINDOW, SENDABLE, send_waiting, window
from batchctl.workflow.workspace import Options, Workspace, opened

POLL_SECONDS = 60.0
SENDS_BEFORE_GIVING_UP = 3
LOOKS_AT_A_PROBLEM = 5
UNFINISHED = (
    ChunkState.PLANNED,
    ChunkState.UPLOADED,
    ChunkState.INTENT,
    ChunkState.SUBMITTED,
    ChunkState.ENDED,
)


@dataclass(slots=True)
class Pass:
    """What one or more looks did. `problems` are errors that did not stop the other chunks."""

    collected: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    missing: int = 0
    expired: list[int] = field(default_factory=list)
    problems: list[BatchctlError] = field(default_factory=list)
    unproven: list[int] = field(default_factory=list)  # open chunks whose batch may be one that still runs


def poll(options: Options) -> Report:
    """One pass over the run's batches; with `--wait`, until all have ended or `--max-wait` is over."""
    with opened(options, write=True) as workspace, notify.watching(workspace):
        run = workspace.run
        workspace.lock()
        settle_budget(workspace, run)
        done = looked(workspace, run)
        return notify.about(workspace, run, _report(workspace, run, done))


def looked(workspace: Workspace, run: queries.Run, *, live_first: bool = True) -> Pass:
    """`poll` in an open workspace: once, or until done when the options say wait.

    `live_first` is false when live calls were just made and something stopped them: the first look makes none.
    """
    options = workspace.options
    total = Pass()
    held = any(one.state is ChunkState.HELD for one in queries.chunks(workspace.ledger.db, run.id))
    if not held and not unfinished(workspace, run) and not deadline.owes_tail(workspace, run):
        return total  # a held one gets one look a command: its batch may turn up in the list
    provider = workspace.provider(workspace.frozen_plan())
    pause = options.seconds("BATCHCTL_POLL_SECONDS", 0.2 if is_simulated(workspace) else POLL_SECONDS)
    end = None if options.max_wait_seconds is None else time.monotonic() + options.max_wait_seconds
    stuck = 0
    while True:
        total.problems.clear()
        total.unproven.clear()
        one_look(workspace, provider, run, total, live_too=live_first)
        live_first = True
        left = unfinished(workspace, run)
        if not options.wait or not left:
            return total
        if any(not isinstance(one, ProviderError) or getattr(one, "billing", False) for one in total.problems):
            return total
        moving = sum(one.state in (ChunkState.SUBMITTED, ChunkState.ENDED) for one in left)
        stuck = stuck + 1 if _lasting(total.problems) >= max(moving, 1) else 0
        if stuck == LOOKS_AT_A_PROBLEM:
            return total
        if not (moving or total.unproven) and not (
            _sendable(left) and window(workspace, provider) > queries.in_flight(workspace.ledger.db)
        ):
            return total  # open or held chunks, or other runs, take all the room: no look of ours changes that
        if end is not None and time.monotonic() >= end:
            return total
        options.sleep(pause if end is None else max(0.0, min(pause, end - time.monotonic())))


def _lasting(problems: list[BatchctlError]) -> int:
    """Problems that are the provider's word, not its absence: when nothing else moves, waiting does not mend them."""
    passing = [one for one in problems if isinstance(one, Throttled) or one.code == "unavailable"]
    return len(problems) - len(passing)


def _sendable(chunks: list[Chunk]) -> bool:
    return any(one.state in SENDABLE for one in chunks)


def unfinished(workspace: Workspace, run: queries.Run) -> list[Chunk]:
    """Chunks that another look can move. Held ones wait for a person; planned ones of a run never sent for `submit`."""
    states = UNFINISHED if sends_by_itself(workspace, run) else UNFINISHED[2:]
    return [one for one in queries.chunks(workspace.ledger.db, run.id) if one.state in states]


def sends_by_itself(workspace: Workspace, run: queries.Run) -> bool:
    """Waiting chunks go out with a look once the run was submitted, and until a person cancels it."""
    return queries.was_submitted(workspace.ledger.db, run.id) and not queries.run(workspace.ledger.db, run.id).stopped


def one_look(workspace: Workspace, provider: Guarded, run: queries.Run, total: Pass, *, live_too: bool = True) -> None:
    """Settle what is unknown, read every status, collect, then fill the room that became free."""
    db = workspace.ledger.db
    with _kept(total):
        total.unproven += reconcile.settle(workspace, provider, run)
    intents = queries.live_intents(db, run.id)
    chunks = queries.chunks(db, run.id)
    for chunk in chunks:
        if live.begun(chunk):
            with _kept(total):
                if live_too:
                    _go_on_live(workspace, provider, run, chunk, total)
        elif background.under_way(chunk):
            with _kept(total):
                _look_into_background(workspace, provider, run, chunk, total)
        elif chunk.state in (ChunkState.SUBMITTED, ChunkState.ENDED):
            with _kept(total):
                _look(workspace, provider, chunk, intents[chunk.number], total)
    ended = sum(1 for one in queries.chunks(db, run.id) if one.state in (ChunkState.FETCHED, ChunkState.APPLIED))
    workspace.options.progress("poll", ended, len(chunks))
    with _kept(total):
        deadline.keep(workspace, provider, run)
    full = any(isinstance(one, Throttled) for one in total.problems)
    waiting = _sendable(queries.chunks(db, run.id))
    if not live_too and workspace.lane(run) == LIVE:
        return
    if waiting and not full and sends_by_itself(workspace, run):
        if budget_of(workspace, run) is not None:
            _book(workspace, run)
        with _kept(total):
            sent = send_waiting(workspace, provider, run)
            total.sent += sent.chunks
            if sent.stopped_by is not None:
                raise sent.stopped_by


def _go_on_live(workspace: Workspace, provider: Guarded, run: queries.Run, chunk: Chunk, total: Pass) -> None:
    """Send what is left of a chunk that was begun live; of a cancelled run, end it as it is."""
    if queries.run(workspace.ledger.db, run.id).stopped:
        live.close(workspace, provider, run, chunk, "the run was cancelled")
    else:
        live.send(workspace, provider, run, chunk)
    total.collected.append(chunk.number)


def _look_into_background(workspace: Workspace, provider: Guarded, run: queries.Run, chunk: Chunk, total: Pass) -> None:
    """What has ended of the long requests of a chunk; of a cancelled run they are stopped."""
    if queries.run(workspace.ledger.db, run.id).stopped:
        ended = background.close(workspace, provider, run, chunk, "the run was cancelled")
    else:
        ended = background.look(workspace, provider, run, chunk)
    if ended:
        total.collected.append(chunk.number)


def _book(workspace: Workspace, run: queries.Run) -> None:
    """Judge what has come back, so that a budget has room for what it did cost and not for what it could have cost."""
    from batchctl.workflow.validate import judged

    if any(one.state is ChunkState.FETCHED for one in queries.chunks(workspace.ledger.db, run.id)):
        judged(workspace, run)


@contextmanager
def _kept(total: Pass) -> Iterator[None]:
    """One step of a look: a provider's failure is kept and the other steps go on. Local failures stop everything."""
    try:
        yield
    except (StorageFailed, NotAllowed):
        raise
    except BatchctlError as error:
        total.problems.append(error)


def _look(workspace: Workspace, provider: Guarded, chunk: Chunk, intent: Intent, total: Pass) -> None:
    assert intent.batch_id is not None
    workspace.same_account(provider, intent.account, intent.batch_id)
    status = provider.poll(intent.batch_id)
    ledger = workspace.ledger
    if (status.vendor_status, dict(status.counts)) != (intent.vendor_status, intent.counts):
        with ledger.transaction() as db:
            transitions.observe(db, intent.id, status.vendor_status, status.counts)
    crash_point("K12")
    if not status.known_word:
        workspace.options.note(
            f"{chunk.run} chunk {chunk.number}: {provider.name} says `{status.vendor_status}`, a word batchctl does not "
            "know; it keeps waiting"
        )
    if chunk.state is ChunkState.SUBMITTED:
        if status.state is BatchState.REFUSED:
            _refused(workspace, provider, chunk, intent, status)
            return
        if status.state is BatchState.RUNNING:
            return
        if status.owes_results and not status.files:
            raise ProviderError(
                f"batch `{intent.batch_id}` is {status.vendor_status}, but names no result file",
                where=f"run {chunk.run}, chunk {chunk.number}",
                effect="its rows stay submitted; nothing is sent again",
                hint=f"look at the batch at the provider ({provider.name} keeps {provider.traits.retention}) and run the same "
                f"command again; `batchctl resolve {chunk.run} --chunk {chunk.number}` gives its answers up",
                code="no_result_file",
            )
        with ledger.transaction() as db:
            billed = None if status.usage is None else status.usage.as_dict()
            because = f"the provider says {status.vendor_status}"
            transitions.end(db, intent.id, because=because, usage=billed, expired=status.out_of_time)
    elif status.state is not BatchState.ENDED:
        return  # an ended batch that says otherwise now: statuses can lag; the furthest fact stands
    missing = collect.fetch(workspace, provider, chunk, intent, status.files)
    total.collected.append(chunk.number)
    _widen(workspace, provider)
    total.missing += missing
    if status.out_of_time:
        total.expired.append(chunk.number)


def _widen(workspace: Workspace, provider: Guarded) -> None:
    """A window that refusals have narrowed grows by one for each batch that ends well."""
    learnt = queries.window(workspace.ledger.db, provider.name)
    if learnt is not None and learnt < FIRST_WINDOW:
        with workspace.ledger.transaction() as db:
            transitions.set_window(db, provider.name, learnt + 1)


def _refused(workspace: Workspace, provider: Guarded, chunk: Chunk, intent: Intent, status: BatchStatus) -> None:
    """The batch failed in validation: nothing ran. What the complaint is decides whether the same bytes go again."""
    ledger = workspace.ledger
    first = status.errors[0] if status.errors else None
    said = "no reason given" if first is None else f"{first.code}: {first.message}"
    tries = queries.failed_sends(ledger.db, chunk.run, chunk.number) + 1
    capacity = status.refusal is Refusal.CAPACITY
    if (
        capacity
        or status.refusal is Refusal.BILLING
        or (status.refusal is Refusal.ACCESS and (tries < SENDS_BEFORE_GIVING_UP or intent.fenced))
    ):
        at_provider = queries.in_flight(ledger.db)
        with ledger.transaction() as db:
            transitions.give_back(db, intent.id, "failed", because=said)
            if capacity:
                transitions.set_window(db, provider.name, max(1, min(window(workspace, provider), at_provider) // 2))
        if status.refusal is Refusal.BILLING:
            raise Throttled(
                f"{provider.name} refused the batch: {said}",
                where=f"run {chunk.run}, chunk {chunk.number}",
                billing=True,
                effect="no attempt was used; the rows are queued again",
                code="billing",
                hint="top up or raise the limit at the provider, then run the same command again",
            )
        if capacity:
            raise _queue_full(workspace, provider, chunk, said, tries)
        return
    collect.record_refusal(workspace, chunk, intent, status.errors)
    place = f"chunks/{chunk.number:04d}.jsonl" + (f":{first.line}" if first is not None and first.line else "")
    raise ProviderError(
        f"{provider.name} rejected batch `{intent.batch_id}`: {said}",
        where=f"run {chunk.run}, {place}",
        effect=f"nothing ran and nothing was billed; {plural(chunk.rows, 'row')} go to the rerun file",
        hint=f"`batchctl validate {chunk.run}`, correct the job file, then `batchctl rerun`",
        code="batch_rejected",
    )


def _queue_full(workspace: Workspace, provider: Guarded, chunk: Chunk, said: str, tries: int) -> ProviderError:
    """The provider's word on its limit, what of ours is in its queue, and what this chunk needs.

    A chunk that was refused time and again with nothing else of ours in the queue is not helped by waiting.
    """
    ours = [
        one
        for run in queries.runs(workspace.ledger.db)
        for one in queries.chunks(workspace.ledger.db, run.id)
        if one.lane == BATCH and one.state in (ChunkState.INTENT, ChunkState.HELD, ChunkState.SUBMITTED)
    ]
    run = queries.run(workspace.ledger.db, chunk.run)
    needed = input_tokens(workspace, run, chunk.settings, chunk.bytes)
    queued = sum(input_tokens(workspace, run, chunk.settings, one.bytes) for one in ours)
    now = window(workspace, provider)
    hint = f"they are sent when running batches have ended, {now} at once; keep `batchctl poll` going"
    if not ours:
        hint = (
            "nothing else of this workspace is queued: the chunk alone may be too large for the queue; prepare smaller "
            "ones ([limits] chunk_rows), or wait for what others of your organization have queued"
        )
    kind = ProviderError if not ours and tries >= SENDS_BEFORE_GIVING_UP else Throttled
    return kind(
        f"the queue at {provider.name} is full: {said}",
        where=f"run {chunk.run}, chunk {chunk.number}",
        effect=f"no attempt was used; {plural(chunk.rows, 'row')} are queued again: this chunk needs about {needed:,} "
        f"input tokens, {plural(len(ours), 'batch', 'batches')} of this workspace hold about {queued:,}",
        hint=hint,
        code="queue_full",
    )


def _report(workspace: Workspace, run: queries.Run, done: Pass) -> Report:
    db = workspace.ledger.db
    if done.problems:
        raise done.problems[0]
    balance = queries.balance(db, run.id)
    lines = [
        f"{run.id}: collected {plural(len(done.collected), 'batch', 'batches')}"
        + (f", sent {len(done.sent)} more" if done.sent else "")
    ]
    if done.missing:
        lines.append(f"  {plural(done.missing, 'request')} ended without a result line")
    lines += chunk_lines(workspace, run)
    left = [one for one in queries.chunks(db, run.id) if one.state not in (ChunkState.FETCHED, ChunkState.APPLIED)]
    if balance["held"]:
        code, following = Exit.UNKNOWN, f"batchctl resolve {run.id}"
    elif left and all(one.state in SENDABLE for one in left) and not sends_by_itself(workspace, run):
        code, following = Exit.PENDING, f"batchctl submit {run.id}"
    elif left:
        code, following = Exit.PENDING, f"batchctl poll {run.id} --wait"
    else:
        code, following = (Exit.DEADLINE if done.expired else Exit.OK), f"batchctl validate {run.id}"
    if code is not Exit.UNKNOWN and deadline.missed(workspace, run):
        code = Exit.DEADLINE
    lines += [one for one in [deadline.told(workspace, run)] if one]
    facts = {"collected": done.collected, "sent": done.sent, "missing": done.missing, "expired": done.expired}
    return Report(
        "poll",
        run.id,
        code,
        balance,
        cost(db, run, balance),
        tuple(lines),
        following,
        facts,
        simulated=is_simulated(workspace),
    )
