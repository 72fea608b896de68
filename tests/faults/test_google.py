"""Vendors with a mark and a fence whose list knows no numbers of chunks (Gemini, Vertex): lost creates and kills.

A row is billed once or it waits; what was finished before an end is kept. The provider's books are the judge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.gcs import Gcs
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

GEMINI = "gemini-2.5-flash"
MARKS = {"gemini": "POST /v1beta/models/*:batchGenerateContent", "vertex": "POST /v1/projects/*/batchPredictionJobs"}
LISTS = {"gemini": "GET /v1beta/batches", "vertex": "GET /v1/projects/*/batchPredictionJobs"}
SLOW = pytest.mark.slow
BIGQUERY = pytest.param("vertex bigquery", marks=SLOW)


def slow(where: str) -> Any:
    return pytest.param(where, marks=SLOW)


@dataclass
class Case:
    """One vendor, one job of two chunks."""

    name: str
    job: JobFolder
    provider: Provider

    @property
    def create(self) -> str:
        return MARKS[self.name]

    @property
    def list(self) -> str:
        return LISTS[self.name]

    def finished(self) -> None:
        """Done, answered and paid once: the state every test ends in."""
        self.job.check_money()
        rows = self.job.check_results([f"R-{number:03d}" for number in range(6)])
        assert {one["state"] for one in rows.values()} == {"completed"}, self.job.done[-1]
        assert sorted(self.job.books.requests.values()) == [1] * 6
        self.job.check_files()


Start = Callable[..., Case]


@pytest.fixture
def start(new_job: NewJob, new_provider: NewProvider, gcs: Gcs) -> Start:
    def begin(where: str, **settings: Any) -> Case:
        name, _, storage = where.partition(" ")
        provider = new_provider(gcs=gcs.url, **settings)
        model = f'provider = "{name}"\nname = "{GEMINI}"'
        if storage:
            model += f'\nbucket = "{gcs.bucket() if storage == "gcs" else "bq://a-project.batchctl"}"'
        return Case(name, new_job(provider, limits="chunk_rows = 3", model=model), provider)

    return begin


@pytest.mark.parametrize("where", ["gemini", "vertex gcs", BIGQUERY])
def test_a_create_whose_answer_is_lost_is_found_by_its_mark(start: Start, where: str) -> None:
    case = start(where)
    case.provider.fault(case.create, "drop-after")
    case.job.until_done("run", "--wait", tries=3)
    case.finished()
    assert len(case.job.books.creates) == 2


@pytest.mark.parametrize("where", ["gemini", slow("vertex gcs"), BIGQUERY])
def test_a_create_that_acts_late_finds_its_input_gone(start: Start, where: str) -> None:
    case = start(where)
    case.provider.fault(case.create, "late", seconds=1.5)
    case.job.run("run", "--wait", code=0)
    until(lambda: all(one["status"] in ("completed", "failed") for one in case.job.books.creates))
    case.finished()
    late = [one for one in case.job.books.creates if one["status"] != "completed"]
    assert [one["rows_billed"] for one in late] == [0]


@pytest.mark.parametrize(
    ("where", "point"),
    [
        ("vertex gcs", "K7"),
        *(
            pytest.param(where, point, marks=SLOW)
            for where in ("gemini", "vertex gcs", "vertex bigquery")
            for point in ("K5", "K6", "K7", "K10", "K11")
            if (where, point) != ("vertex gcs", "K7")
        ),
    ],
)
def test_killed_at_every_point_of_sending(start: Start, where: str, point: str) -> None:
    case = start(where)
    assert case.job.run("run", "--wait", BATCHCTL_CRASH_AT=point).killed
    case.job.check_balance()
    case.job.until_done("run", "--wait", tries=3)
    case.finished()
    assert len(case.job.books.creates) == 2


@pytest.mark.parametrize("where", ["gemini", slow("vertex gcs")])
def test_a_list_that_cannot_be_read_is_no_proof_of_absence(start: Start, where: str) -> None:
    case = start(where)
    case.provider.fault(case.create, "drop-after")
    case.provider.fault(case.list, "garbage", nth="every")
    case.job.run("run", code=11)
    assert case.job.check_balance()["held"] == 3
    case.provider.clear_faults()
    case.job.until_done("run", "--wait", tries=3)
    case.finished()
    assert len(case.job.books.creates) == 2


@pytest.mark.parametrize("where", ["gemini", "vertex gcs", BIGQUERY])
def test_what_was_done_before_a_batch_expired_is_kept_and_only_the_rest_is_sent_again(start: Start, where: str) -> None:
    """Gemini says that an expired batch has no results; Vertex leaves what it has."""
    case = start(where, latency="1h", window=3600)
    case.job.run("run", code=8)
    for one in case.job.books.creates:
        case.provider.force(one["id"], status="expired")
    case.job.run("poll", "--wait", code=7)
    case.job.run("validate", code=7)
    assert set(case.job.status()["reasons"]) == {"expired"}
    balance = case.job.check_balance()
    assert balance["completed"] + balance["provider_error"] == 6
    assert len(case.job.books.rows) == balance["completed"]


@pytest.mark.parametrize("where", [slow("gemini"), "vertex gcs"])
def test_no_credit_stops_and_a_full_queue_waits(start: Start, where: str) -> None:
    case = start(where)
    case.provider.fault(case.create, "insufficient_quota", nth="every")
    case.job.run("run", code=10)
    assert case.job.check_balance()["queued"] == 6
    case.provider.clear_faults()
    case.provider.fault(case.create, "429", retry_after=0)
    case.job.until_done("run", "--wait", tries=4)
    case.finished()


@pytest.mark.parametrize("where", ["gemini", slow("vertex gcs")])
def test_a_queue_of_tokens_that_is_full_takes_the_chunks_one_after_the_other(start: Start, where: str) -> None:
    """The job fails for want of room after it was created: nothing ran, and it is sent again."""
    case = start(where, enqueued_token_limit=800, latency="300ms")
    case.job.until_done("run", "--wait")
    case.finished()
