"""The entry point: commands, their groups, signals, and the one place that prints an error and sets the exit code.

Command modules import their workflow inside the function, so that `--help`, completion and `status` load no vendor SDK.
"""

from __future__ import annotations

import difflib
import os
import signal
import sqlite3
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from batchctl import __version__
from batchctl.cli import commands, options, progress, render
from batchctl.model.errors import BatchctlError, Exit, StorageFailed, UsageError

PROGRAM = "batchctl"

GROUPS = {
    "Work": ("run", "prepare", "dry-run", "submit", "poll", "validate", "rerun"),
    "Results": ("status", "review", "publish", "report", "compare", "route"),
    "House": ("init", "providers", "resolve", "cancel", "check", "purge", "emulator"),
}


class Grouped(TyperGroup):
    """Commands listed by what they are for, in the order they are used."""

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        for title, names in GROUPS.items():
            rows = [(name, self.commands[name].get_short_help_str(200)) for name in names if name in self.commands]
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """A name that is no command: say what was meant."""
        name = args[0] if args else ""
        if name and name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            raise _no_command(name, list(self.commands))
        return super().resolve_command(ctx, args)


def _no_command(name: str, commands: list[str]) -> UsageError:
    near = difflib.get_close_matches(name, commands, 1)
    return UsageError(
        f"there is no command `{name}`",
        effect="nothing was done",
        hint=f"did you mean `{PROGRAM} {near[0]}`?" if near else f"`{PROGRAM} --help` lists the commands",
    )


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"batchctl {__version__}\n")
        raise typer.Exit


def batchctl(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run a table of rows through an LLM batch API: every row in one place, none paid for twice.

    \b
      batchctl init triage --from messages.csv
      batchctl run triage.toml --wait
    """


def application(named: Sequence[str] = ()) -> typer.Typer:
    """The command line. Every command costs a few milliseconds, so the one that is named is enough to run it."""
    app = typer.Typer(
        cls=Grouped,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(batchctl)
    commands.register(app, named)
    return app


class Ended(BaseException):
    """A signal that ends the command: SIGINT, SIGTERM or SIGHUP. Not an `Exception`, so that nothing on the way keeps it;
    not a `KeyboardInterrupt`, of which typer would make an exit code without a word."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _end(number: int, _frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second Ctrl-C leaves at once
    raise Ended(number)


def main() -> None:
    """Run one command. Exit codes are those of `Exit`; nothing else decides them."""
    os.umask(0o077)
    _fill_descriptors()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or in the background of a script
            signal.signal(number, _end)
    code = _run()
    try:
        render.flush()
    except BatchctlError as error:
        if not code:
            code = int(error.exit_code)
            render.show_error(error, options.display)
    os._exit(code) if _hurried(code) else sys.exit(code)


def _fill_descriptors() -> None:
    """Closed ones of stdin, stdout and stderr lead nowhere from now on; else the next file opened would get the number,
    and a message of some library would go into it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _hurried(code: int) -> bool:
    """After a signal, threads that still wait for the network are not waited for."""
    return code in (Exit.INTERRUPTED, Exit.TERMINATED)


def _run() -> int:
    raised: BaseException
    try:
        return _command()
    except BatchctlError as error:
        raised = failure = error
    except Ended as ended:
        return _left(ended.number)
    except sqlite3.DatabaseError as error:
        raised, failure = error, _unusable_ledger(error)
    except OSError as error:
        raised, failure = error, _failed_system(error)
    except UnicodeEncodeError as error:
        raised, failure = error, _unwritable(error)
    except MemoryError as error:
        raised, failure = error, _no_memory()
    except Exception as error:
        raised, failure = error, _bug(error)
    progress.stop()
    if options.display.verbose:
        sys.stderr.write(
            "".join(traceback.format_tb(raised.__traceback__))
        )  # without its message, which may quote data
    render.show_error(failure, options.display)
    return int(failure.exit_code)


def _command() -> int:
    """Typer, with its own wrong-use errors in our form."""
    completing = "_BATCHCTL_COMPLETE" in os.environ
    typer_command = typer.main.get_command(application(() if completing else sys.argv[1:2]))
    if "--json" in sys.argv or os.environ.get("BATCHCTL_JSON", "").lower() in ("1", "true", "yes", "on"):
        options.display = options.Display(as_json=True)  # also for errors before the options are read
    try:
        code = typer_command.main(prog_name=PROGRAM, standalone_mode=False)
    except typer.Exit as done:
        return int(done.exit_code)
    except typer.Abort as aborted:
        raise aborted.__cause__ or aborted from None  # end of input where nothing was asked: not an interruption
    except SystemExit as left:
        if os.environ.get("_BATCHCTL_COMPLETE"):
            raise
        return int(Exit.OK if left.code in (None, 0, 1) else Exit.INTERNAL)  # 1: who read the help has gone
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("typer", "click"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            render.out(str(error))
            return int(Exit.OK)
        raise _wrong_use(error) from error
    return int(code) if isinstance(code, int) else 0


def _wrong_use(error: Any) -> UsageError:
    """What typer says about options and arguments, in our words."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    hint = f"`{path} --help` lists what it takes"
    option = getattr(error, "option_name", None)
    if option and hasattr(error, "possibilities"):
        what = f"there is no option `{option}`"
        near = difflib.get_close_matches(option, error.possibilities or (), 1)
        if path == PROGRAM and "--" + option.lstrip("-") in _everywhere():
            hint = f"write it after the command: `{PROGRAM} status {option}`"
        elif near:
            hint = f"did you mean `{near[0]}`?"
        return UsageError(what, effect="nothing was done", hint=hint)
    shown = getattr(error, "format_message", None)
    what = str(shown() if shown else error).rstrip(".")
    what = (what[:1].lower() + what[1:]).replace("'", "`").replace(": Input should", ": it should")
    return UsageError(what, effect="nothing was done", hint=hint)


def _everywhere() -> tuple[str, ...]:
    """The options that every command takes, which are written after it."""
    return tuple("--" + name.removeprefix("as_").replace("_", "-") for name in options.COMMON)


def _left(number: int) -> int:
    progress.stop()
    if not options.display.as_json:
        why = "interrupted" if number == signal.SIGINT else "asked to end"
        render.note(f"{why}: the state is safe; batches keep running at the provider; the same command carries on")
    return int(Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED)


def _unusable_ledger(error: sqlite3.DatabaseError) -> BatchctlError:
    return StorageFailed(
        f"the ledger cannot be used: {error}", effect="nothing was changed", hint="`batchctl check` looks for damage"
    )


def _failed_system(error: OSError) -> BatchctlError:
    return StorageFailed(
        f"{error.strerror or type(error).__name__}",
        where=str(error.filename) if error.filename else (),
        effect="nothing was lost",
        hint="the state is safe; remove the cause and run the same command again",
    )


def _unwritable(error: UnicodeEncodeError) -> BatchctlError:
    """A file name that the locale's encoding has no bytes for; everything else we encode ourselves, as UTF-8."""
    encoding = sys.getfilesystemencoding()
    if encoding.replace("-", "").lower() == "utf8":
        return _bug(error)
    return UsageError(
        f"a file name cannot be written in this locale's encoding, {encoding}",
        effect="nothing was done",
        hint="run it with a UTF-8 locale, such as LC_ALL=C.UTF-8",
    )


def _no_memory() -> BatchctlError:
    return StorageFailed(
        "the memory of this machine is not enough",
        effect="nothing was lost; what was begun is carried on by the next command",
        hint="prepare smaller chunks ([limits] chunk_rows, chunk_bytes), or use a machine with more memory",
        code="memory",
    )


def _bug(error: Exception) -> BatchctlError:
    """An internal error, without row text: the type and place, not the message, which may quote data."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "batchctl" in frame.filename]
    place = ours[-1] if ours else (frames[-1] if frames else None)
    return BatchctlError(
        f"internal error: {type(error).__name__}",
        where=f"{os.path.basename(place.filename)}:{place.lineno} in {place.name}" if place else (),
        effect="this is a bug; the state is safe",
        hint="run the same command with -v for the traceback, and `batchctl status` for where things are",
    )


if __name__ == "__main__":
    main()
