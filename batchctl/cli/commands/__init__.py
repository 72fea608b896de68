"""One module a group of the help: each command parses, calls one workflow function and returns its report."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from batchctl.cli.commands import house, results, review, work
from batchctl.cli.options import command


def register(app: typer.Typer, named: Sequence[str]) -> None:
    """Add the commands of these names to the application, or all when there is none of them."""
    every = {name: function for module in (work, results, review, house) for name, function in module.COMMANDS.items()}
    for name in [one for one in named if one in every] or every:
        app.command(name)(command(every[name]))
