"""A progress line on a terminal; nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchctl.cli.options import Display

_bar: Any = None
_tasks: dict[str, Any] = {}


def reporter(display: Display) -> Callable[[str, int, int], None]:
    """A function (what, done, total) that shows progress; total 0 means unknown."""
    silent = display.quiet or display.as_json or display.log_format == "json" or not sys.stderr.isatty()
    return _nothing if silent else _show


def _nothing(_what: str, _done: int, _total: int) -> None:
    pass


def _show(what: str, done: int, total: int) -> None:
    global _bar
    if _bar is None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        _bar = Progress(*columns, console=Console(stderr=True), transient=True)
        _bar.start()
    if what not in _tasks:
        _tasks[what] = _bar.add_task(what, total=total or None)
    _bar.update(_tasks[what], completed=done, total=total or None)


def stop() -> None:
    """Take the line away, before anything else is printed."""
    global _bar
    if _bar is not None:
        _bar.stop()
        _bar = None
        _tasks.clear()
