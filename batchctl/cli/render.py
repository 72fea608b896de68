"""Reports and errors to text or JSON. The only place that prints; what data says never drives a terminal."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batchctl.model.errors import BatchctlError, StorageFailed
from batchctl.model.rows import RowState

if TYPE_CHECKING:
    from batchctl.cli.options import Display
    from batchctl.workflow.reports import Report

# Commands whose text is the data asked for.
ON_STDOUT = frozenset({"status", "report", "review", "compare", "route", "providers", "resolve", "check"})
# C0 but newline and tab, DEL, C1, bidi controls, what has no width, line and paragraph separators, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069"
    "\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
SHOWN_STATES = {
    RowState.QUEUED: "queued",
    RowState.SUBMITTED: "submitted",
    RowState.HELD: "held",
    RowState.COMPLETED: "completed",
    RowState.INVALID_OUTPUT: "invalid output",
    RowState.PROVIDER_ERROR: "provider error",
    RowState.REVIEW_REQUIRED: "in review",
    RowState.REJECTED: "rejected",
    RowState.PUBLISHED: "published",
}


def safe(text: str) -> str:
    """Text with everything that could drive a terminal written visibly."""
    return _UNSAFE.sub(
        lambda match: f"\\u{ord(match[0]):04x}" if ord(match[0]) > 255 else f"\\x{ord(match[0]):02x}", text
    )


def balance_line(report: Report) -> str:
    """`Balance  60 = 54 completed + 6 invalid output`, with the copies named beside it."""
    assert report.balance is not None
    parts = [f"{report.balance[state]:,} {word}" for state, word in SHOWN_STATES.items() if report.balance[state]]
    line = f"Balance  {report.balance['rows']:,} = {' + '.join(parts) or '0'}"
    if report.balance.get("copied"):
        line += f"   ({report.balance['copied']:,} copied from another row)"
    return line + ("   simulated" if report.simulated else "")


def show(report: Report, display: Display) -> None:
    """Print a report in the form the user chose; the exit code is the caller's."""
    if display.as_json:
        out(_json(as_json(report), sys.stdout))
        return
    if display.log_format == "json":
        money = {name: (report.cost or {}).get(name) for name in ("usd", "usd_per_1000_completed")}
        ending = {"exit": int(report.exit), "name": report.exit.name.lower()}
        facts = {"run": report.run, **ending, **(report.balance or {}), **(money if report.cost else {})}
        _err(_json({"ts": _now(), "event": "summary", "command": report.command, **facts}, sys.stderr))
    if report.data is not None:
        out(safe(report.data.rstrip("\n")))
        return
    on_stdout = report.command in ON_STDOUT
    if display.log_format == "json" and not on_stdout:
        return
    lines = [] if display.quiet else [safe(line) for line in report.lines]
    if report.balance is not None:
        lines.append(balance_line(report))
    if report.next and not display.quiet:
        lines.append(safe(f"Next: {report.next}"))
    (out if on_stdout else _err)("\n".join(lines))


def as_json(report: Report) -> dict[str, Any]:
    """The `--json` object: a fixed head, then the command's own facts."""
    head: dict[str, Any] = {"schema": f"batchctl/{report.command}@1", "run": report.run, "exit": int(report.exit)}
    if report.balance is not None:
        head["balance"] = dict(report.balance)
    if report.cost is not None:
        head["cost"] = dict(report.cost)
    return {**head, "simulated": report.simulated, "next": report.next, **report.facts}


def show_error(error: BatchctlError, display: Display) -> None:
    """What happened, where, its effect and what to do."""
    facts = {
        "code": error.code,
        "what": error.what,
        "where": list(error.where),
        "effect": error.effect,
        "hint": error.hint,
    }
    if display.as_json:
        out(_json({"schema": "batchctl/error@1", "exit": int(error.exit_code), "error": facts}, sys.stdout))
        return
    if display.log_format == "json":
        _err(_json({"ts": _now(), "event": "error", "exit": int(error.exit_code), **facts}, sys.stderr))
        return
    lines = [f"error: {error.what}", *(f"  {one}" for one in error.where)]
    if error.effect:
        lines.append(f"  {error.effect}")
    if error.hint:
        lines += ["", f"hint: {error.hint}"]
    _err(safe("\n".join(lines)))


def note(text: str) -> None:
    """Something worth knowing while a command works."""
    from batchctl.cli import options

    display = options.display
    if display.log_format == "json":
        _err(_json({"ts": _now(), "event": "note", "text": text}, sys.stderr))
    elif not display.quiet:
        _err(safe(text))


def event(name: str, **facts: Any) -> None:
    """One step in a log that programs read; nothing without `--log-format json`. Such a log is never quiet."""
    from batchctl.cli import options

    if options.display.log_format == "json":
        _err(_json({"ts": _now(), "event": name, **facts}, sys.stderr))


def ask(question: str) -> bool:
    """A yes/no question at a terminal; no is the answer to everything but yes, and to end of input."""
    from batchctl.cli import progress

    progress.stop()
    sys.stderr.write(safe(question) + " [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def tell(text: str) -> None:
    """Part of a conversation at a terminal."""
    _err(safe(text))


def read_line(question: str) -> str | None:
    """A line typed at a terminal; None at the end of input."""
    sys.stderr.write(safe(question))
    sys.stderr.flush()
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def out(text: str) -> None:
    """Text that was asked for: on stdout, whatever the form of messages."""
    _write(sys.stdout, text)


def _err(text: str) -> None:
    _write(sys.stderr, text)


def _json(value: Any, stream: Any) -> str:
    """One line of JSON. What could drive a terminal, or does not fit the stream, is escaped; JSON readers undo it."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = json.dumps(value, ensure_ascii=encoding.replace("-", "").lower() != "utf8")
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _write(stream: Any, text: str) -> None:
    if not text:
        return
    line = text + "\n"
    try:
        try:
            stream.write(line)
        except UnicodeEncodeError:  # a terminal without UTF-8
            stream.write(line.encode("ascii", "backslashreplace").decode())
        stream.flush()
    except OSError as error:
        _gone(stream, error)


def flush() -> None:
    """Write what is still waiting. Raises `StorageFailed` when stdout is a file on a full disk, or the like."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            _gone(stream, error)


def _gone(stream: Any, error: OSError) -> None:
    """A stream that takes nothing any more leads nowhere from now on. A reader that has gone (`| head`) is no failure."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    if stream is sys.stdout and error.errno != errno.EPIPE:
        raise StorageFailed(
            f"the output cannot be written: {error.strerror}",
            where="stdout",
            effect="what the command did stays done",
            hint="`batchctl status` shows where things are",
        ) from error
