"""Creating batches: intent, call, receipt. One batch per waiting chunk, exactly once.

A create leaves this machine only after its intent is committed and synced. An answer becomes a receipt; a certain
refusal gives the chunk back; anything else leaves the intent open, and `reconcile` finds out. Nothing here is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from batchctl.files import crash_point
from batchctl.ledger import queries, transitions
from batchctl.ledger.queries import Chunk
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import (
    BatchctlError,
    BudgetReached,
    ConsentMissing,
    Exit,
    GateFailed,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from batchctl.model.ids import intent_id
from batchctl.prices import as_usd
from batchctl.providers.guard import Guarded
from batchctl.workflow import background, live, money, notify, reconcile
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.request_file import request_file
from batchctl.workflow.standing import chunk_lines, is_simulated
from batchctl.workflow.workspace import Options, Workspace, opened

FIRST_WINDOW = 8
ANY_NUMBER = 1_000_000
SENDS_AT_ONCE = 3
SENDABLE = (ChunkState.PLANNED, ChunkState.UPLOADED)
AT_PROVIDER = (ChunkState.INTENT, ChunkState.HELD, ChunkState.SUBMITTED)


@dataclass(slots=True)
class Sent:
    """What one pass of sending did."""

    chunks: list[int] = field(default_factory=list)
    waiting: int = 0
    why_waiting: str = ""
    stopped_by: BatchctlError | None = None


def submit(options: Options, *, plan_only: bool = False, max_batches: int | None = None) -> Report:
    """Create a batch for each waiting chunk there is room for. `plan_only` prints what would be sent and sends nothing."""
    from batchctl.workflow import canary, lanes

    with opened(options, write=True) as workspace, notify.watching(workspace):
        run = workspace.run
        workspace.lock()
        early = None if plan_only else canary.look_after(workspace, run, "submit")
        if early is not None:
            return early
        chunks = queries.chunks(workspace.ledger.db, run.id)
        waiting = [one for one in chunks if one.state in SENDABLE]
        unsure = [one for one in chunks if one.state is ChunkState.INTENT or live.begun(one)]
        note_edits(workspace)
        if plan_only:
            return _plan_report(workspace, run, waiting)
        money.settle_budget(workspace, run)
        lanes.settle(workspace, run)
        if waiting or unsure:
            require_gate(workspace, waiting)
            canary.require_passed(workspace, run)
            consent(workspace, sum(one.requests for one in waiting), len(waiting))
        sent = Sent()
        if run.stopped:
            with workspace.ledger.transaction() as db:
                transitions.stop(db, run.id, False, because="submit")
        if waiting or unsure:
            provider = workspace.provider(workspace.frozen_plan())
            reconcile.settle(workspace, provider, run)
            sent = send_waiting(workspace, provider, run, max_batches=max_batches)
        if sent.stopped_by is not None:
            raise sent.stopped_by
        return notify.about(workspace, run, _report(workspace, run, sent, lanes.prospects(workspace, run)))


def note_edits(workspace: Workspace) -> None:
    """A job edited after it was prepared: what is sent is what was prepared, and a person should know."""
    now, then = workspace.current_plan(), workspace.frozen_plan()
    if now is not None and now.settings != then.settings:
        workspace.options.note(
            f"{workspace.run.id} was prepared with another prompt, schema, model or params than {workspace.job_path} "
            f"has now; `batchctl prepare {workspace.job_path}` takes the change"
        )


def require_gate(workspace: Workspace, waiting: list[Chunk]) -> None:
    """A dry run must have passed for what is about to be sent; reruns stand on the first one."""
    from batchctl.workflow.prepare import gate_passed

    sample = workspace.policy.sample
    if not sample.rows or not workspace.frozen_plan().codec().traits.live:
        return
    for settings in {one.settings for one in waiting if one.attempt == 1}:
        if not gate_passed(workspace, workspace.frozen_plan(settings)):
            raise GateFailed(
                "no dry run has passed for this prompt, schema, model and params",
                where=f"run {workspace.run.id}",
                effect="nothing was sent",
                hint=f"`batchctl dry-run {workspace.run.id}` tries {plural(sample.rows, 'row')} live first "
                "([sample] rows = 0 does without)",
            )


def consent(workspace: Workspace, requests: int, batches: int, *, of: Sequence[Chunk] | None = None) -> None:
    """A person's word before money is spent: `--yes`, or an answer at a terminal. The emulator bills nothing.

    `of` are the chunks it is about, when not all that wait.
    """
    if not requests:
        return
    plan = workspace.frozen_plan()
    model = plan.job.model
    if model.provider == "emulator" or workspace.options.yes or not plan.codec().traits.paid:
        return
    lane = workspace.lane(workspace.run)
    how = f"in {plural(batches, 'batch', 'batches')}" if lane == money.BATCH else f"in the {lane} lane"
    question = (
        f"Send {plural(requests, 'request')} {how} to {model.provider} "
        f"({model.name})? {money.announced(workspace, requests, money.price_lane(lane), of)}"
    )
    if workspace.options.ask is not None and workspace.options.ask(question):
        return
    raise ConsentMissing(
        f"sending {plural(requests, 'request')} to {model.provider} needs your word",
        where=f"run {workspace.run.id}",
        effect="nothing was sent",
        hint="add --yes (or BATCHCTL_YES=1) when there is no terminal to ask at",
    )


def send_waiting(
    workspace: Workspace,
    provider: Guarded,
    run: queries.Run,
    *,
    max_batches: int | None = None,
    least_attempt: int = 1,
    only: int | None = None,
) -> Sent:
    """Send planned chunks (or one of them) in order while the window has room."""
    db = workspace.ledger.db
    sent = Sent()
    waiting = [one for one in queries.chunks(db, run.id) if one.state in SENDABLE and one.attempt >= least_attempt]
    if only is not None:
        waiting = [one for one in waiting if one.number == only]
    if workspace.lane(run) == money.BACKGROUND:
        return _sent_in_background(workspace, provider, run, waiting)
    if workspace.lane(run) == money.LIVE:
        return _sent_live(workspace, provider, run, waiting)
    for place, chunk in enumerate(waiting):
        room = window(workspace, provider) - queries.in_flight(db)
        if room <= 0 or (max_batches is not None and len(sent.chunks) >= max_batches):
            sent.waiting = len(waiting) - place
            sent.why_waiting = "waiting for room at the provider" if room <= 0 else "left for later (--max-batches)"
            break
        try:
            state = _sent_for_certain(workspace, provider, run, chunk)
        except BudgetReached as error:
            sent.waiting = len(waiting) - place
            if any(one.state in AT_PROVIDER for one in queries.chunks(db, run.id)):
                sent.why_waiting = "waiting: what runs now may use up the budget"  # it costs less than it could
            else:
                sent.stopped_by = error
            break
        except (Throttled, Rejected, NotFound) as error:
            sent.waiting = len(waiting) - place
            sent.stopped_by = error
            break
        if state in SENDABLE:
            sent.waiting = len(waiting) - place
            sent.why_waiting = "not sent: their answers were lost, and no batch was made"
            break
        if state not in (ChunkState.HELD, ChunkState.INTENT):
            sent.chunks.append(chunk.number)
        workspace.options.progress("submit", place + 1, len(waiting))
    return sent


def _sent_live(workspace: Workspace, provider: Guarded, run: queries.Run, waiting: list[Chunk]) -> Sent:
    """Every waiting chunk row by row, after those that were begun and not finished."""
    sent = Sent()
    under_way = [one for one in queries.chunks(workspace.ledger.db, run.id) if live.begun(one)]
    for place, chunk in enumerate([*under_way, *waiting]):
        try:
            live.send(workspace, provider, run, chunk)
        except (BudgetReached, Throttled, Rejected, NotFound) as error:
            sent.waiting = len(under_way) + len(waiting) - place
            sent.stopped_by = error
            break
        if begun_still(workspace, chunk):
            break  # the time that was given is over
        sent.chunks.append(chunk.number)
    return sent


def _sent_in_background(workspace: Workspace, provider: Guarded, run: queries.Run, waiting: list[Chunk]) -> Sent:
    """Every waiting chunk, as long requests that run by themselves at the provider."""
    sent = Sent()
    for place, chunk in enumerate(waiting):
        try:
            background.look(workspace, provider, run, chunk)
        except (BudgetReached, Throttled, Rejected, NotFound) as error:
            sent.waiting = len(waiting) - place
            sent.stopped_by = error
            break
        sent.chunks.append(chunk.number)
    return sent


def begun_still(workspace: Workspace, chunk: Chunk) -> bool:
    """Whether a chunk that was just sent live has rows left."""
    return any(live.begun(one) and one.number == chunk.number for one in queries.chunks(workspace.ledger.db, chunk.run))


def _sent_for_certain(workspace: Workspace, provider: Guarded, run: queries.Run, chunk: Chunk) -> ChunkState:
    """Send a chunk and settle a lost answer. One that is proved absent goes out again, a few times; its last state."""
    for _ in range(SENDS_AT_ONCE):
        if send(workspace, run, chunk):
            return ChunkState.SUBMITTED
        reconcile.settle(workspace, provider, run)
        chunk = next(one for one in queries.chunks(workspace.ledger.db, run.id) if one.number == chunk.number)
        if chunk.state not in SENDABLE:
            break
    return chunk.state


def window(workspace: Workspace, provider: Guarded) -> int:
    """Batches allowed at the provider at once: the job's number, or what refusals have taught."""
    own = workspace.policy.limits.in_flight
    learnt = queries.window(workspace.ledger.db, provider.name)
    if not provider.traits.paid and own is None:
        return ANY_NUMBER  # files in a folder are no queue
    return own if own is not None else learnt if learnt is not None else FIRST_WINDOW


def send(workspace: Workspace, run: queries.Run, chunk: Chunk) -> bool:
    """One chunk through stage, intent, create, receipt. False when the outcome of the create is unknown.

    Raises what a certain refusal means; the chunk is planned again then. A kill anywhere leaves at most an open intent.
    """
    ledger = workspace.ledger
    plan = workspace.frozen_plan(chunk.settings)
    provider = workspace.provider(plan)  # of this chunk's model: a vendor may want it in the create
    path = request_file(workspace, run, chunk)
    bound = money.require_room(workspace, run, chunk)
    number = queries.sends(ledger.db, run.id, chunk.number) + 1
    tag = intent_id(ledger.workspace, run.id, chunk.number, chunk.attempt, number, chunk.sha256)
    staged = chunk.staged
    account = workspace.account(provider)
    if chunk.state is ChunkState.PLANNED or not staged:
        crash_point("K4")
        staged = provider.stage(path, name=f"{tag}.jsonl")
        crash_point("K5")
        with ledger.transaction() as db:
            transitions.move(db, run.id, chunk.number, ChunkState.UPLOADED, because="input uploaded", staged=staged)
        crash_point("K6")
    elif not provider.traits.uploads:
        staged = provider.stage(path, name=f"{tag}.jsonl")
    copied = ledger.is_copy
    epoch = reconcile.prepared_epoch(run) if copied else provider.server_time()
    workspace.still_ours()
    workspace.mark_sent(run.id)
    with ledger.transaction() as db:
        transitions.open_intent(
            db,
            intent=tag,
            run=run.id,
            chunk=chunk.number,
            send=number,
            staged=staged,
            account=account,
            sha256=chunk.sha256,
            epoch=epoch,
            bound=bound,
        )
    crash_point("K7")
    if copied and reconcile.sent_by_a_copy(workspace, provider, run, chunk.number):
        return False
    try:
        batch_id = provider.create(staged, endpoint=plan.endpoint, tag=tag, run=run.id, chunk=chunk.number)
    except OutcomeUnknown as error:
        workspace.options.note(f"chunk {chunk.number}: {error.what}; looking for it at {provider.name}")
        return False
    except BatchctlError as error:  # every other outcome of ours is a certain refusal
        with ledger.transaction() as db:
            transitions.give_back(db, tag, "refused", because=error.what)
        raise
    reconcile.receive(workspace, provider, tag, run.id, chunk.number, batch_id)
    most = None if bound is None else as_usd(bound)
    facts = {"run": run.id, "chunk": chunk.number, "attempt": chunk.attempt, "rows": chunk.requests}
    workspace.options.event("submit.sent", **facts, batch=batch_id, usd_at_most=most)
    command = getattr(provider.provider, "command", None)
    if command is not None:
        workspace.options.note(f"chunk {chunk.number} is for you to run: {command(batch_id, plan.job.model.name)}")
    return True


def _plan_report(workspace: Workspace, run: queries.Run, waiting: list[Chunk]) -> Report:
    db = workspace.ledger.db
    balance = queries.balance(db, run.id)
    total = sum(one.requests for one in waiting)
    lines = [f"Would send {plural(total, 'request')} in {plural(len(waiting), 'batch', 'batches')}; nothing was sent"]
    lines += [f"  chunk {one.number}   {one.requests:>8,} requests   {one.bytes / 1e6:,.1f} MB" for one in waiting]
    return Report(
        "submit",
        run.id,
        Exit.OK,
        balance,
        money.cost(db, run, balance),
        tuple(lines),
        f"batchctl submit {run.id}",
        {"plan": True, "would_send": [one.number for one in waiting]},
        simulated=is_simulated(workspace),
    )


def _report(workspace: Workspace, run: queries.Run, sent: Sent, prospects: Sequence[str]) -> Report:
    db = workspace.ledger.db
    balance = queries.balance(db, run.id)
    chunks = queries.chunks(db, run.id)
    pending = any(one.state in (*SENDABLE, *AT_PROVIDER) for one in chunks)
    what = plural(len(sent.chunks), "batch", "batches")
    if workspace.lane(run) != money.BATCH:
        how = "row by row, live" if workspace.lane(run) == money.LIVE else "as background requests"
        what = f"{plural(len(sent.chunks), 'chunk')} {how}"
    lines = [f"Sent {what}" + (f", {plural(sent.waiting, 'chunk')} {sent.why_waiting}" if sent.waiting else "")]
    lines += [*chunk_lines(workspace, run), *(prospects if pending else ())]
    lost = sum(queries.lost_calls(db, run.id).values())
    if lost:
        lines.append(
            f"  {plural(lost, 'live call')} got no answer: their rows are held, and not sent again by themselves"
        )
    held = balance["held"] + lost > 0
    code = Exit.UNKNOWN if held else Exit.PENDING if pending else Exit.OK
    following = f"batchctl resolve {run.id}" if held else f"batchctl poll {run.id} --wait"
    if code is Exit.OK:
        fetched = any(one.state is ChunkState.FETCHED for one in chunks)
        following = f"batchctl {'validate' if fetched else 'poll'} {run.id}"
    elif not held and not any(one.state in AT_PROVIDER for one in chunks):
        following = f"batchctl submit {run.id}"
    return Report(
        "submit",
        run.id,
        code,
        balance,
        money.cost(db, run, balance),
        tuple(lines),
        following,
        {"sent": sent.chunks, "waiting": sent.waiting},
        simulated=is_simulated(workspace),
    )
