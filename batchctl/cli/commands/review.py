"""review: rows waiting for a person."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchctl.cli import render
from batchctl.cli.options import Common
from batchctl.model.errors import UsageError
from batchctl.model.rows import Action

if TYPE_CHECKING:
    from batchctl.workflow.reports import Report
    from batchctl.workflow.review import Filter
else:
    Report = Filter = Any

ACTIONS = ("list", "show", "accept", "reject", "edit", "undo", "export", "import")
ONE_WORD = ("show", "edit", "export", "import")  # one word of their own; a second one is the target


def review(
    common: Common,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ACTION] [ID|FILE]... [TARGET]", help="list, show, accept, reject, edit, undo, export, import."
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", envvar="BATCHCTL_RUN", metavar="TARGET", help="Job file or run; left out: ./job.toml"),
    ] = None,
    reason: Annotated[
        list[str] | None,
        typer.Option(
            "--reason", envvar="BATCHCTL_REASON", metavar="KIND,...", help="Only rows that wait for these reasons."
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where", envvar="BATCHCTL_WHERE", metavar="CEL", help="Only rows for which this holds (output, row)."
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All rows that wait (undo: all decisions).")] = False,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; kept with the decision.")] = "",
    output: Annotated[str | None, typer.Option("--output", metavar="JSON", help="edit: the new answer.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="edit: the new answer is in this file (- is stdin).")
    ] = None,
    answer: Annotated[
        int | None,
        typer.Option(
            "--answer", metavar="N", min=1, help="accept: the N-th of several answers, as `show` numbers them."
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", envvar="BATCHCTL_REVIEWER", metavar="NAME", help="Who decides; left out: the user."),
    ] = None,
) -> Report:
    """Rows waiting for a person: look, accept, reject, edit; bare, one after the other at a terminal.

    \b
      batchctl review list job.toml
      batchctl review accept 00012977 --run triage-0001 --note "checked"

    Different answers for one row are numbered by `show`: `review accept ID --answer 2` takes one.
    Many at once: `review export rows.csv`, fill in `decision`, `review import rows.csv`.
    """
    action, own, target = understood(list(words or ()), run)
    options = common.options(target)
    kinds = tuple(kind for text in reason or [] for kind in text.split(",") if kind)
    from batchctl.workflow import review as workflow

    chosen = workflow.Filter(tuple(own) if action not in ("export", "import") else (), kinds, where, every)
    if action in ("export", "import"):
        from batchctl.workflow import review_files

        if action == "export":
            return review_files.export(options, own[0], chosen)
        return review_files.import_(options, own[0], by=by)
    if action == "" and sys.stdin.isatty() and sys.stderr.isatty() and options.ask is not None:
        from batchctl.workflow import review_loop

        return review_loop.loop(options, chosen, read=render.read_line, show=render.tell, by=by)
    if action in ("", "list"):
        return workflow.listed(options, chosen)
    if action == "show":
        return workflow.show(options, own[0])
    if action == "undo":
        return workflow.undo(options, own, by=by, every=every)
    return workflow.decide(options, Action(action), chosen, by=by, note=note, output=_new(output, file), answer=answer)


def understood(words: list[str], run: str | None) -> tuple[str, list[str], str | None]:
    """Action, its own words, target. The target may stand last, or first: `review job.toml list`."""
    target = run
    if words and words[0] not in ACTIONS:
        target, words = words[0], words[1:]
        if words and words[0] not in ACTIONS:
            raise _wrong(f"`{words[0]}` is nothing review does", f"use {', '.join(ACTIONS)}")
    action, own = (words[0], words[1:]) if words else ("", [])
    if action in ("", "list"):
        if own:
            target, own = own[0], own[1:]
        if own:
            raise _wrong("review list takes one target", "batchctl review list job.toml")
    elif action in ONE_WORD:
        if len(own) == 2:
            target, own = own[1], own[:1]
        if len(own) != 1:
            what = "a file" if action in ("export", "import") else "an id"
            raise _wrong(f"review {action} takes {what}", f"batchctl review {action} {what.upper().split()[1]}")
    elif len(own) > 1 and own[-1].endswith(".toml") and target is None:
        target, own = own[-1], own[:-1]
    return action, own, target


def _wrong(what: str, hint: str) -> UsageError:
    return UsageError(what, effect="nothing was done", hint=hint)


def _new(output: str | None, file: Path | None) -> str | None:
    """The new answer of an edit."""
    if file is None:
        return output
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(f"the new answer cannot be read: {error}", "give a UTF-8 text file") from None


COMMANDS = {"review": review}
