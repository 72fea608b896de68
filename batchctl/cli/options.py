"""Options that every command takes, declared once and added to each command's signature."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchctl.cli.complete import targets
from batchctl.model.errors import UsageError

if TYPE_CHECKING:
    from batchctl.workflow.reports import Report
    from batchctl.workflow.workspace import Options

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="TARGET",
        help="Job file, run id or a unique start of one. Left out: ./job.toml",
        autocompletion=targets,
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", envvar="BATCHCTL_WAIT", help="Stay until done; wait for the lock as well.")
]
MaxWait = Annotated[
    str | None,
    typer.Option("--max-wait", envvar="BATCHCTL_MAX_WAIT", metavar="TIME", help="At most so long: 90s, 30m, 6h."),
]
RerunFile = Annotated[
    Path | None,
    typer.Option(
        "--rerun-file", envvar="BATCHCTL_RERUN_FILE", help="Also write the failed rows here: .csv .jsonl .parquet"
    ),
]
ResendChanged = Annotated[
    bool,
    typer.Option(
        "--resend-changed",
        envvar="BATCHCTL_RESEND_CHANGED",
        help="Buy done rows again whose prompt, schema or model changed.",
    ),
]
KeepDone = Annotated[
    bool, typer.Option("--keep-done", envvar="BATCHCTL_KEEP_DONE", help="Send only new rows, whatever changed.")
]
Lane = Annotated[
    str | None,
    typer.Option(
        "--lane",
        envvar="BATCHCTL_LANE",
        metavar="LANE",
        help="batch, live, background or auto, instead of [lane] prefer.",
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        envvar="BATCHCTL_BUDGET",
        metavar="AMOUNT",
        help="Hard stop of this run, such as 5.00USD, instead of [limits] budget.",
    ),
]
PlanOnly = Annotated[
    bool, typer.Option("--plan", envvar="BATCHCTL_PLAN", help="Print what would be done; do and send nothing.")
]
AllowPendingReview = Annotated[
    bool,
    typer.Option(
        "--allow-pending-review",
        envvar="BATCHCTL_ALLOW_PENDING_REVIEW",
        help="Publish although rows wait for a person; those are held back.",
    ),
]

COMMON: dict[str, Any] = {
    "overrides": Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the job file for this command."),
    ],
    "state": Annotated[
        str | None,
        typer.Option(
            "--state",
            envvar="BATCHCTL_STATE",
            metavar="DIR",
            help="State directory (default: .batchctl beside the job file).",
        ),
    ],
    "env_file": Annotated[
        Path | None,
        typer.Option(
            "--env-file",
            envvar="BATCHCTL_ENV_FILE",
            metavar="FILE",
            help="Read environment variables (keys) from a file.",
        ),
    ],
    "as_json": Annotated[bool, typer.Option("--json", envvar="BATCHCTL_JSON", help="One JSON object on stdout.")],
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", envvar="BATCHCTL_QUIET", help="Errors and the final line only.")
    ],
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", envvar="BATCHCTL_VERBOSE", help="Say more; tracebacks for bugs.")
    ],
    "color": Annotated[
        str, typer.Option("--color", envvar="BATCHCTL_COLOR", metavar="auto|always|never", help="Colour on terminals.")
    ],
    "no_input": Annotated[bool, typer.Option("--no-input", envvar="BATCHCTL_NO_INPUT", help="Never ask.")],
    "yes": Annotated[
        bool, typer.Option("--yes", "-y", envvar="BATCHCTL_YES", help="Consent to what the command asks.")
    ],
    "log_format": Annotated[
        str,
        typer.Option(
            "--log-format", envvar="BATCHCTL_LOG_FORMAT", metavar="text|json", help="Form of messages on stderr."
        ),
    ],
}
_DEFAULTS: dict[str, Any] = {"overrides": None, "state": None, "env_file": None, "color": "auto", "log_format": "text"}


@dataclass(frozen=True, slots=True)
class Display:
    """How to show things; what `render` and `progress` need to know."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    color: str = "auto"
    log_format: str = "text"


display = Display()
"""Of the running command; set before its workflow starts, read by `main` when it fails."""


class Common:
    """The common options of one call, and the way to make `Options` for the workflow."""

    def __init__(self, values: dict[str, Any]) -> None:
        global display
        for name, allowed in (("color", ("auto", "always", "never")), ("log_format", ("text", "json"))):
            if values[name] not in allowed:
                raise UsageError(
                    f"`{values[name]}` is not one of {', '.join(allowed)}",
                    where="--" + name.replace("_", "-"),
                    effect="nothing was done",
                    hint=f"use --{name.replace('_', '-')} {allowed[0]}, or leave it out",
                )
        display = Display(values["as_json"], values["quiet"], values["verbose"], values["color"], values["log_format"])
        self.values = values
        self.target: str | None = None

    def options(
        self,
        target: str | None = None,
        *,
        wait: bool = False,
        max_wait: str | None = None,
        lane: str | None = None,
        budget: str | None = None,
    ) -> Options:
        from batchctl.cli import progress, render
        from batchctl.workflow.workspace import Options

        values = self.values
        self.target = target
        environ = dict(os.environ)
        if values["env_file"] is not None:
            extra = read_env_file(values["env_file"])
            environ |= extra
            os.environ.update(extra)  # vendor SDKs read their own variables
        can_ask = not values["no_input"] and not values["as_json"] and sys.stdin.isatty() and sys.stderr.isatty()
        return Options(
            target=target,
            state=values["state"],
            overrides=tuple(values["overrides"] or ()),
            yes=values["yes"],
            wait=wait or max_wait is not None,
            max_wait_seconds=seconds_of(max_wait),
            lane=_lane(lane),
            budget=budget,
            ask=render.ask if can_ask else None,
            note=render.note,
            progress=progress.reporter(display),
            event=render.event,
            environ=environ,
        )

    def reachable(self, report: Report) -> Report:
        """The report with a `next` that works where it is typed: runs are looked for in `./.batchctl` unless told."""
        target, named = Path(self.target or "job.toml"), self.values["state"]
        state = Path(named) if named else (target.parent if target.is_file() else Path()) / ".batchctl"
        if report.run is None or state == Path(".batchctl") or named == os.environ.get("BATCHCTL_STATE", ""):
            return report
        command = re.compile(rf"^batchctl [a-z-]+( list)? {re.escape(report.run)}(?=\s|$)")
        said = command.sub(lambda found: f"{found[0]} --state {shlex.quote(str(state))}", report.next)
        return replace(report, next=said)


LANES = ("batch", "live", "background", "auto")


def _lane(name: str | None) -> str | None:
    """A lane as it was asked for; other words are refused."""
    if name is None or name in LANES:
        return name
    raise UsageError(
        f"there is no lane `{name}`",
        where="--lane",
        effect="nothing was done",
        hint="use --lane " + ", ".join(LANES),
    )


def command(function: Callable[..., Report]) -> Callable[..., None]:
    """Add the common options to a command, which gets them as its first argument, and show the report it returns."""
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=_DEFAULTS.get(name, False))
        for name, kind in COMMON.items()
    ]

    @wraps(function)
    def wrapper(**values: Any) -> None:
        from batchctl.cli import progress, render

        common = Common({name: values.pop(name) for name in COMMON})
        try:
            report = function(common, **values)
        finally:
            progress.stop()
        report = common.reachable(report)
        render.show(report, display)
        if report.exit:
            raise typer.Exit(int(report.exit))

    kept = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    wrapper.__signature__ = signature.replace(parameters=[*kept, *extra], return_annotation=None)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {one.name: one.annotation for one in (*kept, *extra)}
    return wrapper


def seconds_of(text: str | None, option: str = "--max-wait") -> float | None:
    """`90s`, `30m`, `6h`, `2d` or plain seconds."""
    if text is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    number, factor = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        value = float(number) * factor
    except ValueError:
        value = -1
    if not 0 <= value < 10**9:
        raise UsageError(
            f"`{text}` is not a time",
            where=option,
            effect="nothing was done",
            hint="write it as 90s, 30m, 6h or 2d",
        )
    return value


def read_env_file(path: Path) -> dict[str, str]:
    """`NAME=value` lines; comments, blank lines, `export` and one pair of quotes are understood."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or "I/O error"
        raise UsageError(
            f"the environment file cannot be read: {why}",
            where=str(path),
            effect="nothing was done",
            hint="--env-file takes a text file of NAME=value lines",
        ) from None
    found = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UsageError(
                "a line of the environment file is not NAME=value",
                where=f"{path}:{number}",
                effect="nothing was done",
                hint="write one NAME=value on each line; a # starts a comment",
            )
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name.strip()] = value
    return found
