"""What came back for a row, numbered in the order of the result files, so that a person can choose where it differs.

Only a row with different answers (`conflict`) leaves something to choose; what is chosen must be an answer that could
have been completed: readable and, where there is a schema, matching it. Rules are not asked: the person is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from batchctl.judging.decide import Judge
from batchctl.judging.extracted import Extracted
from batchctl.judging.schema import Schema
from batchctl.judging.text import printable
from batchctl.ledger.queries import Chunk
from batchctl.model.errors import UsageError
from batchctl.model.rows import Reason
from batchctl.workflow.judge import evidence
from batchctl.workflow.judged_rows import JudgedRow
from batchctl.workflow.validate import task_of
from batchctl.workflow.workspace import Plan, Workspace


@dataclass(frozen=True, slots=True)
class Answer:
    """One result of a row. `shown` is what it says, text or data; `output` the answer as stored, None: it is none."""

    number: int
    shown: Any
    output: bytes | None
    why: str

    def facts(self) -> dict[str, Any]:
        """For `--json`."""
        return {"answer": self.number, "came_back": self.shown, "usable": self.output is not None, "detail": self.why}


class Answers:
    """Looks answers up, each chunk's results once for all the rows that are asked for together."""

    def __init__(self, workspace: Workspace, plan: Plan, schema: Schema | None) -> None:
        self._workspace = workspace
        self._judge = Judge(schema, parse=plan.job.output.parse)

    def of(self, rows: Iterable[JudgedRow]) -> dict[tuple[int, int], list[Answer]]:
        """By chunk and position."""
        by_chunk: dict[int, tuple[Chunk, list[JudgedRow]]] = {}
        for row in rows:
            by_chunk.setdefault(row.chunk.number, (row.chunk, []))[1].append(row)
        found = {}
        for number, (chunk, mine) in by_chunk.items():
            task = task_of(self._workspace, chunk, self._workspace.frozen_plan(chunk.settings))
            came = evidence(task, {row.line for row in mine})
            for row in mine:
                found[number, row.position] = [self._answer(place, one) for place, one in enumerate(came[row.line], 1)]
        return found

    def of_row(self, row: JudgedRow) -> list[Answer]:
        """Those of one row."""
        return self.of([row])[row.chunk.number, row.position]

    def _answer(self, number: int, one: Extracted) -> Answer:
        shown = one.text if one.text is not None else one.value if one.value is not None else one.detail
        verdict = self._judge.verdict(one)
        return Answer(number, shown, verdict.output if verdict.reason is None else None, verdict.detail)


def chosen(row: JudgedRow, answers: Sequence[Answer], number: int | None, where: str = "") -> bytes | None:
    """The answer that an `accept` takes: None stands for the one the row has. Raises `UsageError` when there is none."""
    name = printable(row.source_id, 80)
    several = row.verdict[1] == Reason.CONFLICT

    def refused(what: str, hint: str) -> UsageError:
        return UsageError(what, where=where or (), effect="nothing was decided", hint=hint)

    if not several:
        if number is not None:
            raise refused(f"row `{name}` has one answer only: there is nothing to choose", "accept it without --answer")
        if row.judged is None:
            why = row.detail or row.reason
            raise refused(f"row `{name}` has no answer that could be accepted: {why}", "edit it, or reject it")
        return None
    if number is None:
        raise refused(
            f"row `{name}` has {len(answers)} different results: which one?",
            f"`batchctl review show` numbers them; --answer 1 to {len(answers)}, or edit the row, or reject it",
        )
    if not 1 <= number <= len(answers):
        raise refused(f"row `{name}` has no answer {number}", f"there are 1 to {len(answers)}")
    one = answers[number - 1]
    if one.output is None:
        raise refused(
            f"answer {number} of row `{name}` is none: {one.why}", "choose another one, edit the row, or reject it"
        )
    return one.output
