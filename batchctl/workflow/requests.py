"""How a source row becomes a request: its line, its id, the limits of the chunk it goes into.

`prepare` and `rerun` write requests; both take them from here, so that a row gives the same bytes either way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from batchctl.chunks.names import copies_name
from batchctl.chunks.splice import Splice, cut, row_json
from batchctl.chunks.write import Packed, verify
from batchctl.files import sha256_of
from batchctl.ledger.transitions import NewChunk, NewSettings
from batchctl.model.batches import Limits, Request
from batchctl.model.errors import UsageError
from batchctl.model.ids import DIGEST_BYTES, id_digest
from batchctl.model.rows import Unusable
from batchctl.template import Template, Unrenderable
from batchctl.workflow.workspace import Plan

DEFAULT_CHUNK_BYTES = 100_000_000
RERUN_COLUMNS = ("_reason", "_detail", "_attempt")
"""What a rerun file says beside the source columns."""


def settings_row(plan: Plan, directory: str) -> NewSettings:
    return NewSettings(
        sha256=plan.settings,
        directory=directory,
        provider=plan.job.model.provider,
        model=plan.job.model.name,
        endpoint=plan.endpoint,
        prompt_version=plan.job.prompt.version,
        prompt_sha256=plan.prompt_sha256,
        schema_version=plan.job.output.version,
        schema_sha256=plan.schema_sha256,
    )


def line_splice(plan: Plan, columns: tuple[str, ...] | None) -> tuple[Splice, tuple[str, ...]]:
    """How a row becomes a line under this plan, and the provider's notes on the schema."""
    codec = plan.codec()
    prompt = Template.load(plan.prompt, where=plan.where["prompt"], columns=columns)
    system = None if plan.system is None else Template.load(plan.system, where=plan.where["system"], columns=columns)
    moving = system is not None and not system.constant
    renders = [prompt.renderer()] + ([system.renderer()] if system is not None and moving else [])
    fixed_system = system.render({}) if system is not None and not moving else None
    schema = plan.schema()
    endpoint, model = plan.endpoint, plan.job.model
    notes: tuple[str, ...] = ()

    def encode(custom_id: str, texts: Any) -> bytes:
        nonlocal notes
        body, notes = codec.body(
            endpoint=endpoint,
            model=model.name,
            prompt=texts[0],
            system=texts[1] if moving else fixed_system,
            params=model.params,
            schema=None if schema is None else schema.value,
            mode=plan.job.output.mode,
            schema_name=plan.job.name.replace("-", "_"),
        )
        return codec.encode(Request(custom_id, endpoint, body))

    return cut(encode, renders), notes


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch of rows as requests: columns of equal length, and by place the rows that cannot become one."""

    texts: list[bytes]  # the rows as JSON
    requests: list[bytes]  # request digests
    tails: list[bytes]  # lines after their custom_id
    unusable: dict[int, Unusable]


def batch_encoder(splice: Splice, line_bytes: int) -> Callable[[list[Any]], Encoded]:
    """A function from source rows to requests. The usual batch goes through whole columns, a hard one row by row."""
    sha256, dumps = hashlib.sha256, orjson.dumps
    one_by_one = row_encoder(splice, line_bytes)
    shape, before, after = splice.shape, splice.pieces[0], splice.pieces[-1] + b"\n"
    render = splice.renders[0]
    room = line_bytes - len(before) - len(after)

    def quickly(rows: list[Any]) -> Encoded | None:
        """The columns, or None when any row needs a closer look."""
        if len(splice.renders) != 1 or Unusable in set(map(type, rows)):
            return None
        try:
            texts = [dumps(row) for row in rows]
            holes = [dumps(render(row))[1:-1] for row in rows]
        except (TypeError, Unrenderable):
            return None
        if any(b"\xe2\x80" in hole for hole in holes) or max(map(len, holes), default=0) > room:
            return None
        requests = [sha256(shape + hole).digest()[:DIGEST_BYTES] for hole in holes]
        return Encoded(texts, requests, [before + hole + after for hole in holes], {})

    def encode(rows: list[Any]) -> Encoded:
        quick = quickly(rows)
        if quick is not None:
            return quick
        result = Encoded([], [], [], {})
        for place, row in enumerate(rows):
            one = one_by_one(row)
            if isinstance(one, Unusable):
                result.unusable[place] = one
            else:
                result.texts.append(one[0])
                result.requests.append(one[1])
                result.tails.append(one[2])
        return result

    return encode


def row_encoder(splice: Splice, line_bytes: int) -> Callable[[Any], tuple[bytes, bytes, bytes] | Unusable]:
    """A function from a source row to (row as JSON, request digest, tail of its line)."""

    def encode(row: Any) -> tuple[bytes, bytes, bytes] | Unusable:
        if isinstance(row, Unusable):
            return row
        text = row_json(row)
        if isinstance(text, Unusable):
            return text
        try:
            holes = splice.holes(row)
        except Unrenderable as error:
            return Unusable(str(error))
        except TypeError:
            return Unusable("the text holds a lone surrogate, which is not valid Unicode")
        tail = splice.line("", holes)[len(splice.head) :]
        if len(tail) > line_bytes:
            return Unusable(f"the request has {len(tail):,} bytes, the limit is {line_bytes:,}")
        return text, splice.request_digest(holes), tail

    return encode


def identifier(columns: tuple[str, ...]) -> Callable[[list[Any], list[bytes]], list[str]]:
    """From rows (and their JSON) to their source ids, as text; "" where there is none."""
    if not columns:
        return lambda _rows, texts: [id_digest(text).hex() for text in texts]
    if len(columns) == 1:
        name = columns[0]

        def one(rows: list[Any], _texts: list[bytes]) -> list[str]:
            values = [row.get(name) for row in rows]
            return values if set(map(type, values)) == {str} else [id_text(value) for value in values]

        return one
    return lambda rows, _texts: [_joined([id_text(row.get(name)) for name in columns]) for row in rows]


def id_text(value: Any) -> str:
    """An id as text: strings as they are, everything else as JSON; nothing for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _joined(parts: list[str]) -> str:
    """Several id columns as one text, so that no two different lists give the same."""
    return "" if not all(parts) else orjson.dumps(parts).decode()


def new_chunk(
    directory: Path,
    chunk: Packed,
    copies: int,
    check: Callable[[bytes], str | None],
    *,
    attempt: int,
    settings: str,
    splice: Splice,
) -> NewChunk:
    """Read a written chunk back, check every line, and describe it for the ledger."""
    sha256 = verify(directory, chunk, check, splice)
    return NewChunk(
        number=chunk.number,
        attempt=attempt,
        settings=settings,
        mark=chunk.mark,
        sha256=sha256,
        bytes=chunk.bytes,
        rows_sha256=chunk.rows_sha256,
        copies_sha256=sha256_of(directory / copies_name(chunk.number)) if copies else None,
        requests=chunk.requests,
        copies=copies,
        first_position=chunk.first_position,
        last_position=chunk.last_position,
    )


def chunk_limits(plan: Plan) -> Limits:
    """The provider's limits, tightened by the job's."""
    limits = plan.codec().limits(plan.endpoint)
    own = plan.job.limits
    rows = min(limits.requests, own.chunk_rows or limits.requests)
    size = min(limits.file_bytes, own.chunk_bytes or DEFAULT_CHUNK_BYTES)
    return replace(limits, requests=rows, file_bytes=size, line_bytes=min(limits.line_bytes, size))


def even_rows(limits: Limits, requests: int) -> int:
    """The most requests a chunk may have so that the last one is as large as the vendor wants a batch at least.

    `chunk_rows` of the job gives way where it cannot be kept.
    """
    chunks = -(-requests // limits.requests)
    if limits.least_requests <= 1 or chunks <= 1:
        return limits.requests
    while chunks > 1 and requests - (chunks - 1) * -(-requests // chunks) < limits.least_requests:
        chunks -= 1
    return -(-requests // chunks)


def require_enough(plan: Plan, sizes: Iterable[int], *, lane: str) -> None:
    """Refuse chunks with fewer requests than the vendor takes in a batch: it would refuse them, later and as a whole.

    `lane` is the one they are meant for; one by one there can be as few as one likes.
    """
    least = plan.codec().limits(plan.endpoint).least_requests
    small = next((one for one in sizes if one < least), None)
    if small is None or lane != "batch":
        return
    raise UsageError(
        f"{plan.job.model.provider} takes no batch with fewer than {least:,} requests, and one would have {small:,}",
        where="[model] provider",
        effect="nothing was sent",
        hint='send them live: `batchctl run --lane live`, or [lane] prefer = "live"; or wait until there are more',
        code="too_few_requests",
    )
