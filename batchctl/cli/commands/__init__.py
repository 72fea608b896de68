"""One module a group of the help: each command parses, calls one workflow function and returns its report."""

from __future__ import annotations

import typer

from batchctl.cli.commands import house, results, review, work


def register(app: typer.Typer) -> None:
    """Add every command to the application."""
    for module in (work, results, review, house):
        for name, function in module.COMMANDS.items():
            app.command(name)(function)
