"""`on_ambiguous = "hold"`: a create whose answer was lost waits for a person, who sees the evidence and decides."""

from __future__ import annotations

import pytest

from tests.conftest import NewJob, NewProvider
from tests.faults.test_lost_answers import CREATE, finished
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

HOLD = 'on_ambiguous = "hold"'


@pytest.fixture
def job(new_job: NewJob, provider: Provider) -> JobFolder:
    return new_job(provider, limits="chunk_rows = 3", lane=HOLD)


def held(job: JobFolder, do: str, **more: int) -> None:
    """Chunk 1 is held, chunk 2 is done."""
    assert job.provider is not None
    job.provider.fault(CREATE, do, **more)
    done = job.run("run", "--wait", code=11)
    assert "resolve" in done.err
    balance = job.check_balance()
    assert (balance["held"], balance["completed"]) == (3, 3)
    assert job.run("status").code == 11


def test_an_absent_batch_is_held_and_nothing_is_done_about_it(job: JobFolder, provider: Provider) -> None:
    held(job, "drop-before")
    made, deleted = len(job.books.creates), len(provider.calls("DELETE", "/v1/files"))
    for command in ("run", "poll", "submit"):
        job.run(command, code=11)
    assert len(job.books.creates) == made == 1
    assert len(provider.calls("DELETE", "/v1/files")) == deleted


def test_a_batch_that_carries_our_mark_needs_no_person(job: JobFolder, provider: Provider) -> None:
    provider.fault(CREATE, "drop-after")
    job.run("run", "--wait", code=0)
    finished(job)


def test_a_held_batch_that_turns_up_in_the_list_is_adopted(job: JobFolder) -> None:
    held(job, "drop-after", hide=2)
    job.run("run", "--wait", code=0)
    finished(job)


def test_the_evidence_names_the_batch_and_only_that_batch_can_be_adopted(job: JobFolder) -> None:
    held(job, "drop-after", hide=3)
    hidden = job.run("resolve", "--json", code=11).json["open"][0]
    assert hidden["candidates"] == []
    assert (hidden["chunk"], hidden["requests"]) == (1, 3)
    lost, other = (one["id"] for one in job.books.creates)
    assert job.run("resolve", "--adopt", other, code=2)
    shown = job.run("resolve", "--json", code=11).json["open"][0]
    assert [one["batch_id"] for one in shown["candidates"]] == [lost]
    assert job.run("resolve", "--not-sent", code=2), "the provider has it: it was sent"
    assert job.run("resolve", "--adopt", "batch_of_someone_else", code=2)
    job.run("resolve", "--adopt", lost, code=0)
    job.run("run", "--wait", code=0)
    finished(job)


def test_not_sent_needs_a_word_and_sends_once(job: JobFolder, provider: Provider) -> None:
    held(job, "drop-before")
    job.run("resolve", "--not-sent", code=6, BATCHCTL_YES=None)
    assert job.check_balance()["held"] == 3
    job.run("resolve", "--not-sent", code=0)
    assert job.check_balance()["queued"] == 3
    job.run("run", "--wait", code=0)
    finished(job)


def test_a_create_that_arrives_after_a_person_said_not_sent_runs_nothing(job: JobFolder) -> None:
    assert job.provider is not None
    job.provider.fault(CREATE, "late", seconds=3)
    job.run("run", code=11)
    job.run("resolve", "--not-sent")
    job.run("run", "--wait", code=0)
    until(lambda: all(one["status"] in ("completed", "failed") for one in job.books.creates))
    finished(job)
    assert len(job.books.creates) == 3


def test_an_abandoned_batch_leaves_its_rows_in_the_rerun_file(job: JobFolder) -> None:
    held(job, "drop-before")
    job.run("resolve", "--abandon", code=6, BATCHCTL_YES=None)
    job.run("resolve", "--abandon", code=0)
    job.run("validate", code=3)
    rows = job.check_results()
    assert [one["reason"] for one in rows.values()] == ["missing"] * 3 + [None] * 3
    made = len(job.books.creates)
    job.run("run", "--wait", code=3)
    assert len(job.books.creates) == made, "given up is not sent again by itself"
    job.run("rerun", "--wait", code=0)
    finished(job)


def test_a_held_chunk_that_takes_all_the_room_does_not_keep_wait_waiting(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits="chunk_rows = 3\nin_flight = 1", lane=HOLD)
    provider.fault(CREATE, "drop-before")
    job.run("run", "--wait", code=11)
    assert job.check_balance()["queued"] == 3
    job.run("resolve", "--not-sent", code=0)
    job.run("run", "--wait", code=0)
    finished(job)


def test_resolve_asks_which_of_two_is_meant(job: JobFolder, provider: Provider) -> None:
    provider.fault(CREATE, "drop-before", count=2)
    job.run("run", code=11)
    assert len(job.run("resolve", "--json", code=11).json["open"]) == 2
    job.run("resolve", "--not-sent", code=2)
    job.run("resolve", "--chunk", "2", "--not-sent", code=11)
    job.run("resolve", "--chunk", "2", "--not-sent", code=2)
    job.run("resolve", "--chunk", "1", "--not-sent", code=0)
    job.run("run", "--wait", code=0)
    finished(job)


def test_resolve_with_the_provider_away_leaves_the_decision_to_the_person(
    new_job: NewJob, new_provider: NewProvider
) -> None:
    provider = new_provider()
    job = new_job(provider, limits="chunk_rows = 3", lane=HOLD)
    provider.fault(CREATE, "drop-before", count=2)
    job.run("run", code=11)
    provider.fault("* /v1/*", "503", nth="every")
    shown = job.run("resolve", "--json", code=11).json["open"][0]
    assert shown["candidates"] is None
    job.run("resolve", "--chunk", "1", "--not-sent", code=11)
    provider.clear_faults()
    job.run("resolve", "--chunk", "2", "--not-sent", code=0)
    job.run("run", "--wait", code=0)
    finished(job)
