"""How a source row becomes a request: its line, its id, the limits of the chunk it goes into.

`prepare` and `rerun` write requests; both take them from here, so that a row gives the same bytes either way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from batchctl.chunks import arrays
from batchctl.chunks.names import copies_name
from batchctl.chunks.splice import Insertion, Splice, cut, escape, row_json
from batchctl.chunks.verify import verify
from batchctl.chunks.write import Packed
from batchctl.files import sha256_of
from batchctl.ledger.transitions import NewChunk, NewSettings
from batchctl.model.batches import Ask, Limits, Request
from batchctl.model.errors import UsageError
from batchctl.model.ids import CUSTOM_ID_LENGTH, DIGEST_BYTES
from batchctl.model.rows import Unusable
from batchctl.tables.texts import Texts
from batchctl.template import MAX_CHARS, ColumnRef, Template, Unrenderable
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
            Ask(
                endpoint=endpoint,
                model=model.name,
                prompt=texts[0],
                system=texts[1] if moving else fixed_system,
                params=model.params,
                schema=None if schema is None else schema.value,
                mode=plan.job.output.mode,
                schema_name=plan.job.name.replace("-", "_"),
            )
        )
        return codec.encode(Request(custom_id, endpoint, body))

    return cut(encode, renders, _insertion(prompt) if len(renders) == 1 else None), notes


def _insertion(prompt: Template) -> Insertion | None:
    """How the prompt is made of columns that are text, if it only inserts them."""
    if prompt.parts is None or prompt.constant:
        return None
    constants = tuple(escape(part) for part in prompt.parts if isinstance(part, str))
    return Insertion(constants, tuple(part.name for part in prompt.parts if isinstance(part, ColumnRef)))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows as requests, in columns of equal length; by place in what was given, the rows that cannot become one."""

    texts: pa.StringArray  # the rows as JSON
    requests: list[bytes]  # request digests
    middles: pa.StringArray  # what differs in a line, besides its custom_id
    unusable: dict[int, Unusable] = field(default_factory=dict)


def column_encoder(splice: Splice, line_bytes: int) -> Callable[[Texts], Encoded | None]:
    """A function from rows of text, by column, to requests. It gives None when a row needs a closer look."""
    insertion, shape, sha256 = splice.insertion, splice.shape, hashlib.sha256
    room = min(line_bytes - splice.frame.length, MAX_CHARS)

    def encode(rows: Texts) -> Encoded | None:
        if insertion is None or not set(insertion.columns) <= set(rows.names):
            return None
        columns = dict(zip(rows.names, map(arrays.escaped, rows.columns), strict=True))
        parts: list[Any] = [insertion.constants[0]]
        for name, constant in zip(insertion.columns, insertion.constants[1:], strict=True):
            parts += (arrays.without_line_ends(columns[name]), constant)
        middles = arrays.concatenated(*parts)
        holes = middles.cast(pa.binary()).to_pylist()
        if max(map(len, holes), default=0) > room:
            return None
        requests = [sha256(shape + hole).digest()[:DIGEST_BYTES] for hole in holes]
        return Encoded(arrays.objects(rows.names, list(columns.values())), requests, middles)

    return encode


def batch_encoder(splice: Splice, line_bytes: int) -> Callable[[list[Any]], Encoded]:
    """A function from source rows to requests. The usual batch is done step by step, a hard one row by row."""
    sha256, dumps = hashlib.sha256, orjson.dumps
    one_by_one = row_encoder(splice, line_bytes)
    shape = splice.shape
    render = splice.renders[0]
    room = line_bytes - splice.frame.length

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
        return Encoded(arrays.texts(texts), requests, arrays.texts(holes))

    def encode(rows: list[Any]) -> Encoded:
        quick = quickly(rows)
        if quick is not None:
            return quick
        made: list[tuple[bytes, bytes, bytes]] = []
        unusable: dict[int, Unusable] = {}
        for place, row in enumerate(rows):
            one = one_by_one(row)
            if isinstance(one, Unusable):
                unusable[place] = one
            else:
                made.append(one)
        texts, requests, middles = ([one[column] for one in made] for column in range(3))
        return Encoded(arrays.texts(texts), requests, arrays.texts(middles), unusable)

    return encode


def row_encoder(splice: Splice, line_bytes: int) -> Callable[[Any], tuple[bytes, bytes, bytes] | Unusable]:
    """A function from a source row to (row as JSON, request digest, middle of its line)."""
    around = splice.frame.length - len(splice.head) - CUSTOM_ID_LENGTH

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
        middle = splice.middle(holes)
        size = around + len(middle)
        if size > line_bytes:
            return Unusable(f"the request has {size:,} bytes, the limit is {line_bytes:,}")
        return text, splice.request_digest(holes), middle

    return encode


def source_id(row: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    """The row's id as text; empty when there is none."""
    if len(columns) == 1:
        return id_text(row.get(columns[0]))
    return joined_id([id_text(row.get(name)) for name in columns])


def id_text(value: Any) -> str:
    """An id as text: strings as they are, everything else as JSON; nothing for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def joined_id(parts: list[str]) -> str:
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
