"""Job files with targets, and targets read back by what people read them with."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

STAMPS = ["id", "run", "prompt_version", "schema_version", "provider", "model", "batch_id", "attempt", "created_at"]
COLUMNS = ["id", "label", "note", *(f"_batchctl_{one}" for one in STAMPS)]


def target(to: str, **more: str) -> str:
    """A `[[publish]]` table; values are TOML."""
    return f'\n[[publish]]\nto = "{to}"\n' + "".join(f"{name} = {value}\n" for name, value in more.items())


def read(path: Path) -> list[dict[str, Any]]:
    """A published file, read by what people read such files with."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f'SELECT * FROM "{path.stem}"')]


def write_one(path: Path, source_id: str) -> None:
    """Make a published file hold one row of somebody else."""
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(f'DELETE FROM "{path.stem}"')
            db.execute(f'INSERT INTO "{path.stem}" (id) VALUES (?)', (source_id,))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"id": [source_id]}), path)
    else:
        path.write_text(json.dumps({"id": source_id}) + "\n" if path.suffix == ".jsonl" else f"id\n{source_id}\n")


EVERY = (".jsonl", ".csv", ".parquet", ".sqlite")
