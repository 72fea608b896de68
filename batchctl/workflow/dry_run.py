"""A small sample through the live endpoint, paid at live price, before anything large is sent.

The sample is taken from the prepared chunks, so what is tried is what will be sent. Every answer is stored at once under
the digest of its request: a dry run that is repeated or was interrupted pays only for what has no answer yet.
"""

from __future__ import annotations

import heapq
import os
import random
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from batchctl.chunks import segments
from batchctl.chunks.write import lines_name, rows_name
from batchctl.files import BLOCK_BYTES, open_private
from batchctl.judging.decide import Judge
from batchctl.judging.extract import openai_body, openai_http_error
from batchctl.ledger import queries, transitions
from batchctl.ledger.queries import Chunk
from batchctl.model.batches import LiveAnswer
from batchctl.model.errors import BatchctlError, Exit, NotAllowed, NotFound, Throttled, UsageError
from batchctl.model.ids import digest
from batchctl.model.rows import RowState, Verdict
from batchctl.prices import Price
from batchctl.providers.guard import Guarded
from batchctl.workflow import money
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.submit import is_simulated, note_edits
from batchctl.workflow.workspace import Options, Plan, Workspace, opened

AT_ONCE = 8
THROTTLED_TRIES = 5


@dataclass(frozen=True, slots=True)
class Sampled:
    source_id: str
    body: bytes
    key: str
    size: int  # of its line in the chunk, in bytes


def dry_run(options: Options, *, rows: int | None = None) -> Report:
    """Try some rows live, judge them, record whether the gate is passed."""
    with opened(options, write=True) as workspace:
        run = workspace.run
        workspace.lock()
        note_edits(workspace)
        return tried(workspace, run, rows=rows)


def tried(workspace: Workspace, run: queries.Run, *, rows: int | None = None) -> Report:
    """`dry_run` in an open workspace."""
    plan = workspace.frozen_plan()
    policy = workspace.policy.sample
    count = policy.rows if rows is None else rows
    chunks = [one for one in queries.chunks(workspace.ledger.db, run.id) if one.attempt == 1]
    total = sum(one.requests for one in chunks)
    if not count or not total:
        raise UsageError(
            "there is nothing to sample: [sample] rows is 0" if total else "this run has no requests",
            where=f"run {run.id}",
            effect="nothing was sent",
            hint="batchctl submit does without a dry run",
        )
    sample = list(_sample(workspace.directory(run.id) / "chunks", chunks, policy.pick, min(count, total), policy.seed))
    path = workspace.directory(run.id) / "dry-run.jsonl"
    stored = _stored(path, policy.max_age)
    provider = workspace.provider(plan)
    workspace.account(provider)  # no key: say so before announcing calls
    fresh = [one for one in sample if one.key not in stored]
    workspace.options.note(
        f"live sample: {plural(len(sample), 'row')}, {plural(len(fresh), 'call')} to {provider.name} at live price"
    )
    stored |= _ask(workspace, provider, plan, run, fresh, path)
    verdicts = _judge(plan, workspace, [stored[one.key] for one in sample])
    return _report(workspace, run, plan, sample, verdicts, calls=len(fresh), requests=total)


def _most(
    workspace: Workspace, run: queries.Run, plan: Plan, price: Price | None, fresh: list[Sampled]
) -> list[int | None]:
    """What each call can cost at most. Raises `BudgetReached` when together they could break the budget."""
    cap = money.output_cap(plan)
    most = [None if price is None or cap is None else price.rates.at_most(len(one.body), cap) for one in fresh]
    money.require_calls(workspace, run, most, priced=price is not None)
    return most


def _book(workspace: Workspace, run: queries.Run, plan: Plan, price: Price | None, answer: dict[str, Any]) -> None:
    """Book one call from its answer. An error is not billed; a lost answer may be, and nobody knows how much."""
    state, usage, cost = "refused", None, None
    if answer["status"] == 200:
        state, usage = "answered", openai_body(answer["body"], plan.endpoint, plan.job.output.mode).usage
        cost = None if price is None or usage is None else price.rates.cost(usage)
        state = "lost" if usage is None else state
    elif answer["status"] == 0:
        state = "lost"
    with workspace.ledger.transaction() as db:
        facts = None if usage is None else usage.as_dict()
        transitions.close_call(db, run.id, answer["key"], state, cost=cost, usage=facts)


def _ask(
    workspace: Workspace, provider: Guarded, plan: Plan, run: queries.Run, fresh: list[Sampled], path: Path
) -> dict[str, Any]:
    """One live call for each; answers are on disk before they are counted."""
    answers: dict[str, Any] = {}
    if not fresh:
        return answers
    price = money.price_of(workspace, run, run.settings, "live")
    most = _most(workspace, run, plan, price, fresh)

    def call(one: Sampled) -> dict[str, Any]:
        try:
            answer = _call(workspace, provider, plan.endpoint, one.body)
        except (NotAllowed, NotFound, Throttled):
            raise
        except BatchctlError as error:  # unknown outcome: it may be paid, so it is not asked again
            return {"key": one.key, "at": int(time.time()), "status": 0, "body": {"error": {"message": error.what}}}
        return {
            "key": one.key,
            "at": int(time.time()),
            "status": answer.status,
            "body": answer.body,
            "seconds": round(answer.seconds, 3),
        }

    pool = ThreadPoolExecutor(AT_ONCE)
    under_way: deque[tuple[Sampled, Future[dict[str, Any]]]] = deque()
    failure: BatchctlError | None = None
    try:
        with open_private(path, append=True) as out:
            for one, bound in [*zip(fresh, most, strict=True), *[(None, None)] * AT_ONCE]:
                if one is not None and failure is None:
                    with workspace.ledger.transaction() as db:  # on record before it leaves
                        transitions.open_calls(db, run.id, run.settings, "dry-run", [(one.key, bound)])
                    under_way.append((one, pool.submit(call, one)))
                if not under_way or (one is not None and failure is None and len(under_way) < AT_ONCE):
                    continue
                asked, future = under_way.popleft()
                try:
                    answer = future.result()
                except BatchctlError as error:  # no further calls; what is under way may be paid, so it is kept
                    failure = failure or error
                    answer = {"key": asked.key, "status": -1}
                else:
                    out.write(orjson.dumps(answer) + b"\n")
                    out.flush()
                    os.fsync(out.fileno())
                    answers[asked.key] = answer
                _book(workspace, run, plan, price, answer)
                workspace.options.progress("dry-run", len(answers), len(fresh))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a signal does not wait for slow answers
    if failure is not None:
        raise failure
    return answers


def _call(workspace: Workspace, provider: Guarded, endpoint: str, body: bytes) -> LiveAnswer:
    """One live call; a certain refusal for lack of room is waited out, nothing else is repeated."""
    for turn in range(THROTTLED_TRIES):
        try:
            return provider.call(body, endpoint)
        except Throttled as error:
            if error.billing or turn == THROTTLED_TRIES - 1:
                raise
            workspace.options.sleep(min(30.0, error.wait_seconds if error.wait_seconds is not None else 2.0**turn))
    raise AssertionError("unreachable")


def _judge(plan: Plan, workspace: Workspace, answers: list[dict[str, Any]]) -> list[Verdict]:
    current = workspace.current_plan() or plan
    judge = Judge(current.schema(), parse=current.job.output.parse, review_refused=current.job.review.refused)
    verdicts = []
    for answer in answers:
        if answer["status"] == 200:
            extracted = openai_body(answer["body"], plan.endpoint, plan.job.output.mode)
        else:
            extracted = openai_http_error(answer["status"], answer["body"])
        verdicts.append(judge.verdict(extracted))
    return verdicts


def _stored(path: Path, max_age: float) -> dict[str, Any]:
    """Answers of earlier dry runs of this run that are young enough; a half last line is passed over."""
    found: dict[str, Any] = {}
    if not path.is_file():
        return found
    oldest = time.time() - max_age
    with path.open("rb") as file:
        for line in file:
            try:
                answer = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if answer["at"] >= oldest and answer["status"] == 200:
                found[answer["key"]] = answer
    return found


def _sample(chunks: Path, rows: list[Chunk], pick: str, count: int, seed: int) -> Iterator[Sampled]:
    """Requests of a run, chosen by `pick`, in source order. The same run and seed give the same sample."""
    total = sum(one.requests for one in rows)
    if pick == "first":
        wanted = set(range(count))
    elif pick == "longest":
        sizes = ((len(line), -place) for place, line in enumerate(_lines(chunks, rows)))
        wanted = {-place for _, place in heapq.nlargest(count, sizes)}
    elif pick.startswith("stratified:"):
        wanted = _stratified(chunks, rows, pick.partition(":")[2], count, seed)
    else:
        wanted = set(random.Random(seed).sample(range(total), count))
    ids = (one for chunk in rows for (one,) in segments.tuples(chunks / rows_name(chunk.number), ("id",)))
    for place, (line, source_id) in enumerate(zip(_lines(chunks, rows), ids, strict=True)):
        if place in wanted:
            body = orjson.dumps(orjson.loads(line)["body"])
            yield Sampled(source_id.decode(), body, digest(body).hex(), len(line))


def _lines(chunks: Path, rows: list[Chunk]) -> Iterator[bytes]:
    for chunk in rows:
        with (chunks / lines_name(chunk.number)).open("rb", buffering=BLOCK_BYTES) as file:
            yield from file


def _stratified(chunks: Path, rows: list[Chunk], column: str, count: int, seed: int) -> set[int]:
    """An equal share of every value of a column, as far as there are rows; the rest at random."""
    source = random.Random(seed)
    groups: dict[str, list[tuple[float, int]]] = {}
    everything: list[tuple[float, int]] = []
    place = 0
    for chunk in rows:
        for (row,) in segments.tuples(chunks / rows_name(chunk.number), ("row",)):
            values = orjson.loads(row)
            if column not in values:
                raise UsageError(
                    f"there is no column `{column}` to stratify by",
                    where="[sample] pick",
                    effect="nothing was sent",
                    hint=f"the rows have: {', '.join(list(values)[:20])}",
                )
            drawn = (source.random(), place)
            for kept in (groups.setdefault(str(values[column]), []), everything):
                if len(kept) < count:
                    heapq.heappush(kept, drawn)
                else:
                    heapq.heappushpop(kept, drawn)
            place += 1
    wanted: set[int] = set()
    ordered = {name: sorted(kept, reverse=True) for name, kept in groups.items()}
    turn = 0
    while len(wanted) < count and any(len(kept) > turn for kept in ordered.values()):
        for kept in ordered.values():
            if len(kept) > turn and len(wanted) < count:
                wanted.add(kept[turn][1])
        turn += 1
    return wanted


def _report(
    workspace: Workspace,
    run: queries.Run,
    plan: Plan,
    sample: list[Sampled],
    verdicts: list[Verdict],
    *,
    calls: int,
    requests: int,
) -> Report:
    policy = workspace.policy.sample
    valid = sum(1 for one in verdicts if one.state is RowState.COMPLETED)
    share = valid / len(verdicts)
    passed = share >= policy.min_valid
    reasons = Counter(str(one.reason) for one in verdicts if one.reason is not None)
    used = [one.usage for one in verdicts if one.usage is not None]
    tokens_in, tokens_out = (sum(getattr(one, name) for one in used) for name in ("input_tokens", "output_tokens"))
    cap = next(
        (plan.job.model.params[key] for key in money.CAP_KEYS if isinstance(plan.job.model.params.get(key), int)), None
    )
    near = sum(1 for one in used if cap and one.output_tokens > 0.8 * cap)
    lines = [
        f"Live sample of {run.id}: {plural(len(sample), 'row')}, {plural(calls, 'live call')}"
        + (f", {len(sample) - calls} answered before" if calls < len(sample) else "")
    ]
    lines.append(f"  completed          {valid:>6,}   {share:.1%}   (needed: {float(policy.min_valid):.0%})")
    lines += [f"  {reason:<18} {count:>6,}" for reason, count in reasons.most_common()]
    shown = [(one, verdict) for one, verdict in zip(sample, verdicts, strict=True) if verdict.reason is not None]
    lines += [f"    row {one.source_id}: {verdict.reason}: {verdict.detail}" for one, verdict in shown[:5]]
    if used:
        lines.append(
            f"  tokens a row       {tokens_in / len(used):>6,.0f} in, {tokens_out / len(used):,.0f} out"
            + (f", {near} near the cap of {cap}" if near else "")
        )
        lines.append(
            f"  whole run          about {tokens_in / len(used) * requests:,.0f} in, "
            f"{tokens_out / len(used) * requests:,.0f} out for {plural(requests, 'request')}"
        )
    lines.append("Ready to submit" if passed else "Not ready to submit: too few answers are valid")
    facts = {
        "sample": len(sample),
        "calls": calls,
        "valid": valid,
        "valid_share": share,
        "passed": passed,
        "reasons": dict(reasons),
        "tokens": {"input": tokens_in, "output": tokens_out, "answers": len(used)},
        "near_cap": near,
        "requests": requests,
    }
    with workspace.ledger.transaction() as db:
        transitions.add_dry_run(
            db,
            run=run.id,
            settings=run.settings,
            epoch=int(time.time()),
            rows=len(sample),
            valid=valid,
            min_valid=float(policy.min_valid),
            passed=passed,
            report=orjson.dumps(facts).decode(),
        )
    balance = queries.balance(workspace.ledger.db, run.id)
    following = (
        f"batchctl submit {run.id}"
        if passed
        else ("correct the prompt, schema or params, then batchctl prepare and dry-run again")
    )
    return Report(
        "dry-run",
        run.id,
        Exit.OK if passed else Exit.GATE,
        balance,
        money.cost(workspace.ledger.db, run, balance),
        tuple(lines),
        following,
        facts,
        simulated=is_simulated(workspace),
    )
