"""Reading the ledger. Nothing here writes; every function works on a read-only connection."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Any

from batchctl.ledger import asked
from batchctl.ledger.transitions import ROW_STATE, ChunkState
from batchctl.model.rows import RowState


@dataclass(frozen=True, slots=True)
class Run:
    id: str
    job: str
    number: int
    created_at: str
    job_file: str
    source: tuple[str, ...]
    source_stamp: str
    rows_sha256: str
    shape_sha256: str
    settings: str
    seen: int
    rejected: int
    known: int
    withdrawn: bool
    stopped: bool
    lane: str | None
    budget: str | None
    risk: str | None
    purging: str | None
    inputs_purged_at: str | None
    outputs_purged_at: str | None
    remote_purged_at: str | None

    @property
    def is_purged(self) -> bool:
        """Whether texts of it are gone, or going: it can be counted, but not judged or sent again."""
        return bool(self.purging or self.inputs_purged_at or self.outputs_purged_at)


@dataclass(frozen=True, slots=True)
class SettingsRow:
    sha256: str
    run: str
    directory: str
    provider: str
    model: str
    endpoint: str
    prompt_version: str | None
    prompt_sha256: str
    schema_version: str | None
    schema_sha256: str | None


@dataclass(frozen=True, slots=True)
class Chunk:
    run: str
    number: int
    attempt: int
    state: ChunkState
    lane: str
    canary: bool
    settings: str
    mark: str
    sha256: str
    bytes: int
    rows_sha256: str
    copies_sha256: str | None
    requests: int
    copies: int
    first_position: int
    last_position: int
    staged: str | None
    results: dict[str, str]
    verdicts_sha256: str | None
    published: str | None
    judged_with: str | None
    usage: dict[str, int]
    bound: int | None
    cost: int | None
    unmetered: int
    note: str | None

    @property
    def rows(self) -> int:
        return self.requests + self.copies

    @property
    def is_published(self) -> bool:
        """Whether every target has its completed rows as they are judged now."""
        return self.published is not None and self.published == self.verdicts_sha256


@dataclass(frozen=True, slots=True)
class Intent:
    id: str
    run: str
    chunk: int
    send: int
    state: str
    staged: str
    account: str
    sha256: str
    created_at: str
    created_epoch: int
    fenced: bool
    empty_lists: int
    empty_since: float | None
    batch_id: str | None
    vendor_status: str | None
    counts: dict[str, int]
    usage: dict[str, int] | None
    sent_at: str | None
    ended_at: str | None
    expired: bool
    note: str | None


@dataclass(frozen=True, slots=True)
class DryRun:
    run: str
    settings: str
    at: str
    epoch: int
    rows: int
    valid: int
    min_valid: float
    passed: bool
    report: dict[str, Any]


def _run(row: sqlite3.Row) -> Run:
    facts = dict(row)
    facts["source"] = tuple(json.loads(facts["source"]))
    facts["withdrawn"] = bool(facts["withdrawn"])
    facts["stopped"] = bool(facts["stopped"])
    return Run(**facts)


def _chunk(row: sqlite3.Row) -> Chunk:
    facts = dict(row)
    facts["state"] = ChunkState(facts["state"])
    facts["canary"] = bool(facts["canary"])
    facts["results"] = json.loads(facts.pop("results_sha256") or "{}")
    facts["usage"] = json.loads(facts["usage"] or "{}")
    return Chunk(**facts)


def _intent(row: sqlite3.Row) -> Intent:
    facts = dict(row)
    facts["fenced"] = bool(facts["fenced"])
    facts["expired"] = bool(facts["expired"])
    facts["counts"] = json.loads(facts["counts"] or "{}")
    facts["usage"] = json.loads(facts["usage"]) if facts["usage"] else None
    return Intent(**facts)


def runs(db: sqlite3.Connection, job: str | None = None) -> list[Run]:
    """All runs that are not withdrawn, oldest first."""
    where, values = ("WHERE withdrawn = 0", ()) if job is None else ("WHERE withdrawn = 0 AND job = ?", (job,))
    return [_run(row) for row in db.execute(f"SELECT * FROM run {where} ORDER BY rowid", values)]  # noqa: S608


def last_number(db: sqlite3.Connection, job: str) -> int:
    """The highest run number ever used for `job`, withdrawn runs included."""
    return int(db.execute("SELECT COALESCE(MAX(number), 0) FROM run WHERE job = ?", (job,)).fetchone()[0])


def unfinished(db: sqlite3.Connection, job: str) -> list[str]:
    """Runs of a job with chunks that are not judged yet, oldest first."""
    rows = db.execute(
        "SELECT id FROM run WHERE job = ? AND EXISTS (SELECT 1 FROM chunk WHERE chunk.run = run.id"
        " AND chunk.state NOT IN ('applied', 'withdrawn')) ORDER BY rowid",
        (job,),
    )
    return [row[0] for row in rows]


def run_ids(db: sqlite3.Connection) -> set[str]:
    return {row[0] for row in db.execute("SELECT id FROM run")}


def run(db: sqlite3.Connection, run_id: str) -> Run:
    return _run(db.execute("SELECT * FROM run WHERE id = ?", (run_id,)).fetchone())


def settings(db: sqlite3.Connection, run_id: str) -> dict[str, SettingsRow]:
    rows = db.execute("SELECT * FROM settings WHERE run = ? ORDER BY rowid", (run_id,))
    return {row["sha256"]: SettingsRow(**dict(row)) for row in rows}


def chunks(db: sqlite3.Connection, run_id: str) -> list[Chunk]:
    """The chunks of a run by number, without those that others have replaced."""
    query = "SELECT * FROM chunk WHERE run = ? AND state != 'withdrawn' ORDER BY number"
    return [_chunk(row) for row in db.execute(query, (run_id,))]


def live_intents(db: sqlite3.Connection, run_id: str) -> dict[int, Intent]:
    """By chunk: the intent that is open or accepted."""
    rows = db.execute("SELECT * FROM intent WHERE run = ? AND state IN ('open', 'accepted')", (run_id,))
    return {row["chunk"]: _intent(row) for row in rows}


def last_intents(db: sqlite3.Connection, run_id: str) -> dict[int, Intent]:
    """By chunk: the newest intent, whatever became of it."""
    rows = db.execute("SELECT * FROM intent WHERE run = ? ORDER BY send", (run_id,))
    return {row["chunk"]: _intent(row) for row in rows}


def intents(db: sqlite3.Connection, run_id: str) -> list[Intent]:
    """Every intent of a run, in the order they were made."""
    return [_intent(row) for row in db.execute("SELECT * FROM intent WHERE run = ? ORDER BY rowid", (run_id,))]


def sends(db: sqlite3.Connection, run_id: str, chunk: int) -> int:
    """How many intents this chunk has had."""
    row = db.execute("SELECT COALESCE(MAX(send), 0) FROM intent WHERE run = ? AND chunk = ?", (run_id, chunk))
    return int(row.fetchone()[0])


def failed_sends(db: sqlite3.Connection, run_id: str, chunk: int) -> int:
    """How many of them became a batch that failed before anything ran."""
    row = db.execute("SELECT COUNT(*) FROM intent WHERE run = ? AND chunk = ? AND state = 'failed'", (run_id, chunk))
    return int(row.fetchone()[0])


def claimed(db: sqlite3.Connection, batch_id: str) -> str | None:
    """The intent that already owns a batch."""
    row = db.execute("SELECT id FROM intent WHERE batch_id = ?", (batch_id,)).fetchone()
    return str(row[0]) if row else None


def batches_claimed(db: sqlite3.Connection) -> frozenset[str]:
    """Every batch that some intent owns."""
    return frozenset(row[0] for row in db.execute("SELECT batch_id FROM intent WHERE batch_id IS NOT NULL"))


def window(db: sqlite3.Connection, name: str) -> int | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (f"window:{name}",)).fetchone()
    return int(row[0]) if row else None


def in_flight(db: sqlite3.Connection) -> int:
    """Batches of this workspace that are at the provider now, or may be."""
    row = db.execute("SELECT COUNT(*) FROM chunk WHERE lane = 'batch' AND state IN ('intent', 'held', 'submitted')")
    return int(row.fetchone()[0])


def last_dry_run(db: sqlite3.Connection, settings_sha256: str) -> DryRun | None:
    row = db.execute(
        "SELECT * FROM dry_run WHERE settings = ? ORDER BY rowid DESC LIMIT 1", (settings_sha256,)
    ).fetchone()
    if row is None:
        return None
    facts = dict(row)
    facts["passed"] = bool(facts["passed"])
    facts["report"] = json.loads(facts["report"])
    return DryRun(**facts)


def was_sent(db: sqlite3.Connection, run_id: str) -> bool:
    """Whether any create of this run ever left, or may have left, this machine."""
    row = db.execute(
        "SELECT COUNT(*) FROM intent WHERE run = ? AND state IN ('open', 'accepted', 'failed', 'abandoned')", (run_id,)
    )
    return bool(row.fetchone()[0])


def was_submitted(db: sqlite3.Connection, run_id: str) -> bool:
    """Whether more of this run than a canary ever left, or may have left, this machine."""
    row = db.execute(
        "SELECT COUNT(*) FROM intent JOIN chunk ON chunk.run = intent.run AND chunk.number = intent.chunk"
        " WHERE intent.run = ? AND intent.state IN ('open', 'accepted', 'failed', 'abandoned') AND chunk.canary = 0",
        (run_id,),
    )
    return bool(row.fetchone()[0])


def prompt_under_version(db: sqlite3.Connection, job: str, version: str) -> str | None:
    """The digest of the prompt that was sent under this label, if any was."""
    row = db.execute(
        "SELECT settings.prompt_sha256 FROM settings JOIN run ON run.id = settings.run WHERE run.job = ?"
        " AND settings.prompt_version = ? AND run.withdrawn = 0 AND EXISTS (SELECT 1 FROM intent JOIN chunk"
        " ON chunk.run = intent.run AND chunk.number = intent.chunk WHERE intent.run = run.id"
        " AND chunk.settings = settings.sha256 AND intent.state IN ('open', 'accepted', 'abandoned')) LIMIT 1",
        (job, version),
    ).fetchone()
    return str(row[0]) if row else None


def balance(db: sqlite3.Connection, run_id: str) -> dict[str, int]:
    """Rows of a run by state. `rows` is the sum of all states; `copied` counts rows paid for by another row.

    One statement each for applied chunks, others, and those that are asked for row by row, read in one snapshot.
    """
    counts: Counter[str] = Counter()
    copied = 0
    db.execute("BEGIN")
    try:
        for row in db.execute(
            "SELECT state, SUM(rows), SUM(copied) FROM tally WHERE run = ? GROUP BY state", (run_id,)
        ):
            counts[row[0]] += row[1]
            copied += row[2]
        for row in db.execute(
            "SELECT state, SUM(requests + copies), SUM(copies) FROM chunk WHERE run = ? AND state NOT IN"
            " ('applied', 'withdrawn') AND NOT (lane != 'batch' AND state = 'submitted') GROUP BY state",
            (run_id,),
        ):
            counts[ROW_STATE[ChunkState(row[0])]] += row[1]
            copied += row[2]
        for row in db.execute(
            "SELECT number, requests, copies FROM chunk WHERE run = ? AND lane != 'batch' AND state = 'submitted'",
            (run_id,),
        ).fetchall():
            called = asked.rows_by_state(db, run_id, row[0])
            unasked = row[1] - sum(called.values())
            counts.update(called)
            counts[RowState.QUEUED] += unasked
            counts[asked.state_of_copies(unasked + called[RowState.QUEUED])] += row[2]
            copied += row[2]
        rejected = db.execute("SELECT rejected FROM run WHERE id = ?", (run_id,)).fetchone()[0]
    finally:
        db.execute("COMMIT")
    counts[RowState.REJECTED] += rejected
    states = {str(state): counts[state] for state in RowState}
    return {"rows": sum(states.values()), **states, "copied": copied}


@dataclass(frozen=True, slots=True)
class Calls:
    """Live calls of one run and purpose, summed."""

    run: str
    purpose: str
    settings: str
    calls: int
    cost: int  # picodollars booked
    unpriced: int  # answered, and no price is known
    unmetered: int  # may be billed, and nobody knows for how much
    bound: int | None  # picodollars that the unmetered ones can cost at most


def prices(db: sqlite3.Connection, run_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(settings, lane) to the price its books are kept with."""
    rows = db.execute("SELECT settings, lane, price FROM price WHERE run = ? ORDER BY rowid", (run_id,))
    return {(row["settings"], row["lane"]): json.loads(row["price"]) for row in rows}


def calls(db: sqlite3.Connection, run_id: str) -> list[Calls]:
    """Live calls of a run by purpose and settings; those of a judged chunk are part of it."""
    rows = db.execute(  # one fixed list is put in
        "SELECT run, purpose, settings, COUNT(*) AS calls, SUM(COALESCE(cost, 0)) AS cost,"  # noqa: S608
        " SUM(state = 'answered' AND cost IS NULL) AS unpriced, SUM(state IN "
        + str(asked.UNMETERED)
        + ") AS unmetered,"
        " SUM(CASE WHEN state IN " + str(asked.UNMETERED) + " THEN bound ELSE 0 END) AS bound,"
        " SUM(state IN " + str(asked.UNMETERED) + " AND bound IS NULL) AS unbound"
        " FROM live_call WHERE run = ? AND NOT EXISTS (SELECT 1 FROM chunk WHERE chunk.run = live_call.run"
        " AND chunk.number = live_call.chunk AND chunk.state = 'applied')"
        " GROUP BY purpose, settings ORDER BY MIN(seq)",
        (run_id,),
    )
    return [_calls(dict(row)) for row in rows]


def _calls(facts: dict[str, Any]) -> Calls:
    unbound = facts.pop("unbound")
    return Calls(**{**facts, "bound": None if unbound else facts["bound"]})


def calls_of(db: sqlite3.Connection, run_id: str, chunk: int) -> dict[str, str]:
    """custom_id to state, for every live call of a chunk that is on record; of several the newest."""
    rows = db.execute("SELECT key, state FROM live_call WHERE run = ? AND chunk = ? ORDER BY seq", (run_id, chunk))
    return {row["key"]: row["state"] for row in rows}


def lost_calls(db: sqlite3.Connection, run_id: str) -> dict[int, int]:
    """By chunk: live calls of which nobody knows whether they were acted upon."""
    rows = db.execute(
        "SELECT chunk, COUNT(*) FROM live_call WHERE run = ? AND chunk IS NOT NULL AND state = 'lost' GROUP BY chunk",
        (run_id,),
    )
    return {row[0]: row[1] for row in rows}


@dataclass(frozen=True, slots=True)
class Turnaround:
    """One batch that ended: when it was sent and when it was seen to have ended."""

    run: str
    chunk: int
    requests: int
    sent_at: str
    ended_at: str


def last_end(db: sqlite3.Connection, run_id: str) -> str | None:
    """When the last batch or live chunk of a run was seen to have ended."""
    row = db.execute("SELECT MAX(ended_at) FROM intent WHERE run = ?", (run_id,)).fetchone()
    return None if row[0] is None else str(row[0])


def turnarounds(db: sqlite3.Connection, model: str) -> list[Turnaround]:
    """Every ended batch of a model in this workspace, oldest first."""
    rows = db.execute(
        "SELECT intent.run, intent.chunk, chunk.requests, intent.sent_at, intent.ended_at FROM intent JOIN chunk"
        " ON chunk.run = intent.run AND chunk.number = intent.chunk JOIN settings ON settings.run = intent.run"
        " AND settings.sha256 = chunk.settings WHERE settings.model = ? AND intent.state = 'accepted'"
        " AND chunk.lane = 'batch' AND intent.sent_at IS NOT NULL AND intent.ended_at IS NOT NULL ORDER BY intent.rowid",
        (model,),
    )
    return [Turnaround(**dict(row)) for row in rows]


def successor(db: sqlite3.Connection, run_id: str) -> str | None:
    """The run that took the place of a withdrawn one; None for any other id."""
    row = db.execute(
        "SELECT id FROM run WHERE withdrawn = 0 AND job = (SELECT job FROM run WHERE id = ? AND withdrawn = 1)"
        " AND number > (SELECT number FROM run WHERE id = ?) ORDER BY number LIMIT 1",
        (run_id, run_id),
    ).fetchone()
    return None if row is None else str(row[0])


def replaced(db: sqlite3.Connection, run: Run) -> list[str]:
    """Withdrawn runs of the job that made way for this one: what their dry runs cost is part of its bill."""
    rows = db.execute(
        "SELECT id FROM run WHERE job = ? AND withdrawn = 1 AND number < ? AND number >"
        " (SELECT COALESCE(MAX(number), 0) FROM run WHERE job = ? AND withdrawn = 0 AND number < ?) ORDER BY number",
        (run.job, run.number, run.job, run.number),
    )
    return [row[0] for row in rows]


def reasons(db: sqlite3.Connection, run_id: str) -> dict[str, int]:
    """Failed and doubtful rows by reason."""
    rows = db.execute(
        "SELECT reason, SUM(rows) FROM tally WHERE run = ? AND reason != '' GROUP BY reason HAVING SUM(rows) > 0"
        " ORDER BY 2 DESC",
        (run_id,),
    )
    return {row[0]: row[1] for row in rows}


def shares(db: sqlite3.Connection, run_id: str) -> dict[str, int]:
    """Completed rows by share rule, over all judged chunks of a run."""
    rows = db.execute("SELECT rule, SUM(rows) FROM share WHERE run = ? GROUP BY rule", (run_id,))
    return {row[0]: row[1] for row in rows}


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """What the ledger knows of a decision; note and edited answer are in a file."""

    run: str
    chunk: int
    position: int
    action: str
    by: str
    at: str
    edit: str | None
    sha256: str | None


def decisions(db: sqlite3.Connection, run_id: str) -> list[DecisionRow]:
    """The decisions of a run that stand, oldest first."""
    rows = db.execute(
        "SELECT run, chunk, position, action, by, at, edit, sha256 FROM decision WHERE run = ? AND undone_at IS NULL"
        " ORDER BY seq",
        (run_id,),
    )
    return [DecisionRow(**dict(row)) for row in rows]


def events(db: sqlite3.Connection, run_id: str, chunk: int | None = None) -> list[dict[str, Any]]:
    where = "run = ?" if chunk is None else "run = ? AND chunk = ?"
    values: tuple[Any, ...] = (run_id,) if chunk is None else (run_id, chunk)
    return [dict(row) for row in db.execute(f"SELECT * FROM event WHERE {where} ORDER BY seq", values)]  # noqa: S608
