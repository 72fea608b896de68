"""The only writer of states. A move names where it may start; it moves exactly what it names or raises `StaleState`.

What is published, and the state `published`, is written beside this, in `publications.py`; what people decide about
single rows in `decisions.py`, by the same rules. Nothing else writes.

Every function here runs inside a transaction its caller opened (`Ledger.transaction`), so that a state, its event and
the facts that belong to it are committed together.

A chunk goes planned -> uploaded -> intent -> submitted -> ended -> fetched -> applied. `intent` means: a create may
have left this machine and no answer is recorded. It leaves that state only by an answer, by finding the batch, by
proof of absence, or by a person. A chunk of the live lane goes planned -> submitted -> ended -> fetched: each of its
calls is on record by itself before it leaves. Rows take their state from the newest chunk they are in (`ROW_STATE`, and
the verdict once the chunk is applied).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from batchctl.ledger.store import utc_now
from batchctl.model.errors import StaleState
from batchctl.model.rows import RowState


class ChunkState(StrEnum):
    PLANNED = "planned"
    UPLOADED = "uploaded"
    INTENT = "intent"
    HELD = "held"
    SUBMITTED = "submitted"
    ENDED = "ended"
    FETCHED = "fetched"
    APPLIED = "applied"
    WITHDRAWN = "withdrawn"


_ = ChunkState
MOVES: dict[ChunkState, tuple[ChunkState, ...]] = {
    _.PLANNED: (_.UPLOADED, _.SUBMITTED, _.WITHDRAWN),
    _.UPLOADED: (_.INTENT, _.PLANNED, _.SUBMITTED, _.WITHDRAWN),
    _.INTENT: (_.SUBMITTED, _.PLANNED, _.HELD),
    _.HELD: (_.SUBMITTED, _.PLANNED, _.FETCHED),
    _.SUBMITTED: (_.ENDED, _.PLANNED),
    _.ENDED: (_.FETCHED,),
    _.FETCHED: (_.APPLIED,),
    _.APPLIED: (_.APPLIED,),
    _.WITHDRAWN: (),
}

ROW_STATE: dict[ChunkState, RowState] = {
    _.PLANNED: RowState.QUEUED,
    _.UPLOADED: RowState.QUEUED,
    _.INTENT: RowState.HELD,
    _.HELD: RowState.HELD,
    _.SUBMITTED: RowState.SUBMITTED,
    _.ENDED: RowState.SUBMITTED,
    _.FETCHED: RowState.SUBMITTED,
}


@dataclass(frozen=True, slots=True)
class NewRun:
    id: str
    job: str
    number: int
    job_file: str
    source: tuple[str, ...]
    source_stamp: str
    rows_sha256: str
    shape_sha256: str
    settings: str
    seen: int
    rejected: int
    known: int


@dataclass(frozen=True, slots=True)
class NewSettings:
    sha256: str
    directory: str
    provider: str
    model: str
    endpoint: str
    prompt_version: str | None
    prompt_sha256: str
    schema_version: str | None
    schema_sha256: str | None


@dataclass(frozen=True, slots=True)
class NewChunk:
    number: int
    attempt: int
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


Tallies = Mapping[tuple[str, str], tuple[int, int]]
"""(state, reason) to (rows, of them copies)."""


def record_event(
    db: sqlite3.Connection,
    run: str,
    became: str,
    because: str,
    *,
    chunk: int | None = None,
    intent: str | None = None,
    was: str | None = None,
) -> None:
    """One line of history. No row text, no secrets."""
    db.execute(
        "INSERT INTO event (at, run, chunk, intent, was, became, because) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (utc_now(), run, chunk, intent, was, became, because[:500]),
    )


def add_run(db: sqlite3.Connection, run: NewRun, settings: NewSettings, chunks: Iterable[NewChunk]) -> None:
    """A prepared run with its chunks, all planned."""
    db.execute(
        "INSERT INTO run (id, job, number, created_at, job_file, source, source_stamp, rows_sha256, shape_sha256,"
        " settings, seen, rejected, known) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            run.id,
            run.job,
            run.number,
            utc_now(),
            run.job_file,
            json.dumps(run.source),
            run.source_stamp,
            run.rows_sha256,
            run.shape_sha256,
            run.settings,
            run.seen,
            run.rejected,
            run.known,
        ),
    )
    add_settings(db, run.id, settings)
    record_event(db, run.id, "prepared", f"{run.seen} rows read")
    for chunk in chunks:
        add_chunk(db, run.id, chunk)


def add_settings(db: sqlite3.Connection, run: str, one: NewSettings) -> None:
    db.execute(
        "INSERT OR IGNORE INTO settings (run, sha256, directory, provider, model, endpoint, prompt_version,"
        " prompt_sha256, schema_version, schema_sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            run,
            one.sha256,
            one.directory,
            one.provider,
            one.model,
            one.endpoint,
            one.prompt_version,
            one.prompt_sha256,
            one.schema_version,
            one.schema_sha256,
        ),
    )


def add_chunk(db: sqlite3.Connection, run: str, chunk: NewChunk) -> None:
    db.execute(
        "INSERT INTO chunk (run, number, attempt, state, settings, mark, sha256, bytes, rows_sha256, copies_sha256,"
        " requests, copies, first_position, last_position) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            run,
            chunk.number,
            chunk.attempt,
            ChunkState.PLANNED,
            chunk.settings,
            chunk.mark,
            chunk.sha256,
            chunk.bytes,
            chunk.rows_sha256,
            chunk.copies_sha256,
            chunk.requests,
            chunk.copies,
            chunk.first_position,
            chunk.last_position,
        ),
    )
    record_event(db, run, ChunkState.PLANNED, f"attempt {chunk.attempt}", chunk=chunk.number)


def take_over(db: sqlite3.Connection, run: str, chunk: int, taken: Tallies) -> None:
    """Rows of an applied chunk move to a newer chunk: they stop counting in the old one."""
    for (state, reason), (rows, copied) in taken.items():
        changed = db.execute(
            "UPDATE tally SET rows = rows - ?, copied = copied - ? WHERE run = ? AND chunk = ? AND state = ?"
            " AND reason = ?",
            (rows, copied, run, chunk, state, reason),
        ).rowcount
        if changed != 1:
            raise StaleState(f"chunk {chunk} of {run} has no rows in `{state}` to move")


def move(
    db: sqlite3.Connection,
    run: str,
    chunk: int,
    to: ChunkState,
    *,
    because: str,
    intent: str | None = None,
    **facts: Any,
) -> None:
    """Move one chunk, with its event. `facts` are other columns of the chunk set in the same statement."""
    was = db.execute("SELECT state FROM chunk WHERE run = ? AND number = ?", (run, chunk)).fetchone()
    if was is None or to not in MOVES[ChunkState(was[0])]:
        raise StaleState(f"chunk {chunk} of {run} is `{was[0] if was else 'gone'}` and cannot become `{to}`")
    extra = "".join(f", {name} = ?" for name in facts)
    db.execute(
        f"UPDATE chunk SET state = ?{extra} WHERE run = ? AND number = ?",  # noqa: S608  (names are ours)
        (to, *facts.values(), run, chunk),
    )
    record_event(db, run, to, because, chunk=chunk, intent=intent, was=was[0])


def open_intent(
    db: sqlite3.Connection,
    *,
    intent: str,
    run: str,
    chunk: int,
    send: int,
    staged: str,
    account: str,
    sha256: str,
    epoch: int,
    bound: int | None,
) -> None:
    """The durable word that a create is about to leave. A second live intent for a chunk violates a unique index."""
    db.execute(
        "INSERT INTO intent (id, run, chunk, send, state, staged, account, sha256, created_at, created_epoch)"
        " VALUES (?, ?, ?, ?, 'open', ?, ?, ?, ?, ?)",
        (intent, run, chunk, send, staged, account, sha256, utc_now(), epoch),
    )
    move(db, run, chunk, ChunkState.INTENT, because="about to be sent", intent=intent, bound=bound)


def accept(db: sqlite3.Connection, intent: str, batch_id: str, *, because: str) -> None:
    """The receipt: this intent is this batch."""
    row = _open_intent(db, intent)
    db.execute(
        "UPDATE intent SET state = 'accepted', batch_id = ?, sent_at = ? WHERE id = ?", (batch_id, utc_now(), intent)
    )
    move(db, row["run"], row["chunk"], ChunkState.SUBMITTED, because=because, intent=intent)


def give_back(db: sqlite3.Connection, intent: str, outcome: str, *, because: str) -> None:
    """The create certainly did not act (`refused`, `absent`) or the batch never ran (`failed`): the chunk is free."""
    row = db.execute("SELECT * FROM intent WHERE id = ?", (intent,)).fetchone()
    allowed = "accepted" if outcome == "failed" else "open"
    if row is None or row["state"] != allowed:
        raise StaleState(f"intent {intent} is not `{allowed}`")
    db.execute("UPDATE intent SET state = ?, note = ? WHERE id = ?", (outcome, because[:500], intent))
    move(db, row["run"], row["chunk"], ChunkState.PLANNED, because=because, intent=intent)


def hold(db: sqlite3.Connection, intent: str, *, because: str) -> None:
    """Nobody can tell whether this create acted: it waits for proof or for a person."""
    row = _open_intent(db, intent)
    db.execute("UPDATE intent SET note = ? WHERE id = ?", (because[:500], intent))
    move(db, row["run"], row["chunk"], ChunkState.HELD, because=because, intent=intent)


def await_proof(db: sqlite3.Connection, intent: str, *, because: str) -> None:
    """A batch that may be this intent's runs at the provider; the state stays open until its results tell."""
    row = _open_intent(db, intent)
    db.execute("UPDATE intent SET note = ? WHERE id = ?", (because[:500], intent))
    record_event(db, row["run"], "waits for proof", because, chunk=row["chunk"], intent=intent)


def abandon(db: sqlite3.Connection, intent: str, *, results: str, because: str) -> None:
    """A person gives the batch up: its rows end without results (`missing`), and are never sent by themselves."""
    row = _open_intent(db, intent)
    give_answers_up(db, intent, because=because)
    if row["chunk_state"] == ChunkState.INTENT:
        move(db, row["run"], row["chunk"], ChunkState.HELD, because=because, intent=intent)
    move(
        db,
        row["run"],
        row["chunk"],
        ChunkState.FETCHED,
        because=because,
        intent=intent,
        results_sha256=results,
        note=because,
    )


def give_answers_up(db: sqlite3.Connection, intent: str, *, because: str) -> None:
    """A person waits for a batch's answers no longer: rows without one are `missing`, and never sent again by themselves."""
    db.execute("UPDATE intent SET state = 'abandoned', note = ? WHERE id = ?", (because[:500], intent))


def saw_nothing(db: sqlite3.Connection, intent: str, *, epoch: float) -> None:
    """One more complete list of the provider's batches without ours."""
    db.execute(
        "UPDATE intent SET empty_lists = empty_lists + 1, empty_since = COALESCE(empty_since, ?)"
        " WHERE id = ? AND state = 'open'",
        (epoch, intent),
    )


SECOND_BATCH = "cancelled a second batch"
"""The event of a further batch that carried an intent's mark: what it ran until then is paid, and nobody knows."""


def fence(db: sqlite3.Connection, intent: str) -> None:
    """The staged input is gone: a create that arrives from now on finds nothing to run. The count of lists restarts."""
    row = _open_intent(db, intent)
    db.execute("UPDATE intent SET fenced = 1, empty_lists = 0, empty_since = NULL WHERE id = ?", (intent,))
    record_event(db, row["run"], "fenced", "staged input deleted", chunk=row["chunk"], intent=intent)


def observe(db: sqlite3.Connection, intent: str, vendor_status: str, counts: Mapping[str, int]) -> None:
    """The provider's own words, for display only."""
    db.execute(
        "UPDATE intent SET vendor_status = ?, counts = ? WHERE id = ?", (vendor_status, json.dumps(counts), intent)
    )


def end(
    db: sqlite3.Connection,
    intent: str,
    *,
    because: str,
    usage: Mapping[str, int] | None = None,
    expired: bool = False,
) -> None:
    """The batch will change no more; its results can be fetched. `usage` is the provider's own token total."""
    row = db.execute("SELECT run, chunk FROM intent WHERE id = ? AND state = 'accepted'", (intent,)).fetchone()
    if row is None:
        raise StaleState(f"intent {intent} is not `accepted`")
    total = None if usage is None else json.dumps(dict(usage))
    db.execute(
        "UPDATE intent SET ended_at = ?, usage = ?, expired = ? WHERE id = ?", (utc_now(), total, expired, intent)
    )
    move(db, row["run"], row["chunk"], ChunkState.ENDED, because=because, intent=intent)


def fetched(db: sqlite3.Connection, run: str, chunk: int, results: Mapping[str, str], *, because: str) -> None:
    """The result files (name to SHA-256) are complete on disk."""
    move(db, run, chunk, ChunkState.FETCHED, because=because, results_sha256=json.dumps(results))


def apply(
    db: sqlite3.Connection,
    run: str,
    chunk: int,
    *,
    verdicts_sha256: str,
    judged_with: str,
    tallies: Tallies,
    usage: Mapping[str, int],
    cost: int | None,
    unmetered: int,
    shares: Mapping[str, int] | None = None,
    because: str,
) -> None:
    """What we made of the results counts from here on. Judging again replaces the earlier verdicts and their cost.

    `shares`: completed rows by share rule.
    """
    move(
        db,
        run,
        chunk,
        ChunkState.APPLIED,
        because=because,
        verdicts_sha256=verdicts_sha256,
        judged_with=judged_with,
        usage=json.dumps(dict(usage)),
        cost=cost,
        unmetered=unmetered,
    )
    db.execute("DELETE FROM tally WHERE run = ? AND chunk = ?", (run, chunk))
    db.executemany(
        "INSERT INTO tally (run, chunk, state, reason, rows, copied) VALUES (?, ?, ?, ?, ?, ?)",
        [(run, chunk, state, reason, rows, copied) for (state, reason), (rows, copied) in tallies.items()],
    )
    db.execute("DELETE FROM share WHERE run = ? AND chunk = ?", (run, chunk))
    db.executemany(
        "INSERT INTO share (run, chunk, rule, rows) VALUES (?, ?, ?, ?)",
        [(run, chunk, rule, rows) for rule, rows in (shares or {}).items()],
    )
    db.execute(
        "UPDATE chunk SET published = NULL WHERE run = ? AND number = ? AND published != ?",
        (run, chunk, verdicts_sha256),
    )
    if db.execute("SELECT published FROM chunk WHERE run = ? AND number = ?", (run, chunk)).fetchone()[0]:
        rename_tally(db, run, chunk, RowState.COMPLETED, RowState.PUBLISHED)  # judged again, and nothing changed
    db.execute(  # what its live calls cost is part of the chunk now; those nobody knows the end of stay on record
        "DELETE FROM live_call WHERE run = ? AND chunk = ? AND state IN ('answered', 'untold', 'declined', 'refused')",
        (run, chunk),
    )


def rename_tally(db: sqlite3.Connection, run: str, chunk: int, was: RowState, becomes: RowState) -> int:
    """All rows of a chunk that are in one state are in another from now on; how many they are."""
    moved = db.execute(
        "INSERT INTO tally (run, chunk, state, reason, rows, copied)"
        " SELECT run, chunk, ?, reason, rows, copied FROM tally WHERE run = ? AND chunk = ? AND state = ?"
        " ON CONFLICT DO UPDATE SET rows = rows + excluded.rows, copied = copied + excluded.copied",
        (becomes, run, chunk, was),
    ).rowcount
    if moved:
        gone = db.execute(
            "DELETE FROM tally WHERE run = ? AND chunk = ? AND state = ? RETURNING rows", (run, chunk, was)
        ).fetchall()
        return sum(row[0] for row in gone)
    return 0


def withdraw_waiting(db: sqlite3.Connection, run: str, *, because: str) -> None:
    """Every chunk of a run that waits is never sent."""
    waiting = db.execute("SELECT number FROM chunk WHERE run = ? AND state IN ('planned', 'uploaded')", (run,))
    for (number,) in waiting.fetchall():
        move(db, run, number, ChunkState.WITHDRAWN, because=because)


def withdraw(db: sqlite3.Connection, run: str, *, because: str) -> None:
    """A run of which nothing was ever sent makes way for a newer one."""
    withdraw_waiting(db, run, because=because)
    db.execute("UPDATE run SET withdrawn = 1 WHERE id = ?", (run,))
    record_event(db, run, "withdrawn", because)


def stop(db: sqlite3.Connection, run: str, stopped: bool, *, because: str) -> None:
    """Whether waiting chunks of a run go out by themselves (`poll`, `run`) or only when a person submits again."""
    db.execute("UPDATE run SET stopped = ? WHERE id = ?", (int(stopped), run))
    record_event(db, run, "stopped" if stopped else "resumed", because)


def add_dry_run(
    db: sqlite3.Connection,
    *,
    run: str,
    settings: str,
    epoch: int,
    rows: int,
    valid: int,
    min_valid: float,
    passed: bool,
    report: str,
) -> None:
    db.execute(
        "INSERT INTO dry_run (run, settings, at, epoch, rows, valid, min_valid, passed, report)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (run, settings, utc_now(), epoch, rows, valid, min_valid, int(passed), report),
    )
    record_event(db, run, "dry-run passed" if passed else "dry-run failed", f"{valid} of {rows} valid")


def set_price(db: sqlite3.Connection, run: str, settings: str, lane: str, price: Mapping[str, Any]) -> None:
    """The price that a run's books are kept with."""
    db.execute(
        "INSERT OR REPLACE INTO price (run, settings, lane, price) VALUES (?, ?, ?, ?)",
        (run, settings, lane, json.dumps(dict(price))),
    )


def set_risk(db: sqlite3.Connection, run: str, risk: str, *, because: str) -> None:
    """What is done about a deadline that may be missed."""
    db.execute("UPDATE run SET risk = ? WHERE id = ?", (risk, run))
    record_event(db, run, f"deadline at risk: {risk}", because)


def set_window(db: sqlite3.Connection, name: str, window: int) -> None:
    """How many batches the provider's queue took at once, learnt from its refusals."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"window:{name}", str(window)))


def _open_intent(db: sqlite3.Connection, intent: str) -> sqlite3.Row:
    row = db.execute(
        "SELECT intent.*, chunk.state AS chunk_state FROM intent JOIN chunk"
        " ON chunk.run = intent.run AND chunk.number = intent.chunk WHERE intent.id = ? AND intent.state = 'open'",
        (intent,),
    ).fetchone()
    if row is None:
        raise StaleState(f"intent {intent} is not `open`")
    assert isinstance(row, sqlite3.Row)
    return row
