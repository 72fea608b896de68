"""New attempts: only for rows that failed, each row in one place, nothing paid again that was answered."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

TWINS = [{"id": f"R-{number:03d}", "text": f"question {number // 2}"} for number in range(8)]


@pytest.fixture
def slow(new_provider: NewProvider) -> Provider:
    """A provider at which nothing ends before it is told to."""
    return new_provider(latency="1h")


def end(job: JobFolder, status: str) -> None:
    assert job.provider is not None
    for one in job.books.creates:
        if one["status"] not in ("completed", "failed", "cancelled", "expired"):
            job.provider.force(one["id"], status=status)


def test_copies_that_become_requests_of_their_own_keep_the_order_and_their_place(
    new_job: NewJob, slow: Provider
) -> None:
    """Rows with one text are paid once; under a prompt that tells them apart, each is asked, and each is there once."""
    job = new_job(slow, rows=TWINS, prompt="{{ text }}")
    job.run("run", code=8)
    assert job.books.creates[0]["input_file_id"]
    end(job, "expired")
    job.run("poll", "--wait", code=7)
    job.run("validate", code=7)
    assert job.check_balance()["copied"] == 4
    (job.path / "prompt.md").write_text("{{ id }}: {{ text }}")
    job.run("rerun", "--set", "retry.transient=0", code=8)
    end(job, "completed")
    job.run("rerun", "--wait", code=0)
    rows = job.check_results([row["id"] for row in TWINS])
    assert {one["state"] for one in rows.values()} == {"completed"}
    assert {one["copied_from"] for one in rows.values()} == {None}
    assert sorted(job.books.requests.values()) == [1] * 8


def test_copies_fail_and_come_back_together(new_job: NewJob, slow: Provider) -> None:
    job = new_job(slow, rows=TWINS, prompt="{{ text }}", limits="chunk_rows = 3")
    job.run("run", code=8)
    end(job, "expired")
    job.run("poll", "--wait", code=7)
    job.run("validate", code=7)
    assert len(job.lines("rerun.jsonl")) == 8
    job.run("rerun", code=8)
    end(job, "completed")
    job.run("rerun", "--wait", code=0)
    rows = job.check_results([row["id"] for row in TWINS])
    assert Counter(one["copied_from"] is None for one in rows.values()) == {True: 4, False: 4}
    assert sorted(job.books.requests.values()) == [1] * 4
    job.check_money()


def test_a_row_that_a_later_run_answered_is_not_sent_again_from_the_earlier_one(
    new_job: NewJob, slow: Provider
) -> None:
    """Success is absorbing over runs as well: the same row in two runs is still one row of the user's."""
    job = new_job(slow)
    job.run("run", code=8)
    end(job, "expired")
    job.run("poll", "--wait", code=7)
    job.run("validate", code=7)
    with (job.path / "rows.csv").open("a") as file:
        file.write("R-NEW,one more question\n")
    done = job.run("prepare", "--json", code=0)
    second = done.json["run"]
    assert second != job.run_id
    job.run("submit", code=8)
    books = slow.books(second)
    for one in books.creates:
        slow.force(one["id"], status="completed")
    job.run("poll", "--wait", code=0)
    job.run("validate", code=0)
    job.run("rerun", job.run_id)
    for one in job.books.creates:
        if one["status"] not in ("completed", "expired"):
            slow.force(one["id"], status="completed")
    job.run("poll", job.run_id, "--wait")
    assert max(slow.books().requests.values()) == 1, "a row was paid for after it had been answered"


def test_a_row_that_a_later_run_asks_is_not_asked_by_the_earlier_one_too(new_job: NewJob, slow: Provider) -> None:
    job = new_job(slow)
    job.run("run", code=8)
    end(job, "expired")
    job.run("poll", "--wait", code=7)
    job.run("validate", code=7)
    job.run("prepare", "--rows", str(job.directory / "rerun.jsonl"), code=0)
    job.run("submit", code=8)
    job.run("rerun", job.run_id)
    assert sum(one["requests"] for one in slow.books().creates if one["status"] == "validating") <= 6
    for one in slow.books().creates:
        if one["status"] != "expired":
            slow.force(one["id"], status="completed")
    job.run("poll", job.run_id, "--wait")
    job.run("poll", f"{job.name}-0002", "--wait")
    assert max(slow.books().requests.values()) == 1, "a row was asked for twice at once"


def test_paid_answers_of_a_dry_run_that_failed_are_kept(new_job: NewJob, new_provider: NewProvider) -> None:
    """The sample is asked several at once: what had been answered when one call was refused is not asked again."""
    provider = new_provider()
    job = new_job(provider, sample="rows = 6")
    job.run("prepare", code=0)
    provider.fault("POST /v1/responses", "401", nth=2)
    job.run("dry-run", code=4)
    asked = provider.books().live
    assert job.run("dry-run", "--json", code=0).json["calls"] == 6 - asked
    assert provider.books().live == 6
