"""One waiting row after the other at a terminal, line by line: no screen control, nothing a row could break.

Each decision is a short command of its own, so that a cron job is never kept waiting by a person who thinks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from batchctl.model.errors import BatchctlError, UsageError
from batchctl.model.rows import Action, Reason
from batchctl.workflow.judged_rows import JudgedRow
from batchctl.workflow.reports import Report
from batchctl.workflow.review import Desk, Filter, Wish, finished, report, reviewer, shown, writing
from batchctl.workflow.workspace import Options, opened

KEYS = "[a]ccept  [r]eject  [e]dit  [s]kip  [u]ndo  [q]uit"
HELP = (
    "a NOTE   accept the answer as it is; where there are several: a NUMBER NOTE",
    "r NOTE   reject it: the row goes into the rerun file",
    "e        write another answer",
    "s        leave it for later",
    "u        take the last decision back",
    "q        stop; what is decided stays decided",
)
Read = Callable[[str], str | None]
"""Shows a question, gives the line that was typed, or None at the end of input."""


def loop(options: Options, chosen: Filter, *, read: Read, show: Callable[[str], None], by: str | None = None) -> Report:
    """Ask about each waiting row until there is none left or the person stops."""
    with opened(options, write=False) as workspace:
        desk = Desk(workspace)
        waiting = [row.source_id for row in desk.rows(chosen)]
    session = _Session(options, read, show, reviewer(options, by))
    try:
        session.go(waiting)
    finally:
        if session.done:
            with writing(options) as desk:  # the run's files follow, also when the terminal went away
                final = finished(desk, (), {})
    if not session.done:
        with opened(options, write=False) as workspace:
            return report(Desk(workspace), (session.words,), {"decided": {}})
    return Report(
        "review", final.run, final.exit, final.balance, final.cost, (session.words, *final.lines), final.next,
        {**final.facts, "decided": dict(session.done)}, final.simulated,
    )  # fmt: skip


def _wish(row: JudgedRow, key: str, note: str) -> Wish:
    """`a NOTE`, `r NOTE`; where a row has several answers `a NUMBER NOTE`."""
    if not key.startswith("a"):
        return Wish(row.source_id, Action.REJECT, note, attempt=row.chunk.attempt)
    number = None
    first, _, rest = note.partition(" ")
    if row.verdict[1] == Reason.CONFLICT and first.isascii() and first.isdigit() and len(first) < 6:
        number, note = int(first), rest.strip()
    return Wish(row.source_id, Action.ACCEPT, note, attempt=row.chunk.attempt, answer=number)


class _Session:
    """What has been decided in this sitting."""

    def __init__(self, options: Options, read: Read, show: Callable[[str], None], by: str) -> None:
        self.options = options
        self.read = read
        self.show = show
        self.by = by
        self.done: Counter[str] = Counter()
        self.last: list[tuple[str, str]] = []  # id and what was decided

    @property
    def words(self) -> str:
        """The sitting in one line."""
        told = ", ".join(f"{count:,} {action}" for action, count in sorted(self.done.items()) if count)
        return f"Decided in this sitting: {told or 'nothing'}"

    def go(self, waiting: list[str]) -> None:
        """Through the list; `undo` goes back to the row before."""
        place = 0
        while place < len(waiting):
            step = self._ask(waiting[place], f"{place + 1} of {len(waiting)}")
            if step is None:
                return
            if step < 0:
                place = waiting.index(self.last.pop()[0])
            else:
                place += step

    def _ask(self, source_id: str, where: str) -> int | None:
        """One row: rows to go on by, -1 to go back to the one decided last, None to stop."""
        try:
            with opened(self.options, write=False) as workspace:
                desk = Desk(workspace)
                [row] = desk.rows(Filter(ids=(source_id,)))
                came = desk.answers.of_row(row)
        except UsageError as error:  # sent again, or purged, since the list was made
            self.show(f"{error.what}: passed over")
            return 1
        self.show("\n".join(("", f"--- {where} ---", *shown(row, came))))
        while True:
            typed = self.read(KEYS + " ? ")
            if typed is None:
                return None
            key, _, note = typed.strip().partition(" ")
            match key.lower():
                case "q" | "quit":
                    return None
                case "s" | "skip":
                    return 1
                case "u" | "undo" if self.last:
                    self._undo()
                    return -1
                case "u" | "undo":
                    self.show("nothing was decided in this sitting yet")
                case "a" | "accept" | "r" | "reject":
                    if self._decide(row, _wish(row, key.lower(), note.strip())):
                        return 1
                case "e" | "edit":
                    if self._edit(row):
                        return 1
                case _:
                    self.show("\n".join(HELP))

    def _edit(self, row: JudgedRow) -> bool:
        typed = self.read("new answer, on one line (empty: leave it) > ")
        if not typed or not typed.strip():
            return False
        wish = Wish(row.source_id, Action.EDIT, output=typed.strip(), attempt=row.chunk.attempt)
        return self._decide(row, wish)

    def _decide(self, row: JudgedRow, wish: Wish) -> bool:
        """Record one decision; False when it cannot be, which the person is told."""
        try:
            with writing(self.options) as desk:
                [now] = desk.rows(Filter(ids=(row.source_id,)))
                desk.record([(now, wish)], self.by)
        except BatchctlError as error:
            self.show("; ".join(one for one in (error.what, error.hint) if one))
            return False
        self.done[wish.action] += 1
        self.last.append((row.source_id, wish.action))
        return True

    def _undo(self) -> None:
        source_id, action = self.last[-1]
        with writing(self.options) as desk:
            desk.undo(list(desk.rows(Filter(ids=(source_id,)))), self.by)
        self.done[action] -= 1
