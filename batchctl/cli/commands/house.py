"""init, providers, resolve, cancel, check, emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchctl.cli.options import Common, MaxWait, PlanOnly, Target, Wait, seconds_of

if TYPE_CHECKING:
    from batchctl.workflow.reports import Report
else:
    Report = Any


def init(
    common: Common,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name of the job: lower-case letters, digits, hyphens.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="Look at this data file for columns and an id.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    print_schema: Annotated[
        bool, typer.Option("--print-schema", help="Print the JSON Schema of the job file instead.")
    ] = False,
) -> Report:
    """Write a job, a prompt and a schema to start from.

    \b
      batchctl init triage --from messages.csv
      batchctl init --print-schema > job.schema.json
    """
    from batchctl.model.errors import UsageError
    from batchctl.workflow import init as workflow
    from batchctl.workflow.reports import Report

    if print_schema:
        import json

        text = workflow.schema_text()
        return Report("init", facts={"job_schema": json.loads(text)}, data=text)
    if name is None:
        raise UsageError(
            "a job needs a name", effect="nothing was written", hint="batchctl init triage --from messages.csv"
        )
    common.options()
    return workflow.init(name, data=data, force=force, directory=Path())


def providers(
    common: Common,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME | check]", help="A provider, or check: try that of a job; nothing of it spends."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL | JOB]", help="One model; with check a job file. Left out: all, or ./job.toml"),
    ] = None,
) -> Report:
    """What each provider and model can do in batch: limits, endpoints, prices, credentials.

    \b
      batchctl providers openai
      batchctl providers check job.toml
    """
    if name != "check":
        from batchctl.workflow.providers import providers as listed

        common.options()
        return listed(name, target)
    from batchctl.workflow.providers_check import providers_check

    return providers_check(common.options(target))


def resolve(
    common: Common,
    target: Target = None,
    chunk: Annotated[
        int | None, typer.Option("--chunk", min=1, metavar="N", help="Which chunk, when several are open.")
    ] = None,
    adopt: Annotated[str | None, typer.Option("--adopt", metavar="ID", help="This batch is ours.")] = None,
    not_sent: Annotated[
        bool, typer.Option("--not-sent", help="The provider never got it: send the chunk again.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give the batch, or its answers, up; its rows go to the rerun file.")
    ] = False,
) -> Report:
    """A submission whose outcome is unknown: show the evidence, or settle it.

    \b
      batchctl resolve triage-0001
      batchctl resolve triage-0001 --chunk 3 --adopt batch_68f2

    With --chunk, a batch that is over and whose answers cannot be had, too: --abandon gives them up.
    """
    from batchctl.workflow import resolve as workflow

    return workflow.resolve(common.options(target), chunk=chunk, adopt=adopt, not_sent=not_sent, abandon=abandon)


def cancel(common: Common, target: Target = None, wait: Wait = False, max_wait: MaxWait = None) -> Report:
    """Stop at the provider; what finished is still collected.

    \b
      batchctl cancel triage-0001
      batchctl cancel job.toml --yes --wait
    """
    from batchctl.workflow import cancel as workflow

    return workflow.cancel(common.options(target, wait=wait, max_wait=max_wait))


def check(
    common: Common,
    target: Target = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="First make a missing or damaged ledger again from its journal.")
    ] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="Also compare the run's batches with what the provider has.")
    ] = False,
) -> Report:
    """Compare ledger, chunks and results with their digests; offline, changes nothing.

    \b
      batchctl check
      batchctl check job.toml --remote
    """
    from batchctl.workflow import check as workflow

    return workflow.check(common.options(target), rebuild=rebuild, remote=remote)


def purge(
    common: Common,
    target: Target = None,
    plan: PlanOnly = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            envvar="BATCHCTL_OLDER_THAN",
            metavar="TIME",
            help="Everything of runs that ended so long ago: 30d.",
        ),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", envvar="BATCHCTL_LOCAL", help="Leave the files at the provider alone.")
    ] = False,
) -> Report:
    """Delete texts: of a job what [retention] says, of a run everything; here and at the provider.

    \b
      batchctl purge job.toml --plan
      batchctl purge triage-0001 --yes
    """
    from batchctl.workflow import purge as workflow

    seconds = seconds_of(older_than, "--older-than")
    return workflow.purge(common.options(target), plan_only=plan, older_than=seconds, local_only=local)


def emulator(
    common: Common,
    port: Annotated[
        int,
        typer.Option(
            "--port", envvar="BATCHCTL_PORT", metavar="PORT", min=0, max=65535, help="Port; 0 takes a free one."
        ),
    ] = 8080,
    host: Annotated[
        str, typer.Option("--host", envvar="BATCHCTL_HOST", metavar="ADDRESS", help="Loopback address to listen at.")
    ] = "127.0.0.1",
    faults: Annotated[
        Path | None,
        typer.Option(
            "--faults",
            envvar="BATCHCTL_FAULTS",
            metavar="FILE",
            help="TOML or JSON: latency, shares of bad rows, scripted faults.",
        ),
    ] = None,
) -> Report:
    """Serve the local stand-in for the providers' APIs; no model is called.

    \b
      batchctl emulator --port 8080
      OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=any batchctl run job.toml --yes
    """
    from batchctl.workflow import emulator as workflow

    options = common.options()
    return workflow.emulator(options, host=host, port=port, faults=faults)


COMMANDS = {
    "init": init,
    "providers": providers,
    "resolve": resolve,
    "cancel": cancel,
    "check": check,
    "purge": purge,
    "emulator": emulator,
}
