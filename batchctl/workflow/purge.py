"""Retention: texts of rows and answers deleted, here and at the provider, by run or by age.

Counts, money, history and the digests that keep a row from being bought twice stay; of the texts nothing stays in any
file of the state directory, free pages and the write-ahead log of the ledger included. A run that is not at its end is
left alone. A purge that was interrupted is carried on by the next one.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchctl.chunks import segments
from batchctl.chunks.names import copies_name, rows_name, verdicts_name
from batchctl.chunks.segments import COPIES, ROWS, VERDICTS, SegmentWriter
from batchctl.files import PART, crash_point, sha256_of, sync_directory, write_file
from batchctl.jobfile import Retention
from batchctl.ledger import formats, purges, queries
from batchctl.ledger.purges import Stripped
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import ConsentMissing, Exit, NotFound, UsageError
from batchctl.model.ids import purged_id
from batchctl.model.rows import RowState
from batchctl.tables.source import spool_of
from batchctl.workflow.decided import PLACE
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.results import write_results
from batchctl.workflow.standing import is_simulated
from batchctl.workflow.workspace import Options, Workspace, opened

STANDS_IN = "ids_purged"
"""Where ids were replaced by what stands for them: the mark of a segment, and a key of a rejected row's line."""

AT_ITS_END = (ChunkState.APPLIED, ChunkState.WITHDRAWN)


@dataclass(frozen=True, slots=True)
class Due:
    """What is to go of one run."""

    run: queries.Run
    inputs: bool
    outputs: bool
    remote: bool

    @property
    def local(self) -> bool:
        return self.inputs or self.outputs

    @property
    def words(self) -> str:
        """For summaries."""
        parts = ["request texts"] * self.inputs + ["answers"] * self.outputs + ["files at the provider"] * self.remote
        return ", ".join(parts)


@dataclass(slots=True)
class Gone:
    """What went."""

    runs: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    remote: int = 0


def purge(
    options: Options, *, plan_only: bool = False, older_than: float | None = None, local_only: bool = False
) -> Report:
    """Delete what is due: of the named run everything, of a job what [retention] (or `older_than` seconds) says."""
    with opened(options, write=not plan_only) as workspace:
        named = workspace.run
        if not plan_only:
            workspace.lock()
        by_run = not Path(options.target or "job.toml").is_file()
        runs = [named] if by_run else queries.runs(workspace.ledger.db, named.job)
        due = [one for one in (_due(workspace, run, older_than, by_run=by_run) for run in runs) if one is not None]
        if local_only:
            due = [Due(one.run, one.inputs, one.outputs, False) for one in due if one.local]
        lines = [f"  {one.run.id}   {one.words}   {_size(_doomed(workspace, one))}" for one in due]
        if plan_only or not due:
            head = f"Would purge {plural(len(due), 'run')}; nothing was deleted" if due else "Nothing is due"
            return _report(workspace, due, (head, *lines), {"plan": plan_only})
        _agree(workspace, due)
        gone = Gone()
        for one in due:
            if one.remote:
                gone.remote += delete_remote(workspace, one.run)
            if one.local:
                _purge_run(workspace, one, gone)
            gone.runs.append(one.run.id)
        _scrub(workspace)
        head = f"Purged {plural(len(due), 'run')}: {plural(gone.files, 'file')}, {gone.bytes / 1e6:,.1f} MB"
        facts = {"plan": False, "files": gone.files, "bytes": gone.bytes, "remote_files": gone.remote}
        return _report(workspace, due, (head, *lines, *_remains(workspace, due)), facts)


def _due(workspace: Workspace, run: queries.Run, older_than: float | None, *, by_run: bool) -> Due | None:
    """What is to go of a run; None: nothing. A run under way is not touched; named, it is an error."""
    chunks = queries.chunks(workspace.ledger.db, run.id)
    if any(one.state not in AT_ITS_END for one in chunks):
        if by_run:
            raise UsageError(
                f"{run.id} is not at its end: batches run, or chunks wait",
                effect="nothing was deleted",
                hint=f"`batchctl poll {run.id} --wait` and `validate`, or `batchctl cancel {run.id}`",
            )
        return None
    sent = bool(queries.last_intents(workspace.ledger.db, run.id))
    retention = workspace.policy.retention or Retention()
    if by_run and older_than is None:
        inputs = outputs = remote = True
    else:
        if older_than is None and workspace.policy.retention is None:
            raise UsageError(
                "the job file says nothing about retention",
                where="[retention]",
                effect="nothing was deleted",
                hint='name a run, or add --older-than 30d, or inputs = "30d" and outputs = "365d" under [retention]',
            )
        age = time.time() - _ended(workspace, run)
        inputs, outputs = (
            limit is not None and age >= limit
            for limit in ((older_than, older_than) if older_than is not None else (retention.inputs, retention.outputs))
        )
        kept = older_than if older_than is not None else retention.remote_files
        remote = _is_published(workspace, run) if kept == "on-publish" else kept is not None and age >= float(kept)
    one = Due(
        run,
        inputs and (run.inputs_purged_at is None or run.purging is not None),
        outputs and (run.outputs_purged_at is None or run.purging is not None),
        remote and sent and run.remote_purged_at is None and not is_simulated_run(workspace, run),
    )
    return one if one.local or one.remote else None


def is_simulated_run(workspace: Workspace, run: queries.Run) -> bool:
    """The emulator in this process keeps its files in the state directory: they go with the texts."""
    return any(one.provider == "emulator" for one in queries.settings(workspace.ledger.db, run.id).values())


def _is_published(workspace: Workspace, run: queries.Run) -> bool:
    balance = queries.balance(workspace.ledger.db, run.id)
    return balance[RowState.PUBLISHED] > 0 and not balance[RowState.COMPLETED]


def _ended(workspace: Workspace, run: queries.Run) -> float:
    """When the run's last batch ended, by our clock, in Unix seconds."""
    ends = [one.ended_at for one in queries.last_intents(workspace.ledger.db, run.id).values() if one.ended_at]
    return datetime.strptime(max(ends, default=run.created_at), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def _agree(workspace: Workspace, due: list[Due]) -> None:
    options = workspace.options
    what = ", ".join(one.run.id for one in due[:5]) + ("" if len(due) <= 5 else f" and {len(due) - 5} more")
    question = f"Delete the texts of {what}? This cannot be taken back."
    if not options.yes and not (options.ask and options.ask(question)):
        raise ConsentMissing(
            f"deleting the texts of {what} needs your word",
            effect="nothing was deleted",
            hint="look with --plan, then add --yes",
        )


# --- at the provider ------------------------------------------------------------------------------------------------


def delete_remote(workspace: Workspace, run: queries.Run) -> int:
    """Delete staged inputs and result files of a run whose answers are all here; how many files were named."""
    provider = workspace.provider(workspace.frozen_plan(run=run))
    deleted = 0
    if provider.traits.uploads:
        for intent in queries.last_intents(workspace.ledger.db, run.id).values():
            if intent.state not in ("accepted", "abandoned") or intent.batch_id is None:
                continue
            workspace.same_account(provider, intent.account, intent.batch_id)
            try:
                files = [handle for _, handle in provider.poll(intent.batch_id).files]
            except NotFound:
                files = []
            for handle in [*files, intent.staged]:
                provider.delete(handle)
                deleted += 1
    with workspace.ledger.transaction() as db:
        purges.remote(db, run.id, deleted)
    return deleted


# --- here -----------------------------------------------------------------------------------------------------------


def _doomed(workspace: Workspace, due: Due) -> list[Path]:
    """The files of a run that go or are written anew."""
    directory = workspace.directory(due.run.id)
    found: list[Path] = []
    if due.inputs:
        found += [*(directory / "chunks").glob("*"), directory / "rejects.jsonl", *directory.glob("*.spill")]
    if due.outputs:
        found += [*(directory / "results").glob("*"), directory / "dry-run.jsonl", *(directory / PLACE).glob("*")]
    if due.local:
        found += [directory / "results.jsonl", directory / "rerun.jsonl"]
    return [path for path in found if path.is_file()]


def _size(paths: list[Path]) -> str:
    return f"{plural(len(paths), 'file')}, {sum(path.stat().st_size for path in paths) / 1e6:,.1f} MB"


def _purge_run(workspace: Workspace, due: Due, gone: Gone) -> None:
    """Intent, files, record: killed anywhere, the next purge carries on."""
    run, ledger = due.run, workspace.ledger
    directory = workspace.directory(run.id)
    paths = _doomed(workspace, due)
    gone.files += len(paths)
    gone.bytes += sum(path.stat().st_size for path in paths)
    what = " ".join(["inputs"] * due.inputs + ["outputs"] * due.outputs)
    with ledger.transaction() as db:
        purges.begin(db, run.id, what)
    crash_point("purge-begun")
    both = (due.inputs or bool(run.inputs_purged_at)) and (due.outputs or bool(run.outputs_purged_at))
    stripped = [_strip(directory, chunk, due, both) for chunk in queries.chunks(ledger.db, run.id)]
    _strip_rejects(directory / "rejects.jsonl", due, both)
    named = {directory / "chunks" / name for name in _kept_names(ledger.db, run.id)} | {directory / "rejects.jsonl"}
    named |= {
        directory / "results" / verdicts_name(one.number, one.attempt) for one in queries.chunks(ledger.db, run.id)
    }
    for path in paths:
        if path not in named:
            path.unlink(missing_ok=True)
    if due.outputs:
        shutil.rmtree(directory / PLACE, ignore_errors=True)
    for place in (directory / "chunks", directory / "results", directory):
        if place.is_dir():
            sync_directory(place)
    crash_point("purge-files")
    with ledger.transaction() as db:
        purges.finish(db, run.id, stripped, inputs=due.inputs, outputs=due.outputs)
    if not run.withdrawn:
        write_results(workspace.state, ledger.db, queries.run(ledger.db, run.id))
    if both:
        (directory / "rerun.jsonl").unlink(missing_ok=True)


def _kept_names(db: Any, run_id: str) -> Iterator[str]:
    for chunk in queries.chunks(db, run_id):
        yield rows_name(chunk.number)
        if chunk.copies:
            yield copies_name(chunk.number)


def _strip(directory: Path, chunk: queries.Chunk, due: Due, both: bool) -> Stripped:
    """Take the texts out of a chunk's segments; ids as well, once answers and rows are both gone."""
    rows, copies = directory / "chunks" / rows_name(chunk.number), directory / "chunks" / copies_name(chunk.number)
    verdicts = directory / "results" / verdicts_name(chunk.number, chunk.attempt)
    if due.inputs or both:
        _rewrite(rows, ROWS, {"row": "{}"}, hashed=("id",) if both else ())
        if chunk.copies:
            _rewrite(copies, COPIES, {"row": "{}"}, hashed=("id", "copied_from") if both else ())
    if due.outputs and verdicts.is_file():
        _rewrite(verdicts, VERDICTS, {"output": None, "detail": ""})
    return Stripped(
        chunk.number,
        sha256_of(rows),
        sha256_of(copies) if chunk.copies else None,
        sha256_of(verdicts) if verdicts.is_file() else None,
    )


def _strip_rejects(path: Path, due: Due, both: bool) -> None:
    """Rejected rows stay in the balance, so they stay in their file: place and kind of reason, and no text."""
    if not path.is_file() or not (due.inputs or both):
        return
    lines = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        one = json.loads(line)
        if both and one["id"] is not None and not one.get(STANDS_IN):
            one |= {"id": purged_id(one["id"]), STANDS_IN: True}
        lines.append(json.dumps({**one, "reason": one["reason"].partition(":")[0], "row": {}}).encode())
    write_file(path, b"".join(line + b"\n" for line in lines))


def _rewrite(path: Path, schema: pa.Schema, constants: dict[str, Any], *, hashed: tuple[str, ...] = ()) -> None:
    """The segment with some columns constant and some ids replaced by what stands for them. Doing it twice is once.

    A segment says itself that its ids were replaced: a source id may look like what stands for another.
    """
    part = path.with_name(path.name + PART)
    replaced = segments.is_marked(path, STANDS_IN)
    with SegmentWriter(part, schema) as out:
        if hashed or replaced:
            out.mark(STANDS_IN)
        for columns in segments.batches(path, schema.names):
            count = len(columns[0])
            made = []
            for name, kind, values in zip(schema.names, schema.types, columns, strict=True):
                if name in constants:
                    values = [constants[name]] * count
                elif name in hashed and not replaced:
                    values = [purged_id(one.decode()) for one in values]
                elif pa.types.is_string(kind):
                    values = [None if one is None else one.decode() for one in values]
                made.append(values)
            out.add_columns(made)
    part.replace(path)


def _scrub(workspace: Workspace) -> None:
    """What is left of texts outside the runs: this job's copy of standard input and its crashed work, the emulator's own
    files, ledgers that were put aside, and every page of the ledger that was freed. Other jobs may be at work: their files
    are not looked at."""
    state, ledger = workspace.state, workspace.ledger
    job = workspace.run.job
    shutil.rmtree(spool_of(state, job), ignore_errors=True)
    unfinished = re.compile(rf"{re.escape(job)}-\d+{re.escape(PART)}")
    for path in state.iterdir():
        if unfinished.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
    simulated = [one for one in queries.runs(ledger.db) if is_simulated_run(workspace, one)]
    if simulated and all(chunk.state in AT_ITS_END for one in simulated for chunk in queries.chunks(ledger.db, one.id)):
        shutil.rmtree(state / "emulator", ignore_errors=True)
    for old in formats.kept(ledger.path):
        old.unlink(missing_ok=True)
    ledger.compact_journal()
    ledger.vacuum()


# --- words ----------------------------------------------------------------------------------------------------------


def _remains(workspace: Workspace, due: list[Due]) -> list[str]:
    """What remains where."""
    lines = ["What remains: counts, money, history and digests in the ledger; job, prompt and schema of each run;"]
    lines.append("  published tables and copies made elsewhere are not batchctl's to delete")
    for one in due:
        settings = queries.settings(workspace.ledger.db, one.run.id)[one.run.settings]
        if settings.provider == "emulator":
            continue
        traits = workspace.frozen_plan(run=one.run).codec().traits
        run = queries.run(workspace.ledger.db, one.run.id)
        if run.remote_purged_at is None:
            lines.append(f"  at {settings.provider}: the files of {run.id} were not deleted ({traits.retention})")
        elif not traits.uploads:
            lines.append(
                f"  at {settings.provider}: the batches of {run.id}, which only it can delete ({traits.retention})"
            )
    return lines


def _report(workspace: Workspace, due: list[Due], lines: tuple[str, ...], told: dict[str, Any]) -> Report:
    run = workspace.run
    facts = {
        "due": [{"run": one.run.id, "inputs": one.inputs, "outputs": one.outputs, "remote": one.remote} for one in due],
        **told,
    }
    following = f"batchctl purge {workspace.options.target or run.id}" if told.get("plan") and due else ""
    return Report(
        "purge",
        run.id,
        Exit.OK,
        queries.balance(workspace.ledger.db, run.id),
        None,
        lines,
        following or f"batchctl status {run.id}",
        facts,
        simulated=is_simulated(workspace),
    )
