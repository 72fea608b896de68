"""Completed rows to every `[[publish]]` target: keyed, atomic, and done twice the same as done once.

Per target: an intent in the ledger, the target brought to hold the rows (all or nothing for its readers), a record. When
every target has them the rows become `published`. Killed anywhere, the same command carries on: rows are merged by key or
replace the whole, never added, so that doing it again changes nothing.

A replaced target always gets every row. An upsert gets those of chunks that changed since the target got them (`unsent`),
so that a nightly job sends the rows of the night; with `--all`, or when its table is gone, every row.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from batchctl.files import crash_point, make_directory
from batchctl.jobfile import Publish
from batchctl.ledger import holdings, publications, queries
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import BatchctlError, Exit, GateFailed, StorageFailed, UsageError
from batchctl.model.rows import FAILED, RowState
from batchctl.tables.columns import Gone, Load, Loaded
from batchctl.tables.destinations import RUN, Destination
from batchctl.workflow.money import cost, cost_line
from batchctl.workflow.outgoing import Outgoing, Taken, check_key, columns_of, destinations, key_of, names_rows
from batchctl.workflow.purge import AT_ITS_END, delete_remote, is_simulated_run
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.results import write_results
from batchctl.workflow.standing import broken_shares, is_simulated
from batchctl.workflow.unsent import Unsent, unsent
from batchctl.workflow.validate import judged
from batchctl.workflow.workspace import Options, Workspace, opened

ON_THE_WAY = (RowState.QUEUED, RowState.SUBMITTED)
TO_REVIEW = "batchctl review {run}, or publish without them: --allow-pending-review"


class NotReady(BatchctlError):
    """Rows of the run are still on the way: the same command later."""

    exit_code = Exit.PENDING
    code = "pending"


@dataclass(frozen=True, slots=True)
class Target:
    """One `[[publish]]` table, understood. `content` names what would go there now."""

    place: Destination
    spec: Publish
    out: Outgoing
    taken: tuple[Taken, ...]
    key: tuple[str, ...]
    content: str
    unsent: Unsent


@dataclass(frozen=True, slots=True)
class Ways:
    """What a person may say to `publish`. `everything`: an upsert brings what the target has already as well."""

    allow_pending_review: bool = False
    csv_raw: bool = False
    everything: bool = False


PLAIN = Ways()


def publish(options: Options, *, plan_only: bool = False, ways: Ways = PLAIN) -> Report:
    """Bring every target to hold the completed rows of the job. `plan_only` says what would go where and touches nothing."""
    with opened(options, write=not plan_only) as workspace:
        run = workspace.run
        if not plan_only:
            workspace.lock()
            judged(workspace, run)
        _check_ready(workspace, run, ways)
        with _spool(workspace, plan_only) as spool:
            targets = _targets(workspace, run, ways, spool)
            if plan_only:
                return _report(workspace, run, [_planned(workspace, one, spool) for one in targets], plan_only=True)
            done = [_bring(workspace, run, one, ways, spool) for one in targets]
        _close(workspace, run, targets)
        return _report(workspace, run, done)


def after_run(workspace: Workspace, run: queries.Run, final: Report, ways: Ways) -> Report:
    """The last step of `run`: publish what is new once nothing is on the way. Never twice without a reason."""
    balance = queries.balance(workspace.ledger.db, run.id)
    settled = not any(balance[state] for state in (*ON_THE_WAY, RowState.HELD))
    if workspace.job is None or not workspace.job.publish or not settled:
        return final
    if balance[RowState.REVIEW_REQUIRED] and not ways.allow_pending_review:
        line = f"Not published: {plural(balance[RowState.REVIEW_REQUIRED], 'row')} in review"
        return replace(final, lines=(*final.lines, line), next=TO_REVIEW.format(run=run.id))
    if broken_shares(workspace, run):
        return replace(
            final, exit=Exit.GATE, lines=(*final.lines, "Not published: a rule over the whole run is broken")
        )
    _check_ready(workspace, run, ways)
    with _spool(workspace, False) as spool:
        targets = _targets(workspace, run, ways, spool)
        done = [_bring(workspace, run, one, ways, spool, again=False) for one in targets]
    _close(workspace, run, targets)
    told = _report(workspace, run, done)
    facts = {**final.facts, "targets": told.facts["targets"]}
    ending = told.next if final.exit is Exit.OK else final.next
    return replace(final, balance=told.balance, lines=(*final.lines, *told.lines), facts=facts, next=ending)


# --- whether --------------------------------------------------------------------------------------------------------


def _check_ready(workspace: Workspace, run: queries.Run, ways: Ways) -> None:
    """Refuse what must not go out: a run that is not at its end, doubtful rows, a broken run-level rule."""
    balance = queries.balance(workspace.ledger.db, run.id)
    nothing = "nothing was published"
    if workspace.job is None or not workspace.job.publish:
        raise UsageError(
            "the job file names no target",
            where=str(workspace.job_path or run.job_file),
            effect=nothing,
            hint='add [[publish]] with to = "out/labels.parquet"',
        )
    if balance["rows"] != run.seen - run.known:
        raise StorageFailed(
            f"{run.id} is unbalanced: {balance['rows']:,} rows are in a state, {run.seen - run.known:,} were prepared",
            where=str(workspace.ledger.path),
            effect=nothing,
            hint="`batchctl check` names what is damaged",
            code="damaged",
        )
    on_the_way = sum(balance[state] for state in (*ON_THE_WAY, RowState.HELD))
    if on_the_way:
        held = f", {balance[RowState.HELD]:,} of them held" if balance[RowState.HELD] else ""
        raise NotReady(
            f"{plural(on_the_way, 'row')} of {run.id} {'is' if on_the_way == 1 else 'are'} still on the way{held}",
            effect=nothing,
            hint=f"`batchctl {'resolve' if held else 'poll'} {run.id}`, then publish",
        )
    unjudged = [one.number for one in queries.chunks(workspace.ledger.db, run.id) if one.state is ChunkState.FETCHED]
    if unjudged:
        raise NotReady(
            f"{plural(len(unjudged), 'chunk')} of {run.id} is not judged",
            effect=nothing,
            hint=f"batchctl validate {run.id}",
        )
    if balance[RowState.REVIEW_REQUIRED] and not ways.allow_pending_review:
        raise UsageError(
            f"{plural(balance[RowState.REVIEW_REQUIRED], 'row')} of {run.id} in review",
            effect=nothing,
            hint=TO_REVIEW.format(run=run.id),
            code="pending_review",
        )
    broken = [one.words for one in broken_shares(workspace, run)]
    if broken:
        raise GateFailed(
            f"{plural(len(broken), 'rule')} over the whole run {'is' if len(broken) == 1 else 'are'} broken",
            where=broken,
            effect=nothing,
            hint="correct the prompt or the rule, then `batchctl validate` and publish",
            code="rule",
        )


# --- what -----------------------------------------------------------------------------------------------------------


def _targets(workspace: Workspace, run: queries.Run, ways: Ways, spool: Path) -> list[Target]:
    """Every target with its columns and content; refuses what no target could take before any is touched."""
    plan = workspace.current_plan()
    assert plan is not None
    every = [one for one in queries.runs(workspace.ledger.db, run.job) if not one.is_purged]
    purged = [one.id for one in queries.runs(workspace.ledger.db, run.job) if one.is_purged]
    found: list[Target] = []
    outs: dict[bool, Outgoing] = {}  # by whether a target is for this run alone
    for spec, place in destinations(plan, run.id):
        if purged and (run.is_purged or (spec.mode == "replace" and RUN not in spec.to)):
            raise UsageError(
                f"the texts of {purged[-1]} were purged: {place.shown} would lose its rows",
                where=f"{len(purged):,} of the job's runs are purged",
                effect="nothing was published",
                hint=f'use mode = "upsert" with a key, or a target for each run ("...{RUN}...")',
                code="purged",
            )
        alone = RUN in spec.to
        if alone not in outs:
            outs[alone] = Outgoing(workspace, (run,) if alone else every, spool)
        out = outs[alone]
        taken = tuple(columns_of(plan, spec.include, out.known_columns()))
        key = key_of(plan, taken, spec.key)
        names = [one.column.name for one in taken]
        if key and not names_rows(plan, taken, key):
            check_key(out.rows(taken, key), names, key, spool)
        found.append(_target(workspace, place, spec, out, taken, key, ways))
    return found


def _target(
    workspace: Workspace,
    place: Destination,
    spec: Publish,
    out: Outgoing,
    taken: tuple[Taken, ...],
    key: tuple[str, ...],
    ways: Ways,
) -> Target:
    """A target, what would go there, and what of that it lacks."""
    columns = [(one.column.name, one.column.kind, one.place, one.name) for one in taken]
    shape = _digest([workspace.ledger.workspace, place.kind, place.shown, spec.mode, key, columns, ways.csv_raw])
    upsert = spec.mode == "upsert"
    lacks = unsent(workspace, place.shown, shape, list(out.runs), upsert=upsert, everything=ways.everything)
    last = publications.newest(workspace.ledger.db, place.shown)
    if last is not None and last.state == "open" and last.id != _content(lacks):
        lacks = lacks.whole()  # something else was interrupted there: what the table has now, nobody can tell
    return Target(place, spec, out, taken, key, _content(lacks), lacks)


def _content(lacks: Unsent) -> str:
    """A digest of everything that the rows which go out depend on."""
    return _digest([lacks.shape, sorted(lacks.now.items()), sorted(lacks.chunks)])


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


# --- doing it -------------------------------------------------------------------------------------------------------


@contextmanager
def _spool(workspace: Workspace, plan_only: bool) -> Iterator[Path]:
    """A private directory for the time of one publication; row text in it goes with it, also what a kill left."""
    if plan_only:  # nothing but digests, and others may ask at the same time
        with TemporaryDirectory(prefix="batchctl-") as name:
            yield Path(name)
        return
    path = workspace.state / f"{workspace.run.job}.publish.part"
    shutil.rmtree(path, ignore_errors=True)
    make_directory(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _bring(
    workspace: Workspace, run: queries.Run, target: Target, ways: Ways, spool: Path, *, again: bool = True
) -> dict[str, Any]:
    """One target. `again` false: leave a target alone that was given exactly this before."""
    last = publications.newest(workspace.ledger.db, target.place.shown)
    same = last is not None and last.id == target.content and last.state == "done"
    if target.unsent.nothing:
        return _facts(target, "as it was", 0, {})
    if same and not again and last is not None:
        return _facts(target, "as it was", last.rows or 0, last.facts)
    try:
        loaded = _load(workspace, run, target, ways, spool)
    except Gone:  # somebody took the table away: it gets every row again
        workspace.options.note(f"{target.place.shown} is not there any more: every row goes there again")
        whole = target.unsent.whole()
        target = replace(target, unsent=whole, content=_content(whole))
        loaded = _load(workspace, run, target, ways, spool)
    return _facts(target, "published", loaded.rows, loaded.facts)


def _load(workspace: Workspace, run: queries.Run, target: Target, ways: Ways, spool: Path) -> Loaded:
    """Intent, the target brought to hold the rows, record."""
    from batchctl.tables.publishing import bring

    ledger, lacks = workspace.ledger, target.unsent
    upsert = target.spec.mode == "upsert"
    with ledger.transaction() as db:
        turn = publications.open_publication(db, target.content, run.id, target.place.shown)
    crash_point("K19a")
    only = lacks.ids(workspace, spool / "dirty.sqlite")
    load = Load(
        columns=tuple(one.column for one in target.taken),
        key=target.key,
        upsert=upsert,
        rows=target.out.rows(target.taken, target.key, only),
        mark=turn.mark,
        spool=spool,
        raw_csv=ways.csv_raw,
        partial=only is not None,
    )
    try:
        loaded = bring(target.place, load)
    finally:
        if only is not None:
            only.close()
    crash_point("K19d")
    with ledger.transaction() as db:
        publications.close_publication(db, turn, loaded.rows, loaded.facts)
        holdings.record(db, target.place.shown, run.job, lacks.shape, lacks.now, alone=not upsert)
    crash_point("K19e")
    return loaded


def _facts(target: Target, state: str, rows: int, said: dict[str, Any]) -> dict[str, Any]:
    return {
        "to": target.place.shown,
        "mode": target.spec.mode,
        "key": list(target.key),
        "state": state,
        "rows": rows,
        "everything": target.unsent.everything,
        "columns": [one.column.name for one in target.taken],
        "runs": [one.id for one in target.out.runs],
        **said,
    }


def _planned(workspace: Workspace, target: Target, spool: Path) -> dict[str, Any]:
    if target.unsent.nothing:
        return _facts(target, "as it was", 0, {})
    last = publications.newest(workspace.ledger.db, target.place.shown)
    same = last is not None and last.id == target.content and last.state == "done"
    only = target.unsent.ids(workspace, spool / "dirty.sqlite")
    return _facts(target, "as it was" if same else "planned", target.out.count(only), {})


def _close(workspace: Workspace, run: queries.Run, targets: Sequence[Target]) -> None:
    """Every target has the rows: they are published, in the ledger and in the files of their runs."""
    everywhere = {one.id: one for one in targets[0].out.runs}
    for target in targets[1:]:
        mine = {one.id for one in target.out.runs}
        everywhere = {name: one for name, one in everywhere.items() if name in mine}
    fresh = [one for one in everywhere.values() if not publications.is_published(workspace.ledger.db, one.id)]
    if fresh:
        with workspace.ledger.transaction() as db:
            for one in fresh:
                publications.mark_published(db, one.id)
        crash_point("K19f")
    for name in dict.fromkeys([run.id, *(one.id for one in fresh)]):
        write_results(workspace.state, workspace.ledger.db, queries.run(workspace.ledger.db, name))
    retention = workspace.policy.retention
    if retention is not None and retention.remote_files == "on-publish":
        for one in everywhere.values():
            _delete_remote(workspace, one)


def _delete_remote(workspace: Workspace, run: queries.Run) -> None:
    """[retention] remote_files = "on-publish". That it fails takes nothing from what was published: `purge` does it later."""
    if run.remote_purged_at is not None or is_simulated_run(workspace, run):
        return
    if any(one.state not in AT_ITS_END for one in queries.chunks(workspace.ledger.db, run.id)):
        return
    try:
        delete_remote(workspace, run)
    except BatchctlError as error:
        workspace.options.note(f"the files of {run.id} at the provider are not deleted yet: {error.what}")


def _report(workspace: Workspace, run: queries.Run, done: list[dict[str, Any]], *, plan_only: bool = False) -> Report:
    db = workspace.ledger.db
    balance = queries.balance(db, run.id)
    held_back = {str(state): balance[state] for state in (*FAILED, RowState.REVIEW_REQUIRED) if balance[state]}
    lines = []
    for one in done:
        key = f", key {', '.join(one['key'])}" if one["key"] else ""
        how = {"published": "Wrote", "planned": "Would write", "as it was": "Has already"}[one["state"]]
        changes = ""
        if "added" in one:
            changes = f"   {one['added']:,} added, {one['changed']:,} changed, {one['removed']:,} removed"
        rows = plural(one["rows"], "row")
        if not one["everything"]:
            rows = "every row" if one["state"] == "as it was" else f"{plural(one['rows'], 'new or changed row')}"
        lines.append(f"{how} {one['to']}   {rows}, {one['mode']}{key}{changes}")
    if not all(one["everything"] for one in done):
        lines.append(
            "What a target has already was not sent again; --all sends every row, for a table that others changed"
        )
    if held_back:
        words = ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in held_back.items())
        lines.append(f"Held back: {plural(sum(held_back.values()), 'row')} ({words})")
    if plan_only:
        lines.append("Nothing was written")
    lines += [one for one in [cost_line(db, run, balance)] if one]
    following = f"batchctl rerun {run.id}" if any(balance[state] for state in FAILED) else f"batchctl report {run.id}"
    return Report(
        "publish",
        run.id,
        Exit.ATTENTION if held_back else Exit.OK,
        balance,
        cost(db, run, balance),
        tuple(lines),
        f"batchctl publish {run.id}" if plan_only else following,
        {"plan": plan_only, "targets": done, "held_back": held_back},
        simulated=is_simulated(workspace),
    )
