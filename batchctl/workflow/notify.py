"""`[[notify]]`: a webhook or a command is told once of each event of a run. Counts and money only, never the text of a row.

A hook that fails changes nothing: the failure is told on stderr, the exit code stays, and the event is tried again with the
next command.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from batchctl.jobfile import Notify
from batchctl.ledger import queries, transitions
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import BudgetReached, Exit, GateFailed, NotAllowed, OutcomeUnknown
from batchctl.workflow.money import cost
from batchctl.workflow.reports import Report
from batchctl.workflow.workspace import Workspace

WEBHOOK_SECONDS = 10
COMMAND_SECONDS = 60
TOLD = "told "
ATTENTION = (Exit.ATTENTION, Exit.GATE, Exit.UNKNOWN, Exit.DEADLINE)
DONE_STATES = (ChunkState.APPLIED, ChunkState.WITHDRAWN)


@contextmanager
def watching(workspace: Workspace) -> Iterator[None]:
    """Around a command: a budget that stops it, and a deadline that came near during it, are events."""
    try:
        yield
    except BudgetReached as error:
        if workspace.has_run:
            _tell(workspace, workspace.run, "budget", error.what)
        raise
    except (OutcomeUnknown, GateFailed, NotAllowed) as error:
        if workspace.has_run:
            _tell(workspace, workspace.run, "needs-attention", error.what)
        raise
    finally:
        if workspace.has_run and (risk := workspace.run.risk) is not None:
            _tell(workspace, workspace.run, "deadline-risk", f"the deadline is at risk; on_deadline_risk = {risk}")


def about(workspace: Workspace, run: queries.Run, final: Report) -> Report:
    """Tell what a command's report means, if it means an event; the report itself."""
    ended = all(one.state in DONE_STATES for one in queries.chunks(workspace.ledger.db, run.id))
    if final.exit in ATTENTION and (ended or final.exit is Exit.UNKNOWN):
        _tell(workspace, run, "needs-attention", _summary(final))
    elif final.exit is Exit.OK and ended:
        _tell(workspace, run, "done", _summary(final))
    return final


def _summary(final: Report) -> str:
    """`2,900 completed, 12 invalid output; exit 3`."""
    counts = [f"{count:,} {state}" for state, count in (final.balance or {}).items() if count and state != "rows"]
    return f"{', '.join(counts).replace('_', ' ')}; exit {int(final.exit)}; next: {final.next}"


def _tell(workspace: Workspace, run: queries.Run, event: str, what: str) -> None:
    """Every hook that asked for the event and has not been told of it as things are now."""
    hooks = [one for one in workspace.policy.notify if event in one.on]
    if not hooks:
        return
    db = workspace.ledger.db
    balance = queries.balance(db, run.id)
    message = {
        "schema": "batchctl/notify@1",
        "event": event,
        "job": run.job,
        "run": run.id,
        "text": f"{run.id}: {event}: {what}",
        "balance": balance,
        "cost": cost(db, run, balance),
    }
    before = {(one["became"], one["because"]) for one in queries.events(db, run.id)}
    for number, hook in enumerate(workspace.policy.notify, 1):
        if hook not in hooks:
            continue
        mark = hashlib.sha256(json.dumps([number, event, balance, what], sort_keys=True).encode()).hexdigest()[:16]
        if (TOLD + event, mark) in before:
            continue
        failed = _post(hook, message) if hook.webhook is not None else _run(workspace, hook, message)
        if failed:
            workspace.options.note(f"[[notify]] {number} was not told of `{event}`: {failed}")
            continue
        with workspace.ledger.transaction() as transaction:
            transitions.record_event(transaction, run.id, TOLD + event, mark)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: what was meant for one address goes to no other."""


def _post(hook: Notify, message: dict[str, Any]) -> str | None:
    """What went wrong, without the address, which is often a secret; None when it was taken."""
    assert hook.webhook is not None
    body = json.dumps(message).encode()
    request = urllib.request.Request(hook.webhook, body, {"Content-Type": "application/json"}, method="POST")  # noqa: S310
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=WEBHOOK_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return f"its webhook answered {error.code}"
    except (OSError, ValueError) as error:
        return f"its webhook cannot be reached ({type(error).__name__})"


def _run(workspace: Workspace, hook: Notify, message: dict[str, Any]) -> str | None:
    """What went wrong; None when the command ended well. It gets no terminal, and what it prints is not ours to show."""
    try:
        done = subprocess.run(  # noqa: S603  (the user's own command, without a shell)
            list(hook.command),
            input=json.dumps(message).encode() + b"\n",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            cwd=workspace.policy.base if workspace.policy.base.is_dir() else None,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its command did not end within {COMMAND_SECONDS} s"
    except (OSError, ValueError) as error:
        return f"its command cannot be run ({type(error).__name__})"
    return None if done.returncode == 0 else f"its command ended with {done.returncode}"
