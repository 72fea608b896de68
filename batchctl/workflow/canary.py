"""A canary: a first small batch of a run, because some models accept live what they refuse in batch.

It is cut from the first chunk that waits and sent as any chunk is: consent, budget, intent, receipt. Its answers are
results of the run, so its rows are not bought again. Until it has ended the rest waits, and when too few of its answers
are valid the gate is shut. A job that is edited after it is prepared anew: the rest of the old run is withdrawn.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, verdicts_name
from batchctl.chunks.segments import COPIES, SegmentWriter
from batchctl.chunks.write import Packed, Packer, clear_chunks, stored
from batchctl.files import crash_point, sync_directory
from batchctl.ledger import queries
from batchctl.ledger.canary import cut_canary, last_chunk
from batchctl.ledger.queries import Chunk
from batchctl.ledger.transitions import ChunkState, NewChunk
from batchctl.model.errors import Exit, GateFailed, ProviderError, UsageError
from batchctl.model.rows import RowState
from batchctl.workflow import dry_run, money, notify, reconcile
from batchctl.workflow.poll import looked
from batchctl.workflow.prepare import gate_passed, renewed, tidy
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.request_file import request_file
from batchctl.workflow.requests import chunk_limits, line_splice, new_chunk
from batchctl.workflow.results import write_results
from batchctl.workflow.standing import is_simulated
from batchctl.workflow.submit import SENDABLE, consent, note_edits, send_waiting
from batchctl.workflow.validate import judged
from batchctl.workflow.workspace import Options, Workspace, opened

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Canary:
    """A canary that has been judged: how many of its answers are valid, and what is wrong with the others."""

    valid: int
    passed: bool
    reasons: Counter[str]
    details: tuple[str, ...]


def canary(options: Options, rows: int, *, sample: int | None = None) -> Report:
    """The live sample, unless it passed before; then a canary of `rows` rows, or the one that was begun."""
    with opened(options, write=True) as workspace, notify.watching(workspace):
        workspace.lock()
        renewed(workspace)
        run = workspace.run
        note_edits(workspace)
        money.settle_budget(workspace, run)
        chunk = newest(workspace, run)
        if chunk is None or chunk.state in SENDABLE:
            _require_batch_lane(workspace, run)
        tried = _live_sample(workspace, run, sample)
        if tried is not None and tried.exit is not Exit.OK:
            return tried
        if chunk is None or _has_failed(workspace, run, chunk):
            chunk = _cut(workspace, run, rows)
        if chunk.state is ChunkState.INTENT:
            reconcile.settle(workspace, workspace.provider(workspace.frozen_plan()), run)
            chunk = newest(workspace, run) or chunk
        if chunk.state in SENDABLE:
            workspace.chosen_lane = money.BATCH
            consent(workspace, chunk.requests, 1, of=(chunk,))
            provider = workspace.provider(workspace.frozen_plan())
            sent = send_waiting(workspace, provider, run, only=chunk.number)
            if sent.stopped_by is not None:
                raise sent.stopped_by
        _collect(workspace, run)
        return _report(workspace, run, "dry-run", () if tried is None else tried.lines)


def newest(workspace: Workspace, run: queries.Run) -> Chunk | None:
    """The last canary of a run."""
    found = [one for one in queries.chunks(workspace.ledger.db, run.id) if one.canary]
    return found[-1] if found else None


def look_after(workspace: Workspace, run: queries.Run, command: str) -> Report | None:
    """Collect and judge a canary on which the rest of the run waits. A report while it has no end."""
    chunk = newest(workspace, run)
    if chunk is None or chunk.state in SENDABLE or queries.was_submitted(workspace.ledger.db, run.id):
        return None
    if chunk.state is not ChunkState.APPLIED:
        _collect(workspace, run)
        chunk = newest(workspace, run)
        assert chunk is not None
    return None if chunk.state in (*SENDABLE, ChunkState.APPLIED) else _report(workspace, run, command)


def require_passed(workspace: Workspace, run: queries.Run) -> None:
    """Raise `GateFailed` when the last canary of a run that was not submitted yet has failed."""
    chunk = newest(workspace, run)
    if chunk is None or queries.was_submitted(workspace.ledger.db, run.id):
        return
    if _has_failed(workspace, run, chunk):
        found = _judgement(workspace, run, chunk)
        raise GateFailed(
            f"the canary has failed: {found.valid:,} of {plural(chunk.requests, 'answer')} valid",
            where=(f"run {run.id}, chunk {chunk.number}", *found.details),
            effect="nothing was sent",
            hint="correct the prompt, schema, model or params and run `batchctl prepare` again; "
            f"`batchctl dry-run {run.id} --canary {chunk.requests}` tries further rows",
        )


def _require_batch_lane(workspace: Workspace, run: queries.Run) -> None:
    """A canary says something about the batch API, before more than it was sent there."""
    wanted = run.lane or workspace.policy.lane.prefer
    if wanted in (money.LIVE, money.BACKGROUND):
        raise UsageError(
            f"a canary is a batch, and this run takes the {wanted} lane",
            where=f"run {run.id}",
            effect="nothing was sent",
            hint="leave --canary out: the dry run says what the live endpoint makes of the rows",
        )
    if queries.was_submitted(workspace.ledger.db, run.id):
        raise UsageError(
            f"{run.id} was submitted already",
            where=f"run {run.id}",
            effect="nothing was sent",
            hint=f"batchctl poll {run.id}",
        )


def _live_sample(workspace: Workspace, run: queries.Run, sample: int | None) -> Report | None:
    """The dry run, when it is wanted and none has passed."""
    plan = workspace.frozen_plan()
    wanted = sample is not None or (workspace.policy.sample.rows and not gate_passed(workspace, plan))
    return dry_run.tried(workspace, run, rows=sample) if wanted and plan.codec().traits.live else None


def _collect(workspace: Workspace, run: queries.Run) -> None:
    """Look at the provider (until the end, with `--wait`) and judge. A refused canary is judged; other problems raise."""
    done = looked(workspace, run)
    judged(workspace, run)
    write_results(workspace.state, workspace.ledger.db, run)
    tidy(workspace, run)
    for problem in done.problems:
        if not (isinstance(problem, ProviderError) and problem.code == "batch_rejected"):
            raise problem


# --- cutting ----------------------------------------------------------------------------------------------------------


def _cut(workspace: Workspace, run: queries.Run, rows: int) -> Chunk:
    """A canary of the first rows that wait. What is left of their chunk becomes a chunk of its own."""
    db = workspace.ledger.db
    waiting = [one for one in queries.chunks(db, run.id) if one.state is ChunkState.PLANNED and one.attempt == 1]
    if not waiting:
        raise UsageError(
            "no chunk waits from which a canary could be cut",
            where=f"run {run.id}",
            effect="nothing was sent",
            hint=f"batchctl status {run.id}",
        )
    chunk = waiting[0]
    least = chunk_limits(workspace.frozen_plan(chunk.settings)).least_requests
    if rows < min(least, chunk.requests):
        raise UsageError(
            f"{workspace.frozen_plan().job.model.provider} takes no batch with fewer than {least:,} requests",
            where="--canary",
            effect="nothing was sent",
            hint=f"--canary {least}",
        )
    whole = chunk.requests - rows < max(least, 1)
    parts = [] if whole else _parts(workspace, run, chunk, rows)
    crash_point("C1")
    with workspace.ledger.transaction() as transaction:
        number = cut_canary(transaction, run.id, chunk.number, parts)
    crash_point("C2")
    tidy(workspace, run)
    return next(one for one in queries.chunks(db, run.id) if one.number == number)


def _parts(workspace: Workspace, run: queries.Run, chunk: Chunk, rows: int) -> list[NewChunk]:
    """Two chunks with the requests of one: the first `rows` of them, and the rest. Their custom_ids are new."""
    request_file(workspace, run, chunk)
    directory = workspace.directory(run.id) / "chunks"
    plan = workspace.frozen_plan(chunk.settings)
    codec = plan.codec()
    splice, _ = line_splice(plan, None)
    old = Packed(
        chunk.number,
        chunk.mark,
        chunk.requests,
        chunk.bytes,
        chunk.first_position,
        chunk.last_position,
        chunk.rows_sha256,
    )
    number = last_chunk(workspace.ledger.db, run.id) + 1
    clear_chunks(directory, number)
    requests = stored(directory, old, splice.frame)
    made: list[Packed] = []
    for count in (rows, chunk.requests - rows):
        with Packer(
            directory,
            run=run.id,
            settings=chunk.settings,
            attempt=chunk.attempt,
            frame=splice.frame,
            max_rows=count,
            max_bytes=chunk.bytes,
            first_number=number + len(made),
            separator=codec.traits.id_separator,
        ) as packer:
            for _ in range(count):
                packer.add(*next(requests))
        made += packer.chunks
    copies = _copies(directory, chunk, made)
    parts = [
        new_chunk(
            directory,
            one,
            copies[one.number],
            lambda line: codec.check_line(line, plan.endpoint, plan.job.model.name),
            attempt=chunk.attempt,
            settings=chunk.settings,
            splice=splice,
        )
        for one in made
    ]
    sync_directory(directory)
    return parts


def _copies(directory: Path, chunk: Chunk, made: list[Packed]) -> Counter[int]:
    """Rows that take the answer of a request go with it; how many, by the number of the new chunk."""
    counts: Counter[int] = Counter()
    if not chunk.copies:
        return counts
    border = made[0].requests
    places = [(made[0].number, range(border), 0), (made[1].number, range(border, chunk.requests), border)]
    for number, lines, start in places:
        rows = segments.tuples(directory / copies_name(chunk.number), COPIES.names)
        mine = [one for one in rows if one[3] in lines]
        if not mine:
            continue
        with SegmentWriter(directory / copies_name(number), COPIES) as out:
            for position, source_id, key, line, copied_from, row in mine:
                out.add(position, source_id, key, line - start, copied_from, row)
        counts[number] = len(mine)
    return counts


# --- what came of it --------------------------------------------------------------------------------------------------


def _has_failed(workspace: Workspace, run: queries.Run, chunk: Chunk) -> bool:
    return chunk.state is ChunkState.APPLIED and not _judgement(workspace, run, chunk).passed


def _judgement(workspace: Workspace, run: queries.Run, chunk: Chunk) -> Canary:
    """From the canary's own verdicts: a rerun of its failed rows changes nothing of what it has shown."""
    path = workspace.directory(run.id) / "results" / verdicts_name(chunk.number, chunk.attempt)
    columns = segments.read(path, ["state", "reason", "detail", "output"]).slice(0, chunk.requests).to_pylist()
    usable = (RowState.COMPLETED, RowState.REVIEW_REQUIRED)
    good = [one["state"] in usable and one["output"] is not None for one in columns]
    bad = [one for one, fine in zip(columns, good, strict=True) if not fine]
    told = tuple(dict.fromkeys(f"{one['reason']}: {one['detail']}" for one in bad))
    passed = sum(good) >= workspace.policy.sample.min_valid * chunk.requests
    return Canary(sum(good), passed, Counter(str(one["reason"]) for one in bad), told[:SHOWN])


def _report(workspace: Workspace, run: queries.Run, command: str, first: tuple[str, ...] = ()) -> Report:
    chunk = newest(workspace, run)
    assert chunk is not None
    db = workspace.ledger.db
    balance = queries.balance(db, run.id)
    intent = queries.last_intents(db, run.id).get(chunk.number)
    batch = None if intent is None else intent.batch_id
    lines = [
        *first,
        f"Canary of {run.id}: {plural(chunk.requests, 'row')} in one batch" + (f"   {batch}" if batch else ""),
    ]
    facts: dict[str, object] = {"chunk": chunk.number, "requests": chunk.requests, "batch_id": batch, "valid": None}
    again = f"batchctl dry-run {run.id} --canary {chunk.requests}"
    if chunk.state is ChunkState.APPLIED:
        found = _judgement(workspace, run, chunk)
        share, needed = found.valid / chunk.requests, float(workspace.policy.sample.min_valid)
        lines.append(f"  completed          {found.valid:>6,}   {share:.1%}   (needed: {needed:.0%})")
        lines += [f"  {reason:<18} {count:>6,}" for reason, count in found.reasons.most_common()]
        lines += [f"    {one}" for one in found.details]
        lines += [one for one in [money.cost_line(db, run, balance)] if one]
        facts |= {"valid": found.valid, "state": "passed" if found.passed else "failed", "reasons": dict(found.reasons)}
        code = Exit.OK if found.passed else Exit.GATE
        if found.passed:
            lines.append("Ready to submit: the batch API took this model and form, and these rows are not sent again")
            following = f"batchctl submit {run.id}"
        else:
            lines.append("Not ready to submit: too few answers of the canary are valid")
            following = "correct the prompt, schema, model or params, then batchctl prepare and dry-run again"
    elif balance["held"]:
        lines.append("  nobody knows yet whether it was created; nothing else is sent")
        facts["state"], code, following = "unknown", Exit.UNKNOWN, f"batchctl resolve {run.id}"
    elif chunk.state in SENDABLE:
        lines.append("  it was not sent: its answer was lost, and no batch was made")
        facts["state"], code, following = "waiting", Exit.PENDING, again
    else:
        lines.append("  it runs; the rest of the run waits for it")
        facts["state"], code, following = "running", Exit.PENDING, f"{again} --wait"
    return Report(
        command,
        run.id,
        code,
        balance,
        money.cost(db, run, balance),
        tuple(lines),
        following,
        {"canary": facts},
        simulated=is_simulated(workspace),
    )
