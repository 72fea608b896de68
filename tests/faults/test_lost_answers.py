"""Answers that are lost, late, wrong or doubled, on every call. The provider's books are the judge, not our ledger.

Each fault strikes the real command line over HTTP. Whatever it does, and however often the command is run again, every
row is billed exactly once, is answered, and is in one place.
"""

from __future__ import annotations

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

CREATE = "POST /v1/batches"
LIST = "GET /v1/batches"
POLL = "GET /v1/batches/*"
UPLOAD = "POST /v1/files"
FILE = "GET /v1/files/*"
CONTENT = "GET /v1/files/*/content"

ACTED = ["drop-after", "500-after", "503-after", "garbage", "no-id", "empty", "truncate", "truncate-clean"]
NOT_ACTED = ["drop-before", "500", "502", "503", "504", "529", "408", "409", "redirect"]
REFUSED = {"400": 10, "401": 4, "403": 4, "404": 10, "413": 10, "429": 10, "insufficient_quota": 10}


def finished(job: JobFolder, *, batches: int = 2) -> None:
    """Done, answered and paid once: the state every test ends in."""
    job.check_money()
    rows = job.check_results()
    assert {one["state"] for one in rows.values()} == {"completed"}, job.done[-1]
    assert len(rows) == 6
    books = job.books
    assert sorted(books.requests.values()) == [1] * 6
    assert len([one for one in books.creates if one["rows_billed"]]) == batches


def creates(provider: Provider) -> int:
    return len(provider.calls("POST", "/v1/batches"))


# --- the create: the one call that spends ---------------------------------------------------------------------------


@pytest.mark.parametrize("do", ACTED)
def test_a_create_whose_answer_is_lost_is_found_and_not_repeated(job: JobFolder, provider: Provider, do: str) -> None:
    before = creates(provider)
    provider.fault(CREATE, do)
    job.run("run", "--wait", code=0)
    finished(job)
    assert creates(provider) - before == 2
    assert len(job.books.creates) == 2


@pytest.mark.parametrize("do", NOT_ACTED)
def test_a_create_that_did_not_act_is_sent_again_only_behind_a_fence(
    job: JobFolder, provider: Provider, do: str
) -> None:
    before, deleted = creates(provider), len(provider.calls("DELETE", "/v1/files"))
    provider.fault(CREATE, do)
    job.run("run", "--wait", code=0)
    finished(job)
    assert creates(provider) - before == 3
    assert len(provider.calls("DELETE", "/v1/files")) - deleted == 1
    assert len(job.books.creates) == 2


@pytest.mark.parametrize("hide", [1, 2])
def test_a_batch_that_the_list_shows_late_is_adopted(job: JobFolder, provider: Provider, hide: int) -> None:
    provider.fault(CREATE, "drop-after", hide=hide)
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == 2


def test_a_create_that_arrives_after_it_was_given_up_finds_its_input_gone(job: JobFolder, provider: Provider) -> None:
    provider.fault(CREATE, "late", seconds=1.5)
    job.run("run", "--wait", code=0)
    until(lambda: all(one["status"] in ("completed", "failed") for one in job.books.creates))
    finished(job)
    late = [one for one in job.books.creates if one["status"] != "completed"]
    assert len(job.books.creates) == 3
    assert [one["rows_billed"] for one in late] == [0]


def test_every_create_is_lost_again_and_again(job: JobFolder, provider: Provider) -> None:
    provider.fault(CREATE, "drop-before", count=3)
    provider.fault(CREATE, "drop-after", nth=4, count=2)
    job.until_done("run", "--wait")
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize(("do", "code"), REFUSED.items())
def test_a_refused_create_costs_nothing_and_is_sent_when_the_cause_is_gone(
    job: JobFolder, provider: Provider, do: str, code: int
) -> None:
    provider.fault(CREATE, do, nth="every")
    job.run("run", code=code)
    assert job.check_balance()["queued"] == 6
    assert job.books.creates == []
    provider.clear_faults()
    job.run("run", "--wait", code=0)
    finished(job)


def test_a_create_that_was_lost_is_said_to_be_lost(job: JobFolder, provider: Provider) -> None:
    """`submit` may not call a chunk sent, nor the run done, when its create never acted."""
    job.run("prepare", code=0)
    provider.fault(CREATE, "drop-before", nth="every")
    done = job.run("submit", "--json", code=8)
    assert done.json["sent"] == []
    assert job.check_balance()["queued"] == 6
    provider.clear_faults()
    job.run("run", "--wait", code=0)
    finished(job)


# --- looking for it: an answer that is no list proves nothing ---------------------------------------------------------


@pytest.mark.parametrize(
    "do", ["garbage", "empty", "truncate", "truncate-clean", "500", "drop-before", "404", "429", "401"]
)
def test_a_list_that_cannot_be_read_is_no_proof_of_absence(job: JobFolder, provider: Provider, do: str) -> None:
    provider.fault(CREATE, "drop-after")
    provider.fault(LIST, do, nth="every")
    done = job.run("run", code=4 if do == "401" else 11)
    assert job.check_balance()["held"] == 3
    assert [one["metadata"]["batchctl_chunk"] for one in job.books.creates].count("1") == 1, done
    provider.clear_faults()
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == 2


def test_a_batch_on_a_later_page_is_found(job: JobFolder, provider: Provider) -> None:
    job.run("run", BATCHCTL_CRASH_AT="K10")
    stranger = {"input_file_id": "file-x", "endpoint": "/v1/responses", "completion_window": "24h"}
    for _ in range(101):
        provider.ask("POST", "/v1/batches", stranger)
    job.run("run", "--wait", code=0)
    finished(job)


@pytest.fixture
def doubled(new_job: NewJob, new_provider: NewProvider) -> tuple[JobFolder, str, str]:
    """A job that was killed between create and receipt, and a middlebox that repeated the create. Ids, older first."""
    provider = new_provider(latency="1h")  # nothing ends before it is told to
    job = new_job(provider, limits="chunk_rows = 3")
    assert job.run("run", BATCHCTL_CRASH_AT="K10").killed
    first = job.books.creates[0]
    body = {name: first[name] for name in ("input_file_id", "endpoint", "metadata")}
    second = provider.ask("POST", "/v1/batches", {**body, "completion_window": "24h"})
    older, newer = sorted((first, second), key=lambda one: (one["created_at"], one["id"]))
    return job, older["id"], newer["id"]


@pytest.mark.parametrize("point", ["", "before-commit:1", "after-commit:1", "before-commit:2", "after-commit:2"])
def test_of_two_batches_with_our_mark_the_older_is_adopted_and_the_other_cancelled(
    doubled: tuple[JobFolder, str, str], point: str
) -> None:
    """Also when adopting is killed anywhere: the second one would run, and be paid, without anybody knowing."""
    job, older, newer = doubled
    assert job.provider is not None
    if point:
        assert job.run("poll", BATCHCTL_CRASH_AT=point).killed
    done = job.run("poll", code=8)
    assert newer in done.err or newer in job.done[-2].err
    for one in job.books.creates:
        if one["id"] != newer:
            job.provider.force(one["id"], status="completed")
    job.run("poll", "--wait", code=0)
    job.run("validate", code=0)
    statuses = {one["id"]: (one["status"], one["rows_billed"]) for one in job.books.creates}
    assert statuses[newer] == ("cancelled", 0)
    assert statuses[older] == ("completed", 3)
    finished(job)


# --- calls that cost nothing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "do", ["drop-before", "drop-after", "500", "500-after", "garbage", "no-id", "empty", "truncate", "429"]
)
def test_a_lost_upload_is_repeated_and_one_batch_is_made_of_it(job: JobFolder, provider: Provider, do: str) -> None:
    provider.fault(UPLOAD, do)
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize(
    "do", ["drop-before", "500", "404", "garbage", "empty", "truncate", "truncate-clean", "redirect", "429"]
)
def test_a_lost_poll_changes_nothing(job: JobFolder, provider: Provider, do: str) -> None:
    provider.fault(POLL, do, count=2)
    job.until_done("run", "--wait")
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize(
    "do", ["drop-before", "500", "404", "garbage", "empty", "truncate", "truncate-clean", "redirect", "429"]
)
@pytest.mark.parametrize("on", [CONTENT, FILE])
def test_a_download_that_is_cut_lost_or_something_else_loses_no_answer(
    job: JobFolder, provider: Provider, on: str, do: str
) -> None:
    """`FILE` strikes the question for the size as well as the content, as a captive portal would."""
    provider.fault(on, do, count=3)
    job.until_done("run", "--wait")
    finished(job)
    assert len(job.books.creates) == 2
