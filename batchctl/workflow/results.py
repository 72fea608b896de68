"""`results.jsonl` and `rerun.jsonl`: every row of a run once, in source order, from its segments.

A row can be in several chunks: where it was first sent, as a copy beside the request that paid for it, and in later
attempts. The newest chunk decides. Streams that are each in source order are merged by position, so memory does not
grow with the run.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, rows_name, verdicts_name
from batchctl.chunks.segments import RandomRows
from batchctl.files import replacing
from batchctl.judging.decide import settled
from batchctl.ledger import asked, queries
from batchctl.ledger.transitions import ROW_STATE, ChunkState
from batchctl.model.rows import FAILED, Decision, RowState
from batchctl.prices import as_usd
from batchctl.workflow.decided import decisions
from batchctl.workflow.money import BATCH

COMPLETED, PUBLISHED = (str(one).encode() for one in (RowState.COMPLETED, RowState.PUBLISHED))
FAILED_WORDS = tuple(str(state).encode() for state in FAILED)
VERDICT_COLUMNS = ("state", "reason", "detail", "output", "usage", "request_id", "model", "created_at", "cost")
ANSWERED = (str(RowState.COMPLETED).encode(), str(RowState.REVIEW_REQUIRED).encode())
"""States whose rows show their answer."""
WRITE_LINES = 1_000

Item = tuple[int, int, bytes, bytes | None]
"""Position, chunk number, line for results.jsonl, line for rerun.jsonl (None unless the row failed)."""


@dataclass(frozen=True, slots=True)
class Written:
    rows: int
    failed: int


def write_results(state: Path, db: Any, run: queries.Run) -> Written:
    """Replace both files, each whole or not at all. The same ledger gives the same bytes."""
    if run.purging:
        return Written(0, 0)  # an interrupted purge: the next one carries on, and writes them
    directory = state / run.id
    rows = failed = 0
    with ExitStack() as stack:
        results = stack.enter_context(replacing(directory / "results.jsonl"))
        rerun = stack.enter_context(replacing(directory / "rerun.jsonl"))
        buffer: list[bytes] = []
        for _, _, line, again in every_row(state, db, run):
            buffer.append(line)
            rows += 1
            if again is not None:
                rerun.write(again)
                failed += 1
            if len(buffer) >= WRITE_LINES:
                results.write(b"".join(buffer))
                buffer.clear()
        results.write(b"".join(buffer))
    return Written(rows, failed)


def every_row(state: Path, db: Any, run: queries.Run, *, as_judged: bool = False) -> Iterator[Item]:
    """Each row of a run once, in source order, as its newest chunk has it; `as_judged`: without what people decided."""
    directory = state / run.id
    chunks = queries.chunks(db, run.id)
    intents = queries.last_intents(db, run.id)
    settings = queries.settings(db, run.id)
    decided = {} if as_judged else decisions(directory, db, run.id)
    streams: list[Iterator[Item]] = []
    by_attempt: dict[int, list[_Chunk]] = {}
    for row in chunks:
        intent = intents.get(row.number)
        batch = intent.batch_id if intent is not None else None
        under_way = row.lane != BATCH and row.state is ChunkState.SUBMITTED
        calls = queries.calls_of(db, run.id, row.number) if under_way else None
        one = _Chunk(directory, row, settings[row.settings], batch, decided.get(row.number, {}), calls)
        by_attempt.setdefault(row.attempt, []).append(one)
        if row.copies:
            streams.append(one.copies())
    for group in by_attempt.values():
        # Chunks of one packing follow each other in source order; a later packing starts over.
        sequence: list[_Chunk] = []
        for one in group:
            if sequence and one.row.first_position <= sequence[-1].row.last_position:
                streams.append(_chained(sequence))
                sequence = []
            sequence.append(one)
        streams.append(_chained(sequence))
    if run.rejected:
        streams.append(_rejected(directory / "rejects.jsonl"))
    if len(streams) == 1:
        yield from streams[0]
        return
    waiting: Item | None = None
    for item in heapq.merge(*streams, key=_order):
        if waiting is not None and waiting[0] != item[0]:
            yield waiting
        waiting = item  # the newest chunk of a position comes last
    if waiting is not None:
        yield waiting


def _order(item: Item) -> tuple[int, int]:
    return item[0], item[1]


def _chained(chunks: list[_Chunk]) -> Iterator[Item]:
    for chunk in chunks:
        yield from chunk.requests()


class _Chunk:
    """One chunk as lines. Constant parts are written once."""

    def __init__(
        self,
        directory: Path,
        row: queries.Chunk,
        settings: queries.SettingsRow,
        batch: str | None,
        decided: Mapping[int, Decision],
        calls: Mapping[str, str] | None,  # by custom_id, of a chunk that is being asked for row by row
    ) -> None:
        self.row = row
        self._calls = calls
        self._decided = decided
        self._directory = directory
        self._attempt = row.attempt
        self._applied = row.state is ChunkState.APPLIED
        self._pending = ROW_STATE.get(row.state, RowState.QUEUED)
        self._provider = _json(settings.provider)
        self._model = _json(settings.model)
        self._batch = _json(batch)
        self._versions = b'"prompt_version":%b,"schema_version":%b' % (
            _json(settings.prompt_version),
            _json(settings.schema_version),
        )
        self._verdicts = directory / "results" / verdicts_name(row.number, row.attempt)

    def requests(self) -> Iterator[Item]:
        path = self._directory / "chunks" / rows_name(self.row.number)
        if self._calls is not None:
            for position, source_id, row, custom_id in segments.tuples(path, ("position", "id", "row", "custom_id")):
                state = asked.state_of_call(self._calls.get(custom_id.decode()))
                yield self._pending_item(position, source_id, row, None, state)
            return
        rows = segments.tuples(path, ("position", "id", "row"))
        if not self._applied:
            for position, source_id, row in rows:
                yield self._pending_item(position, source_id, row, None, self._pending)
            return
        verdicts = islice(segments.tuples(self._verdicts, VERDICT_COLUMNS), self.row.requests)
        for (position, source_id, row), verdict in zip(rows, verdicts, strict=True):
            yield self._item(position, source_id, row, verdict, None)

    def copies(self) -> Iterator[Item]:
        columns = ("position", "id", "row", "line", "copied_from")
        rows = segments.tuples(self._directory / "chunks" / copies_name(self.row.number), columns)
        if not self._applied:
            state = self._pending
            if self._calls is not None:
                called = sum(asked.state_of_call(one) is not RowState.QUEUED for one in self._calls.values())
                state = asked.state_of_copies(self.row.requests - called)
            for position, source_id, row, _, payer in rows:
                yield self._pending_item(position, source_id, row, payer, state)
            return
        verdicts = RandomRows(self._verdicts, VERDICT_COLUMNS)
        first = segments.first_of_copies(verdicts.rows, self.row.requests)
        try:
            for number, (position, source_id, row, line, payer) in enumerate(rows):
                place = line if first is None else first + number
                yield self._item(position, source_id, row, verdicts[place], payer)
        finally:
            verdicts.close()

    def _item(self, position: int, source_id: bytes, row: bytes, verdict: tuple[Any, ...], payer: bytes | None) -> Item:
        state, reason, detail, output, usage, request_id, model, created, cost = verdict
        if position in self._decided:
            now = settled(state.decode(), reason.decode(), detail.decode(), output, self._decided[position])
            state, reason, detail = str(now.state).encode(), str(now.reason).encode(), now.detail.encode()
            output = now.output
        if state not in ANSWERED:
            output = None
        if state == COMPLETED and self.row.is_published:
            state = PUBLISHED
        quoted = b"null" if payer is None else orjson.dumps(payer.decode())
        reason_json = b'"%b"' % reason if reason else b"null"
        detail_json = orjson.dumps(detail.decode()) if detail else b"null"
        line = (
            b'{"id":%b,"state":"%b","output":%b,"reason":%b,"detail":%b,"attempt":%d,"copied_from":%b,"usage":%b,'
            b'"cost_usd":%b,"provider":%b,"model":%b,"batch_id":%b,"request_id":%b,%b,"created_at":%b,"row":%b}\n'
        ) % (
            orjson.dumps(source_id.decode()),
            state,
            b"null" if output is None else output,
            reason_json,
            detail_json,
            self._attempt,
            quoted,
            b"null" if usage is None or payer is not None else usage,
            _usd(0 if payer is not None else cost),  # a copied row costs nothing
            self._provider,
            _json_bytes(model) if model else self._model,
            self._batch,
            orjson.dumps(request_id.decode()) if request_id else b"null",
            self._versions,
            _time(created),
            row,
        )
        again = None
        if state in FAILED_WORDS:
            tail = b'"_reason":%b,"_detail":%b,"_attempt":%d}\n' % (reason_json, detail_json, self._attempt)
            again = (b"{" if row == b"{}" else row[:-1] + b",") + tail
        return position, self.row.number, line, again

    def _pending_item(self, position: int, source_id: bytes, row: bytes, payer: bytes | None, state: RowState) -> Item:
        line = (
            b'{"id":%b,"state":"%b","output":null,"reason":null,"detail":null,"attempt":%d,"copied_from":%b,'
            b'"usage":null,"cost_usd":null,"provider":%b,"model":%b,"batch_id":%b,"request_id":null,%b,'
            b'"created_at":null,"row":%b}\n'
        ) % (
            orjson.dumps(source_id.decode()),
            str(state).encode(),
            self._attempt,
            b"null" if payer is None else orjson.dumps(payer.decode()),
            self._provider,
            self._model,
            self._batch,
            self._versions,
            row,
        )
        return position, self.row.number, line, None


def _rejected(path: Path) -> Iterator[Item]:
    """Source rows that never became a request: in the results with their reason, and nowhere else."""
    import json

    with path.open("rb") as file:
        for raw in file:
            one = json.loads(raw)
            facts = {
                "id": one["id"],
                "state": "rejected",
                "output": None,
                "reason": None,
                "detail": one["reason"],
                "attempt": 0,
                "copied_from": None,
                "usage": None,
                "cost_usd": None,
                "provider": None,
                "model": None,
                "batch_id": None,
                "request_id": None,
                "prompt_version": None,
                "schema_version": None,
                "created_at": None,
                "row": one["row"],
            }
            text = json.dumps(facts, ensure_ascii=False, separators=(",", ":")) + "\n"
            yield one["position"], 0, text.encode("utf-8", "backslashreplace"), None


@lru_cache(maxsize=65_536)
def _time(seconds: int | None) -> bytes:
    if seconds is None:
        return b"null"
    return datetime.fromtimestamp(seconds, UTC).strftime('"%Y-%m-%dT%H:%M:%SZ"').encode()


@lru_cache(maxsize=65_536)
def _usd(picos: int | None) -> bytes:
    """Exact USD as a decimal string; null when unknown."""
    return b"null" if picos is None else b'"%b"' % as_usd(picos).encode()


@lru_cache(maxsize=1_024)
def _json_bytes(text: bytes) -> bytes:
    return orjson.dumps(text.decode())


def _json(value: str | None) -> bytes:
    return orjson.dumps(value)
