"""Rows waiting for a person: list, show, accept, reject, edit, take back.

A decision is about the answer of a row's newest attempt. It is recorded with who and when, moves the row in the same
transaction, and can be taken back. Edited answers must satisfy the schema. Nothing is sent, nothing is billed.
"""

from __future__ import annotations

import getpass
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, rows_name
from batchctl.files import crash_point
from batchctl.judging.decide import settled
from batchctl.judging.rules import Context, Expression, Names, Program, Rules
from batchctl.judging.strict_json import NotJson, one_line, parse
from batchctl.judging.text import printable
from batchctl.ledger import decisions as moves
from batchctl.ledger import queries
from batchctl.ledger.decisions import Turn
from batchctl.ledger.queries import Chunk
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import Exit, UsageError
from batchctl.model.rows import FAILED, Action, Decision, Reason, RowState
from batchctl.workflow.decided import decisions, keep
from batchctl.workflow.judged_rows import JudgedRow, judged_rows
from batchctl.workflow.money import cost
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.results import write_results
from batchctl.workflow.review_answers import Answer, Answers, chosen
from batchctl.workflow.rules import rule_book
from batchctl.workflow.standing import broken_shares, is_simulated, share_facts
from batchctl.workflow.tallying import holding
from batchctl.workflow.validate import judged, superseded
from batchctl.workflow.workspace import Options, Workspace, opened

WAITING = frozenset({str(RowState.REVIEW_REQUIRED)})
LISTED = 50
BY_BYTES = 100


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows a command is about: these ids, or the waiting rows with these reasons for which `where` holds."""

    ids: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    where: str | None = None
    every: bool = False

    def __bool__(self) -> bool:
        return bool(self.ids or self.reasons or self.where or self.every)


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall be decided about one row. `output` is the edited answer as JSON text, `answer` the number of the one
    that is taken where there are several."""

    source_id: str
    action: Action
    note: str = ""
    output: str | None = None
    where: str = ""  # for messages: the line of the file it comes from
    attempt: int | None = None  # of the answer that was looked at, when that is known
    answer: int | None = None


class Desk:
    """The reviewing of one run: its rows with verdicts and decisions, and the moves."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.run = workspace.run
        if self.run.is_purged:
            raise UsageError(
                f"the texts of {self.run.id} were purged: there is nothing to look at",
                effect="nothing was decided",
                hint=f"batchctl status {self.run.id}",
                code="purged",
            )
        self.directory = workspace.directory(self.run.id)
        self.chunks = queries.chunks(workspace.ledger.db, self.run.id)
        self.decided = decisions(self.directory, workspace.ledger.db, self.run.id)
        self.plan = workspace.current_plan() or workspace.frozen_plan()
        self.schema = self.plan.schema()
        book = rule_book(self.plan.job, self.plan.where["job"])
        self.rules = Rules(book) if book.shares else None
        self.share_names = tuple(one.name for one in book.shares)
        self.answers = Answers(workspace, self.plan, self.schema)
        self._came: dict[tuple[int, int], list[Answer]] = {}

    def rows(self, chosen: Filter, states: frozenset[str] | None = WAITING) -> Iterator[JudgedRow]:
        """The rows of a filter, in order of chunks. Rows named by id come whatever state they are in."""
        if chosen.ids:
            yield from self._named(chosen.ids)
            return
        holds = _where(chosen.where)
        for chunk in self.chunks:
            if chunk.state is not ChunkState.APPLIED:
                continue
            skip = self._gone(chunk)
            for row in judged_rows(self.directory, chunk, self.decided.get(chunk.number, {}), states):
                if row.position in skip or (chosen.reasons and row.reason not in chosen.reasons):
                    continue
                if holds is None or holds(row):
                    yield row

    def decided_rows(self) -> Iterator[JudgedRow]:
        """The rows with a decision that stands."""
        for chunk in self.chunks:
            mine = self.decided.get(chunk.number)
            if mine and chunk.state is ChunkState.APPLIED:
                skip = self._gone(chunk)
                for row in judged_rows(self.directory, chunk, mine, None):
                    if row.position in mine and row.position not in skip:
                        yield row

    def _gone(self, chunk: Chunk) -> set[int]:
        gone = superseded(self.workspace, chunk, self.chunks)
        return set() if gone is None else set(gone.to_pylist())

    def _named(self, ids: Sequence[str]) -> Iterator[JudgedRow]:
        """The newest attempt of each id, in the order asked for. An id that is not there, or not judged, is an error."""
        wanted = pa.array(list(ids), pa.string())
        found: dict[str, tuple[Chunk, int]] = {}
        for chunk in self.chunks:  # a later chunk has the newer attempt
            for name in [rows_name(chunk.number)] + ([copies_name(chunk.number)] if chunk.copies else []):
                rows = segments.read(self.directory / "chunks" / name, ["id", "position"])
                hit = rows.filter(pc.is_in(rows.column("id").combine_chunks(), value_set=wanted))
                for source_id, position in zip(*(hit.column(one).to_pylist() for one in (0, 1)), strict=True):
                    found[source_id] = (chunk, position)
        for source_id in ids:
            if source_id not in found:
                raise UsageError(
                    f"this run has no row `{printable(source_id, 80)}`",
                    where=f"run {self.run.id}",
                    effect="nothing was decided",
                    hint=f"`batchctl review list {self.run.id}` names the rows that wait",
                )
            chunk, position = found[source_id]
            if chunk.state is not ChunkState.APPLIED:
                raise UsageError(
                    f"row `{printable(source_id, 80)}` has no judged answer yet: its chunk is {chunk.state}",
                    where=f"run {self.run.id}, chunk {chunk.number}",
                    effect="nothing was decided",
                    hint=f"`batchctl poll {self.run.id} --wait`, then `batchctl validate {self.run.id}`",
                )
            mine = judged_rows(self.directory, chunk, self.decided.get(chunk.number, {}), None)
            yield next(row for row in mine if row.position == position)

    def decision(self, row: JudgedRow, wish: Wish, by: str) -> tuple[Turn | None, Turn, Decision]:
        """The move that takes an older decision back, the move of this one, and the decision itself."""
        if wish.attempt is not None and wish.attempt != row.chunk.attempt:
            raise UsageError(
                f"row `{printable(row.source_id, 80)}` has a newer attempt than the one that was looked at",
                where=wish.where or (),
                effect="nothing was decided",
                hint="export the rows again",
            )
        output = None
        if wish.action is Action.EDIT:
            output = self.answer(wish.output or "", row.source_id, wish.where)
        if wish.action is Action.ACCEPT:
            output = chosen(row, self.came(row), wish.answer, wish.where)
        one = Decision(wish.action, by, "", wish.note, output, wish.answer)
        back = None if row.decision is None else self._turn(row, None)
        return back, self._turn(row, one, undecided=True), one

    def came(self, row: JudgedRow) -> list[Answer]:
        """The answers of a row that has several, numbered; none for any other."""
        if row.verdict[1] != Reason.CONFLICT:
            return []
        key = (row.chunk.number, row.position)
        return self._came[key] if key in self._came else self.answers.of_row(row)

    def look_up(self, rows: Iterable[JudgedRow]) -> None:
        """Read the answers of many rows with several at once, before they are decided about or shown."""
        self._came = self.answers.of(row for row in rows if row.verdict[1] == Reason.CONFLICT)

    def answer(self, text: str, source_id: str, where: str = "") -> bytes:
        """An edited answer as it is stored. Raises `UsageError` when it is not JSON or does not match the schema."""
        effect, hint = "nothing was decided", "correct it"
        try:
            if self.schema is None:
                return orjson.dumps(text)
            value = parse(text)
            problem = self.schema.problem(value)
        except NotJson as error:
            what = f"the new answer of row `{printable(source_id, 80)}` is not JSON: {error.detail}"
            raise UsageError(what, where=where or (), effect=effect, hint=hint) from None
        if problem is not None:
            what = f"the new answer of row `{printable(source_id, 80)}` does not match the schema: {problem}"
            raise UsageError(what, where=where or (), effect=effect, hint=hint)
        return one_line(text)

    def _turn(self, row: JudgedRow, decision: Decision | None, *, undecided: bool = False) -> Turn:
        """The move of a row to what `decision` makes of it (None: to its verdict); `undecided`: from its verdict."""
        state, reason = row.verdict
        before = (state, reason, row.judged) if undecided else (row.state, row.reason, row.output)
        after = (state, reason, row.judged)
        if decision is not None:
            now = settled(state, reason, "", row.judged, decision)
            after = (str(now.state), str(now.reason), now.output)
        return Turn(
            run=self.run.id,
            chunk=row.chunk.number,
            position=row.position,
            was=before[:2],
            became=after[:2],
            shares_before=self._shares(before[0], before[2], row.row),
            shares_after=self._shares(after[0], after[2], row.row),
            copied=row.copied,
            judged_with=row.chunk.judged_with or "",
        )

    def _shares(self, state: str, output: bytes | None, row: bytes) -> tuple[str, ...]:
        if state != RowState.COMPLETED:
            return ()
        return tuple(self.share_names[place] for place in holding(self.rules, output, row))

    def record(self, wishes: Iterable[tuple[JudgedRow, Wish]], by: str) -> Counter[str]:
        """Decide about rows, all in one transaction. What was decided, counted."""
        wished = list(wishes)
        self.look_up(row for row, wish in wished if wish.action is Action.ACCEPT)
        work = [self.decision(row, wish, by) for row, wish in wished]
        files: dict[tuple[str, bytes | None, int | None], tuple[str | None, str | None]] = {
            ("", None, None): (None, None)
        }
        for _, _, one in work:
            said = (one.note, one.output, one.answer)
            if said not in files:
                output = None if one.output is None else orjson.loads(one.output)
                files[said] = keep(self.directory, one.note, output, one.answer)
        crash_point("review")
        done: Counter[str] = Counter()
        with self.workspace.ledger.transaction() as db:
            for back, turn, one in work:
                name, sha256 = files[one.note, one.output, one.answer]
                if back is not None:
                    moves.undo(db, back, because=f"decided anew by {by}")
                moves.decide(db, turn, action=one.action, by=by, edit=name, sha256=sha256)
                done[one.action] += 1
        return done

    def undo(self, rows: Iterable[JudgedRow], by: str) -> int:
        """Take decisions back; how many."""
        back = [self._turn(row, None) for row in rows if row.decision is not None]
        with self.workspace.ledger.transaction() as db:
            for turn in back:
                moves.undo(db, turn, because=f"taken back by {by}")
        return len(back)


def _where(text: str | None) -> Any:
    """A filter in CEL over `output` and `row` as a function of a judged row."""
    if text is None:
        return None
    program = Program(Expression(text, "--where", "--where"), Names())
    context = Context([program])

    def holds(row: JudgedRow) -> bool:
        context.put("output", None if row.judged is None else orjson.loads(row.judged))
        context.put("row", orjson.loads(row.row))
        return program.holds(context) is True

    return holds


def reviewer(options: Options, name: str | None) -> str:
    """Who decides: as given, else the user of this machine."""
    given = name or options.environ.get("BATCHCTL_REVIEWER")
    if not given:
        try:
            given = getpass.getuser()
        except (KeyError, OSError):  # no name for this user id
            given = str(os.getuid())
    return printable(given, BY_BYTES)


def listed(options: Options, chosen: Filter) -> Report:
    """The rows that wait, without their text."""
    with opened(options, write=False) as workspace:
        desk = Desk(workspace)
        rows = list(desk.rows(chosen))
        lines = [f"{plural(len(rows), 'row')} of {desk.run.id} waiting for a person"]
        for reason, count in Counter(row.reason for row in rows).most_common():
            lines.append(f"  {reason:<14} {count:>8,}")
        named = ((printable(row.source_id, 40), row) for row in rows[:LISTED])
        lines += [f"  {name:<24} {row.reason:<12} {row.detail}".rstrip() for name, row in named]
        if len(rows) > LISTED:
            lines.append(f"  and {len(rows) - LISTED:,} more: `batchctl review export FILE` has all")
        return report(desk, tuple(lines), {"waiting": len(rows), "rows": [facts(row) for row in rows]})


def show(options: Options, source_id: str) -> Report:
    """One row with its answer, the reasons, and everything that came back."""
    with opened(options, write=False) as workspace:
        desk = Desk(workspace)
        [row] = desk.rows(Filter(ids=(source_id,)))
        came = desk.answers.of_row(row)
        told = {"row": orjson.loads(row.row), "came_back": [one.shown for one in came]}
        told["answers"] = [one.facts() for one in came]
        return report(desk, shown(row, came), {"row": {**facts(row), **told}})


def decide(
    options: Options,
    action: Action,
    which: Filter,
    *,
    by: str | None = None,
    note: str = "",
    output: str | None = None,
    answer: int | None = None,
) -> Report:
    """Accept, reject or edit rows. `output` is the new answer of an edit, `answer` the number of the one to accept."""
    if not which:
        raise UsageError(
            "which rows?",
            effect="nothing was decided",
            hint="give ids, --reason, --where or --all",
        )
    if action is Action.EDIT and (len(which.ids) != 1 or output is None):
        raise UsageError(
            "an edit needs one id and the new answer",
            effect="nothing was decided",
            hint="batchctl review edit ID --output '{...}', or --file FILE; many at once: export, then import",
        )
    if answer is not None and action is not Action.ACCEPT:
        raise UsageError(
            "--answer is for accept", effect="nothing was decided", hint="batchctl review accept ID --answer 2"
        )
    with writing(options) as desk:
        rows = list(desk.rows(which))
        wishes = [(row, Wish(row.source_id, action, note, output, answer=answer)) for row in rows]
        desk.record(wishes, reviewer(options, by))
        what = {Action.ACCEPT: "Accepted", Action.REJECT: "Rejected", Action.EDIT: "Edited"}[action]
        first = f"{what} {plural(len(rows), 'row')} of {desk.run.id}"
        return finished(desk, (first,), {"decided": {str(action): len(rows)}, "ids": [row.source_id for row in rows]})


def undo(options: Options, ids: Sequence[str], *, by: str | None = None, every: bool = False) -> Report:
    """Take decisions back: of these rows, or (`every`) of all."""
    with writing(options) as desk:
        named = desk.rows(Filter(ids=tuple(ids))) if ids else desk.decided_rows() if every else ()
        rows = [row for row in named if row.decision is not None]
        if not rows:
            raise UsageError(
                "there is no decision to take back",
                effect="nothing was changed",
                hint="give the ids of decided rows, or --all",
            )
        desk.undo(rows, reviewer(options, by))
        ids = [row.source_id for row in rows]
        return finished(desk, (f"Took back {plural(len(rows), 'decision')}",), {"undone": len(rows), "ids": ids})


@contextmanager
def writing(options: Options) -> Iterator[Desk]:
    """A desk that may decide: locked, and with every answer judged by the rules as they are now."""
    with opened(options, write=True) as workspace:
        run = workspace.run
        workspace.lock()
        judged(workspace, run)
        yield Desk(workspace)


def finished(desk: Desk, lines: tuple[str, ...], told: dict[str, Any]) -> Report:
    """After decisions: the run's files follow, then the report."""
    write_results(desk.workspace.state, desk.workspace.ledger.db, desk.run)
    return report(desk, lines, told)


def report(desk: Desk, lines: tuple[str, ...], told: dict[str, Any]) -> Report:
    """The run after (or before) decisions: balance, exit code, what to do next."""
    workspace, run = desk.workspace, desk.run
    balance = queries.balance(workspace.ledger.db, run.id)
    broken = broken_shares(workspace, run)
    code, following = Exit.OK, f"batchctl status {run.id}"
    if sum(balance[state] for state in FAILED):
        code, following = Exit.ATTENTION, f"batchctl rerun {run.id}"
    if balance[RowState.REVIEW_REQUIRED]:
        code, following = Exit.ATTENTION, f"batchctl review {run.id}"
    if broken:
        code = Exit.GATE
        lines = (*lines, *(f"  broken over the run: {one.words}" for one in broken))
    return Report(
        "review",
        run.id,
        code,
        balance,
        cost(workspace.ledger.db, run, balance),
        lines,
        following,
        {**told, "broken_rules": share_facts(broken)},
        simulated=is_simulated(workspace),
    )


def facts(row: JudgedRow) -> dict[str, Any]:
    """For `--json`, without the source row."""
    decision = row.decision
    return {
        "id": row.source_id,
        "state": row.state,
        "reason": row.reason or None,
        "detail": row.detail or None,
        "attempt": row.chunk.attempt,
        "output": None if row.output is None else orjson.loads(row.output),
        "copied": row.copied,
        "decision": None
        if decision is None
        else {"action": decision.action, "by": decision.by, "at": decision.at, "answer": decision.answer},
    }


def shown(row: JudgedRow, came: Sequence[Answer]) -> tuple[str, ...]:
    """One row for a person: each part under its name, text line by line, nothing in it able to drive a terminal."""
    lines = [f"row      {printable(row.source_id, 200)}   ({row.state}, attempt {row.chunk.attempt})"]
    lines.append(f"reason   {row.reason or '-'}   {row.detail}".rstrip())
    for name, value in orjson.loads(row.row).items():
        lines += _part(f"  {printable(name, 40)}", value)
    if row.output is not None:
        lines += _part("answer", orjson.loads(row.output))
    several = row.verdict[1] == Reason.CONFLICT
    for one in came:
        if row.output is None or len(came) > 1:
            name = f"answer {one.number} of {len(came)}" if several else "came back"
            lines += _part(
                name if not several or one.output is not None else f"{name} (unusable: {one.why})", one.shown
            )
    return tuple(lines)


TEXT_LINES = 40
LINE_LIMIT = 2_000


def _part(name: str, value: Any) -> list[str]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    pieces = text.replace("\r\n", "\n").split("\n")
    lines = [printable(one, LINE_LIMIT) for one in pieces[:TEXT_LINES]]
    if len(pieces) > TEXT_LINES:
        lines.append(f"... {len(pieces) - TEXT_LINES:,} more lines")
    if len(lines) == 1 and len(lines[0]) <= 100:
        return [f"{name}: {lines[0]}"]
    return [f"{name}:", *(f"    | {one}" for one in lines)]
