"""status, publish, report, compare, route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchctl.cli.options import AllowPendingReview, Common, PlanOnly, Target

if TYPE_CHECKING:
    from batchctl.workflow.reports import Report
else:
    Report = Any


def status(common: Common, target: Target = None) -> Report:
    """Runs, chunks and the row balance; offline and instant.

    \b
      batchctl status
      batchctl status triage-0001 --json
    """
    from batchctl.workflow import status as workflow

    return workflow.status(common.options(target))


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
    every: Annotated[
        bool, typer.Option("--all", help="upsert: every row again, not only what the target does not have yet.")
    ] = False,
) -> Report:
    """Completed rows to every [[publish]] target, keyed and atomic; twice is the same as once.

    \b
      batchctl publish triage-0001
      batchctl publish job.toml --plan
    """
    from batchctl.workflow import publish as workflow

    ways = workflow.Ways(allow_pending_review, csv_raw, every)
    return workflow.publish(common.options(target), plan_only=plan, ways=ways)


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


def compare(
    common: Common,
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]TARGET...", help="Job files or runs; a name in front of one is used for it."),
    ] = None,
    gold: Annotated[
        str | None,
        typer.Option(
            "--gold",
            envvar="BATCHCTL_GOLD",
            metavar="COLUMN|FILE",
            help="True labels: a column of the source, or a file by source id (gold.csv, gold.csv#column).",
        ),
    ] = None,
    output_field: Annotated[
        str | None,
        typer.Option(
            "--output-field", envvar="BATCHCTL_OUTPUT_FIELD", metavar="NAME", help="The field of the answers."
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", envvar="BATCHCTL_BASELINE", metavar="NAME", help="Default: the first.")
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option("--candidate", envvar="BATCHCTL_CANDIDATE", metavar="NAME", help="Gates for this one only."),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(
            "--gate",
            metavar="GATE",
            help="Such as 'accuracy >= 92%', 'recall(legal) >= 95%', "
            "'difference >= -1.5%'; repeatable. Exit 5 unless all pass.",
        ),
    ] = None,
    undecided: Annotated[
        str,
        typer.Option(
            "--undecided", envvar="BATCHCTL_UNDECIDED", metavar="fail|pass", help="What an undecided gate does."
        ),
    ] = "fail",
    junit: Annotated[
        str | None, typer.Option("--junit", envvar="BATCHCTL_JUNIT", metavar="FILE", help="Also as JUnit.")
    ] = None,
    markdown: Annotated[
        str | None,
        typer.Option("--markdown", "--summary", envvar="BATCHCTL_MARKDOWN", metavar="FILE", help="Also as Markdown."),
    ] = None,
    html: Annotated[
        str | None, typer.Option("--html", envvar="BATCHCTL_HTML", metavar="FILE", help="Also as one HTML page.")
    ] = None,
) -> Report:
    """Several models or prompts on the same rows: accuracy, differences, cost; gates set the exit code.

    \b
      batchctl compare prod.toml small.toml --gold label
      batchctl compare eval-0088 --gold gold.csv --gate 'accuracy >= 92%'
    """
    from batchctl.model.errors import UsageError
    from batchctl.workflow import compare as workflow

    if undecided not in ("fail", "pass"):
        raise UsageError(f"`{undecided}` is not one of fail, pass", where="--undecided", effect="nothing was compared",
                         hint="use --undecided pass, or leave it out")  # fmt: skip
    asked = workflow.Asked(
        gold, output_field, baseline, candidate, tuple(gate or ()), undecided == "pass", junit, markdown, html
    )
    return workflow.compare(common.options(), targets or [], asked)


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


COMMANDS = {"status": status, "publish": publish, "report": report, "compare": compare, "route": route}
