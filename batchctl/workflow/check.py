"""Is what is on disk what the ledger says? Ledger, request files, results, digests, balance; at wish, the provider."""

from __future__ import annotations

from pathlib import Path

from batchctl.chunks.names import copies_name, lines_name, rows_name, verdicts_name
from batchctl.files import sha256_of
from batchctl.ledger import queries
from batchctl.ledger.rebuild import is_newest, is_whole
from batchctl.ledger.rebuild import rebuild as rebuild_ledger
from batchctl.ledger.store import all_locked, check_private
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import Exit, StorageFailed, UsageError
from batchctl.workflow.decided import PLACE
from batchctl.workflow.money import cost
from batchctl.workflow.remote import compared
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.standing import is_simulated
from batchctl.workflow.workspace import Options, Workspace, opened, state_of


def check(options: Options, *, rebuild: bool = False, remote: bool = False) -> Report:
    """Every file the ledger names, of every run in the workspace, against its digest. Changes nothing.

    With `rebuild`, a ledger that is missing, damaged or older than its journal is first made again from its journal.
    With `remote`, the run's batches are compared with what the provider has; a difference is exit code 3.
    """
    first = _rebuilt(options) if rebuild else ()
    with opened(options, write=False) as workspace:
        db = workspace.ledger.db
        damaged = [
            f"{workspace.ledger.path}: {row[0]}" for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"
        ]
        files = 0
        for run in queries.runs(db):
            for settings in queries.settings(db, run.id):
                files += 1
                damaged += _frozen(workspace, run, settings)
            files += len(edits := _edits(workspace, run))
            damaged += [f"{path}: {problem}" for path, sha256 in edits if (problem := _problem(path, sha256))]
            for chunk in queries.chunks(db, run.id):
                for path, sha256 in _named(workspace, run, chunk):
                    files += 1
                    problem = _problem(path, sha256)
                    if problem:
                        damaged.append(f"{path}: {problem}")
                    workspace.options.progress("check", files, 0)
        run = workspace.run
        balance = queries.balance(db, run.id)
        if damaged:
            raise StorageFailed(
                f"{plural(len(damaged), 'file is', 'files are')} not as recorded",
                where=damaged[:20],
                effect="nothing was changed",
                hint="restore them from a backup; paid answers can be collected again while the provider keeps them",
                code="damaged",
            )
        there = compared(workspace, run) if remote else None
        facts = {} if there is None else {"remote": {"differences": there.differences, "batches": there.batches}}
        return Report(
            "check",
            run.id,
            Exit.ATTENTION if there is not None and there.differences else Exit.OK,
            balance,
            cost(db, run, balance),
            (
                *first,
                f"{plural(files, 'file')} and the ledger are as recorded",
                *(() if there is None else there.lines),
            ),
            f"batchctl status {run.id}",
            {"files": files, "damaged": [], **facts},
            simulated=is_simulated(workspace),
        )


def _rebuilt(options: Options) -> tuple[str, ...]:
    """A new ledger out of the journal, unless the one that is there is whole."""
    state = state_of(options)
    path = state / "ledger.db"
    if not state.is_dir():
        raise UsageError("there is no state directory", where=str(state), effect="nothing was done", hint="--state DIR")
    check_private(state)
    with all_locked(state):
        if is_whole(path) and is_newest(path):
            return ("The ledger is whole: it was not rebuilt",)
        made = rebuild_ledger(state)
    lines = [f"Rebuilt {path} from {plural(made.transactions, 'transaction')} of its journal"]
    if made.kept is not None:
        lines.append(f"  what was there is kept as {made.kept}")
    return tuple(lines)


def _frozen(workspace: Workspace, run: queries.Run, settings: str) -> list[str]:
    """What is wrong with the copy of the job, prompt and schema that a run was prepared with."""
    try:
        workspace.frozen_plan(settings, run)
    except StorageFailed as error:
        return [f"{error.where[0]}: {error.what}"]
    except UsageError:  # a variable that the job uses is not set here: nothing can be said about the copy
        return []
    return []


def _named(workspace: Workspace, run: queries.Run, chunk: queries.Chunk) -> list[tuple[Path, str]]:
    directory = workspace.state / run.id
    base = directory / "chunks"
    if run.purging:
        return []  # an interrupted purge: the next one carries on
    named = [(base / rows_name(chunk.number), chunk.rows_sha256)]
    if run.inputs_purged_at is None:
        named.append((base / lines_name(chunk.number), chunk.sha256))
    if chunk.copies_sha256:
        named.append((base / copies_name(chunk.number), chunk.copies_sha256))
    named += [(directory / "results" / name, sha256) for name, sha256 in chunk.results.items()]
    if chunk.state is ChunkState.APPLIED and chunk.verdicts_sha256:
        named.append((directory / "results" / verdicts_name(chunk.number, chunk.attempt), chunk.verdicts_sha256))
    return named


def _edits(workspace: Workspace, run: queries.Run) -> list[tuple[Path, str]]:
    """The files with what a person wrote into decisions that stand."""
    rows = [] if run.purging else queries.decisions(workspace.ledger.db, run.id)
    place = workspace.state / run.id / PLACE
    return [(place / row.edit, row.sha256) for row in rows if row.edit is not None and row.sha256 is not None]


def _problem(path: Path, sha256: str) -> str | None:
    if not path.is_file():
        return "missing"
    try:
        return None if sha256_of(path) == sha256 else "its content changed"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
