"""One chunk's stored results to one verdict segment: files in, file out, nothing else touched.

Result lines come in any order, so the files are indexed first (custom_id to place) and then judged in line order of the
chunk; memory holds the index and one batch of verdicts, never a file. A line counts only if its custom_id is one of
this chunk and attempt. The function is pure and free of the ledger, so that chunks can be judged side by side.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, rows_name, verdicts_name
from batchctl.chunks.segments import VERDICTS, SegmentWriter
from batchctl.files import BLOCK_BYTES, sync_directory
from batchctl.judging.decide import Judge
from batchctl.judging.extracted import Extracted
from batchctl.judging.schema import Schema
from batchctl.judging.wires import READERS
from batchctl.model.rows import Reason, Retry, RowState, Usage, Verdict
from batchctl.prices import Rates

TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
LINE_BYTES = 64_000_000  # a longer line is not an answer
BATCH_ROWS = 500
BOM = b"\xef\xbb\xbf"


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
    rates: Rates | None = None  # what a token cost; None: unknown
    superseded: pa.Array | None = None  # positions that a newer chunk has taken over
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
    quarantined: Mapping[str, int]


@dataclass(slots=True)
class Index:
    """Where each request's result lines are. `others` holds second and further lines for the same request."""

    places: list[tuple[int, int, int] | None]  # (file, offset, length)
    others: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    quarantined: Counter[str] = field(default_factory=Counter)

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


def index(paths: list[Path], wanted: Mapping[bytes, int], id_field: str = "custom_id", *, exact: bool = False) -> Index:
    """Find every result line of a chunk. Split at LF only; lines that join nothing are counted, never guessed at.

    The quick way takes the first `id_field` it reads in a line, which the judging pass then verifies against the parsed
    line; a line in which it names no request of the chunk is parsed. `exact` parses every line here.
    """
    found = Index([None] * len(wanted))
    quick = re.compile(rb'"%b"\s*:\s*"([^"\\]*)"' % id_field.encode())
    for number, path in enumerate(paths):
        with path.open("rb", buffering=BLOCK_BYTES) as file:
            for offset, line in numbered(file):
                match = None if exact else quick.search(line)
                custom_id = match[1] if match else None
                if exact or (match and match[1] not in wanted):
                    custom_id = _parsed_id(line, id_field) or custom_id
                if custom_id is None:
                    found.quarantined["blank" if not line.strip(b" \t\r\n\0") else "unreadable"] += 1
                    continue
                place = wanted.get(custom_id)
                if place is None:
                    found.quarantined["unknown custom_id"] += 1
                    continue
                spot = (number, offset, len(line))
                if found.places[place] is None:
                    found.places[place] = spot
                else:
                    found.others.setdefault(place, []).append(spot)
    return found


def numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(offset, line with its LF) of a binary file. A byte order mark at the start is passed over."""
    offset = 0
    if file.read(3) == BOM:
        offset = 3
    file.seek(offset)
    while line := file.readline(LINE_BYTES):
        yield offset, line
        offset += len(line)


def _parsed_id(line: bytes, id_field: str) -> bytes | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    custom_id = value.get(id_field) if isinstance(value, dict) else None
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
    schema = None if task.schema_text is None else Schema.load(task.schema_text, task.schema_where)
    judge = Judge(schema, parse=task.parse, review_refused=task.review_refused)
    ids = expected(task.chunks, task.number)
    paths = [task.results / name for name in task.files]
    found = index(paths, ids, READERS[task.wire].id_field, exact=exact)
    complaints = _complaints(task)
    counter = _Counter(task)
    target = task.results / verdicts_name(task.number, task.attempt)
    part = target.with_name(target.name + ".part")
    results = _Results(paths)
    try:
        with SegmentWriter(part, VERDICTS) as out:
            pending: list[tuple[Any, ...]] = []
            for custom_id, line in ids.items():
                spot = found.places[line]
                if spot is None:
                    verdict = complaints(line) if complaints else _missing()
                elif line in found.others:
                    verdict = _several(judge, [spot, *found.others[line]], results, custom_id, task, found)
                else:
                    verdict = _one(judge, results.line(spot), custom_id, task, found, exact)
                cost = counter.add(line, verdict)
                pending.append(_record(verdict, cost))
                if len(pending) >= BATCH_ROWS:
                    out.add_columns(list(zip(*pending, strict=True)))
                    pending.clear()
            if pending:
                out.add_columns(list(zip(*pending, strict=True)))
    finally:
        results.close()
    os.replace(part, target)
    sync_directory(task.results)
    return Judged(
        out.sha256,
        counter.tallies(),
        counter.usage,
        counter.cost,
        counter.metered,
        counter.unmetered,
        dict(found.quarantined),
    )


def _one(judge: Judge, raw: bytes, custom_id: bytes, task: Task, found: Index, exact: bool) -> Verdict:
    extracted = _extract(raw, custom_id, task)
    if extracted is None:
        if not exact:
            raise Mismatch
        found.quarantined["unreadable"] += 1
        return _missing("its result line cannot be read")
    return judge.verdict(extracted)


def _extract(raw: bytes, custom_id: bytes, task: Task) -> Extracted | None:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    extracted = READERS[task.wire].line(value, task.endpoint, task.mode)
    if extracted.custom_id is None or extracted.custom_id.encode("utf-8", "surrogatepass") != custom_id:
        return None
    return extracted


def _several(
    judge: Judge, spots: list[tuple[int, int, int]], results: _Results, custom_id: bytes, task: Task, found: Index
) -> Verdict:
    """More than one line for a request: the same answer counts once, different ones go to a person."""
    lines = [one for one in (_extract(results.line(spot), custom_id, task) for spot in spots) if one is not None]
    if not lines:
        raise Mismatch
    found.quarantined["repeated"] += len(lines) - 1
    first = lines[0]
    answers = {repr((one.text, one.value, one.reason, one.detail)) for one in lines}
    verdict = judge.verdict(first)
    if len(answers) == 1:
        return verdict
    detail = f"{len(lines)} different results for one request; all are in the results file under {custom_id.decode()}"
    return Verdict(
        RowState.REVIEW_REQUIRED,
        Reason.CONFLICT,
        detail,
        None,
        next((one.usage for one in lines if one.usage is not None), None),
        Retry.CHANGE,
        any(one.paid for one in lines),
        first.request_id,
        first.model,
        first.created_at,
    )


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


class _Counter:
    """Rows by state and reason, copies counted with the request that pays for them, taken-over rows left out."""

    def __init__(self, task: Task) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._copied: dict[tuple[str, str], int] = {}
        self._tokens = [0, 0, 0, 0, 0, 0]
        self._rates = task.rates
        self._cost = 0
        self.metered = 0
        self.unmetered = 0
        self._gone = b""
        self._copies: Counter[int] = Counter()
        rows = segments.column(task.chunks / rows_name(task.number), "position").combine_chunks()
        if task.superseded is not None:
            mask = pc.is_in(rows, value_set=task.superseded)
            self._gone = bytes(mask.cast(pa.uint8()).to_pylist())
        if task.copies:
            table = segments.read(task.chunks / copies_name(task.number), ["position", "line"])
            lines = table.column("line").combine_chunks()
            if task.superseded is not None:
                kept = pc.invert(pc.is_in(table.column("position").combine_chunks(), value_set=task.superseded))
                lines = lines.filter(kept)
            self._copies.update(lines.to_pylist())

    @property
    def cost(self) -> int | None:
        return None if self._rates is None else self._cost

    def add(self, line: int, verdict: Verdict) -> int | None:
        """Count one verdict; what its request cost in picodollars, or None when nobody can tell."""
        key = (verdict.state, verdict.reason or "")
        if not self._gone or not self._gone[line]:
            self._counts[key] = self._counts.get(key, 0) + 1
        if self._copies:
            copies = self._copies.get(line, 0)
            if copies:
                self._counts[key] = self._counts.get(key, 0) + copies
                self._copied[key] = self._copied.get(key, 0) + copies
        usage = verdict.usage
        if usage is not None:
            total = self._tokens
            total[0] += usage.input_tokens
            total[1] += usage.output_tokens
            total[2] += usage.cached_tokens
            total[3] += usage.cache_write_tokens
            total[4] += usage.reasoning_tokens
        if verdict.paid:
            self._tokens[5] += 1
        if usage is None:
            if verdict.paid or verdict.reason is Reason.MISSING:
                self.unmetered += 1
                return None
            return 0  # refused, expired or cancelled before it ran: not billed
        self.metered += 1
        if self._rates is None:
            return None
        cost = self._rates.cost(usage)
        self._cost += cost
        return cost

    @property
    def usage(self) -> dict[str, int]:
        return dict(zip((*TOKENS, "paid_requests"), self._tokens, strict=True))

    def tallies(self) -> dict[tuple[str, str], tuple[int, int]]:
        return {(str(key[0]), str(key[1])): (count, self._copied.get(key, 0)) for key, count in self._counts.items()}


def _record(verdict: Verdict, cost: int | None) -> tuple[Any, ...]:
    """A verdict as a row of its segment."""
    usage = verdict.usage
    return (
        verdict.state,
        verdict.reason or "",
        verdict.detail,
        verdict.output,
        verdict.retry,
        verdict.paid,
        None if usage is None else usage_json(usage),
        verdict.request_id,
        verdict.model,
        verdict.created_at,
        cost,
    )


def usage_json(usage: Usage) -> bytes:
    return (
        b'{"input_tokens":%d,"output_tokens":%d,"cached_tokens":%d,"cache_write_tokens":%d,"reasoning_tokens":%d}'
        % (
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
        )
    )
