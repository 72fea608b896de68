"""The rows of a source packed into request chunks, in a directory nobody else looks at yet.

One streaming pass packs rows into chunks; then rows that must not be sent are found (repeated ids, identical requests,
rows an earlier run has), and only if there are any the chunks are packed once more without them.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchctl.chunks import arrays, segments
from batchctl.chunks.duplicates import COPY, KEEP, KNOWN, REJECT, Fates, Leaders, Spill, place_of
from batchctl.chunks.names import copies_name, rows_name
from batchctl.chunks.segments import COPIES, SegmentWriter
from batchctl.chunks.write import Block, Packed, Packer, stored
from batchctl.files import make_directory
from batchctl.ledger import queries
from batchctl.ledger.transitions import NewChunk
from batchctl.model.errors import ConsentMissing, UsageError
from batchctl.model.ids import DIGEST_BYTES, id_digest, id_digests, record_key, record_keys
from batchctl.model.rows import Unusable
from batchctl.tables.source import RowBatch, Source
from batchctl.tables.texts import Texts
from batchctl.workflow.history import PAID, SETTLED, History
from batchctl.workflow.rejects import Rejects
from batchctl.workflow.reports import plural
from batchctl.workflow.requests import (
    RERUN_COLUMNS,
    Encoded,
    batch_encoder,
    chunk_limits,
    column_encoder,
    even_rows,
    joined_id,
    line_splice,
    new_chunk,
    require_enough,
    source_id,
)
from batchctl.workflow.rules import row_filter
from batchctl.workflow.workspace import Plan, Workspace

HELD_BYTES = 4 << 20
PROBED_ROWS = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a `prepare` made: counts of source rows, and the chunks for the ledger."""

    seen: int
    rejected: int
    known: int
    chunks: tuple[NewChunk, ...]
    rejects_by_reason: Mapping[str, int]
    changed: int = 0
    filtered: int = 0
    carried: int = 0  # rows that failed in an earlier run, and are sent again


class Packing:
    """One `prepare`: the state its steps share."""

    def __init__(
        self,
        workspace: Workspace,
        plan: Plan,
        source: Source,
        run_id: str,
        part: Path,
        before: list[queries.Run],
        *,
        rejects: Rejects,
        from_file: bool,
    ) -> None:
        self.workspace = workspace
        self.plan = plan
        self.source = source
        self.run_id = run_id
        self.part = part
        self.before = before
        self.from_file = from_file
        self.codec = plan.codec()
        self.limits = chunk_limits(plan)
        self.splice, self.notes = line_splice(plan, _usable(source.selected))
        self.chosen = row_filter(plan, source.selected)
        self.seen = 0
        self.carried = 0
        self.filtered = 0  # rows that [source] where leaves out
        self.rows_sha256 = ""
        self._all_rows = hashlib.sha256()
        self._widest = 0  # bytes of a request, on average, in the block where they were longest
        self.rejects = rejects
        self.id_columns = plan.job.source.id
        _check_id_columns(self.id_columns, source, plan)

    def read(self) -> list[Packed]:
        """The one pass over the source: rows packed into chunks, their digests spilled."""
        with ExitStack() as stack:
            self.ids = stack.enter_context(Spill(self.part / "ids.spill"))
            self.requests = stack.enter_context(Spill(self.part / "requests.spill"))
            packed = self._pack_source(self.part / "chunks")
        self.rows_sha256 = self._all_rows.hexdigest()
        return packed

    def build(self, packed: list[Packed], *, resend_changed: bool, keep_done: bool) -> Outcome:
        """Leave out what must not be sent, check what was written, describe it for the ledger."""
        chunks = self.part / "chunks"
        ids, requests = self.ids, self.requests
        fates = Fates(ids.count)
        suffixes = self._repeated_ids(ids, fates, packed)
        changed = self._known(packed, fates, suffixes, resend_changed=resend_changed, keep_done=keep_done)
        leaders = self._identical(requests, fates)
        self._check_rejects()
        ids.path.unlink()
        requests.path.unlink()
        made: dict[int, int] = {}
        tail = len(packed) > 1 and packed[-1].requests < self.limits.least_requests
        if not fates.untouched or suffixes or tail:
            packed, made = self._repack(packed, fates, suffixes, leaders)
        lane = self.workspace.options.lane or self.plan.job.lane.prefer
        require_enough(self.plan, [one.requests for one in packed], lane=lane)
        self.rejects.finish()
        check = self.codec.check_line
        endpoint, model = self.plan.endpoint, self.plan.job.model.name
        new = [
            self._new_chunk(chunks, chunk, made.get(chunk.number, 0), lambda line: check(line, endpoint, model))
            for chunk in packed
        ]
        known, by_reason = fates.count(KNOWN), self.rejects.by_reason
        return Outcome(
            self.seen, self.rejects.count, known, tuple(new), by_reason, changed, self.filtered, self.carried
        )

    def _new_chunk(self, directory: Path, chunk: Packed, copies: int, check: Callable[[bytes], str | None]) -> NewChunk:
        return new_chunk(directory, chunk, copies, check, attempt=1, settings=self.plan.settings, splice=self.splice)

    # --- pass one -------------------------------------------------------------------------------------------------

    def _pack_source(self, directory: Path) -> list[Packed]:
        max_rows = self.plan.job.limits.max_rows
        encode_rows = batch_encoder(self.splice, self.limits.line_bytes)
        encode_texts = column_encoder(self.splice, self.limits.line_bytes)
        by_column = self.chosen is None and not self.from_file
        with self._packer(directory) as packer:
            for batch in self._small(self.source.batches()):
                encoded = encode_texts(batch.texts) if by_column and batch.texts is not None else None
                if encoded is not None and batch.texts is not None:
                    ids = self._ids_of_texts(batch.texts, encoded)
                    block = self._block(range(batch.first, batch.first + len(batch)), ids, encoded)
                else:
                    block = self._of_rows(batch, encode_rows)
                packer.add_block(block)
                self._widest = max(self._widest, len(arrays.data_of(block.middles)) // max(1, len(block)))
                self.seen = batch.first + len(batch)
                if max_rows is not None and self.seen > max_rows:
                    raise ConsentMissing(
                        f"the source has more than {max_rows:,} rows, the limit this job sets",
                        where=(self.source.names[0], "[limits] max_rows"),
                        effect="nothing was written",
                        hint="raise [limits] max_rows if so many are meant",
                    )
                self.workspace.options.progress("prepare", self.seen, 0)
        return packer.chunks

    def _small(self, given: Iterable[RowBatch]) -> Iterator[RowBatch]:
        """Batches of which the requests take a few megabytes, however long the prompt is that each row gets."""
        for batch in given:
            start = 0
            while start < len(batch):
                step = max(1, HELD_BYTES // self._widest) if self._widest else PROBED_ROWS
                yield batch.part(start, start + step) if start or step < len(batch) else batch
                start += step

    def _of_rows(self, batch: RowBatch, encode: Callable[[list[Any]], Encoded]) -> Block:
        """A batch whose rows are looked at one by one; those that cannot become a request are set aside."""
        rows: list[Any] = batch.rows
        if self.from_file:
            rows = [_without_reasons(row) for row in rows]
        positions: Sequence[int] = range(batch.first, batch.first + len(rows))
        if self.chosen is not None:
            positions, rows = self._of_interest(positions, rows)
        encoded = encode(rows)
        if encoded.unusable:
            for place, why in encoded.unusable.items():
                name = self._id_or_none(rows[place])
                self._all_rows.update(self.rejects.add(positions[place], name, why.reason, rows[place]))
            positions = [one for place, one in enumerate(positions) if place not in encoded.unusable]
            rows = [row for place, row in enumerate(rows) if place not in encoded.unusable]
        if self.id_columns:
            ids = [source_id(row, self.id_columns).encode() for row in rows]
        else:
            ids = _content_ids(encoded)
        return self._block(positions, arrays.texts(ids), encoded)

    def _ids_of_texts(self, texts: Texts, encoded: Encoded) -> pa.StringArray:
        if len(self.id_columns) == 1:
            return texts.column(self.id_columns[0])
        if not self.id_columns:
            return arrays.texts(_content_ids(encoded))
        columns = [texts.column(name).to_pylist() for name in self.id_columns]
        return arrays.texts([joined_id(list(parts)).encode() for parts in zip(*columns, strict=True)])

    def _block(self, positions: Sequence[int], ids: pa.StringArray, encoded: Encoded) -> Block:
        """Name the requests, and keep their digests for what is found when all rows are read."""
        names: list[bytes] = ids.cast(pa.binary()).to_pylist()
        if not all(names):
            self._missing_id(positions[names.index(b"")])
        keys = record_keys(encoded.requests, names)
        requests = b"".join(encoded.requests)
        self.ids.add(id_digests(names))
        self.requests.add(requests)
        for column in (b"\n".join(names), b"\n".join(encoded.requests), arrays.joined(encoded.texts, b"\n")):
            self._all_rows.update(column)
        return Block(
            arrays.numbers(positions),
            ids,
            arrays.fixed(keys, DIGEST_BYTES),
            arrays.fixed(requests, DIGEST_BYTES),
            encoded.texts,
            encoded.middles,
        )

    def _of_interest(self, positions: Sequence[int], rows: list[Any]) -> tuple[Sequence[int], list[Any]]:
        """The rows for which [source] where holds. One for which nobody can tell is rejected, and says why."""
        assert self.chosen is not None
        kept: list[tuple[int, Any]] = []
        for position, row in zip(positions, rows, strict=True):
            holds = self.chosen.holds(row)
            if holds is True:
                kept.append((position, row))
            elif holds is not False:
                why = f"[source] where cannot be evaluated: {holds}"
                self._all_rows.update(self.rejects.add(position, self._id_or_none(row), why, row))
        self.filtered += len(rows) - len(kept)
        return [position for position, _ in kept], [row for _, row in kept]

    def _packer(self, directory: Path, max_rows: int | None = None) -> Packer:
        return Packer(
            directory,
            run=self.run_id,
            settings=self.plan.settings,
            attempt=1,
            frame=self.splice.frame,
            max_rows=max_rows or self.limits.requests,
            max_bytes=self.limits.file_bytes,
            separator=self.codec.traits.id_separator,
        )

    def _id_or_none(self, row: Any) -> str | None:
        values = row.row if isinstance(row, Unusable) else row
        return (source_id(values, self.id_columns) or None) if self.id_columns else None

    def _missing_id(self, position: int) -> None:
        where = self.source.locate([position])[position]
        raise UsageError(
            f"a row has no source id: `{'`, `'.join(self.id_columns)}` is empty",
            where=where,
            effect="nothing was written",
            hint="give every row an id, or leave [source] id out: rows are then known by their content",
        )

    # --- rows that are not sent -----------------------------------------------------------------------------------

    def _repeated_ids(self, ids: Spill, fates: Fates, packed: list[Packed]) -> dict[int, str]:
        """Rows with the same id: an error, or all but one rejected; content digests get a number instead."""
        suffixes: dict[int, str] = {}
        policy = self.plan.job.source.on_duplicate_id
        clashes: list[tuple[int, int]] = []
        for group in ids.repeated():
            if not self.id_columns:
                suffixes.update({ordinal: f"-{turn}" for turn, ordinal in enumerate(group[1:], 2)})
            elif policy == "error":
                clashes.append((group[0], group[1]))
            else:
                for ordinal in group[1:] if policy == "first" else group[:-1]:
                    fates.set(ordinal, REJECT)
        if clashes:
            self._clash(sorted(clashes), packed)
        return suffixes

    def _clash(self, clashes: list[tuple[int, int]], packed: list[Packed]) -> None:
        shown = clashes[:5]
        wanted = {ordinal for pair in shown for ordinal in pair}
        facts = self._facts(packed, wanted)
        places = self.source.locate([facts[ordinal][0] for ordinal in wanted])
        names = ", ".join(f"`{one}`" for one in self.id_columns)
        where = [
            f"{places[facts[one][0]]} and {places[facts[two][0]]}, column {names}: `{facts[one][1]}`"
            for one, two in shown
        ]
        if len(clashes) > len(shown):
            where.append(f"and {len(clashes) - len(shown):,} more")
        first = facts[shown[0][0]][1]
        raise UsageError(
            f"source id `{first}` appears twice",
            where=where,
            effect="nothing was written",
            hint=f'make {names} unique, or set on_duplicate_id = "first" under [source]',
            code="duplicate_id",
        )

    def _facts(self, packed: list[Packed], wanted: set[int]) -> dict[int, tuple[int, str]]:
        """Position and id of some packed rows."""
        found: dict[int, tuple[int, str]] = {}
        starts = _starts(packed)
        by_chunk: dict[int, list[int]] = {}
        for ordinal in sorted(wanted):
            by_chunk.setdefault(place_of(starts, ordinal)[0], []).append(ordinal)
        for index, ordinals in by_chunk.items():
            table = segments.read(self.part / "chunks" / rows_name(packed[index].number), ["position", "id"])
            for ordinal in ordinals:
                line = ordinal - starts[index]
                found[ordinal] = (table.column(0)[line].as_py(), table.column(1)[line].as_py())
        return found

    def _known(
        self, packed: list[Packed], fates: Fates, suffixes: Mapping[int, str], *, resend_changed: bool, keep_done: bool
    ) -> int:
        """Leave out rows an earlier run has; count those whose prompt, schema or model changed since they were done."""
        if not self.before:
            return 0
        history = History(self.workspace, self.before, self.plan.settings, PAID if self.from_file else SETTLED)
        changed = 0
        start = 0
        for chunk in packed:
            table = segments.read(self.part / "chunks" / rows_name(chunk.number), ["id", "key", "request"])
            ids, keys = _with_suffixes(table, suffixes, start)
            met = history.met(ids, keys)
            known = met.key
            self.carried += pc.sum(met.failed).as_py() or 0
            # An id done under other settings is `changed`; done under these with another text, it is new text: sent.
            elsewhere = pc.and_not(pc.and_not(met.id_elsewhere, met.id_here), known)
            changed += pc.sum(elsewhere).as_py() or 0
            if keep_done:
                known = pc.or_(known, elsewhere)
            for line in pc.indices_nonzero(known).to_pylist():
                if fates[start + line] == KEEP:
                    fates.set(start + line, KNOWN)
            start += chunk.requests
        if changed and not (resend_changed or keep_done):
            raise ConsentMissing(
                f"{plural(changed, 'row')} that an earlier run completed would be bought again: "
                "the prompt, schema or model changed",
                where=self.plan.where["job"],
                effect="nothing was written",
                hint="`--resend-changed` sends them again, `--keep-done` sends only new rows",
                code="changed",
            )
        return changed

    def _identical(self, requests: Spill, fates: Fates) -> Leaders:
        """Rows whose request is byte-identical to an earlier one: paid once, answer copied."""
        leaders = Leaders()
        if self.plan.job.source.on_identical_text == "copy":
            for group in requests.repeated():
                kept = [ordinal for ordinal in group if fates[ordinal] == KEEP]
                for ordinal in kept[1:]:
                    fates.set(ordinal, COPY)
                    leaders.add(ordinal, kept[0])
        leaders.settle()
        return leaders

    def _check_rejects(self) -> None:
        allowed = math.ceil(self.plan.job.source.max_rejects * self.seen)
        if self.rejects.count <= allowed:
            return
        where = self.rejects.places()
        raise UsageError(
            f"{self.rejects.count:,} of {self.seen:,} rows cannot become a request; [source] max_rejects allows {allowed:,}",
            where=where,
            effect="nothing was written",
            hint='correct the rows, or raise max_rejects (for example "5%") under [source]',
            code="too_many_rejects",
        )

    # --- pass two -------------------------------------------------------------------------------------------------

    def _repack(
        self, packed: list[Packed], fates: Fates, suffixes: Mapping[int, str], leaders: Leaders
    ) -> tuple[list[Packed], dict[int, int]]:
        """Pack again without the rows that are not sent. The new chunks, and the number of copies by chunk."""
        old = self.part / "chunks"
        first = self.part / "first"
        os.replace(old, first)
        make_directory(old)
        fates.settle()
        with self._packer(old, even_rows(self.limits, fates.count(KEEP))) as packer:
            ordinal = 0
            for chunk in packed:
                for position, name, key, request, row, middle in stored(first, chunk, self.splice.frame):
                    fate = fates[ordinal]
                    if ordinal in suffixes:
                        name += suffixes[ordinal].encode()
                        key = record_key(request, name)
                    if fate == KEEP:
                        packer.add(position, name, key, request, row, middle)
                    elif fate == REJECT:
                        self.rejects.add(position, name.decode(), "repeated source id", orjson.loads(row))
                    ordinal += 1
        self._check_rejects()
        made = self._write_copies(first, packed, packer.chunks, fates, suffixes, leaders) if leaders else {}
        shutil.rmtree(first)
        return packer.chunks, made

    def _write_copies(
        self,
        first: Path,
        packed: list[Packed],
        chunks: list[Packed],
        fates: Fates,
        suffixes: Mapping[int, str],
        leaders: Leaders,
    ) -> dict[int, int]:
        """Copies go beside the chunk of the request that pays for them, in source order."""
        starts, old_starts = _starts(chunks), _starts(packed)
        made: dict[int, int] = {}
        names: dict[int, str] = {}
        wanted = leaders.payers()
        with ExitStack() as stack:
            writers: dict[int, SegmentWriter] = {}
            for index, chunk in enumerate(packed):
                columns = ("position", "id", "key", "request", "row")
                rows = segments.tuples(first / rows_name(chunk.number), columns)
                for ordinal, (position, raw_id, key, request, row) in enumerate(rows, old_starts[index]):
                    source_id = raw_id.decode() + suffixes.get(ordinal, "")
                    if ordinal in wanted:
                        names[ordinal] = source_id
                    if fates[ordinal] != COPY:
                        continue
                    leader = leaders[ordinal]
                    place, line = place_of(starts, fates.new_ordinal(leader))
                    number = chunks[place].number
                    if number not in writers:
                        writers[number] = stack.enter_context(
                            SegmentWriter(self.part / "chunks" / copies_name(number), COPIES)
                        )
                    key = record_key(request, source_id.encode()) if ordinal in suffixes else key
                    writers[number].add(position, source_id, key, line, names[leader], row)
                    made[number] = made.get(number, 0) + 1
        return made


def _content_ids(encoded: Encoded) -> list[bytes]:
    return [id_digest(text).hex().encode() for text in encoded.texts.cast(pa.binary()).to_pylist()]


def _without_reasons(row: Any) -> Any:
    """A row of a rerun file as the source had it."""
    if isinstance(row, Unusable):
        return row
    return {name: value for name, value in row.items() if name not in RERUN_COLUMNS}


def _usable(columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if columns is None else tuple(one for one in columns if one not in RERUN_COLUMNS)


def _check_id_columns(names: tuple[str, ...], source: Source, plan: Plan) -> None:
    for name in names:
        if source.selected is not None and name not in source.selected:
            near = get_close_matches(name, source.selected, 1)
            raise UsageError(
                f"there is no column `{name}` to take source ids from",
                where=(
                    "[source] id in " + plan.where["job"],
                    f"{source.names[0]} has: {', '.join(source.selected[:20])}",
                ),
                effect="nothing was written",
                hint=f"did you mean `{near[0]}`?" if near else "name a column, or leave [source] id out",
            )


def _starts(chunks: list[Packed]) -> list[int]:
    """The first ordinal of each chunk."""
    starts, total = [], 0
    for chunk in chunks:
        starts.append(total)
        total += chunk.requests
    return starts


def _with_suffixes(table: pa.Table, suffixes: Mapping[int, str], start: int) -> tuple[pa.Array, pa.Array]:
    ids, keys = table.column("id").combine_chunks(), table.column("key").combine_chunks()
    lines = [ordinal - start for ordinal in suffixes if start <= ordinal < start + len(ids)]
    if not lines:
        return ids, keys
    requests = table.column("request").combine_chunks()
    id_list, key_list = ids.to_pylist(), keys.to_pylist()
    for line in lines:
        id_list[line] += suffixes[start + line]
        key_list[line] = record_key(requests[line].as_py(), id_list[line].encode())
    return pa.array(id_list, ids.type), pa.array(key_list, keys.type)
