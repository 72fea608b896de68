"""One chunk's stored results to one verdict segment: files in, file out, nothing else touched.

Result lines come in any order, so the files are indexed first (custom_id to place) and then judged in line order of the
chunk; memory holds the index and one batch of verdicts, never a file. A line counts only if its custom_id is one of
this chunk and attempt. The function is pure and free of the ledger, so that chunks can be judged side by side.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, rows_name, verdicts_name
from batchctl.chunks.segments import VERDICTS, SegmentWriter
from batchctl.files import BLOCK_BYTES, sync_directory
from batchctl.judging.caps import Caps, capped
from batchctl.judging.decide import Judge, drawn
from batchctl.judging.extracted import Extracted
from batchctl.judging.rules import RuleBook, Rules
from batchctl.judging.schema import Schema
from batchctl.judging.wires import READERS
from batchctl.model.ids import KEY
from batchctl.model.rows import FAILED, Decision, Reason, Retry, RowState, Tries, Verdict
from batchctl.prices import Rates
from batchctl.workflow.tallying import Tally, record

LINE_BYTES = 64_000_000  # a longer line is not an answer
BATCH_ROWS = 500
LOST = "the answer to its live call was lost: it may be billed, and is not sent again by itself"
BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r\n\0"
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[{}]', re.DOTALL)  # a string, also one without its end; a brace
_LIMITED = frozenset((*FAILED, RowState.REVIEW_REQUIRED))
_NONE = Tries()


@dataclass(frozen=True, slots=True)
class Task:
    """What judging one chunk needs: paths and plain values, so that it can travel to another process."""

    chunks: Path
    results: Path
    number: int
    attempt: int
    requests: int
    copies: int
    files: tuple[str, ...]
    endpoint: str
    wire: str
    mode: str
    schema_text: bytes | None
    schema_where: str
    parse: str
    review_refused: bool
    rules: RuleBook = field(default_factory=RuleBook)
    caps: Caps = field(default_factory=Caps)
    before: Mapping[int, Tries] = field(default_factory=dict)  # by position: what came of earlier attempts
    decisions: Mapping[int, Decision] = field(default_factory=dict)  # by position
    rates: Rates | None = None  # what a token cost; None: unknown
    superseded: pa.Array | None = None  # positions that a newer chunk has taken over
    calls: Mapping[str, str] | None = None  # of a chunk sent row by row: custom_id to state, of calls without an end
    expired: bool = False  # the batch ran out of time, and a row that never ran has no line
    refused: str | None = None  # file with the provider's complaints when the whole batch was refused


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict segment that was written, and what the ledger needs to know of it."""

    sha256: str
    tallies: Mapping[tuple[str, str], tuple[int, int]]
    usage: Mapping[str, int]
    cost: int | None  # picodollars of the answers whose tokens are known; None without a price
    metered: int  # requests whose tokens are known
    unmetered: int  # requests that may be billed and whose tokens nobody has told us
    shares: Mapping[str, int]  # by share rule: completed rows for which its `where` holds
    quarantined: Mapping[str, int]


@dataclass(slots=True)
class Index:
    """Where each request's result lines are. `others` holds second and further lines for the same request."""

    places: list[tuple[int, int, int] | None]  # (file, offset, length)
    others: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    quarantined: Counter[str] = field(default_factory=Counter)

    def add(self, place: int, spot: tuple[int, int, int]) -> None:
        """One more result line of a request."""
        if self.places[place] is None:
            self.places[place] = spot
        else:
            self.others.setdefault(place, []).append(spot)

    @property
    def missing(self) -> int:
        return self.places.count(None)


def expected(chunks: Path, number: int) -> dict[bytes, int]:
    """custom_id to line, for every request of a chunk."""
    ids: dict[bytes, int] = {}
    for (column,) in segments.batches(chunks / rows_name(number), ("custom_id",)):
        for custom_id in column:
            ids[custom_id] = len(ids)
    return ids


def index(paths: list[Path], wanted: Mapping[bytes, int], wire: str, *, exact: bool = False) -> Index:
    """Find every result line of a chunk. Split at LF only; lines that join nothing are counted, never guessed at.

    The quick way takes the first id it reads in a line, which the judging pass then verifies against the parsed line;
    `exact` parses every line here. A line that is several objects counts as several lines, up to what is not whole.
    """
    name = READERS[wire].id_field
    quick = _quick_id(name)
    found = Index([None] * len(wanted))
    for number, path in enumerate(paths):
        with path.open("rb", buffering=BLOCK_BYTES) as file:
            for offset, line in numbered(file):
                place = None if exact or line[-1:] != b"\n" else wanted.get(quick(line))  # the last one may be torn
                if place is not None:
                    found.add(place, (number, offset, len(line)))
                    continue
                for start, end, custom_id in _parsed_ids(line, name):
                    place = wanted.get(custom_id or b"")
                    if place is not None:
                        found.add(place, (number, offset + start, end - start))
                    elif custom_id is not None:
                        found.quarantined["unknown custom_id"] += 1
                    else:
                        found.quarantined["unreadable" if line[start:end].strip(BLANK) else "blank"] += 1
    return found


def numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(offset, line with its LF) of a binary file. A byte order mark at the start is passed over.

    A line of more than `LINE_BYTES` comes in pieces that end where an object does, as far as there is one.
    """
    offset = 0
    if file.read(3) == BOM:
        offset = 3
    file.seek(offset)
    while line := file.readline(LINE_BYTES):
        if len(line) == LINE_BYTES and not line.endswith(b"\n"):
            ends = [end for _, end in _objects(line)]
            line = line[: ends[-1]] if ends else line
            file.seek(offset + len(line))
        yield offset, line
        offset += len(line)


def _quick_id(name: str) -> Callable[[bytes], bytes]:
    search = re.compile(rb'"%b"\s*:\s*"([^"\\]*)"' % name.encode()).search

    def read(line: bytes) -> bytes:
        match = search(line)
        return match[1] if match else b""

    return read


def _parsed_ids(line: bytes, name: str) -> Iterator[tuple[int, int, bytes | None]]:
    """Start, end and id of what a line holds: one object, or several one after the other. Empty for an object that has no
    id; None for what cannot be read."""
    custom_id = _parsed_id(line, name)
    if custom_id is not None:
        yield 0, len(line), custom_id
        return
    end = 0
    for start, end in _objects(line):
        yield start, end, _parsed_id(line[start:end], name)
    if not end or line[end:].strip(BLANK):
        yield end, len(line), None


def _objects(line: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each whole object of a line, until something else follows."""
    depth = start = end = 0
    for token in _TOKENS.finditer(line):
        if token[0] == b"{":
            if not depth:
                start = token.start()
                if line[end:start].strip(BLANK):
                    return
            depth += 1
        elif token[0] == b"}":
            depth -= 1
            if depth < 0:
                return
            if not depth:
                end = token.end()
                yield start, end


def _parsed_id(line: bytes, name: str) -> bytes | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    custom_id = value.get(name) if isinstance(value, dict) else None
    return custom_id.encode("utf-8", "surrogatepass") if isinstance(custom_id, str) else b""


class _Results:
    """The lines of the result files by place. In file order, as providers mostly write them, it is one plain read."""

    def __init__(self, paths: list[Path]) -> None:
        self._files = [path.open("rb", buffering=BLOCK_BYTES) for path in paths]
        self._ends = [0] * len(paths)

    def line(self, spot: tuple[int, int, int]) -> bytes:
        number, offset, length = spot
        file = self._files[number]
        if self._ends[number] != offset:
            file.seek(offset)
        self._ends[number] = offset + length
        return file.read(length)

    def close(self) -> None:
        for file in self._files:
            file.close()


class Mismatch(Exception):
    """The quick index joined a line that its parsed form does not claim."""


def judge_chunk(task: Task) -> Judged:
    """Write the verdicts of one chunk. The same files and settings give the same bytes."""
    try:
        return _judge(task, exact=False)
    except Mismatch:
        return _judge(task, exact=True)


def _judge(task: Task, *, exact: bool) -> Judged:
    ids = expected(task.chunks, task.number)
    paths = [task.results / name for name in task.files]
    found = index(paths, ids, _id_wire(task), exact=exact)
    target = task.results / verdicts_name(task.number, task.attempt)
    part = target.with_name(target.name + ".part")
    work = _Work(task, _Results(paths), found, exact)
    try:
        with SegmentWriter(part, VERDICTS) as out:
            work.requests(out)
            work.copies(out)
    finally:
        work.results.close()
    os.replace(part, target)
    sync_directory(task.results)
    tally = work.tally
    names = [one.name for one in task.rules.shares]
    return Judged(
        out.sha256,
        tally.tallies(),
        tally.usage,
        tally.cost,
        tally.metered,
        tally.unmetered,
        {name: tally.shares[place] for place, name in enumerate(names)},
        dict(found.quarantined),
    )


class _Work:
    """Judging one chunk: first its requests in line order, then the rows that copy their answers."""

    def __init__(self, task: Task, results: _Results, found: Index, exact: bool) -> None:
        self.task = task
        self.results = results
        self.found = found
        self.exact = exact
        schema = None if task.schema_text is None else Schema.load(task.schema_text, task.schema_where)
        rules = Rules(task.rules) if task.rules else None
        self.judge = Judge(schema, parse=task.parse, review_refused=task.review_refused, rules=rules)
        self.tally = Tally(task.rates, rules, task.decisions)
        self._complaints = _complaints(task)
        self._reads_rows = rules is not None and (rules.needs_row or bool(task.decisions))
        self._own = rules is not None and rules.needs_row  # copies are judged with their own row
        self._gone = frozenset() if task.superseded is None else frozenset(task.superseded.to_pylist())
        self._kept: dict[int, Verdict] = {}  # by line: what copies take over

    def requests(self, out: SegmentWriter) -> None:
        """One verdict for each request line."""
        task, tally = self.task, self.tally
        copied = set() if not task.copies or self._own else set(self._copied_lines())
        names = ("custom_id", "position", "row") if self._reads_rows else ("custom_id", "position")
        line = 0
        for columns in segments.batches(task.chunks / rows_name(task.number), names, size=BATCH_ROWS):
            rows = columns[2] if self._reads_rows else repeat(None)
            records = []
            for custom_id, position, row in zip(columns[0], columns[1], rows, strict=False):
                verdict = self._verdict(line, custom_id, position, row)
                never_sent = task.calls is not None and task.calls.get(custom_id.decode()) == "absent"
                untold = self.found.places[line] is None and self._complaints is None
                records.append(record(verdict, tally.request(verdict, never_sent=never_sent, untold=untold)))
                if position not in self._gone:
                    tally.row(verdict, position, row)
                if line in copied:
                    self._kept[line] = verdict
                line += 1
            out.add_columns(list(zip(*records, strict=True)))

    def copies(self, out: SegmentWriter) -> None:
        """Count the rows that copy an answer. Where rules look at the row, each has a verdict of its own: it is written
        after those of the requests, in the order of the copies."""
        task = self.task
        if not task.copies:
            return
        path = task.chunks / copies_name(task.number)
        ids = [] if not self._own else segments.column(task.chunks / rows_name(task.number), "custom_id").to_pylist()
        for position, line, row in segments.tuples(path, ("position", "line", "row")):
            if self._own:
                verdict = self._verdict(line, ids[line].encode(), position, row, again=True)
                out.add(*record(replace(verdict, usage=None, paid=False), 0))
            else:
                verdict = self._kept[line]
            if position not in self._gone:
                self.tally.row(verdict, position, row, copied=True)

    def _copied_lines(self) -> list[int]:
        lines: list[int] = segments.column(self.task.chunks / copies_name(self.task.number), "line").to_pylist()
        return lines

    def _verdict(
        self, line: int, custom_id: bytes, position: int, row: bytes | None, *, again: bool = False
    ) -> Verdict:
        """The verdict on one row. `again`: its line was judged before, for another row."""
        spot = self.found.places[line]
        if spot is None:
            verdict = self._complaints(line) if self._complaints else _unanswered(self.task, custom_id)
        elif line in self.found.others:
            verdict = self._several([spot, *self.found.others[line]], custom_id, row, again=again)
        else:
            verdict = self._one(self.results.line(spot), custom_id, row, again=again)
        if verdict.state in _LIMITED:
            before = self.task.before.get(position, _NONE)
            return capped(verdict, before, self.task.attempt, self.task.caps)
        return verdict

    def _one(self, raw: bytes, custom_id: bytes, row: bytes | None, *, again: bool) -> Verdict:
        extracted = _extract(raw, custom_id, self.task)
        if extracted is None:
            if not self.exact:
                raise Mismatch
            if not again:
                self.found.quarantined["unreadable"] += 1
            return _missing("its result line cannot be read")
        return self.judge.verdict(extracted, row, drawn=self._drawn(custom_id))

    def _drawn(self, custom_id: bytes) -> bool:
        share = self.task.rules.sample
        return bool(share) and drawn(custom_id[KEY].decode(), share)

    def _several(
        self, spots: list[tuple[int, int, int]], custom_id: bytes, row: bytes | None, *, again: bool
    ) -> Verdict:
        """More than one line for a request: the same answer counts once, different ones go to a person."""
        found = [_extract(self.results.line(spot), custom_id, self.task) for spot in spots]
        lines = [one for one in found if one is not None]
        if len(lines) < len(spots) and not self.exact:
            raise Mismatch
        if not lines:
            return _missing("its result lines cannot be read")
        if not again:
            self.found.quarantined["repeated"] += len(lines) - 1
        first = lines[0]
        answers = {repr((one.text, one.value, one.reason, one.detail)) for one in lines}
        if len(answers) == 1:
            return self.judge.verdict(first, row, drawn=self._drawn(custom_id))
        said = f"{len(lines)} different results for one request; all are in the results file under {custom_id.decode()}"
        usages = [one.usage for one in lines if one.usage is not None]
        told = bool(usages) and all(one == usages[0] for one in usages)  # else nobody knows which was billed
        return Verdict(
            RowState.REVIEW_REQUIRED,
            Reason.CONFLICT,
            said,
            None,
            usages[0] if told else None,
            Retry.CHANGE,
            any(one.paid for one in lines),
            first.request_id,
            first.model,
            first.created_at,
        )


def evidence(task: Task, lines: Collection[int]) -> dict[int, list[Extracted]]:
    """Everything that came back for some requests of a chunk, for a person to look at."""
    ids = expected(task.chunks, task.number)
    paths = [task.results / name for name in task.files]
    found = index(paths, ids, _id_wire(task), exact=True)
    names = {place: one for one, place in ids.items() if place in lines}
    results = _Results(paths)
    came = {}
    try:
        for line in lines:
            first = found.places[line]
            spots = [] if first is None else [first, *found.others.get(line, [])]
            read = [_extract(results.line(spot), names[line], task) for spot in spots]
            came[line] = [one for one in read if one is not None]
    finally:
        results.close()
    return came


def _extract(raw: bytes, custom_id: bytes, task: Task) -> Extracted | None:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if task.calls is None:
        extracted = READERS[task.wire].line(value, task.endpoint, task.mode)
    elif isinstance(value, dict) and "live" in value:
        extracted = _live(value, task)
    else:
        return None
    if extracted.custom_id is None or extracted.custom_id.encode("utf-8", "surrogatepass") != custom_id:
        return None
    return extracted


def _id_wire(task: Task) -> str:
    """By which wire's name a result line says whose it is; answers to live calls are lines of ours, named as OpenAI's."""
    return task.wire if task.calls is None else "openai"


def _live(value: dict[str, Any], task: Task) -> Extracted:
    """One line of a chunk that was sent live: the HTTP answer to one call, or why there was none (`workflow.live`)."""
    answer, reader = value["live"], READERS[task.wire]
    if answer is None:
        found = Extracted(reason=Reason.PROVIDER, detail=f"not sent: {value.get('why')}", retry=Retry.USER)
    elif answer["status"] == 200:
        found = reader.body(answer["body"], task.endpoint, task.mode)
    else:
        found = reader.http_error(answer["status"], answer["body"])
    request_id = found.request_id or ("" if answer is None else answer["request_id"])
    return replace(found, custom_id=value["custom_id"], request_id=request_id)


def _unanswered(task: Task, custom_id: bytes) -> Verdict:
    """A request without a result line. One that was called live and whose answer was lost waits for a person."""
    state = None if task.calls is None else task.calls.get(custom_id.decode())
    if state == "lost":
        return Verdict(RowState.HELD, None, LOST)
    if state == "absent":
        return _missing("its live call got no answer, and was not sent: a person's word")
    if state == "abandoned":
        verdict = _missing("its live call got no answer, which a person gave up; it may be billed")
        return replace(verdict, retry=Retry.USER)
    if task.expired:
        detail = "the batch ran out of time before this row had an answer"
        return Verdict(RowState.PROVIDER_ERROR, Reason.EXPIRED, detail, retry=Retry.TRANSIENT)
    return _missing()


def _missing(detail: str = "the batch ended without a result for this row") -> Verdict:
    return Verdict(RowState.PROVIDER_ERROR, Reason.MISSING, detail, retry=Retry.TRANSIENT)


def _complaints(task: Task) -> Any:
    """For a batch refused as a whole: a function from line to verdict. None for any other batch."""
    if task.refused is None:
        return None
    errors = orjson.loads((task.results / task.refused).read_bytes())["errors"]
    by_line = {one["line"] - 1: one for one in errors if one["line"] is not None}
    whole = next((one for one in errors if one["line"] is None), None)

    def verdict(line: int) -> Verdict:
        said = by_line.get(line) or (None if by_line else whole)
        if said is not None:
            detail = f"{said['code']}: {said['message']}"[:300]
            return Verdict(RowState.PROVIDER_ERROR, Reason.PROVIDER, detail, retry=Retry.NEVER)
        detail = "not run: the provider refused the whole file because of other rows"
        return Verdict(RowState.PROVIDER_ERROR, Reason.PROVIDER, detail, retry=Retry.TRANSIENT)

    return verdict
