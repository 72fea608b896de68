"""Result files and batch objects as no provider should write them: edited at the provider before they are collected."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

from tests.conftest import NewJob, NewProvider
from tests.faults.test_statuses import end, until_ended
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

Lines = list[bytes]


def at(job: JobFolder) -> Provider:
    assert job.provider is not None
    return job.provider


@pytest.fixture
def ended(new_job: NewJob, new_provider: NewProvider) -> JobFolder:
    """Six rows in two batches that have ended and are not collected."""
    job = new_job(new_provider(latency="1h"), limits="chunk_rows = 3")
    job.run("run", code=8)
    end(job)
    until_ended(job)
    return job


def output(job: JobFolder, number: int) -> str:
    batch = at(job).ask("GET", f"/v1/batches/{job.books.creates[number]['id']}")
    return str(batch["output_file_id"])


def edit(job: JobFolder, number: int, change: Callable[[Lines], bytes]) -> None:
    """Another result file of batch `number`, and the size that goes with it."""
    name = output(job, number)
    path = at(job).state / "files" / name
    content = change(path.read_bytes().split(b"\n")[:-1])
    path.write_bytes(content)
    with closing(sqlite3.connect(at(job).state / "emulator.sqlite", timeout=60)) as db, db:
        db.execute("UPDATE file SET bytes = ? WHERE id = ?", (len(content), name))


def joined(lines: Lines) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def few(names: Iterable[str], count: int) -> Iterator[Any]:
    """CI on every push tries the first of them."""
    for place, name in enumerate(names):
        yield name if place < count else pytest.param(name, marks=pytest.mark.slow)


def escaped(line: bytes) -> bytes:
    """Its custom_id as JSON may also write it."""
    custom_id = json.loads(line)["custom_id"].encode()
    assert custom_id in line
    return line.replace(custom_id, b"\\u%04x" % custom_id[0] + custom_id[1:])


ODD: dict[str, Callable[[Lines], bytes]] = {
    "two objects on a line, and one of them again": lambda lines: lines[0] + joined([lines[1], lines[0], *lines[2:]]),
    "a byte order mark": lambda lines: b"\xef\xbb\xbf" + joined(lines),
    "a line of NUL": lambda lines: b"\0\0\0\n" + joined(lines),
    "NUL between": lambda lines: joined([lines[0], b"\0", *lines[1:]]),
    "spaces and blank lines": lambda lines: b"\n  \n\r\n" + joined(lines) + b"\n\n",
    "a bare CR in between": lambda lines: joined([lines[0] + b"\r", *lines[1:]]),
    "a line that is no JSON": lambda lines: joined([b"<html>not found</html>", *lines]),
    "a line of 100,000 brackets": lambda lines: joined([b"[" * 100_000, *lines]),
    "ids of other kinds": lambda lines: joined(
        [b'{"custom_id": null}', b'{"custom_id": 7}', b'{"custom_id": ["a"]}', b"{}", b"7", b'"text"', *lines]
    ),
    "the same line twice": lambda lines: joined([*lines, lines[0]]),
    "two objects on a line": lambda lines: lines[0] + b" \0" + joined(lines[1:]),
    "all objects on a line, a stranger's first": lambda lines: b'{"custom_id": "x", "a": "}{"}' + b"".join(lines),
    "an id in escapes": lambda lines: joined(
        [lines[0].replace(b'"custom_id": "', b'"custom_id": "\\u0062', 1), *lines]
    ),
    "new members": lambda lines: joined([b'{"since": "2027", "more": {"a": [1]}, ' + one[1:] for one in lines]),
}


@pytest.mark.parametrize("oddity", [*few(ODD, 5)])
def test_whatever_is_between_the_lines_every_answer_is_joined(ended: JobFolder, oddity: str) -> None:
    edit(ended, 0, ODD[oddity])
    ended.run("run", "--wait", code=0)
    rows = ended.check_results()
    assert Counter(one["state"] for one in rows.values()) == {"completed": 6}
    ended.check_money()
    assert len(ended.books.creates) == 2


@pytest.mark.parametrize(
    ("harm", "reasons"),
    [
        pytest.param(lambda lines: joined(lines[:2]), {None: 5, "missing": 1}, id="a line is not there"),
        pytest.param(lambda lines: joined(lines[:2]) + lines[2][:40], {None: 5, "missing": 1}, id="half a last line"),
        pytest.param(
            lambda lines: lines[0] + lines[1][:-1], {None: 4, "missing": 2}, id="one object and a half on a line"
        ),
        pytest.param(
            lambda lines: lines[0] + b"," + joined(lines[1:]), {None: 5, "missing": 1}, id="two objects that are a list"
        ),
        pytest.param(lambda lines: b"", {None: 3, "missing": 3}, id="nothing at all"),
    ],
)
def test_what_is_not_there_is_missing_and_never_another_rows_answer(
    ended: JobFolder, harm: Callable[[Lines], bytes], reasons: dict[str | None, int]
) -> None:
    """Said by two transfers, it is believed; without a word from us it is not sent again in this test."""
    edit(ended, 0, harm)
    ended.write(limits="chunk_rows = 3", retry="transient = 0")
    ended.run("poll", "--wait", code=0)
    ended.run("validate", code=3)
    rows = ended.check_results()
    counted = Counter(one["reason"] for one in rows.values())
    assert {name: counted[name] for name in reasons} == reasons, counted
    assert len(ended.books.creates) == 2


def test_an_answer_in_the_file_of_another_batch_is_nobodys(ended: JobFolder) -> None:
    """R6: a line counts only in the results of the batch its request was in."""
    foreign = (at(ended).state / "files" / output(ended, 1)).read_bytes().split(b"\n")[0]
    wrong = json.loads(foreign)
    wrong["response"]["body"]["output"] = []
    edit(ended, 0, lambda lines: joined([*lines, foreign, json.dumps(wrong).encode()]))
    ended.run("run", "--wait", code=0)
    rows = ended.check_results()
    assert Counter(one["state"] for one in rows.values()) == {"completed": 6}


@pytest.mark.parametrize("first", [True, False])
def test_two_answers_with_other_tokens_are_booked_as_neither(ended: JobFolder, first: bool) -> None:
    """Which of them was billed no line says. OpenAI gives the tokens of the whole batch: what is left over is its own."""

    def conflict(lines: Lines) -> bytes:
        other = json.loads(lines[0])
        body = other["response"]["body"]
        body["output"][0]["content"][0]["text"] = '{"label": "other", "note": "another answer"}'
        body["usage"]["output_tokens"] += 9
        body["usage"]["total_tokens"] += 9
        more = json.dumps(other).encode()
        return joined([more, *lines] if first else [*lines, more])

    edit(ended, 0, conflict)
    ended.run("run", "--wait", code=3)
    cost = ended.status()["cost"]
    assert cost["unmetered"] == 0
    assert Decimal(cost["usd"]) == ended.books.usd
    assert [one["reason"] for one in ended.lines("results.jsonl")].count("conflict") == 1


def test_counts_that_disagree_with_the_files_decide_nothing(ended: JobFolder) -> None:
    for one in ended.books.creates:
        at(ended).force(one["id"], request_counts={"total": 900, "completed": 1, "failed": 899})
    ended.run("run", "--wait", code=0)
    assert Counter(one["state"] for one in ended.check_results().values()) == {"completed": 6}


def test_when_every_row_failed_there_is_only_a_file_of_errors(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(**{"500": 1}), retry="transient = 0")
    job.run("run", "--wait", code=3)
    assert {one["state"] for one in job.check_results().values()} == {"provider_error"}
    assert output(job, 0) == "None"
    job.check_money()


@pytest.mark.parametrize("expires", [1, None])
def test_a_batch_that_outlives_its_window_is_waited_for(
    new_job: NewJob, new_provider: NewProvider, expires: int | None
) -> None:
    """When it should have ended is information: while it is not at its end, nothing is sent again."""
    job = new_job(new_provider(latency="1h"), limits="chunk_rows = 3")
    job.run("run", code=8)
    for one in job.books.creates:
        at(job).force(one["id"], status="in_progress", expires_at=expires)
    for _ in range(2):
        job.run("run", code=8)
    assert len(job.books.creates) == 2
    assert job.check_balance()["submitted"] == 6
    for one in job.books.creates:
        at(job).force(one["id"], status="completed")
    job.run("run", "--wait", code=0)
    assert {one["state"] for one in job.check_results().values()} == {"completed"}
