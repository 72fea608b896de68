"""A new attempt for failed rows, as far as the retry policy lets it help.

A row that failed at the provider's side is sent again as it was. A paid answer that could not be used is sent again only
when prompt, schema, model or params changed since (or with `same_prompt`): the same request gives the same answer. The
new chunks take the rows over in the transaction that adds them; nothing else of the run changes.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchctl import jobfile
from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, rows_name
from batchctl.files import make_directory, sync_directory, sync_file
from batchctl.judging.caps import MOST_ATTEMPTS, after
from batchctl.ledger import queries, transitions
from batchctl.ledger.queries import Chunk
from batchctl.ledger.transitions import ChunkState, NewChunk
from batchctl.model.errors import ConsentMissing, Exit, UsageError
from batchctl.model.rows import FAILED, Reason, Retry, RowState, Tries, Verdict
from batchctl.workflow import lanes, money, notify, reconcile
from batchctl.workflow.attempt import Group
from batchctl.workflow.decided import decisions
from batchctl.workflow.history import are_in
from batchctl.workflow.judged_rows import JudgedRow, judged_rows
from batchctl.workflow.money import BATCH, cost
from batchctl.workflow.poll import Pass, looked
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.requests import (
    chunk_limits,
    settings_row,
)
from batchctl.workflow.results import write_results
from batchctl.workflow.rules import caps
from batchctl.workflow.standing import is_simulated
from batchctl.workflow.submit import SENDABLE, consent, send_waiting
from batchctl.workflow.tries import tries_before
from batchctl.workflow.validate import check_target, copy_rerun, judged, report, superseded
from batchctl.workflow.workspace import Options, Plan, Workspace, opened, plan_for

REPEATABLE = (Retry.TRANSIENT, Retry.USER, Retry.BILLING)
REASONS = tuple(one for one in Reason if one is not Reason.SAMPLE)
_WANTED = frozenset(str(one) for one in (*FAILED, RowState.REVIEW_REQUIRED))


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A failed or doubtful row, and what speaks for or against another attempt."""

    judged: JudgedRow
    elsewhere: bool  # a later run of the job has the row: it answers it, or asks for it
    tries: Tries

    @property
    def attempt(self) -> int:
        return self.judged.chunk.attempt

    @property
    def settings(self) -> str:
        return self.judged.chunk.settings


def rerun(
    options: Options,
    *,
    only: Sequence[str] = (),
    same_prompt: bool = False,
    plan_only: bool = False,
    rerun_file: str | None = None,
) -> Report:
    """Prepare and send a new attempt for the failed rows the policy allows; `only` narrows it to some reasons."""
    unknown = [one for one in only if one not in REASONS]
    if unknown:
        raise UsageError(
            f"`{unknown[0]}` is not a reason",
            where="--only",
            effect="nothing was sent",
            hint="use " + ", ".join(REASONS),
        )
    check_target(rerun_file)
    with opened(options, write=True) as workspace, notify.watching(workspace):
        run = workspace.run
        workspace.lock()
        if run.is_purged:
            raise UsageError(
                f"the texts of {run.id} were purged: no row of it can be sent again",
                effect="nothing was sent",
                hint=f"`batchctl prepare` takes its rows from the source again ({run.job_file})",
                code="purged",
            )
        known = queries.chunks(workspace.ledger.db, run.id)
        judged(workspace, run)  # by the rules as they are now: what is fine by them is not sent again
        if queries.chunks(workspace.ledger.db, run.id) != known:
            write_results(workspace.state, workspace.ledger.db, run)
        work = _Rerun(workspace, run, frozenset(only), same_prompt=same_prompt)
        chosen = work.choose()
        if rerun_file is not None:
            copy_rerun(workspace.directory(run.id) / "rerun.jsonl", Path(rerun_file))
        begun = work.begun()
        if plan_only or not (chosen or begun):
            return work.plan_report(chosen, plan_only=plan_only)
        money.settle_budget(workspace, run)
        lanes.settle(workspace, run)
        unsent = [one for one in begun if one.state in SENDABLE]
        consent(workspace, chosen + sum(one.requests for one in unsent), len(work.groups) + len(unsent))
        if chosen:
            work.build()
        provider = workspace.provider(workspace.frozen_plan())
        reconcile.settle(workspace, provider, run)
        sent = send_waiting(workspace, provider, run, least_attempt=2)
        if sent.stopped_by is not None:
            write_results(workspace.state, workspace.ledger.db, run)
            raise sent.stopped_by
        done = looked(workspace, run) if options.wait else Pass()
        judged(workspace, run)
        write_results(workspace.state, workspace.ledger.db, run)
        if done.problems:
            raise done.problems[0]
        what = f"New attempt for {plural(chosen, 'row')}" if chosen else "Went on with the attempt that was begun"
        first = (f"{what} of {run.id}", *work.left_out())
        final = report(workspace, run, "rerun", first=first)
        notify.about(workspace, run, final)
        return Report(
            final.command,
            final.run,
            final.exit,
            final.balance,
            final.cost,
            final.lines,
            final.next,
            {**final.facts, "rerun_rows": chosen, "skipped": dict(work.skipped)},
            final.simulated,
        )


def rest_of_batches(workspace: Workspace, run: queries.Run) -> int:
    """New chunks for the rows that ended batches left without an answer and that can be asked again: how many rows."""
    work = _Rerun(workspace, run, rest=True)
    chosen = work.choose()
    if chosen:
        work.build()
    workspace.options.event("carry_over", rows=chosen, **{"from": run.id}, why=", ".join(sorted(work.reasons)))
    return chosen


def automatic(workspace: Workspace, run: queries.Run, *, again: bool) -> int:
    """Prepare the new attempts that [retry] allows without a word, once all chunks of a run are done; how many rows.

    `again`: this command has done so before. What an empty account refused is then left for the next one. Without
    consent nothing is prepared, and a note says so.
    """
    done = (ChunkState.APPLIED, ChunkState.HELD, ChunkState.WITHDRAWN)
    now = queries.run(workspace.ledger.db, run.id)
    if (
        now.stopped
        or now.is_purged
        or any(one.state not in done for one in queries.chunks(workspace.ledger.db, run.id))
    ):
        return 0
    if not sum(queries.balance(workspace.ledger.db, run.id)[state] for state in FAILED):
        return 0
    work = _Rerun(workspace, run, automatic=True, billing=not again)
    chosen = work.choose()
    if not chosen:
        return 0
    try:
        consent(workspace, chosen, len(work.groups))
    except ConsentMissing:
        workspace.options.note(
            f"{plural(chosen, 'failed row')} may be sent again by [retry]; it needs your word (--yes)"
        )
        return 0
    work.build()
    workspace.options.event("carry_over", rows=chosen, **{"from": run.id}, why=", ".join(sorted(work.reasons)))
    return chosen


class _Rerun:
    """One rerun: which rows, under which plan, into which chunks.

    `rest`: only what batches left without an answer, as it was asked.
    """

    def __init__(
        self,
        workspace: Workspace,
        run: queries.Run,
        only: frozenset[str] = frozenset(),
        *,
        same_prompt: bool = False,
        automatic: bool = False,
        rest: bool = False,
        billing: bool = True,
    ) -> None:
        self.workspace = workspace
        self.automatic = automatic
        self.billing = billing
        self.run = run
        self.only = only
        self.same_prompt = same_prompt
        self.current = workspace.current_plan() or workspace.frozen_plan()
        self.retry = workspace.policy.retry
        self.caps = caps(workspace.policy)
        self.truncated_plan = self._truncated_plan()
        self.plans: dict[str, Plan] = {}
        self.groups: Counter[tuple[str, int]] = Counter()  # (settings, attempt) to rows
        self.skipped: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.chunks = queries.chunks(workspace.ledger.db, run.id)
        self.rest = rest
        intents = queries.last_intents(workspace.ledger.db, run.id)
        self.abandoned = {number for number, one in intents.items() if one.state == "abandoned"}
        self.decided = decisions(workspace.directory(run.id), workspace.ledger.db, run.id)
        self.later = [one for one in queries.runs(workspace.ledger.db, run.job) if one.number > run.number]

    def _truncated_plan(self) -> Plan | None:
        """The plan of truncated rows when `[retry] truncated` sets params for them."""
        truncated = self.retry.truncated
        if truncated is None or not truncated.set or self.workspace.job is None:
            return None
        extra = tuple(f"model.params.{key}={_toml(value)}" for key, value in truncated.set.items())
        job = self.workspace.job
        again = jobfile.from_text(
            job.text,
            where=str(self.workspace.job_path),
            overrides=(*job.overrides, *extra),
            environ=self.workspace.options.environ,
            base=job.base,
        )
        return plan_for(again, str(self.workspace.job_path))

    def choose(self) -> int:
        """Count what would be sent, by plan and attempt, and what is left out and why."""
        for row in self.failed():
            settings, why = self._decide(row)
            if settings is not None:
                self.groups[settings, row.attempt + 1] += 1
                self.reasons[row.judged.reason] += 1
            elif why:
                self.skipped[why] += 1
        for (settings, attempt), count in list(self.groups.items()):
            least = chunk_limits(self.plans[settings]).least_requests
            if count < least and self.workspace.lane(self.run) == "batch":
                del self.groups[settings, attempt]
                provider = self.plans[settings].job.model.provider
                self.skipped[f"fewer than the {least:,} that {provider} takes in a batch: they can be sent live"] += (
                    count
                )
        return sum(self.groups.values())

    def begun(self) -> list[Chunk]:
        """Chunks of an earlier rerun that are not done: it was interrupted, or did not wait."""
        done = (ChunkState.APPLIED, ChunkState.HELD)
        return [one for one in self.chunks if one.attempt > 1 and one.state not in done]

    def failed(self) -> Iterator[FailedRow]:
        """Every failed or doubtful row as its newest chunk has it, each once, in source order."""
        streams = [self._failed_of(one) for one in self.chunks if one.state is ChunkState.APPLIED]
        return heapq.merge(*streams, key=lambda row: row.judged.position)

    def _failed_of(self, chunk: Chunk) -> Iterator[FailedRow]:
        directory = self.workspace.directory(self.run.id)
        failed = judged_rows(directory, chunk, self.decided.get(chunk.number, {}), _WANTED)
        first = next(failed, None)
        if first is None:
            return
        gone = superseded(self.workspace, chunk, self.chunks)
        skip = set() if gone is None else set(gone.to_pylist())
        names = [rows_name(chunk.number)] + ([copies_name(chunk.number)] if chunk.copies else [])
        elsewhere = {position for name in names for position in self._in_later_runs(directory / "chunks" / name)}
        before = tries_before(self.workspace, chunk, self.chunks)
        for one in chain([first], failed):
            if one.position not in skip:
                kind = Reason(one.reason) if one.reason else None
                verdict = Verdict(RowState(one.state), kind, retry=Retry(one.retry), paid=one.paid)
                tries = after(before.get(one.position, Tries()), verdict)
                yield FailedRow(one, one.position in elsewhere, tries)

    def _in_later_runs(self, path: Path) -> list[int]:
        """Positions of the rows of a segment whose source id a later run of the job has as well."""
        if not self.later:
            return []
        rows = segments.read(path, ["position", "id"])
        found = pa.array([False] * len(rows))
        for run in self.later:
            base = self.workspace.directory(run.id) / "chunks"
            for chunk in queries.chunks(self.workspace.ledger.db, run.id):
                for name in [rows_name(chunk.number)] + ([copies_name(chunk.number)] if chunk.copies else []):
                    ids = segments.column(base / name, "id").combine_chunks()
                    mine = rows.column("id").combine_chunks()
                    found = pc.or_(found, are_in(mine, ids, run))
        positions: list[int] = rows.column("position").combine_chunks().filter(found).to_pylist()
        return positions

    def _decide(self, row: FailedRow) -> tuple[str | None, str]:
        """The settings under which this row is sent again, or None and why it is left out ("" when not asked for)."""
        judged, reason = row.judged, row.judged.reason
        if self.rest:
            left = judged.chunk.lane == BATCH and judged.chunk.number not in self.abandoned
            again = left and judged.state in FAILED and judged.retry in REPEATABLE
            return (self._with(row.settings) if again and not row.elsewhere and not judged.decision else None), ""
        asked = bool(self.only) and reason in self.only
        if self.only and not asked:
            return None, ""
        if judged.state == RowState.REVIEW_REQUIRED and (not asked or reason == Reason.SAMPLE):
            return None, f"{reason}: waits for a person"
        if row.elsewhere:
            return None, f"{reason}: a later run of the job has them"
        if row.attempt >= MOST_ATTEMPTS:
            return None, f"{reason}: {MOST_ATTEMPTS} attempts"
        if self.automatic and judged.chunk.number in self.abandoned:
            return None, f"{reason}: given up by a person; their batch may still run"
        changed = self.current.settings != row.settings
        if judged.retry in REPEATABLE and not judged.decision:
            return self._repeated(row, changed)
        raised = self.truncated_plan if reason == Reason.TRUNCATED else None
        if raised is not None and raised.settings != row.settings and row.tries.paid <= self.caps.truncated:
            return self._with_plan(raised), ""
        if self.automatic:
            further = row.tries.paid <= self.caps.further(reason)
            if reason == Reason.TRUNCATED or not further or not (changed or reason == Reason.REFUSED):
                return None, f"{reason}: needs a change, or a word"
            return self._with_plan(self.current), ""
        if changed or self.same_prompt:
            return self._with_plan(self.current), ""
        return None, f"{reason}: the same request would fail again"

    def _repeated(self, row: FailedRow, changed: bool) -> tuple[str | None, str]:
        """A row that failed at the provider's side: sent as it was, as often as [retry] transient says."""
        reason, retry = row.judged.reason, row.judged.retry
        if self.automatic and retry == Retry.USER:
            return None, f"{reason}: cancelled; `batchctl rerun` sends them again"
        if retry == Retry.BILLING and not self.billing:
            return None, f"{reason}: out of credit"
        review = row.judged.state == RowState.REVIEW_REQUIRED  # asked for by name: a person's word
        if retry != Retry.TRANSIENT or review or row.tries.runs <= self.caps.transient:
            return self._with(row.settings), ""
        if not changed or self.automatic:
            return None, f"{reason}: {plural(row.tries.runs, 'attempt')} used up ([retry] transient)"
        return self._with_plan(self.current), ""

    def _with(self, settings: str) -> str:
        if settings not in self.plans:
            self.plans[settings] = self.workspace.frozen_plan(settings)
        return settings

    def _with_plan(self, plan: Plan) -> str:
        self.plans.setdefault(plan.settings, plan)
        return plan.settings

    # --- chunks -----------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Write the new chunks, then move the rows over in one transaction."""
        directory = self.workspace.directory(self.run.id)
        known = queries.settings(self.workspace.ledger.db, self.run.id)
        number = max(one.number for one in self.chunks) + 1
        made: list[NewChunk] = []
        taken: dict[int, Counter[tuple[str, str]]] = {}
        copied: dict[int, Counter[tuple[str, str]]] = {}
        new_settings = []
        for (settings, attempt), count in sorted(self.groups.items(), key=lambda item: item[0][1]):
            plan = self.plans[settings]
            lane = self.workspace.lane(self.run)
            group = Group(directory / "chunks", self.run.id, plan, attempt, number, count, lane=lane)
            rows = (row for row in self.failed() if row.attempt + 1 == attempt and self._decide(row)[0] == settings)
            for row in rows:
                group.add(row.judged)
                judged = row.judged
                key = (judged.state, judged.reason)
                taken.setdefault(judged.chunk.number, Counter())[key] += 1
                copied.setdefault(judged.chunk.number, Counter())[key] += int(judged.copied)
            chunks = group.finish()
            made += chunks
            number += len(chunks)
            if settings not in known:
                place = f"settings-{settings[:12]}"
                make_directory(directory / place)
                plan.freeze(directory / place)
                for file in (directory / place).iterdir():
                    sync_file(file)
                sync_directory(directory / place)
                new_settings.append(settings_row(plan, place))
        sync_directory(directory / "chunks")
        with self.workspace.ledger.transaction() as db:
            for one in new_settings:
                transitions.add_settings(db, self.run.id, one)
            for chunk, counts in taken.items():
                tallies = {key: (count, copied[chunk][key]) for key, count in counts.items()}
                transitions.take_over(db, self.run.id, chunk, tallies)
            for new in made:
                transitions.add_chunk(db, self.run.id, new)

    # --- words ------------------------------------------------------------------------------------------------------

    def left_out(self) -> list[str]:
        return [f"  left out: {plural(count, 'row')}, {why}" for why, count in sorted(self.skipped.items())]

    def plan_report(self, chosen: int, *, plan_only: bool) -> Report:
        balance = queries.balance(self.workspace.ledger.db, self.run.id)
        lines = [
            f"Would send {plural(chosen, 'row')} again; nothing was sent"
            if chosen
            else "No row can be helped by sending it again; nothing was sent"
        ]
        lines += self.left_out()
        if chosen:
            following, code = f"batchctl rerun {self.run.id}", Exit.OK
        elif self.skipped:
            following = "change the prompt, schema, model or params, then batchctl rerun (or rerun --same-prompt)"
            code = Exit.ATTENTION
        else:
            following, code = f"batchctl status {self.run.id}", Exit.OK
        facts = {"plan": plan_only, "rerun_rows": chosen, "skipped": dict(self.skipped)}
        return Report(
            "rerun",
            self.run.id,
            code,
            balance,
            cost(self.workspace.ledger.db, self.run, balance),
            tuple(lines),
            following,
            facts,
            simulated=is_simulated(self.workspace),
        )


def _toml(value: Any) -> str:
    """A value as TOML writes it, for `--set`; JSON and TOML agree on numbers, strings, booleans and lists of them."""
    return orjson.dumps(value).decode()
