"""status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchctl.cli.options import Common, Target, command

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


COMMANDS = {"status": status}
