"""Reviewing in a file: the waiting rows out as CSV or JSON Lines, the decisions back in.

A row of the file is decided when its `decision` says accept, reject or edit; an edit takes the answer from `output`. A
row with different results has them in `answers`, in order; accepting one puts its number into `answer`.
Either every decision of a file is recorded or none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import orjson

from batchctl.files import replacing
from batchctl.judging.text import printable
from batchctl.model.errors import UsageError
from batchctl.model.rows import Action, Unusable
from batchctl.tables.source import SourceSpec, open_source
from batchctl.tables.writers import write_rows
from batchctl.workflow.judged_rows import JudgedRow
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.review import Desk, Filter, Wish, finished, reviewer, writing
from batchctl.workflow.workspace import Options, opened

KINDS: dict[str, Literal["csv", "jsonl"]] = {".csv": "csv", ".jsonl": "jsonl"}
COLUMNS = ("id", "decision", "note", "answer", "output", "reason", "detail", "attempt", "answers")
ERRORS_SHOWN = 5
_QUOTED = ("'=", "'+", "'-", "'@", "'\t", "'\r", "'\x00")


def export(options: Options, name: str, chosen: Filter) -> Report:
    """Write the waiting rows to a file, with an empty `decision` for each."""
    target = Path(name)
    kind = _kind(target)
    if not target.absolute().parent.is_dir():
        raise UsageError(
            f"there is no directory `{target.parent}`",
            where=str(target),
            effect="nothing was written",
            hint="create it, or name another place",
        )
    with opened(options, write=False) as workspace:
        desk = Desk(workspace)
        rows = list(desk.rows(chosen))
        desk.look_up(rows)
        columns: dict[str, None] = {}
        for row in rows:
            columns.update(dict.fromkeys(orjson.loads(row.row)))
        with replacing(target) as out:
            write_rows(kind, out, _lines(desk, rows, kind), columns=(*COLUMNS, *(f"row.{one}" for one in columns)))
        words = f"Wrote {target} ({plural(len(rows), 'row')} waiting); fill in `decision`: accept, reject or edit"
        following = f"batchctl review import {target}"
        return Report("review", desk.run.id, lines=(words,), next=following, facts={"file": name, "rows": len(rows)})


def _lines(desk: Desk, rows: list[JudgedRow], kind: str) -> Iterator[bytes]:
    for row in rows:
        came = [one.shown for one in desk.came(row)] or None
        facts: dict[str, Any] = {"id": row.source_id, "decision": "", "note": "", "answer": None, "output": None}
        facts |= {"reason": row.reason, "detail": row.detail, "attempt": row.chunk.attempt, "answers": came}
        values = orjson.loads(row.row)
        if kind == "jsonl":
            facts["output"] = None if row.output is None else orjson.loads(row.output)
            yield orjson.dumps({**facts, "row": values})
        else:
            facts["output"] = None if row.output is None else row.output.decode()
            facts["answers"] = None if came is None else orjson.dumps(came).decode()
            yield orjson.dumps({**facts, **{f"row.{name}": value for name, value in values.items()}})


def import_(options: Options, name: str, *, by: str | None = None) -> Report:
    """Record the decisions of a file: all of them, or none when one of them cannot be."""
    path = Path(name)
    kind = _kind(path)
    source = open_source(SourceSpec(paths=(name,), format=kind))
    with writing(options) as desk:
        wishes = list(_wishes(source, kind, desk))
        seen: dict[str, str] = {}
        problems: list[str] = []
        who = reviewer(options, by)
        for wish in wishes:
            if wish.source_id in seen:
                problems.append(f"{wish.where}: row `{printable(wish.source_id, 60)}` is in {seen[wish.source_id]} too")
                continue
            seen[wish.source_id] = wish.where
        if not problems:
            work, problems = _checked(desk, wishes, who)
        if problems:
            raise UsageError(
                f"{plural(len(problems), 'decision')} of {path.name} cannot be recorded",
                where=[
                    *problems[:ERRORS_SHOWN],
                    *([f"and {len(problems) - ERRORS_SHOWN:,} more"] * (len(problems) > 5)),
                ],
                effect="nothing was decided",
                hint="correct the file and import it again",
            )
        done = desk.record(work, who)
        told = ", ".join(f"{count:,} {action}" for action, count in sorted(done.items())) or "no decision in it"
        counts = {str(action): count for action, count in done.items()}
        return finished(desk, (f"Imported {path.name}: {told}",), {"decided": counts, "file": name})


def _checked(desk: Desk, wishes: list[Wish], who: str) -> tuple[list[tuple[JudgedRow, Wish]], list[str]]:
    """Each wish with its row, and what stands against it; an id that is not there ends it, the others are not read."""
    problems: list[str] = []
    work: list[tuple[JudgedRow, Wish]] = []
    rows = desk.rows(Filter(ids=tuple(one.source_id for one in wishes)))
    for wish in wishes:
        try:
            work.append((next(rows), wish))
        except UsageError as error:
            problems.append(f"{wish.where}: {error.what}")
            break
    desk.look_up(row for row, wish in work if wish.answer is not None)
    for row, wish in work:
        try:
            desk.decision(row, wish, who)
        except UsageError as error:
            problems.append(f"{wish.where}: {error.what}")
    return work, problems


def _number(value: Any, action: str, line: str) -> int | None:
    """The number of the answer that is accepted."""
    text = str(value if value is not None else "").strip()
    if not text:
        return None
    if action != Action.ACCEPT or not (text.isascii() and text.isdigit()):
        raise _unreadable(line, f"`answer` = `{printable(text, 40)}`: it is the number of an answer to accept")
    return int(text)


def _wishes(source: Any, kind: str, desk: Desk) -> Iterator[Wish]:
    for batch in source.batches():
        for place, row in enumerate(batch.rows, batch.first):
            line = f"{source.names[0]} row {place + 1}"
            if isinstance(row, Unusable):
                raise _unreadable(line, row.reason)
            said = str(row.get("decision") or "").strip().lower()
            if not said:
                continue
            if said not in list(Action):
                raise _unreadable(line, f"`{printable(said, 40)}` is no decision; use {', '.join(Action)}")
            if "id" not in row:
                raise _unreadable(line, "it has no `id`")
            attempt = row.get("attempt")
            attempt = int(attempt) if str(attempt or "").isdigit() else None
            output = _output(row.get("output"), kind, text=desk.schema is None)
            note = str(row.get("note") or "")
            number = _number(row.get("answer"), said, line)
            yield Wish(_unquoted(row["id"], kind), Action(said), _unquoted(note, kind), output, line, attempt, number)


def _output(value: Any, kind: str, *, text: bool) -> str | None:
    """The edited answer as `Desk.answer` takes it: JSON, or the text itself without a schema."""
    if kind == "jsonl":
        return value if text and isinstance(value, str) else orjson.dumps(value).decode()
    plain = _unquoted(str(value or ""), kind)
    if text:
        try:
            read = orjson.loads(plain)
        except orjson.JSONDecodeError:
            return plain
        return read if isinstance(read, str) else plain
    return plain


def _unquoted(value: str, kind: str) -> str:
    """A CSV cell without the `'` that keeps a spreadsheet from running it."""
    return value[1:] if kind == "csv" and value.startswith(_QUOTED) else value


def _unreadable(where: str, why: str) -> UsageError:
    return UsageError(
        f"a decision cannot be read: {why}",
        where=where,
        effect="nothing was decided",
        hint="correct the file and import it again",
    )


def _kind(path: Path) -> Literal["csv", "jsonl"]:
    if path.suffix.lower() not in KINDS:
        raise UsageError(
            f"cannot tell the format of `{path.name}`",
            where=str(path),
            effect="nothing was done",
            hint="end its name in .csv or .jsonl",
        )
    return KINDS[path.suffix.lower()]
