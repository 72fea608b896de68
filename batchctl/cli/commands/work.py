"""run, prepare, dry-run, submit, poll, validate, rerun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchctl.cli.options import (
    AllowPendingReview,
    Budget,
    Common,
    KeepDone,
    Lane,
    MaxWait,
    PlanOnly,
    RerunFile,
    ResendChanged,
    Target,
    Wait,
)

if TYPE_CHECKING:
    from batchctl.workflow.reports import Report
else:
    Report = Any


def run(
    common: Common,
    target: Target = None,
    wait: Wait = False,
    max_wait: MaxWait = None,
    resend_changed: ResendChanged = False,
    keep_done: KeepDone = False,
    allow_pending_review: AllowPendingReview = False,
    lane: Lane = None,
    budget: Budget = None,
) -> Report:
    """Prepare, dry-run, submit, poll, validate, rerun what [retry] allows, publish, as far as it can go now.

    \b
      batchctl run job.toml --wait
      */15 * * * *  batchctl run job.toml --yes --no-input -q        (cron)

    Safe to call again at any moment: nothing is sent twice.
    """
    from batchctl.workflow import run as workflow

    options = common.options(target, wait=wait, max_wait=max_wait, lane=lane, budget=budget)
    return workflow.run(
        options, resend_changed=resend_changed, keep_done=keep_done, allow_pending_review=allow_pending_review
    )


def prepare(
    common: Common,
    target: Target = None,
    rows: Annotated[
        str | None,
        typer.Option(
            "--rows",
            metavar="FILE",
            help="Take the rows of this file instead of the source (a rerun file; - is stdin).",
        ),
    ] = None,
    resend_changed: ResendChanged = False,
    keep_done: KeepDone = False,
    export: Annotated[
        str | None,
        typer.Option("--export", metavar="FORMAT", help="vllm: also write the requests as files for `vllm run-batch`."),
    ] = None,
) -> Report:
    """Turn source rows into checked request chunks; nothing leaves the machine.

    \b
      batchctl prepare job.toml
      batchctl prepare job.toml --rows .batchctl/triage-0001/rerun.jsonl

    With `--export vllm --set model.name=NAME` the requests are handed out as files: no server, no key.
    """
    if export is not None:
        from batchctl.workflow.export import export as exported

        options = common.options(target)
        return exported(options, export, rows=rows, resend_changed=resend_changed, keep_done=keep_done)
    from batchctl.workflow import prepare as workflow

    return workflow.prepare(common.options(target), rows=rows, resend_changed=resend_changed, keep_done=keep_done)


def dry_run(
    common: Common,
    target: Target = None,
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, metavar="N", help="How many rows, instead of [sample] rows.")
    ] = None,
    canary: Annotated[
        int | None,
        typer.Option(
            "--canary",
            envvar="BATCHCTL_CANARY",
            min=1,
            metavar="N",
            help="Then send the first N rows as a batch of their own; the rest waits for it.",
        ),
    ] = None,
    wait: Wait = False,
    max_wait: MaxWait = None,
    budget: Budget = None,
) -> Report:
    """Try a small sample live, at live price, before anything large is sent.

    \b
      batchctl dry-run job.toml
      batchctl dry-run triage-0001 --canary 20 --wait

    A canary's rows are rows of the run: they are paid once. --wait is for its batch.
    """
    if canary is not None:
        from batchctl.workflow.canary import canary as with_canary

        return with_canary(common.options(target, wait=wait, max_wait=max_wait, budget=budget), canary, sample=rows)
    from batchctl.workflow import dry_run as workflow

    return workflow.dry_run(common.options(target, budget=budget), rows=rows)


def submit(
    common: Common,
    target: Target = None,
    plan: PlanOnly = False,
    max_batches: Annotated[
        int | None,
        typer.Option(
            "--max-batches",
            envvar="BATCHCTL_MAX_BATCHES",
            min=1,
            metavar="N",
            help="Create at most this many batches.",
        ),
    ] = None,
    lane: Lane = None,
    budget: Budget = None,
) -> Report:
    """Create a batch for each prepared chunk, exactly once.

    \b
      batchctl submit job.toml
      batchctl submit triage-0001 --plan
    """
    from batchctl.workflow import submit as workflow

    return workflow.submit(common.options(target, lane=lane, budget=budget), plan_only=plan, max_batches=max_batches)


def poll(
    common: Common, target: Target = None, wait: Wait = False, max_wait: MaxWait = None, budget: Budget = None
) -> Report:
    """Read statuses, collect what has ended, send chunks that now fit.

    \b
      batchctl poll job.toml
      batchctl poll triage-0001 --wait --max-wait 6h
    """
    from batchctl.workflow import poll as workflow

    return workflow.poll(common.options(target, wait=wait, max_wait=max_wait, budget=budget))


def validate(
    common: Common,
    target: Target = None,
    rerun_file: RerunFile = None,
    again: Annotated[
        bool, typer.Option("--again", help="Judge everything again, also what is judged already.")
    ] = False,
) -> Report:
    """Judge stored results and write the rerun file with only the failed rows; free, sends nothing.

    \b
      batchctl validate job.toml
      batchctl validate triage-0001 --rerun-file failed.csv
    """
    from batchctl.workflow import validate as workflow

    name = None if rerun_file is None else str(rerun_file)
    return workflow.validate(common.options(target), again=again, rerun_file=name)


def rerun(
    common: Common,
    target: Target = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            envvar="BATCHCTL_ONLY",
            metavar="KIND,...",
            help="Only rows that failed for these reasons.",
        ),
    ] = None,
    same_prompt: Annotated[
        bool,
        typer.Option(
            "--same-prompt",
            envvar="BATCHCTL_SAME_PROMPT",
            help="Also rows that failed under this very prompt, schema, model and params.",
        ),
    ] = False,
    plan: PlanOnly = False,
    wait: Wait = False,
    max_wait: MaxWait = None,
    rerun_file: RerunFile = None,
    lane: Lane = None,
    budget: Budget = None,
) -> Report:
    """Send failed rows again, as far as the retry policy says it can help.

    \b
      batchctl rerun job.toml --only expired,missing
      batchctl rerun triage-0001 --only truncated --set model.params.max_output_tokens=600
    """
    from batchctl.workflow import rerun as workflow

    kinds = [kind for text in only or [] for kind in text.split(",") if kind]
    name = None if rerun_file is None else str(rerun_file)
    options = common.options(target, wait=wait, max_wait=max_wait, lane=lane, budget=budget)
    return workflow.rerun(options, only=kinds, same_prompt=same_prompt, plan_only=plan, rerun_file=name)


COMMANDS = {
    "run": run,
    "prepare": prepare,
    "dry-run": dry_run,
    "submit": submit,
    "poll": poll,
    "validate": validate,
    "rerun": rerun,
}
