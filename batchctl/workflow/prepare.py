"""Source rows to checked request chunks. Nothing leaves the machine and no key is needed.

One streaming pass packs rows into chunks; then rows that must not be sent are found (repeated ids, identical requests,
rows an earlier run has), and only if there are any the chunks are packed once more without them. Everything is built in
`<run>.part/`, renamed once, and counts when the ledger names it.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchctl.chunks import segments
from batchctl.chunks.duplicates import COPY, KEEP, KNOWN, REJECT, Fates, Leaders, Spill, place_of
from batchctl.chunks.segments import COPIES, SegmentWriter
from batchctl.chunks.splice import Splice, cut, row_json
from batchctl.chunks.write import Packed, Packer, copies_name, rows_name, stored, verify
from batchctl.files import crash_point, make_directory, open_private, sha256_of, sync_directory, sync_file
from batchctl.ledger import queries, transitions
from batchctl.ledger.transitions import ChunkState, NewChunk, NewRun, NewSettings
from batchctl.model.batches import Request
from batchctl.model.errors import ConsentMissing, Exit, UsageError
from batchctl.model.ids import DIGEST_BYTES, id_digest, record_key
from batchctl.model.rows import RowState, Unusable
from batchctl.tables.source import Source, SourceSpec, open_source
from batchctl.template import Template, Unrenderable
from batchctl.workflow.money import cost
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.workspace import Options, Plan, Workspace, opened

RERUN_COLUMNS = ("_reason", "_detail", "_attempt")
SETTLED = (RowState.COMPLETED, RowState.REVIEW_REQUIRED, RowState.INVALID_OUTPUT, RowState.PUBLISHED)
DEFAULT_CHUNK_BYTES = 100_000_000


def prepare(
    options: Options, *, rows: str | None = None, resend_changed: bool = False, keep_done: bool = False
) -> Report:
    """Write request chunks for the rows of the job's source, or of the file `rows`.

    A source and job that are already prepared give the same run again. Rows an earlier run of the job has are left
    out. Raises `UsageError` for bad input and `ConsentMissing` when a changed prompt, schema or model would buy done
    rows again; nothing is written then.
    """
    with opened(options, write=True) as workspace:
        if workspace.job is None:
            raise UsageError("prepare takes a job file", effect="nothing was written", hint="batchctl prepare job.toml")
        return prepared(workspace, rows=rows, resend_changed=resend_changed, keep_done=keep_done)


def prepared(
    workspace: Workspace, *, rows: str | None = None, resend_changed: bool = False, keep_done: bool = False
) -> Report:
    """`prepare` in an open workspace."""
    workspace.lock()
    ledger = workspace.create_ledger()
    plan = workspace.current_plan()
    assert plan is not None
    job = plan.job
    _label_is_honest(ledger.db, plan)
    spec = SourceSpec(
        paths=(rows,) if rows else job.source.path,
        format=None if rows and rows != "-" else job.source.format,
        encoding=job.source.encoding,
        columns=job.source.columns or None,
        base=Path() if rows else job.base,
        spool=workspace.state / "stdin",
    )
    source = open_source(spec)
    earlier = queries.runs(ledger.db, job.name)
    newest = earlier[-1] if earlier and earlier[-1].shape_sha256 == plan.shape else None
    if newest is not None and newest.source_stamp == source.stamp():
        return _report(workspace, newest, plan, again=True)
    unsent = [run for run in earlier if not queries.was_sent(ledger.db, run.id)]
    number = queries.last_number(ledger.db, job.name) + 1
    run_id = f"{job.name}-{number:04d}"
    part = workspace.state / f"{run_id}.part"
    for rubbish in (part, workspace.state / run_id):  # left by a crash: no ledger row names it
        shutil.rmtree(rubbish, ignore_errors=True)
    make_directory(part / "chunks")
    try:
        withdrawn = {run.id for run in unsent}
        before = [run for run in earlier if run.id not in withdrawn]
        work = _Work(workspace, plan, source, run_id, part, before, from_file=rows is not None)
        packed = work.read()
        if newest is not None and newest.rows_sha256 == work.rows_sha256:
            return _report(workspace, newest, plan, again=True)
        outcome = work.build(packed, resend_changed=resend_changed, keep_done=keep_done)
        if not outcome.chunks and not outcome.rejected:
            return _nothing_new(workspace, plan, outcome, before)
        plan.freeze(part)
        for name in os.listdir(part):
            if (part / name).is_file():
                sync_file(part / name)
        sync_directory(part / "chunks")
        make_directory(part / "results")
        sync_directory(part)
        os.replace(part, workspace.state / run_id)
        sync_directory(workspace.state)
        crash_point("K2")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    run = NewRun(
        id=run_id,
        job=job.name,
        number=number,
        job_file=_relative(workspace),
        source=source.names,
        source_stamp=source.stamp(),
        rows_sha256=work.rows_sha256,
        shape_sha256=plan.shape,
        settings=plan.settings,
        seen=outcome.seen,
        rejected=outcome.rejected,
        known=outcome.known,
    )
    with ledger.transaction() as db:
        for old in unsent:
            transitions.withdraw(db, old.id, because=f"replaced by {run_id} before anything was sent")
        transitions.add_run(db, run, settings_row(plan, "."), outcome.chunks)
    crash_point("K3")
    for old in unsent:
        shutil.rmtree(workspace.state / old.id, ignore_errors=True)
    return _report(workspace, queries.run(ledger.db, run_id), plan, notes=work.notes, columns=outcome)


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


def _relative(workspace: Workspace) -> str:
    assert workspace.job_path is not None
    return os.path.relpath(workspace.job_path.resolve(), workspace.state.resolve().parent)


def _label_is_honest(db: Any, plan: Plan) -> None:
    """A prompt label names one text: changed text under an unchanged label would mix two prompts in one column."""
    version = plan.job.prompt.version
    if version is None:
        return
    sent = queries.prompt_under_version(db, plan.job.name, version)
    if sent is not None and sent != plan.prompt_sha256:
        raise UsageError(
            f"the prompt changed, but its version is still `{version}`, under which rows were sent",
            where=plan.where["prompt"],
            effect="nothing was written",
            hint="raise [prompt] version in the job file, or take the change back",
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
class _Outcome:
    seen: int
    rejected: int
    known: int
    chunks: tuple[NewChunk, ...]
    rejects_by_reason: Mapping[str, int]
    changed: int = 0


class _Work:
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
        self.splice, self.notes = line_splice(plan, _usable(source.columns))
        self.seen = 0
        self.rows_sha256 = ""
        self._all_rows = hashlib.sha256()
        self.rejects = _Rejects(part / "rejects.jsonl", source)
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

    def build(self, packed: list[Packed], *, resend_changed: bool, keep_done: bool) -> _Outcome:
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
        if not fates.untouched or suffixes:
            packed, made = self._repack(packed, fates, suffixes, leaders)
        self.rejects.finish()
        check = self.codec.check_line
        endpoint, model = self.plan.endpoint, self.plan.job.model.name
        new = [
            self._new_chunk(chunks, chunk, made.get(chunk.number, 0), lambda line: check(line, endpoint, model))
            for chunk in packed
        ]
        return _Outcome(self.seen, self.rejects.count, fates.count(KNOWN), tuple(new), self.rejects.by_reason, changed)

    def _new_chunk(self, directory: Path, chunk: Packed, copies: int, check: Callable[[bytes], str | None]) -> NewChunk:
        return new_chunk(directory, chunk, copies, check, attempt=1, settings=self.plan.settings, splice=self.splice)

    # --- pass one -------------------------------------------------------------------------------------------------

    def _pack_source(self, directory: Path) -> list[Packed]:
        max_rows = self.plan.job.limits.max_rows
        identify = _identifier(self.id_columns)
        encode = batch_encoder(self.splice, self.limits.line_bytes)
        with self._packer(directory) as packer:
            for batch in self.source.batches():
                rows: list[Any] = batch.rows
                if self.from_file:
                    rows = [_without_reasons(row) for row in rows]
                encoded = encode(rows)
                positions: Sequence[int] = range(batch.first, batch.first + len(rows))
                if encoded.unusable:
                    for place, why in encoded.unusable.items():
                        self.rejects.add(batch.first + place, self._id_or_none(rows[place]), why.reason, rows[place])
                    positions = [one for one in positions if one - batch.first not in encoded.unusable]
                    rows = [row for place, row in enumerate(rows) if place not in encoded.unusable]
                names = identify(rows, encoded.texts)
                if not all(names):
                    self._missing_id(positions[names.index("")])
                as_bytes = [name.encode("utf-8", "surrogatepass") for name in names]
                keys = [record_key(*pair) for pair in zip(encoded.requests, as_bytes, strict=True)]
                packer.add_many(positions, names, keys, encoded.requests, encoded.texts, encoded.tails)
                self.ids.add([id_digest(name) for name in as_bytes])
                self.requests.add(encoded.requests)
                for column in (as_bytes, encoded.requests, encoded.texts):
                    self._all_rows.update(b"\n".join(column))
                self.seen = batch.first + len(batch.rows)
                if max_rows is not None and self.seen > max_rows:
                    raise ConsentMissing(
                        f"the source has more than {max_rows:,} rows, the limit this job sets",
                        where=(self.source.names[0], "[limits] max_rows"),
                        effect="nothing was written",
                        hint="raise [limits] max_rows if so many are meant",
                    )
                self.workspace.options.progress("prepare", self.seen, 0)
        return packer.chunks

    def _packer(self, directory: Path) -> Packer:
        return Packer(
            directory,
            run=self.run_id,
            settings=self.plan.settings,
            attempt=1,
            head=self.splice.head,
            max_rows=self.limits.requests,
            max_bytes=self.limits.file_bytes,
        )

    def _id_or_none(self, row: Any) -> str | None:
        values = row.row if isinstance(row, Unusable) else row
        return (_identifier(self.id_columns)([values], [b""])[0] or None) if self.id_columns else None

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
        """Leave out rows an earlier run has; count those whose prompt, schema or model changed since they were done.

        Earlier segments are read one at a time: memory holds two chunks' ids and keys, however long the history.
        """
        if not self.before:
            return 0
        changed = 0
        start = 0
        for chunk in packed:
            table = segments.read(self.part / "chunks" / rows_name(chunk.number), ["id", "key", "request"])
            ids, keys = _with_suffixes(table, suffixes, start)
            same, done_ids, moved_ids = self._met(ids, keys)
            known = same
            # An id done under other settings is `changed`; done under these with another text, it is new text: sent.
            elsewhere = pc.and_(pc.and_(done_ids, pc.invert(moved_ids)), pc.invert(same))
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

    def _met(self, ids: pa.Array, keys: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
        """Per row: same key settled or under way earlier; id done under other settings; id done under these."""
        none = pa.array([False] * len(ids))
        same = elsewhere = here = none
        for run in self.before:
            for chunk in queries.chunks(self.workspace.ledger.db, run.id):
                for seen_ids, seen_keys, done in self._history(run, chunk):
                    same = pc.or_(same, pc.is_in(keys, value_set=seen_keys))
                    hit = pc.is_in(ids, value_set=seen_ids.filter(done))
                    if chunk.settings == self.plan.settings:
                        here = pc.or_(here, hit)
                    else:
                        elsewhere = pc.or_(elsewhere, hit)
        return same, elsewhere, here

    def _history(self, run: queries.Run, chunk: queries.Chunk) -> Iterator[tuple[pa.Array, pa.Array, pa.Array]]:
        """Ids of a chunk, the keys that must not be sent again, and which ids are completed."""
        directory = self.workspace.state / run.id
        base = directory / "chunks"
        for name in (rows_name(chunk.number), copies_name(chunk.number)):
            if name == copies_name(chunk.number) and not chunk.copies:
                continue
            table = segments.read(base / name, ["id", "key", "line"])
            ids, keys = (table.column(one).combine_chunks() for one in ("id", "key"))
            if chunk.state is not ChunkState.APPLIED:
                yield ids, keys, pa.array([False] * len(ids))
                continue
            verdicts = directory / "results" / verdicts_name(chunk.number, chunk.attempt)
            states = segments.column(verdicts, "state").combine_chunks().take(table.column("line").combine_chunks())
            settled = [
                str(one) for one in (SETTLED if not self.from_file else (RowState.COMPLETED, RowState.PUBLISHED))
            ]
            kept = pc.is_in(states, value_set=pa.array(settled))
            yield ids, keys.filter(kept), pc.equal(states, str(RowState.COMPLETED))

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
        where = self.rejects.places(5)
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
        with self._packer(old) as packer:
            ordinal = 0
            for chunk in packed:
                for position, raw_id, key, request, row, tail in stored(first, chunk, len(self.splice.head)):
                    fate = fates[ordinal]
                    source_id = raw_id.decode("utf-8", "surrogatepass") if isinstance(raw_id, bytes) else raw_id
                    if ordinal in suffixes:
                        source_id += suffixes[ordinal]
                        key = record_key(request, source_id.encode())
                    if fate == KEEP:
                        packer.add(position, source_id, key, request, row, tail)
                    elif fate == REJECT:
                        self.rejects.add(position, source_id, "repeated source id", orjson.loads(row))
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


def _identifier(columns: tuple[str, ...]) -> Callable[[list[Any], list[bytes]], list[str]]:
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


def _without_reasons(row: Any) -> Any:
    """A row of a rerun file as the source had it."""
    if isinstance(row, Unusable):
        return row
    return {name: value for name, value in row.items() if name not in RERUN_COLUMNS}


def _usable(columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if columns is None else tuple(one for one in columns if one not in RERUN_COLUMNS)


def _check_id_columns(names: tuple[str, ...], source: Source, plan: Plan) -> None:
    import difflib

    if source.columns is None:
        return
    for name in names:
        if name not in source.columns:
            near = difflib.get_close_matches(name, source.columns, 1)
            raise UsageError(
                f"there is no column `{name}` to take source ids from",
                where=(
                    "[source] id in " + plan.where["job"],
                    f"{source.names[0]} has: {', '.join(source.columns[:20])}",
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


def verdicts_name(number: int, attempt: int) -> str:
    return f"{number:04d}.a{attempt}.verdicts.parquet"


def chunk_limits(plan: Plan) -> Any:
    """The provider's limits, tightened by the job's."""
    limits = plan.codec().limits(plan.endpoint)
    own = plan.job.limits
    rows = min(limits.requests, own.chunk_rows or limits.requests)
    size = min(limits.file_bytes, own.chunk_bytes or DEFAULT_CHUNK_BYTES)
    return replace(limits, requests=rows, file_bytes=size, line_bytes=min(limits.line_bytes, size))


class _Rejects:
    """`rejects.jsonl`: source rows that cannot become a request, with the line they start on and why."""

    def __init__(self, path: Path, source: Source) -> None:
        self.count = 0
        self.by_reason: dict[str, int] = {}
        self._path = path
        self._source = source
        self._file = None if path is None else open_private(path.with_name("rejects.spill"))
        self._positions: list[int] = []
        self._reasons: list[str] = []

    def add(self, position: int, source_id: str | None, reason: str, row: Any) -> None:
        assert self._file is not None
        values = (
            row.row or {"_raw": row.raw[:10_000].decode("utf-8", "backslashreplace")}
            if isinstance(row, Unusable)
            else row
        )
        text = row_json({"position": position, "id": source_id, "reason": reason, "row": values})
        if isinstance(text, Unusable):
            text = orjson.dumps({"position": position, "id": None, "reason": reason, "row": {}})
        self._file.write(text + b"\n")
        self.count += 1
        kind = reason.split(":")[0][:80]
        self.by_reason[kind] = self.by_reason.get(kind, 0) + 1
        self._positions.append(position)
        if len(self._reasons) < 5:
            self._reasons.append(reason)

    def places(self, limit: int) -> list[str]:
        shown = self._positions[:limit]
        where = self._source.locate(shown)
        lines = [f"{where[one]}: {reason}" for one, reason in zip(shown, self._reasons, strict=False)]
        return lines + ([f"and {self.count - limit:,} more"] if self.count > limit else [])

    def finish(self) -> None:
        """Add the source lines, in source order, and take the final name. No rejects: no file."""
        assert self._file is not None
        self._file.close()
        spill = self._path.with_name("rejects.spill")
        if self.count:
            where = self._source.locate(self._positions)
            with spill.open("rb") as read:
                found: Iterable[dict[str, Any]] = sorted(
                    (_exact(line) for line in read), key=lambda one: int(one["position"])
                )
            with open_private(self._path) as out:
                for one in found:
                    place = where[one["position"]]
                    text = row_json({"where": place, "line": _line_number(place), **one})
                    assert isinstance(text, bytes)
                    out.write(text + b"\n")
        spill.unlink()


def _exact(line: bytes) -> dict[str, Any]:
    import json

    value = json.loads(line)
    assert isinstance(value, dict)
    return value


def _line_number(place: str) -> int | None:
    tail = place.replace(" row ", ":").rpartition(":")[2]
    return int(tail) if tail.isdigit() else None


def _nothing_new(workspace: Workspace, plan: Plan, outcome: _Outcome, before: list[queries.Run]) -> Report:
    newest = before[-1]
    balance = queries.balance(workspace.ledger.db, newest.id)
    return Report(
        "prepare",
        newest.id,
        Exit.OK,
        balance,
        cost(workspace.ledger.db, newest, balance),
        (f"Nothing new: all {plural(outcome.seen, 'row')} of the source are in earlier runs already",),
        f"batchctl status {newest.id}",
        {"prepared": False, "seen": outcome.seen, "known": outcome.known},
        simulated=plan.job.model.provider == "emulator",
    )


def _report(
    workspace: Workspace,
    run: queries.Run,
    plan: Plan,
    *,
    again: bool = False,
    notes: tuple[str, ...] = (),
    columns: _Outcome | None = None,
) -> Report:
    db = workspace.ledger.db
    chunks = [one for one in queries.chunks(db, run.id) if one.attempt == 1]
    requests = sum(one.requests for one in chunks)
    copies = sum(one.copies for one in chunks)
    size = sum(one.bytes for one in chunks)
    lines = [
        f"Run {run.id} is prepared already: same source, same job" if again else f"Prepared run {run.id}",
        f"  rows in source      {run.seen:>12,}",
    ]
    if run.known:
        lines.append(f"  in earlier runs     {run.known:>12,}   not sent again")
    if run.rejected:
        why = "" if columns is None else ", ".join(f"{n:,} {why}" for why, n in columns.rejects_by_reason.items())
        lines.append(f"  rejected            {run.rejected:>12,}   {why}".rstrip() + f" -> {run.id}/rejects.jsonl")
    if copies:
        lines.append(f"  identical requests  {copies:>12,}   paid once, answer copied")
    lines.append(f"  requests to send    {requests:>12,}   in {plural(len(chunks), 'chunk')}, {size / 1e6:,.1f} MB")
    lines += [f"  note: {one}" for one in notes[:5]]
    passed = gate_passed(workspace, plan)
    following = f"batchctl dry-run {run.id}" if plan.job.sample.rows and not passed else f"batchctl submit {run.id}"
    if again:
        following = f"batchctl run {workspace.job_path}"
    facts = {
        "prepared": not again,
        "seen": run.seen,
        "known": run.known,
        "requests": requests,
        "rejected": run.rejected,
        "copied": copies,
        "bytes": size,
        "chunks_written": len(chunks),
        "notes": list(notes),
        "directory": str(workspace.directory(run.id)),
        "changed": 0 if columns is None else columns.changed,
    }
    return Report(
        "prepare",
        run.id,
        Exit.OK,
        queries.balance(db, run.id),
        cost(db, run, queries.balance(db, run.id)),
        tuple(lines),
        following,
        facts,
        simulated=plan.job.model.provider == "emulator",
    )


def gate_passed(workspace: Workspace, plan: Plan) -> bool:
    """Whether a dry run for exactly this prompt, schema, model and params passed, and is young enough."""
    import time

    last = queries.last_dry_run(workspace.ledger.db, plan.settings)
    return last is not None and last.passed and time.time() - last.epoch <= workspace.policy.sample.max_age
