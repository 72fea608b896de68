"""Handing prepared requests out as files, for a program that a person runs: `prepare --export vllm`.

The files are batches like any other: the ledger knows them, `poll` collects their answers, `validate` judges them and
`rerun` hands out the rows that failed. So rows that were handed out are not sent to anyone else.
"""

from __future__ import annotations

from dataclasses import replace

from batchctl.ledger import queries
from batchctl.model.errors import Exit, UsageError
from batchctl.providers.vllm import VllmFiles
from batchctl.workflow import lanes, money, reconcile
from batchctl.workflow.prepare import prepared
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.submit import SENDABLE, send_waiting
from batchctl.workflow.workspace import Options, Workspace, opened

FORMATS = ("vllm",)


def export(options: Options, form: str, *, rows: str | None, resend_changed: bool, keep_done: bool) -> Report:
    """`prepare` for the provider of files called `form`, and its request files written."""
    if form not in FORMATS:
        raise UsageError(
            f"there is no export called `{form}`",
            where="--export",
            effect="nothing was written",
            hint="use " + ", ".join(FORMATS),
        )
    files = replace(options, overrides=(*options.overrides, f"model.provider={form}"), lane=money.BATCH)
    with opened(files, write=True) as workspace:
        if workspace.job is None:
            raise UsageError("prepare takes a job file", effect="nothing was written", hint="batchctl prepare job.toml")
        first = prepared(workspace, rows=rows, resend_changed=resend_changed, keep_done=keep_done)
        if first.run is None:
            return first
        workspace.turn_to(first.run)
        return _handed_out(workspace, first)


def _handed_out(workspace: Workspace, first: Report) -> Report:
    run, plan = workspace.run, workspace.frozen_plan()
    provider = workspace.provider(plan)
    files = provider.provider
    assert isinstance(files, VllmFiles)
    db = workspace.ledger.db
    told: list[int] = []
    lanes.settle(workspace, run)
    if any(one.state in SENDABLE for one in queries.chunks(db, run.id)):
        reconcile.settle(workspace, provider, run)
        sent = send_waiting(workspace, provider, run)
        if sent.stopped_by is not None:
            raise sent.stopped_by
        told = sent.chunks  # each with its command, when it was written
    intents = queries.live_intents(db, run.id)
    batches = [one.batch_id for _, one in sorted(intents.items()) if one.batch_id is not None]
    commands = [files.command(one, plan.job.model.name) for one in batches]
    lines = [*first.lines, f"  {plural(len(commands), 'request file')} for vLLM" + ("" if told else "; run:")]
    lines += [] if told else [f"  {one}" for one in commands]
    balance = queries.balance(db, run.id)
    return replace(
        first,
        exit=Exit.PENDING if commands else first.exit,
        balance=balance,
        cost=money.cost(db, run, balance),
        lines=tuple(lines),
        next=f"batchctl poll {run.id}   (once vLLM has run)",
        facts={**first.facts, "export": plan.job.model.provider, "commands": commands},
    )
