"""A small sample through the live endpoint, paid at live price, before anything large is sent.

The sample is taken from the prepared chunks, so what is tried is what will be sent. A dry run that is repeated or was
interrupted pays only for rows that were never asked (`sample_calls`); other rows stand in for those whose answer was lost.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import orjson

from batchctl.judging.decide import Judge
from batchctl.judging.rules import Rules
from batchctl.judging.wires import READERS
from batchctl.ledger import queries, transitions
from batchctl.model.errors import Exit, GateFailed, UsageError
from batchctl.model.rows import RowState, Usage, Verdict
from batchctl.prices import Price, usd_text
from batchctl.workflow import money
from batchctl.workflow.forecast import METHOD, Forecast, Point, forecast
from batchctl.workflow.prepare import renewed
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.rules import check_rules, columns_of, rule_book
from batchctl.workflow.sample_calls import SampleCalls
from batchctl.workflow.sampling import Sampled, sample_of
from batchctl.workflow.standing import is_simulated
from batchctl.workflow.submit import note_edits
from batchctl.workflow.workspace import Options, Plan, Workspace, opened

NEAR_CAP = 0.8


def dry_run(options: Options, *, rows: int | None = None) -> Report:
    """Try some rows live, judge them, record whether the gate is passed."""
    with opened(options, write=True) as workspace:
        workspace.lock()
        first = renewed(workspace)
        run = workspace.run
        note_edits(workspace)
        money.settle_budget(workspace, run)
        found = tried(workspace, run, rows=rows)
        return found if first is None else replace(found, lines=(*first.lines, *found.lines))


def tried(workspace: Workspace, run: queries.Run, *, rows: int | None = None) -> Report:
    """`dry_run` in an open workspace."""
    if run.is_purged:
        raise UsageError(
            f"the texts of {run.id} were purged: no row of it can be tried again",
            effect="nothing was sent",
            hint=f"`batchctl prepare` takes its rows from the source again ({run.job_file})",
            code="purged",
        )
    plan = workspace.frozen_plan()
    check_rules(workspace.current_plan() or plan, columns_of(workspace, run))
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
    if not plan.codec().traits.live:
        raise UsageError(
            f"provider `{plan.job.model.provider}` has no endpoint that answers single requests",
            where=f"run {run.id}",
            effect="nothing was sent",
            hint=f"there is no dry run for files: batchctl submit {run.id}",
        )
    calls = SampleCalls(workspace, run, plan)
    lost = calls.recover()
    stored = calls.stored(policy.max_age)
    avoid = lost - stored.keys()
    drawn = partial(
        sample_of, workspace.directory(run.id) / "chunks", chunks, policy.pick, min(count, total), policy.seed
    )
    sample = list(drawn(plan.codec().live_body, avoid=avoid))
    if not sample:
        raise GateFailed(
            "every row that could be tried was asked before and got no answer",
            where=f"run {run.id}",
            effect="nothing was sent: those calls may be paid, and no row is asked twice",
            hint="[sample] rows = 0 does without a dry run",
        )
    provider = workspace.provider(plan)
    workspace.account(provider)  # no key: say so before announcing calls
    if avoid:
        workspace.options.note(
            f"{plural(len(avoid), 'row')} got no answer in an earlier dry run: their calls may be paid, count against the "
            "budget, and are not repeated"
        )
    fresh = [one for one in sample if one.key not in stored]
    workspace.options.note(
        f"live sample: {plural(len(sample), 'row')}, {plural(len(fresh), 'call')} to {provider.name} at live price"
    )
    stored |= calls.ask(provider, fresh)
    answers = [stored[one.key] for one in sample]
    judged = _judge(plan, workspace, sample, answers)
    answered = [bool(one["status"]) for one in answers]
    found = _Tried(sample, judged, answered, total, sum(one.bytes for one in chunks))
    return _report(workspace, run, plan, found, calls=len(fresh))


def _judge(plan: Plan, workspace: Workspace, sample: list[Sampled], answers: list[dict[str, Any]]) -> list[Verdict]:
    current = workspace.current_plan() or plan
    book = rule_book(current.job, current.where["job"])
    rules = Rules(replace(book, when=None, sample=Fraction(0)))  # a row that a person shall see has a valid answer
    job = current.job
    judge = Judge(current.schema(), parse=job.output.parse, review_refused=job.review.refused, rules=rules)
    reader = READERS[plan.wire]
    verdicts = []
    for one, answer in zip(sample, answers, strict=True):
        if answer["status"] == 200:
            extracted = reader.body(answer["body"], plan.endpoint, plan.job.output.mode)
        else:
            extracted = reader.http_error(answer["status"], answer["body"])
        verdicts.append(judge.verdict(extracted, one.row))
    return verdicts


@dataclass(frozen=True, slots=True)
class _Tried:
    """A judged sample and what it says about the whole run."""

    sample: list[Sampled]
    verdicts: list[Verdict]
    answered: list[bool]  # with an answer, or with a refusal that costs nothing; a lost answer says nothing
    requests: int
    total_bytes: int

    def used(self) -> list[tuple[Sampled, Usage]]:
        pairs = zip(self.sample, self.verdicts, strict=True)
        return [(one, verdict.usage) for one, verdict in pairs if verdict.usage is not None]

    def forecast(self, price: Price | None, cap: int | None) -> Forecast | None:
        if price is None:
            return None
        points = [
            Point(one.size, 0 if verdict.usage is None else price.rates.cost(verdict.usage), one.weight)
            for one, verdict, answered in zip(self.sample, self.verdicts, self.answered, strict=True)
            if answered
        ]
        seen = [usage for _, usage in self.used()]
        given = max((usage.output_tokens for usage in seen), default=0) if cap is None else cap
        typical = sum(usage.input_tokens for usage in seen) // max(len(seen), 1)
        longest = price.rates.cost(Usage(typical, given))
        return forecast(points, requests=self.requests, total_bytes=self.total_bytes, longest=longest)

    def seen(self) -> dict[str, int]:
        """The densest request (tokens for its bytes) and the longest answer: what later bounds are made of."""
        used = self.used()
        if not used:
            return {}
        one, usage = max(used, key=lambda pair: Fraction(pair[1].input_tokens, pair[0].size))
        longest = max(usage.output_tokens for _, usage in used)
        return {"input_tokens": usage.input_tokens, "line_bytes": one.size, "output_tokens": longest}


def _advice(reasons: Counter[str], near: int, cap: int | None, longest: int, answers: int) -> list[str]:
    """What to change, as far as the sample shows it."""
    lines = []
    if cap and (reasons["truncated"] or near):
        told = f"{reasons['truncated']} cut off, " if reasons["truncated"] else ""
        wanted = max(longest, cap) * 5 // 4
        lines.append(f"  {told}{near} of {answers} near the cap of {cap} output tokens: raise it, {wanted} for a start")
    if reasons["refused"]:
        lines.append(f"  {reasons['refused']} refused: they are billed; reword the prompt, or expect them in review")
    return lines


def _money(
    workspace: Workspace, run: queries.Run, tried: _Tried, cap: int | None
) -> tuple[list[str], dict[str, Any] | None]:
    """The forecast in words and as facts; nothing without a price."""
    prices = {lane: money.price_of(workspace, run, run.settings, lane) for lane in ("batch", "live")}
    found = {lane: tried.forecast(price, cap) for lane, price in prices.items()}
    batch, live = found["batch"], found["live"]
    if batch is None and live is None:
        return ["  forecast           unknown: no price is known for this model; see [prices]"], None
    lines = []
    for lane, one in found.items():
        price = prices[lane]
        if one is not None and price is not None:
            lines.append(f"  forecast, {lane:<9}{one.text}   {price.named}")
        else:
            lines.append(f"  forecast, {lane:<9}unknown: no {lane} price is known for this model")
    if batch is not None and batch.low is not None:
        lines.append(f"  {METHOD}, {plural(batch.answers, 'answer')}; further attempts are not in it")
    budget = money.budget_of(workspace, run)
    if budget is not None and batch is not None and (batch.high or batch.mid) > budget:
        lines.append(f"  the budget of {usd_text(budget)} may not be enough for the batch lane")
    facts: dict[str, Any] = {"usd": None, "usd_low": None, "usd_high": None}
    facts |= {} if batch is None else batch.as_dict()
    facts |= {f"live_{name}": None for name in ("usd", "usd_low", "usd_high")}
    facts |= {} if live is None else {f"live_{name}": value for name, value in live.as_dict().items()}
    facts |= {"method": METHOD, "answers": len(tried.used()), "requests": tried.requests}
    return lines, facts


def _report(workspace: Workspace, run: queries.Run, plan: Plan, tried: _Tried, *, calls: int) -> Report:
    policy = workspace.policy.sample
    verdicts = tried.verdicts
    valid = sum(1 for one in verdicts if one.state is RowState.COMPLETED)
    share = valid / len(verdicts)
    passed = share >= policy.min_valid
    reasons = Counter(str(one.reason) for one in verdicts if one.reason is not None)
    used = [usage for _, usage in tried.used()]
    tokens_in, tokens_out = (sum(getattr(one, name) for one in used) for name in ("input_tokens", "output_tokens"))
    cap = money.output_cap(plan)
    near = sum(1 for one in used if cap and one.output_tokens > NEAR_CAP * cap)
    said, expected = _money(workspace, run, tried, cap)
    lines = _lines(tried, run, valid, float(policy.min_valid), reasons, calls)
    if used:
        lines.append(f"  tokens a row       {tokens_in / len(used):>6,.0f} in, {tokens_out / len(used):,.0f} out")
        lines += said
        lines += _advice(reasons, near, cap, max(one.output_tokens for one in used), len(used))
    lines.append("Ready to submit" if passed else "Not ready to submit: too few answers are valid")
    facts = {
        "sample": len(tried.sample),
        "calls": calls,
        "valid": valid,
        "valid_share": share,
        "passed": passed,
        "reasons": dict(reasons),
        "tokens": {"input": tokens_in, "output": tokens_out, "answers": len(used)},
        "near_cap": near,
        "near_cap_share": near / len(used) if used else 0.0,
        "requests": tried.requests,
        "forecast": expected,
        "seen": tried.seen(),
    }
    with workspace.ledger.transaction() as db:
        transitions.add_dry_run(
            db,
            run=run.id,
            settings=run.settings,
            epoch=int(time.time()),
            rows=len(tried.sample),
            valid=valid,
            min_valid=float(policy.min_valid),
            passed=passed,
            report=orjson.dumps(facts).decode(),
        )
    balance = queries.balance(workspace.ledger.db, run.id)
    following = (
        f"batchctl submit {run.id}"
        if passed
        else "correct the prompt, schema or params, then batchctl prepare and dry-run again"
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


def _lines(tried: _Tried, run: queries.Run, valid: int, needed: float, reasons: Counter[str], calls: int) -> list[str]:
    """What came back: how many valid, what was wrong with the others, and which they are."""
    count = len(tried.sample)
    lines = [
        f"Live sample of {run.id}: {plural(count, 'row')}, {plural(calls, 'live call')}"
        + (f", {count - calls} answered before" if calls < count else "")
    ]
    lines.append(f"  completed          {valid:>6,}   {valid / count:.1%}   (needed: {needed:.0%})")
    lines += [f"  {reason:<18} {count:>6,}" for reason, count in reasons.most_common()]
    pairs = zip(tried.sample, tried.verdicts, strict=True)
    shown = [(one, verdict) for one, verdict in pairs if verdict.reason is not None]
    return lines + [f"    row {one.source_id}: {verdict.reason}: {verdict.detail}" for one, verdict in shown[:5]]
