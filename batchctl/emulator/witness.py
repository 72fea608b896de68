"""The books: what was asked, what was created and what would have been billed. Readable with and without a server.

`requests.jsonl` has one line per call, written before the answer leaves. Rows are billed per batch, in the transaction
that ends it: a file of billed rows counts only once that transaction is committed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from batchctl.emulator.store import Store

REQUESTS = "requests.jsonl"


class RequestLog:
    """Appends one line per call; a line is one write, so that two processes do not mix theirs."""

    def __init__(self, state_dir: Path) -> None:
        self._handle = os.open(state_dir / REQUESTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, entry: dict[str, Any]) -> None:
        os.write(self._handle, orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        os.close(self._handle)


def summary(store: Store) -> dict[str, Any]:
    """What `GET /emulator/billed` answers. Batches put into the list as someone else's are left out."""
    batches = store.db.execute("SELECT * FROM batch WHERE others = 0 ORDER BY seq").fetchall()
    live = store.db.execute(
        "SELECT count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0) FROM live"
    ).fetchone()
    creates = [
        {
            "id": row["id"],
            "wire": row["wire"],
            "metadata": orjson.loads(row["metadata"]) if row["metadata"] else None,
            "input_file_id": row["input_file_id"],
            "endpoint": row["endpoint"],
            "requests": row["total"],
            "status": row["status"],
            "created_at": int(row["created"]),
            "rows_billed": row["billed_rows"],
            "usd": row["usd"],
        }
        for row in batches
    ]
    return {
        "batches": len(batches),
        "creates": creates,
        "rows_billed": sum(row["billed_rows"] for row in batches),
        "live_calls": live[0],
        "billed": {
            "batches": sum(row["billed"] for row in batches),
            "input_tokens": sum(row["input_tokens"] for row in batches),
            "output_tokens": sum(row["output_tokens"] for row in batches),
            "live_input_tokens": live[1],
            "live_output_tokens": live[2],
            "usd": str(sum((Decimal(row["usd"]) for row in batches), Decimal(0))),
            "live_usd": str(sum((Decimal(one[0]) for one in store.db.execute("SELECT usd FROM live")), Decimal(0))),
        },
    }


def rows_of(store: Store) -> Iterator[bytes]:
    """Billed rows of ended batches, then live calls, as JSON lines."""
    for (batch_id,) in store.db.execute("SELECT id FROM batch WHERE billed = 1 ORDER BY seq").fetchall():
        with (store.billed / f"{batch_id}.jsonl").open("rb") as file:
            yield from file
    for digest, endpoint, taken, given in store.db.execute(
        "SELECT digest, endpoint, input_tokens, output_tokens FROM live ORDER BY seq"
    ):
        yield orjson.dumps(
            {
                "batch_id": None,
                "custom_id": None,
                "digest": digest,
                "input_tokens": taken,
                "output_tokens": given,
                "endpoint": endpoint,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )


def read_witness(state_dir: Path) -> dict[str, Any]:
    """The facts of `GET /emulator/billed`, from disk; safe while a server runs, and after it was killed."""
    with closing(Store(state_dir)) as store:
        return summary(store)


def billed_rows(state_dir: Path) -> Iterator[dict[str, Any]]:
    """The lines of `GET /emulator/billed/rows`, from disk."""
    with closing(Store(state_dir)) as store:
        for line in rows_of(store):
            yield orjson.loads(line)


def requests_seen(state_dir: Path) -> list[dict[str, Any]]:
    """Every call in the order it was answered; a line cut by SIGKILL is left out."""
    path = state_dir / REQUESTS
    if not path.exists():
        return []
    return [orjson.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
