"""The judge of every test that breaks things at random: what became of the rows, by the provider's books alone.

Nothing of ours is believed: which row a request was for is read from its text (`Row R-001: ...`, as `JobFolder` writes
it), what was billed from the bill, the right answer from the provider's own result file. Our files are the accused.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import orjson

from batchctl.model.errors import BatchctlError
from batchctl.model.ids import digest
from tests.support.jobs import JobFolder

BILLED_TWICE, LOST, INVENTED, MISJOINED, UNREADABLE = "billed twice", "lost", "invented", "wrongly joined", "unreadable"
MISBOOKED = "misbooked"
HARMS = (BILLED_TWICE, LOST, INVENTED, MISJOINED, UNREADABLE, MISBOOKED)
ANSWERED = ("completed", "published")
UNPAID = ("queued", "submitted", "held")
_ROW = re.compile(r"Row (R-\d+):")


@dataclass
class Bill:
    """One run in the provider's books."""

    billed: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Row to the attempts that were billed for it, once per bill."""
    answers: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """Row to the answers in the provider's result files."""
    by_attempt: dict[tuple[str, int], list[Any]] = field(default_factory=lambda: defaultdict(list))
    silent: set[str] = field(default_factory=set)
    """Rows of batches that are completed and name no file: they stay submitted, for a person to look at."""
    strangers: list[str] = field(default_factory=list)
    """Billed requests that are for no row of ours."""
    live: Counter[str] = field(default_factory=Counter)
    """Row to live calls that were billed for it, whatever they were made for."""
    asked: Counter[str] = field(default_factory=Counter)
    """Row to how often it may be asked: once in each chunk that holds it, and once in a dry run."""
    live_attempts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Row to the attempts for which a live answer is kept."""


def harms(job: JobFolder, ids: Iterable[str], *, ended: bool = True) -> list[str]:
    """Every promise that is broken, one line each; empty when all is well. `ended`: nothing may be under way any more."""
    wanted = list(ids)
    assert job.provider is not None
    found: list[str] = []
    try:
        bill = read_bill(job.provider.state, job.run_id, job.directory)
        _take_live(job, bill)
    except (OSError, sqlite3.Error, ValueError) as error:
        return [f"{UNREADABLE}: the books: {error}"]
    for row, attempts in bill.billed.items():
        found += [f"{BILLED_TWICE}: {row}, attempt {one}" for one in set(attempts) if attempts.count(one) > 1]
        found += [f"{INVENTED}: {row} was billed and is no row"] * (row not in wanted)
    for row, count in bill.live.items():
        paid = count + len(set(bill.billed.get(row, ())))
        found += [f"{BILLED_TWICE}: {row} was paid {paid} times and asked {bill.asked[row]} times"] * (
            paid > bill.asked[row]
        )
    found += [f"{INVENTED}: billed for nobody: {one}" for one in bill.strangers]
    found += _paid_again(job, bill)
    if not ended and not has_run(job):
        return found  # killed before there was anything to read
    found += _readable(job)
    if not found and (job.directory / "results.jsonl").exists():
        found += _results(job, wanted, bill, ended)
    elif ended:
        found += [f"{LOST}: there are no results"] * (not found)
    return found


def _paid_again(job: JobFolder, bill: Bill) -> list[str]:
    """A row with one valid answer is never sent again, whatever we made of the answer."""
    judge = jsonschema.Draft202012Validator(json.loads((job.path / "schema.json").read_bytes()))
    found = []
    for (row, attempt), answers in bill.by_attempt.items():
        valid = all(one == answers[0] for one in answers) and judge.is_valid(answers[0])
        if valid and max((*bill.billed.get(row, ()), *bill.live_attempts.get(row, ()))) > attempt:
            found.append(f"{BILLED_TWICE}: {row} had a valid answer in attempt {attempt} and was billed again")
    return found


def has_run(job: JobFolder) -> bool:
    """Whether the ledger knows a run. A ledger that SQLite itself cannot read counts as one, so that it is looked at."""
    try:
        tables = job.sql("SELECT name FROM sqlite_master WHERE name = 'run'") if job.ledger.exists() else []
        return bool(tables and job.sql("SELECT count(*) FROM run")[0][0])
    except sqlite3.DatabaseError:
        return True


def _readable(job: JobFolder) -> list[str]:
    """`status` and `check` understand what is on disk, and the balance closes."""
    try:
        job.check_balance()
        job.check_files()
    except (BatchctlError, sqlite3.Error, OSError, ValueError, AssertionError) as error:
        return [f"{UNREADABLE}: {getattr(error, 'what', error)} {getattr(error, 'where', '')}"]
    return []


def _results(job: JobFolder, wanted: list[str], bill: Bill, ended: bool) -> list[str]:
    found = []
    results = job.lines("results.jsonl")
    seen = [one["id"] for one in results]
    found += [f"{LOST}: {row} is not in the results" for row in wanted if row not in seen]
    found += [f"{INVENTED}: {row} is in the results and no row" for row in seen if row not in wanted]
    found += [f"{LOST}: {row} is in the results {seen.count(row)} times" for row in set(seen) if seen.count(row) > 1]
    for one in results:
        row, state = one["id"], one["state"]
        answers, paid = bill.answers.get(row, []), bill.billed.get(row, [])
        if state in ANSWERED:
            if one["output"] not in answers:
                known = any(one["output"] in others for others in bill.answers.values())
                found.append(f"{MISJOINED if known else INVENTED}: the answer of {row} is not what the provider said")
        elif ended and state in UNPAID and not (state == "submitted" and row in bill.silent):
            found.append(f"{LOST}: {row} is still `{state}`")
        elif ended and answers and one["reason"] == "missing" and one["attempt"] in paid:
            found.append(f"{LOST}: the provider has an answer for {row}, which counts as missing")
    return found


def read_bill(state: Path, run: str, directory: Path) -> Bill:
    """What the provider billed and answered for one run; `directory` holds our frozen copies of what was sent."""
    bill, chunks = Bill(), directory / "chunks"
    with closing(sqlite3.connect(state / "emulator.sqlite", timeout=60)) as db:
        made = db.execute(
            "SELECT id, input_file_id, output_file_id, metadata, error_file_id, status FROM batch WHERE billed = 1"
        ).fetchall()
    ours = [one for one in made if one[3] and orjson.loads(one[3]).get("batchctl_run") == run]
    inputs = [state / "files" / one[1] for one in ours]
    rows: dict[str, str] = {}
    # An input that was fenced off is gone at the provider; our frozen copy of it counts if its digest was billed.
    for path in (*inputs, *sorted(chunks.glob("*.jsonl"))):
        if path.exists():
            rows |= _rows_by_digest(path)
    for batch, given, output, _, errors, status in ours:
        if status == "completed" and output is None and errors is None and (state / "files" / given).exists():
            bill.silent |= set(_rows_by_digest(state / "files" / given).values())
        attempts: dict[str, tuple[str, int]] = {}
        for line in _lines(state / "billed" / f"{batch}.jsonl"):
            fact = orjson.loads(line)
            row = rows.get(fact["digest"])
            if row is None:
                bill.strangers.append(fact["custom_id"])
                continue
            attempt = int(str(fact["custom_id"])[-2:])
            bill.billed[row].append(attempt)
            attempts[fact["custom_id"]] = (row, attempt)
        if output is not None:
            for line in _lines(state / "files" / output):
                _take_answer(bill, line, attempts)
    return bill


def _take_answer(bill: Bill, line: bytes, attempts: dict[str, tuple[str, int]]) -> None:
    try:
        fact = orjson.loads(line)
        answer = orjson.loads(_text_of(fact["response"]["body"]))
    except (ValueError, KeyError, TypeError, StopIteration):
        return  # an odd line, or no usable answer: proves nothing for or against a row
    if fact["custom_id"] in attempts:
        row, attempt = attempts[fact["custom_id"]]
        bill.answers[row].append(answer)
        bill.by_attempt[row, attempt].append(answer)


def _take_live(job: JobFolder, bill: Bill) -> None:
    """Live calls in the books, how often each row may be asked, and the live answers that are kept.

    The books have no answers to live calls: those in our files are the evidence that a row was answered.
    """
    rows: dict[str, str] = {}
    requests: dict[str, tuple[str, int]] = {}
    keys: dict[str, str] = {}
    for path in sorted((job.directory / "chunks").glob("*.jsonl")):
        mine = _rows_by_digest(path)
        bill.asked.update(set(mine.values()))
        for line in _lines(path):
            one = orjson.loads(line)
            body = orjson.dumps(one["body"])
            row = mine[hashlib.sha256(body).hexdigest()]
            requests[one["custom_id"]] = (row, int(one["custom_id"][-2:]))
            keys[digest(body).hex()] = row
            rows |= dict.fromkeys(_digests(one["body"]), row)
    bill.live.update(rows[one] for one, _ in _live_calls(job) if one in rows)
    if bill.live and has_run(job):
        tried = job.sql("SELECT DISTINCT key FROM live_call WHERE chunk IS NULL")
        bill.asked.update(keys[key] for (key,) in tried if key in keys)
    for path in sorted((job.directory / "results").glob("*.jsonl")):
        for line in _lines(path):
            _take_live_answer(bill, line, requests)


def _digests(body: Any) -> list[str]:
    """Under which digests the books may have a request that was not sent in a batch: asked live, or in background."""
    bodies = (body, {**body, "background": True, "store": True})
    return [hashlib.sha256(orjson.dumps(one)).hexdigest() for one in bodies]


def _live_calls(job: JobFolder) -> list[tuple[str, str]]:
    """Digest and cost of every live call that was billed, whoever made it."""
    assert job.provider is not None
    with closing(sqlite3.connect(job.provider.state / "emulator.sqlite", timeout=60)) as db:
        return db.execute("SELECT digest, usd FROM live").fetchall()


def _meter(job: JobFolder) -> Decimal:
    """What the provider billed for this job: its batches, and the live calls for requests that are in its chunks."""
    mine: set[str] = set()
    for path in (job.directory / "chunks").glob("*.jsonl"):
        for line in _lines(path):
            mine.update(_digests(orjson.loads(line)["body"]))
    return job.books.usd + sum((Decimal(usd) for one, usd in _live_calls(job) if one in mine), Decimal(0))


def _take_live_answer(bill: Bill, line: bytes, requests: dict[str, tuple[str, int]]) -> None:
    try:
        fact = orjson.loads(line)
        row, attempt = requests[fact["custom_id"]]
        body = fact["live"]["body"]
        answer = orjson.loads(_text_of(body))
    except (ValueError, KeyError, TypeError, StopIteration):
        return
    bill.answers[row].append(answer)
    bill.by_attempt[row, attempt].append(answer)
    bill.live_attempts[row].append(attempt)


def _text_of(body: Any) -> str:
    return next(
        str(part["text"])
        for item in body["output"]
        for part in item.get("content", ())
        if part["type"] == "output_text"
    )


def lost_and_billed(job: JobFolder, chunk: int) -> bool:
    """Whether the provider billed any request of a chunk whose live call got no answer."""
    lost = {key for (key,) in job.sql("SELECT key FROM live_call WHERE chunk = ? AND state = 'lost'", chunk)}
    mine: set[str] = set()
    for line in _lines(job.directory / "chunks" / f"{chunk:04d}.jsonl"):
        one = orjson.loads(line)
        if one["custom_id"] in lost:
            mine.update(_digests(one["body"]))
    return any(one in mine for one, _ in _live_calls(job))


def misbooked(job: JobFolder, *, ended: bool = True) -> list[str]:
    """What is booked against the provider's own meter, every lane and the dry runs.

    Never more is booked than was billed, and never more is billed than the budget allows. Once all has ended the two are
    the same to the last digit, but for requests nobody gave tokens for: they are announced, and bounded.
    """
    if not has_run(job):
        return []
    status = job.status()
    cost, balance = status["cost"], status["balance"]
    meter = _meter(job)
    found = []
    limit = re.search(r'budget = "([\d.]+) USD"', (job.path / "job.toml").read_text())
    if limit and meter > Decimal(limit[1]):
        found.append(f"{MISBOOKED}: {meter} was billed, the budget is {limit[1]}")
    if cost["usd"] is None:
        return [*found, f"{MISBOOKED}: the price is known, what was spent is not"]
    booked, most = Decimal(cost["usd"]), Decimal(cost["usd_at_most"] or "Infinity")
    if booked > meter:
        found.append(f"{MISBOOKED}: {booked} is booked, {meter} was billed")
    if ended and not any(balance[state] for state in ("queued", "submitted")):
        if cost["unmetered"] and meter > most:
            found.append(f"{MISBOOKED}: {meter} was billed, at most {most} is announced")
        if not cost["unmetered"] and booked != meter:
            found.append(f"{MISBOOKED}: {meter} was billed, {booked} is booked")
    return found


def misplaced(job: JobFolder) -> list[str]:
    """Every target holds exactly the completed rows, after a last word of a person that rows in review may wait."""
    text = (job.path / "job.toml").read_text()
    names = [one for one in ("out.jsonl", "out.sqlite") if f'"{one}"' in text]
    if not names or job.check_balance()["submitted"]:
        return []
    job.run("publish", "--allow-pending-review", code=(0, 3))
    wanted = sorted(one["id"] for one in job.lines("results.jsonl") if one["state"] == "published")
    found = []
    for name in names:
        if name.endswith(".jsonl"):
            there = [json.loads(line)["id"] for line in (job.path / name).read_bytes().split(b"\n")[:-1]]
        else:
            with closing(sqlite3.connect(job.path / name)) as db:
                (table,) = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()[0]
                there = [one[0] for one in db.execute(f'SELECT id FROM "{table}"')]
        if sorted(there) != wanted:
            found.append(f"{name} holds {sorted(there)}, published are {wanted}")
    return found


def _rows_by_digest(path: Path) -> dict[str, str]:
    found = {}
    for line in _lines(path):
        body = orjson.dumps(orjson.loads(line)["body"])
        row = _ROW.search(body.decode())
        if row is not None:
            found[hashlib.sha256(body).hexdigest()] = row[1]
    return found


def _lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().split(b"\n") if line.strip()]
