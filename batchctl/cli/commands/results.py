"""status, publish, report, route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchctl.cli.options import AllowPendingReview, Common, PlanOnly, Target, command

if TYPE_CHECKING:
    from batchctl.workflow.reports import Report
else:
    Report = Any


@command
def status(common: Common, target: Target = None) -> Report:
    """Runs, chunks and the row balance; offline and instant.

    \b
      batchctl status
      batchctl status triage-0001 --json
    """
    from batchctl.workflow import status as workflow

    return workflow.status(common.options(target))


@command
def publish(
    common: Common,
    target: Target = None,
    plan: PlanOnly = False,
    allow_pending_review: AllowPendingReview = False,
    csv_raw: Annotated[
        bool,
        typer.Option(
            "--csv-raw",
            envvar="BATCHCTL_CSV_RAW",
            help="Write CSV cells as they are, even where a spreadsheet runs them.",
        ),
    ] = False,
) -> Report:
    """Completed rows to every [[publish]] target, keyed and atomic; twice is the same as once.

    \b
      batchctl publish triage-0001
      batchctl publish job.toml --plan
    """
    from batchctl.workflow import publish as workflow

    ways = workflow.Ways(allow_pending_review, csv_raw)
    return workflow.publish(common.options(target), plan_only=plan, ways=ways)


@command
def report(
    common: Common,
    target: Target = None,
    html: Annotated[
        str | None, typer.Option("--html", envvar="BATCHCTL_HTML", metavar="FILE", help="Also write one HTML page.")
    ] = None,
    with_text: Annotated[
        bool, typer.Option("--with-text", envvar="BATCHCTL_WITH_TEXT", help="Show the text of failed rows as well.")
    ] = False,
) -> Report:
    """What a completed row cost, failures by kind, turnaround, forecast against fact; offline.

    \b
      batchctl report triage-0001
      batchctl report triage-0001 --html report.html
    """
    from batchctl.workflow import report as workflow

    return workflow.report(common.options(target), html=html, with_text=with_text)


@command
def route(
    common: Common,
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="Task list (.csv .jsonl .toml), job file or run. Left out: ./job.toml"),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", envvar="BATCHCTL_CHECK", help="Exit 5 when a task runs in another lane today.")
    ] = False,
) -> Report:
    """Live, batch or background, for a list of tasks or one job: lane, reason, monthly cost.

    \b
      batchctl route tasks.csv
      batchctl route job.toml --json
    """
    from batchctl.workflow import route as workflow

    return workflow.route(common.options(target), check=check)


COMMANDS = {"status": status, "publish": publish, "report": report, "route": route}
