"""The only writer of live calls, and of the chunks that are sent by them.

A call is on record before it leaves, and what became of it in the same row. Like `transitions`, every function runs inside
a transaction its caller opened. Many calls travel as one JSON parameter of one statement, because the journal keeps every
statement.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from batchctl.ledger import transitions
from batchctl.ledger.store import utc_now
from batchctl.model.errors import StaleState


def begin(
    db: sqlite3.Connection, *, intent: str, run: str, chunk: int, lane: str, account: str, sha256: str, epoch: int
) -> None:
    """A chunk is about to be sent row by row, without a batch. Nothing may be billed before its calls are opened."""
    db.execute(
        "INSERT INTO intent (id, run, chunk, send, state, staged, account, sha256, created_at, created_epoch, sent_at,"
        " vendor_status) VALUES (?, ?, ?, ?, 'accepted', '', ?, ?, ?, ?, ?, ?)",
        (
            intent,
            run,
            chunk,
            1 + db.execute("SELECT COUNT(*) FROM intent WHERE run = ? AND chunk = ?", (run, chunk)).fetchone()[0],
            account,
            sha256,
            utc_now(),
            epoch,
            utc_now(),
            lane,
        ),
    )
    transitions.move(
        db, run, chunk, transitions.ChunkState.SUBMITTED, because=f"sent {lane}", intent=intent, lane=lane, staged=None
    )


def finish(db: sqlite3.Connection, intent: str, results: Mapping[str, str], *, bound: int | None, because: str) -> None:
    """Every row of a live chunk is answered, or nobody knows: its answers are complete on disk.

    `bound` is the most the chunk can cost, by which calls without known tokens are reckoned.
    """
    transitions.end(db, intent, because=because)
    row = db.execute("SELECT run, chunk FROM intent WHERE id = ?", (intent,)).fetchone()
    db.execute("UPDATE chunk SET bound = ? WHERE run = ? AND number = ?", (bound, row["run"], row["chunk"]))
    transitions.fetched(db, row["run"], row["chunk"], results, because=because)


def open_calls(
    db: sqlite3.Connection,
    run: str,
    settings: str,
    purpose: str,
    calls: Iterable[tuple[str, int | None]],
    *,
    chunk: int | None = None,
) -> None:
    """Live calls (key and the most each can cost) that are about to leave: from here on each may be billed."""
    db.execute(
        "INSERT INTO live_call (run, settings, chunk, key, purpose, at, state, bound) SELECT ?, ?, ?,"
        " json_extract(value, '$[0]'), ?, ?, 'open', json_extract(value, '$[1]') FROM json_each(?)",
        (run, settings, chunk, purpose, utc_now(), json.dumps(list(calls))),
    )


Closed = tuple[str, str, int | None, Mapping[str, int] | None]
"""Key, what became of it, cost in picodollars and tokens."""


def close_calls(db: sqlite3.Connection, run: str, closed: Sequence[Closed]) -> None:
    """What became of open calls, each key once. `refused` was not billed; of `lost` nobody knows."""
    facts = [
        (key, state, cost, None if usage is None else json.dumps(dict(usage))) for key, state, cost, usage in closed
    ]
    changed = db.execute(
        "UPDATE live_call SET state = new.state, cost = new.cost, usage = new.usage FROM (SELECT"
        " json_extract(value, '$[0]') AS key, json_extract(value, '$[1]') AS state, json_extract(value, '$[2]') AS cost,"
        " json_extract(value, '$[3]') AS usage FROM json_each(?)) AS new"
        " WHERE live_call.run = ? AND live_call.key = new.key AND live_call.state IN ('open', 'running')",
        (json.dumps(facts), run),
    ).rowcount
    if changed != len(closed):
        raise StaleState(f"{len(closed) - changed} of {len(closed)} calls of {run} are not open")


def run_call(db: sqlite3.Connection, run: str, key: str, handle: str) -> None:
    """The receipt of a background request: from here on it can be looked up."""
    changed = db.execute(
        "UPDATE live_call SET state = 'running', handle = ? WHERE run = ? AND key = ? AND state = 'open'",
        (handle, run, key),
    ).rowcount
    if changed != 1:
        raise StaleState(f"no call for {key} of {run} is open")


def lose_calls(db: sqlite3.Connection, run: str, keys: Sequence[str]) -> None:
    """Calls whose answers are not on disk, whatever is on record: nobody knows what they cost."""
    db.execute(
        "UPDATE live_call SET state = 'lost', cost = NULL, usage = NULL WHERE run = ? AND state IN ('open', 'running',"
        " 'answered', 'untold') AND key IN (SELECT value FROM json_each(?))",
        (run, json.dumps(list(keys))),
    )


def close_call(
    db: sqlite3.Connection,
    run: str,
    key: str,
    state: str,
    *,
    cost: int | None = None,
    usage: Mapping[str, int] | None = None,
) -> None:
    """What became of the newest open call of a key. `refused` was not billed; of `lost` nobody knows."""
    changed = db.execute(
        "UPDATE live_call SET state = ?, cost = ?, usage = ? WHERE seq ="
        " (SELECT MAX(seq) FROM live_call WHERE run = ? AND key = ? AND state = 'open')",
        (state, cost, None if usage is None else json.dumps(dict(usage)), run, key),
    ).rowcount
    if changed != 1:
        raise StaleState(f"no call for {key} of {run} is open")


def decide_calls(db: sqlite3.Connection, run: str, chunk: int, state: str, *, because: str) -> int:
    """A person's word on the lost calls of a chunk (`absent`, `abandoned`): how many. Its rows are judged again."""
    changed = db.execute(
        "UPDATE live_call SET state = ? WHERE run = ? AND chunk = ? AND state = 'lost'", (state, run, chunk)
    ).rowcount
    db.execute("UPDATE chunk SET judged_with = NULL WHERE run = ? AND number = ?", (run, chunk))
    transitions.record_event(db, run, f"{changed} lost calls {state}", because, chunk=chunk)
    return changed
