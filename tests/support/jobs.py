"""A folder with a job file, the command line run in it, and what must be true of it at any moment."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import chdir, closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from batchctl.cli.render import as_json
from batchctl.workflow.check import check
from batchctl.workflow.status import status
from batchctl.workflow.workspace import Options
from tests.support.commands import Commands, Done, Running
from tests.support.provider import TARIFF, Books, Provider

KEY = "sk-test-key"
STATES = (
    "queued",
    "submitted",
    "held",
    "completed",
    "invalid_output",
    "provider_error",
    "review_required",
    "rejected",
    "published",
)
FAILED = ("invalid_output", "provider_error")
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["card", "transfer", "other"]},
        "note": {"type": "string", "maxLength": 60},
    },
    "required": ["label", "note"],
    "additionalProperties": False,
}


METERED = "\n".join(f"{name} = {price}" for name, price in TARIFF.items() if name != "live_cached")


class JobFolder:
    """`job.toml` and its files. The name is the run's too, so that several jobs may share a provider."""

    def __init__(self, path: Path, commands: Commands, provider: Provider | None, name: str) -> None:
        self.path = path
        self.name = name
        self.commands = commands
        self.provider = provider
        self.file = "job.toml"
        self.number = 1
        """Of the run that is looked at."""
        self.done: list[Done] = []
        path.mkdir(parents=True, exist_ok=True)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(path),
            "OPENAI_API_KEY": KEY,
            "ANTHROPIC_API_KEY": KEY,
            "GEMINI_API_KEY": KEY,
            "SSL_CERT_DIR": str(path),  # nothing here speaks TLS, and reading certificates takes its time
            "BATCHCTL_SETTLE_SECONDS": "0.05",
            "BATCHCTL_POLL_SECONDS": "0.05",
            "BATCHCTL_RETRY_SECONDS": "0.005",
            "BATCHCTL_YES": "1",
        }
        self.strangers: set[str] = set()  # batches at the provider that somebody else made
        self.marked = True  # False: the wire keeps no name of the run with a batch; the provider is this job's alone
        self.sets: list[str] = []
        """`--set` for every command that reads the job file."""
        if provider is not None:
            self.env["OPENAI_BASE_URL"] = provider.base_url
            self.env["ANTHROPIC_BASE_URL"] = provider.url
            self.env["BATCHCTL_GEMINI_BASE_URL"] = provider.url
            self.env["BATCHCTL_VERTEX_BASE_URL"] = provider.url
            self.env["STORAGE_EMULATOR_HOST"] = f"{provider.url}/gcs"

    # --- files ---

    def write(
        self,
        rows: Iterable[Mapping[str, Any]] | int = 6,
        *,
        schema: Any = SCHEMA,
        prompt: str = "Row {{ id }}: {{ text }}",
        more: str = "",
        **keys: str,
    ) -> JobFolder:
        """The job and its files. `keys` are tables of the job file, in TOML: `limits="chunk_rows = 3"`."""
        if isinstance(rows, int):
            rows = [{"id": f"R-{number:03d}", "text": f"question number {number}"} for number in range(rows)]
        listed = list(rows)
        with (self.path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(listed[0]))
            writer.writeheader()
            writer.writerows(listed)
        (self.path / "prompt.md").write_text(prompt)
        (self.path / "schema.json").write_text(json.dumps(schema))
        self.marked = not any(
            f'"{name}"' in keys.get("model", "") for name in ("anthropic", "bedrock", "gemini", "vertex")
        )
        tables = {
            "source": 'path = "rows.csv"\nid = "id"',
            "prompt": 'file = "prompt.md"',
            "output": 'schema = "schema.json"',
            "model": 'provider = "openai"\nname = "gpt-5.4-mini"',
            "sample": "rows = 0",
            "prices": "" if self.marked else METERED,  # the meter has the prices of the model above
            **keys,
        }
        text = f'version = 1\nname = "{self.name}"\n'
        text += "".join(f"\n[{name}]\n{body}\n" for name, body in tables.items() if body)
        (self.path / "job.toml").write_text(text + more)
        return self

    @property
    def state(self) -> Path:
        return self.path / ".batchctl"

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.db"

    @property
    def run_id(self) -> str:
        return f"{self.name}-{self.number:04d}"

    @property
    def directory(self) -> Path:
        return self.state / self.run_id

    def lines(self, name: str) -> list[Any]:
        """A JSONL file of the run."""
        return [json.loads(line) for line in (self.directory / name).read_bytes().split(b"\n")[:-1]]

    def sql(self, query: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.ledger)) as db, db:
            return db.execute(query, values).fetchall()

    # --- commands ---

    def start(self, *argv: str, **env: str | None) -> Running:
        given = {**self.env, **env}
        clean = {name: value for name, value in given.items() if value is not None}
        return self.commands.start(argv, cwd=self.path, env=clean)

    def run(self, *argv: str, code: int | Iterable[int] | None = None, **env: str | None) -> Done:
        """One command; with `code`, it must end so. No command may show a traceback, whatever happened."""
        done = self.start(*argv, **env).wait()
        self.done.append(done)
        if code is not None:
            assert done.code in ([code] if isinstance(code, int) else list(code)), done
        assert "Traceback" not in done.err, done
        assert done.code != 1, done
        return done

    def until_done(self, *argv: str, tries: int = 12) -> Done:
        """The command again and again, as cron would, until nothing is pending. Fails when it goes on for ever."""
        for _ in range(tries):
            done = self.run(*argv)
            if done.code in (0, 3):
                return done
            assert done.code in (7, 8, 10, 11), done
        raise AssertionError(f"not done after {tries} calls: {done}")

    def status(self) -> Any:
        """What `status --json` prints, without a process for it."""
        with chdir(self.path):
            return as_json(status(Options(target=self.file, environ=self.env)))

    # --- what must be true ---

    @property
    def books(self) -> Books:
        assert self.provider is not None
        return self.provider.books(self.run_id if self.marked else None, self.strangers)

    def check_files(self) -> None:
        """What `check` finds: every file the ledger names is there and is what it was."""
        with chdir(self.path):
            assert check(Options(target=self.file, environ=self.env)).exit == 0

    def chunk_rows(self) -> dict[str, tuple[str, int]]:
        """custom_id to source id and attempt, over every chunk the ledger names."""
        found = {}
        for number, attempt in self.sql("SELECT number, attempt FROM chunk WHERE state != 'withdrawn'"):
            table = pq.read_table(self.directory / "chunks" / f"{number:04d}.rows.parquet", columns=["id", "custom_id"])
            for one in table.to_pylist():
                found[one["custom_id"]] = (one["id"], attempt)
        return found

    def check_money(self) -> None:
        """At most one billed request per row and attempt, in the provider's books; nothing billed that we do not know."""
        known = self.chunk_rows()
        billed = Counter(known.get(one["custom_id"]) for one in self.books.rows)
        assert None not in billed, "the provider billed a request that is in no chunk"
        assert not [row for row, count in billed.items() if count > 1], billed

    def check_balance(self) -> dict[str, int]:
        """Every row in exactly one state; status, files and sums agree."""
        status = self.status()
        balance: dict[str, int] = status["balance"]
        assert balance["rows"] == sum(balance[state] for state in STATES), balance
        return balance

    def check_cost(self) -> None:
        """Once everything is judged, what is booked for the batches is what the provider's meter says, to the last digit.

        Requests nobody gave tokens for must be announced, and the meter then lies between the two bounds we give.
        """
        waiting = self.sql("SELECT COUNT(*) FROM chunk WHERE state IN ('intent','held','submitted','ended','fetched')")
        priced = self.sql("SELECT COUNT(*) FROM price WHERE lane = 'batch'")
        if waiting[0][0] or not priced[0][0] or self.provider is None:
            return
        cost = self.status()["cost"]
        booked = Decimal(cost["usd_first_attempts"]) + Decimal(cost["usd_reruns"])
        if self.sql("SELECT SUM(unmetered) FROM chunk")[0][0]:
            most = cost["usd_at_most"]  # null: what one answer can cost is not bounded
            assert booked <= self.books.usd <= Decimal(most or "Infinity")
        else:
            assert booked == self.books.usd

    def check_results(self, ids: Iterable[str] | None = None) -> dict[str, Any]:
        """`results.jsonl` has every row once, as `status` counts them; `rerun.jsonl` has exactly the failed ones."""
        balance = self.check_balance()
        self.check_cost()
        results = self.lines("results.jsonl")
        by_id = {one["id"]: one for one in results}
        assert len(by_id) == len(results) == balance["rows"]
        if ids is not None:
            assert list(by_id) == list(ids)
        counted = Counter(one["state"] for one in results)
        assert {state: counted[state] for state in STATES} == {state: balance[state] for state in STATES}
        failed = [one for one in results if one["state"] in FAILED]
        again = self.lines("rerun.jsonl")
        assert again == [
            {**one["row"], "_reason": one["reason"], "_detail": one["detail"], "_attempt": one["attempt"]}
            for one in failed
        ]
        return by_id
