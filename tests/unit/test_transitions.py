"""The guard of every state: a move that is not in the table changes nothing and says so."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from batchctl.ledger import queries, transitions
from batchctl.ledger.store import Ledger
from batchctl.ledger.transitions import MOVES, ROW_STATE, ChunkState, NewChunk, NewRun, NewSettings
from batchctl.model.errors import StaleState
from batchctl.model.rows import RowState

RUN = NewRun("job-0001", "job", 1, "job.toml", ("rows.csv",), "stamp", "rows", "shape", "settings", 7, 1, 1)
SETTINGS = NewSettings("settings", ".", "openai", "m", "/v1/responses", None, "p", None, None)


def chunk(number: int, attempt: int = 1, requests: int = 5) -> NewChunk:
    return NewChunk(number, attempt, "settings", "00000000", "0" * 64, 10, "0" * 64, None, requests, 0, 0, 4)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger.open(tmp_path / "state", create=True)
    assert made is not None
    with made.transaction() as db:
        transitions.add_run(db, RUN, SETTINGS, [chunk(1)])
    yield made
    made.close()


def put(ledger: Ledger, state: ChunkState) -> None:
    with ledger.transaction() as db:
        db.execute("UPDATE chunk SET state = ?", (state,))


def intent(db: sqlite3.Connection, name: str, send: int = 1) -> None:
    transitions.open_intent(
        db, intent=name, run=RUN.id, chunk=1, send=send, staged="f", account="a", sha256="0" * 64, epoch=0, bound=None
    )


def everything(ledger: Ledger) -> list[tuple[object, ...]]:
    names = [row[0] for row in ledger.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [(name, *row) for name in names for row in ledger.db.execute(f"SELECT * FROM {name}")]


@pytest.mark.parametrize(("was", "to"), list(product(ChunkState, ChunkState)))
def test_only_the_moves_of_the_table_are_made(ledger: Ledger, was: ChunkState, to: ChunkState) -> None:
    put(ledger, was)
    before = everything(ledger)
    if to in MOVES[was]:
        with ledger.transaction() as db:
            transitions.move(db, RUN.id, 1, to, because="test")
        [event] = ledger.db.execute("SELECT was, became FROM event ORDER BY seq DESC LIMIT 1")
        assert tuple(event) == (was, to)
        return
    with pytest.raises(StaleState), ledger.transaction() as db:
        transitions.move(db, RUN.id, 1, to, because="test")
    assert everything(ledger) == before


@pytest.mark.parametrize("state", list(ROW_STATE))
def test_the_balance_closes_in_every_state(ledger: Ledger, state: ChunkState) -> None:
    put(ledger, state)
    balance = queries.balance(ledger.db, RUN.id)
    assert balance[ROW_STATE[state]] == 5
    assert balance[RowState.REJECTED] == 1
    assert balance["rows"] == 6


def test_a_chunk_has_one_live_intent(ledger: Ledger) -> None:
    put(ledger, ChunkState.UPLOADED)
    with ledger.transaction() as db:
        intent(db, "one")
    put(ledger, ChunkState.UPLOADED)
    with pytest.raises(sqlite3.IntegrityError), ledger.transaction() as db:
        intent(db, "two", 2)
    put(ledger, ChunkState.INTENT)
    with ledger.transaction() as db:
        transitions.accept(db, "one", "batch-1", because="created")
    put(ledger, ChunkState.UPLOADED)
    with pytest.raises(sqlite3.IntegrityError), ledger.transaction() as db:
        intent(db, "two", 2)


def test_a_batch_belongs_to_one_intent(ledger: Ledger) -> None:
    put(ledger, ChunkState.UPLOADED)
    with ledger.transaction() as db:
        transitions.add_chunk(db, RUN.id, chunk(2))
        transitions.move(db, RUN.id, 2, ChunkState.UPLOADED, because="test")
        intent(db, "one")
        transitions.accept(db, "one", "batch-1", because="created")
        transitions.open_intent(
            db, intent="two", run=RUN.id, chunk=2, send=1, staged="g", account="a", sha256="0" * 64, epoch=0, bound=None
        )
    with pytest.raises(sqlite3.IntegrityError), ledger.transaction() as db:
        transitions.accept(db, "two", "batch-1", because="created")
    assert queries.live_intents(ledger.db, RUN.id)[2].state == "open"


@pytest.mark.parametrize("outcome", ["refused", "absent"])
def test_only_an_open_intent_is_given_back(ledger: Ledger, outcome: str) -> None:
    put(ledger, ChunkState.UPLOADED)
    with ledger.transaction() as db:
        intent(db, "one")
        transitions.give_back(db, "one", outcome, because="test")
    before = everything(ledger)
    for again in ("refused", "absent", "failed"):
        with pytest.raises(StaleState), ledger.transaction() as db:
            transitions.give_back(db, "one", again, because="test")
    with pytest.raises(StaleState), ledger.transaction() as db:
        transitions.accept(db, "one", "batch-1", because="late")
    with pytest.raises(StaleState), ledger.transaction() as db:
        transitions.hold(db, "one", because="late")
    with pytest.raises(StaleState), ledger.transaction() as db:
        transitions.abandon(db, "one", results="{}", because="late")
    assert everything(ledger) == before


def test_rows_that_move_to_a_newer_chunk_are_counted_once(ledger: Ledger) -> None:
    put(ledger, ChunkState.FETCHED)
    tallies = {("completed", ""): (3, 0), ("provider_error", "expired"): (2, 0)}
    with ledger.transaction() as db:
        transitions.apply(
            db,
            RUN.id,
            1,
            verdicts_sha256="v",
            judged_with="j",
            tallies=tallies,
            usage={},
            cost=None,
            unmetered=0,
            because="test",
        )
    with ledger.transaction() as db:
        transitions.take_over(db, RUN.id, 1, {("provider_error", "expired"): (2, 0)})
        transitions.add_chunk(db, RUN.id, chunk(2, attempt=2, requests=2))
    balance = queries.balance(ledger.db, RUN.id)
    assert (balance["completed"], balance["provider_error"], balance["queued"], balance["rows"]) == (3, 0, 2, 6)
    before = everything(ledger)
    for wrong in ({("provider_error", "expired"): (1, 0)}, {("completed", "no"): (1, 0)}, {("completed", ""): (4, 0)}):
        with pytest.raises((StaleState, sqlite3.IntegrityError)), ledger.transaction() as db:
            transitions.take_over(db, RUN.id, 1, wrong)
    assert everything(ledger) == before
