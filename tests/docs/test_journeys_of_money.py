"""Two whole jobs as people do them: labels for support messages by morning, and a catalogue that is larger than its budget.

Each step is a command a person types, the exit code a script sees, and the words the person must not miss.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import NewProvider
from tests.support.commands import Commands, Done
from tests.support.emulated import Emulated
from tests.support.gcs import Gcs
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

FOR_EVER = 100_000


class Terminal:
    """A person at a shell: `$ batchctl ...`, what it must end with, and what must be said."""

    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder

    def __call__(self, line: str, code: int | Iterable[int], *said: str) -> Done:
        program, *words = shlex.split(line)
        assert program == "batchctl"
        done = self.folder.run(*words, code=code)
        for one in said:
            assert one in done.out + done.err, f"`{one}` is not said\n{done}"
        balance = re.search(r"^Balance  ([\d,]+) = (.*?)(?:   .*)?$", done.err, re.MULTILINE)
        if balance is not None:
            counts = [int(one.replace(",", "")) for one in re.findall(r"([\d,]+) [a-z]", balance[2])]
            assert sum(counts) == int(balance[1].replace(",", "")), done
        return done

    def again(self, line: str, until: int, *said: str) -> None:
        """The same command, as cron would, until it ends so; what must be said may be said by any of them."""
        told = ""
        for _ in range(20):
            done = self(line, (until, 8))
            told += done.out + done.err
            if done.code == until:
                break
        else:
            raise AssertionError(f"`{line}` never ended with {until}\n{done}")
        for one in said:
            assert one in told, f"`{one}` is not said\n{told}"


def edited(path: Path, *changes: tuple[str, str]) -> None:
    """What a person does with an editor, or with `sed -i`."""
    text = path.read_text("utf-8")
    for old, new in changes:
        assert old in text, f"{old} is not in {path.name}"
        text = text.replace(old, new)
    path.write_text(text, "utf-8")


# --- labels by morning --------------------------------------------------------------------------------------------------

TICKET = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["refund", "bug", "billing"]},
        "amount": {"type": "integer", "minimum": -4, "maximum": 60},
        "summary": {"type": "string", "maxLength": 150},
    },
    "required": ["label", "amount", "summary"],
    "additionalProperties": False,
}
RULES = """
[limits]
chunk_rows = 30
in_flight = 2
budget = "5.00 USD"

[lane]
deadline = "{deadline}"
on_deadline_risk = "{risk}"
live_tail_max = "20%"

[retry]
truncated = {{ attempts = 1, set = {{ max_output_tokens = 600 }} }}

[[rules]]
name = "refund needs an amount"
check = "output.label != 'refund' || output.amount > 0"
on_fail = "rerun"

[[publish]]
to = "out/labels.csv"
key = ["message_id"]
"""


def messages(path: Path) -> None:
    """121 messages: one id twice, a few with the same text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["message_id", "subject", "body", "lang", "created_at"])
        for number in range(120):
            body = "Please call me back." if number % 30 == 7 else f"My order {number} did not arrive, what now?"
            writer.writerow([f"{number:08d}", "Order", body, ("en", "de", "fr")[number % 3], "2026-11-20"])
        writer.writerow(["00000003", "Order", "My order did arrive after all.", "en", "2026-11-20"])


@pytest.fixture
def triage(tmp_path: Path, commands: Commands, new_provider: NewProvider) -> JobFolder:
    """A folder with the messages, and a provider that answers single calls well."""
    folder = JobFolder(tmp_path / "triage", commands, new_provider(), "triage")
    folder.file = "triage.toml"
    messages(folder.path / "messages.csv")
    return folder


def at_night(folder: JobFolder, new_provider: NewProvider) -> Provider:
    """From here on batches take for ever, and some of their rows fail in one of the usual ways."""
    night = new_provider(latency=FOR_EVER, seed=5, truncated=0.05, refused=0.04, expired=0.04)
    folder.provider = night
    folder.env["OPENAI_BASE_URL"] = night.base_url
    return night


def prepared(terminal: Terminal, deadline: str, risk: str) -> None:
    """From the data file to a run that may be sent."""
    folder = terminal.folder
    terminal(
        "batchctl init triage --from messages.csv",
        0,
        "121 rows",
        "id column message_id (1 value repeated)",
        "Next: edit triage.prompt.md and triage.schema.json",
    )
    (folder.path / "triage.prompt.md").write_text("Label this message.\n\n{{ subject }}: {{ body }}")
    (folder.path / "triage.schema.json").write_text(json.dumps(TICKET))
    edited(
        folder.path / "triage.toml",
        ('provider = "emulator"   # no key needed; "openai" for the real thing', 'provider = "openai"'),
        ('"gpt-5-mini"', '"gpt-5.4-mini"'),
        ("max_output_tokens = 200", "max_output_tokens = 17"),
        ('min_valid = "90%"', 'min_valid = "70%"\nseed = 17\npick = "stratified:lang"'),
    )
    with (folder.path / "triage.toml").open("a") as file:
        file.write(RULES.format(deadline=deadline, risk=risk))
    done = terminal(
        "batchctl prepare triage.toml",
        0,
        "Prepared run triage-0001",
        "rejected                       1",
        "repeated source id",
        "triage-0001/rejects.jsonl",
        "paid once, answer copied",
        "in 4 chunks",
        "Next: batchctl dry-run triage-0001",
    )
    assert "Balance  121 = 120 queued + 1 rejected" in done.err
    terminal(
        "batchctl dry-run triage-0001",
        5,
        "Live sample of triage-0001: 20 rows",
        "truncated",
        "near the cap of 17 output tokens: raise it",
        "Not ready to submit",
        "(needed: 70%)",
    )
    assert folder.sql("SELECT COUNT(*) FROM intent") == [(0,)]
    terminal("batchctl submit triage-0001 --yes", 5, "no dry run has passed", "nothing was sent")
    edited(folder.path / "triage.toml", ("max_output_tokens = 17", "max_output_tokens = 260"))
    done = terminal(
        "batchctl dry-run triage-0001",
        0,
        "Prepared run triage-0002",
        "forecast, batch",
        "forecast, live",
        "genai-prices",
        "Ready to submit",
        "Next: batchctl submit triage-0002",
    )
    folder.number = 2


def test_labels_by_morning(triage: JobFolder, new_provider: NewProvider) -> None:
    terminal = Terminal(triage)
    due = datetime.now(UTC) + timedelta(minutes=15)
    prepared(terminal, due.strftime("%Y-%m-%dT%H:%M:%SZ"), "live-tail")
    dry_runs = triage.books.live_usd
    night = at_night(triage, new_provider)
    done = terminal(
        "batchctl submit triage-0001 --yes",
        8,
        "triage-0001 was replaced by triage-0002",
        "Sent 2 batches, 2 chunks waiting for room at the provider",
        "deadline",
        "not reached yet",
        "Next: batchctl poll triage-0002 --wait",
    )
    assert "forecast" in done.err
    assert "of $5.00" in done.err
    first, second = (one["id"] for one in triage.books.creates)
    terminal("batchctl poll triage-0002", 8)
    night.force(first, status="completed")
    night.force(second, status="completed")
    terminal("batchctl poll triage-0002", 8, "collected 2 batches, sent 2 more")
    third, fourth = (one["id"] for one in triage.books.creates[2:])
    night.force(third, status="completed")
    Emulated(night).reach(fourth, 10)

    # the morning: what was prepared a quarter of an hour ago was prepared last evening
    triage.sql("UPDATE run SET created_at = ?", (due - timedelta(hours=13)).strftime("%Y-%m-%dT%H:%M:%SZ"))
    terminal.again(
        "batchctl poll triage-0002",
        0,
        "may miss the deadline",
        "on_deadline_risk = live-tail",
        "the batches are collected",
        "go out live",
        "Next: batchctl validate triage-0002",
    )
    tail = triage.books.live
    assert 0 < tail < 30
    balance = triage.check_balance()
    assert balance["submitted"] + balance["completed"] + balance["provider_error"] > 0
    done = terminal("batchctl validate triage-0002", 3, "rule", "truncated", "refused", "rerun.jsonl")
    assert "Next: batchctl rerun triage-0002" in done.err
    kept = triage.check_balance()
    assert kept["review_required"] > 0, "refused answers are for a person"
    (triage.path / "triage.v2.prompt.md").write_text("Say it in few words.\n\n{{ subject }}: {{ body }}")
    terminal(
        "batchctl rerun triage-0002 --only rule,truncated,provider --lane live --yes "
        "--set prompt.file=triage.v2.prompt.md --set prompt.version=v2",
        (0, 3),
        "New attempt for ",
    )
    attempts = triage.sql("SELECT DISTINCT prompt_version FROM settings WHERE run = 'triage-0002' ORDER BY 1")
    assert attempts == [("v1",), ("v2",)]
    terminal("batchctl validate triage-0002", (0, 3))
    balance = triage.check_balance()
    done = terminal(
        "batchctl publish triage-0002 --allow-pending-review",
        3,
        "out/labels.csv",
        "Held back: ",
        "in review",
        "per 1,000 completed",
    )
    with (triage.path / "out" / "labels.csv").open(encoding="utf-8", newline="") as file:
        labels = {row["message_id"]: row for row in csv.DictReader(file)}
    assert len(labels) == balance["completed"] + balance["published"]
    assert "00000007" in labels
    final = triage.check_balance()
    assert final["published"] == len(labels)
    assert final["rows"] == 121
    assert final["rejected"] == 1
    cost = triage.status()["cost"]
    assert Decimal(cost["usd_dry_runs"]) == dry_runs
    assert Decimal(cost["usd_live"]) > 0, "the tail, and the rerun"
    assert max(Counter(one["digest"] for one in triage.books.rows).values()) == 1, "no row was bought twice in a batch"


def test_a_deadline_that_was_missed_is_said_until_the_end(triage: JobFolder, new_provider: NewProvider) -> None:
    terminal = Terminal(triage)
    prepared(terminal, "1d", "wait")
    night = at_night(triage, new_provider)
    terminal("batchctl submit triage-0002 --yes", 8)
    edited(triage.path / "triage.toml", ('deadline = "1d"', 'deadline = "2026-11-01T08:00:00Z"'))
    terminal("batchctl poll triage-0002", 7, "may miss the deadline", "on_deadline_risk = wait", "missed")
    for _ in range(2):
        for one in triage.books.creates:
            night.force(one["id"], status="completed")
        terminal("batchctl poll triage-0002", 7, "missed")
    assert len(triage.books.creates) == 4, "the rest is sent all the same: it was asked to wait"
    terminal("batchctl validate triage-0002", 3)
    facts = triage.run("status", "triage-0002", "--json", code=(3, 7)).json
    assert facts["deadline_missed"] is True
    assert facts["balance"]["submitted"] == facts["balance"]["queued"] == 0


# --- a catalogue that is larger than its budget -----------------------------------------------------------------------------

CATALOG = """
version = 1
name = "catalog"
source = {{ path = "gs://{bucket}/catalog/part-*.parquet", id = "sku" }}
prompt = {{ file = "prompt.md" }}
output = {{ schema = "schema.json" }}

[model]
provider = "vertex"
name = "gemini-2.5-flash-lite"
bucket = "{out}"
params = {{ max_output_tokens = 180 }}

[prices]
input = 0.375
output = 2.25
live_input = 0.75
live_output = 4.5

[lane]
deadline = "5d"

[sample]
rows = 10
min_valid = "50%"

[limits]
chunk_rows = 12
in_flight = 2
budget = "{budget}"

[retry]
transient = 3

[review]
refused = true

[[publish]]
to = "gs://{bucket}/labels/{{run}}.jsonl"
"""
PRODUCT = {
    "type": "object",
    "properties": {
        "category": {"type": "string", "enum": ["toys", "tools", "garden"]},
        "title": {"type": "string", "maxLength": 60},
    },
    "required": ["category", "title"],
    "additionalProperties": False,
}


@pytest.fixture
def catalog(tmp_path: Path, commands: Commands, new_provider: NewProvider, gcs: Gcs) -> JobFolder:
    """60 products in three Parquet objects, six columns of which four are read; five chunks, two at a time."""
    provider = new_provider(gcs=gcs.url)
    folder = JobFolder(tmp_path / "catalog", commands, provider, "catalog")
    folder.file = "catalog.toml"
    folder.marked = False
    bucket = gcs.bucket()
    for part in range(3):
        numbers = range(part * 20, part * 20 + 20)
        columns: dict[str, list[Any]] = {
            "sku": [f"SKU-{number:05d}" for number in numbers],
            "title": [f"Thing {number}" for number in numbers],
            "description": [f"A thing of kind {number % 7}, size {number}" for number in numbers],
            "lang": [("en", "de")[number % 2] for number in numbers],
            "stock": list(numbers),
            "blob": ["x" * 100 for _ in numbers],
        }
        path = tmp_path / f"part-{part}.parquet"
        pq.write_table(pa.table(columns), path)
        gcs.client().bucket(bucket).blob(f"catalog/part-{part}.parquet").upload_from_filename(path)
    (folder.path / "prompt.md").write_text("Sort this product ({{ lang }}).\n\n{{ title }}: {{ description }}")
    (folder.path / "schema.json").write_text(json.dumps(PRODUCT))
    (folder.path / "catalog.toml").write_text(CATALOG.format(bucket=bucket, out=bucket, budget="0.0130 USD"))
    return folder


def test_a_catalogue_larger_than_its_budget(catalog: JobFolder, new_provider: NewProvider, gcs: Gcs) -> None:
    terminal = Terminal(catalog)
    provider = catalog.provider
    assert provider is not None
    provider.fault("POST /gcs/upload/*", "403", nth="every")
    terminal("batchctl providers check catalog.toml", 4, "key", "upload   fails")
    provider.clear_faults()
    terminal("batchctl providers check catalog.toml", 0, "upload   ok", "Next: batchctl prepare catalog.toml")
    terminal("batchctl prepare catalog.toml", 0, "rows in source                60", "in 5 chunks", "catalog-0001")
    terminal("batchctl dry-run catalog-0001", 0, "forecast, batch", "Ready to submit")

    # the answers of the batches are longer than those of the dry run were
    dear = new_provider(gcs=gcs.url, latency=FOR_EVER, thinking=60, seed=3, refused=0.05, invalid_json=0.05)
    catalog.provider = dear
    for name in ("BATCHCTL_VERTEX_BASE_URL", "STORAGE_EMULATOR_HOST"):
        catalog.env[name] = catalog.env[name].replace(provider.url, dear.url)
    terminal("batchctl submit catalog-0001 --yes", 8, "Sent 2 batches, 3 chunks waiting for room at the provider")
    for one in catalog.books.creates:
        dear.force(one["id"], status="completed")
    stopped = terminal(
        "batchctl poll catalog-0001",
        6,
        "stopped before chunk 3: at this rate the run ends at ",
        "the dry run said ",
        "nothing more was sent; the answers to 24 requests are safe",
        "batchctl submit catalog-0001 --budget ",
    )
    for command in ("poll catalog-0001", "run catalog.toml --yes", "submit catalog-0001 --yes"):
        terminal(f"batchctl {command}", 6)
        assert len(catalog.books.creates) == 2, stopped
    terminal("batchctl submit catalog-0001 --budget 0.10USD --yes", 8, "Sent 2 batches")

    # the third chunk runs out of time with part of its rows done
    third, fourth = (one["id"] for one in catalog.books.creates[2:])
    dear.force(fourth, status="completed")
    terminal("batchctl poll catalog-0001 --quiet", 8)
    dear.force(catalog.books.creates[4]["id"], status="completed")
    Emulated(dear).end(third, "expired", after=7)
    terminal("batchctl poll catalog-0001 --wait --quiet", 7)
    terminal("batchctl validate catalog-0001", 3, "expired")
    terminal("batchctl status catalog-0001", 3, "expired", "Next: batchctl rerun catalog-0001")
    expired = catalog.check_balance()["provider_error"]
    assert 0 < expired <= 5
    terminal("batchctl rerun catalog-0001 --only expired --yes", 8, f"New attempt for {expired} row")
    assert len(catalog.books.creates) == 6
    dear.force(catalog.books.creates[5]["id"], status="completed")
    terminal("batchctl poll catalog-0001 --wait", 0)
    terminal("batchctl validate catalog-0001", 3, "refused", "Next: batchctl rerun catalog-0001")
    balance = catalog.check_balance()
    assert balance["rows"] == 60
    assert balance["provider_error"] == 0
    assert catalog.run("rerun", "catalog-0001", "--yes", code=3).out == ""
    terminal("batchctl publish catalog-0001 --allow-pending-review", 3, "catalog-0001.jsonl", "Held back: ")
    done = terminal(
        "batchctl report catalog-0001 --html catalog.html", 0, "per completed row", "per 1,000", "turnaround   p50"
    )
    assert "refused" in done.out
    assert (catalog.path / "catalog.html").stat().st_size < 200_000
    terminal("batchctl purge catalog-0001 --plan", 0, "catalog-0001")
    assert Decimal(catalog.status()["cost"]["usd_first_attempts"]) > 0
    catalog.check_money()
