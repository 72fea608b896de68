"""A vendor that keeps no mark with a batch and has no fence (Anthropic): lost creates and kills around them.

Whatever is lost or killed: a row is billed once or it waits, and it is sent again only when no batch can be it. A batch
is ours when its results answer our custom_ids, and never by its looks. The provider's books are the judge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

CREATE = "POST /v1/messages/batches"
LIST = "GET /v1/messages/batches"
RESULTS = "GET /v1/messages/batches/*/results"
MODEL = 'provider = "anthropic"\nname = "claude-haiku-4-5"'
HOLD = 'on_ambiguous = "hold"'

Make = Callable[..., JobFolder]


@pytest.fixture
def make(new_job: NewJob) -> Make:
    return lambda provider, **keys: new_job(provider, limits="chunk_rows = 3", model=MODEL, **keys)


@pytest.fixture
def job(make: Make, new_provider: NewProvider) -> JobFolder:
    return make(new_provider())


@pytest.fixture
def slow(make: Make, new_provider: NewProvider) -> JobFolder:
    """A job at a provider where nothing ends before it is told to."""
    return make(new_provider(latency="1h"))


def at(job: JobFolder) -> Provider:
    assert job.provider is not None
    return job.provider


def finished(job: JobFolder) -> None:
    """Done, answered and paid once: the state every test ends in."""
    job.check_money()
    rows = job.check_results([f"R-{number:03d}" for number in range(6)])
    assert {one["state"] for one in rows.values()} == {"completed"}, job.done[-1]
    assert sorted(job.books.requests.values()) == [1] * 6
    job.check_files()


def end_all(job: JobFolder) -> None:
    for one in job.books.creates:
        at(job).force(one["id"], status="completed")


def test_a_job_runs(job: JobFolder) -> None:
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == 2
    assert {one["wire"] for one in job.books.creates} == {"anthropic"}


@pytest.mark.parametrize("do", ["drop-after", "garbage", "no-id"])
def test_a_create_whose_answer_is_lost_is_proved_by_its_results(job: JobFolder, do: str) -> None:
    at(job).fault(CREATE, do)
    job.until_done("run", "--wait", tries=3)
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize("do", ["drop-before", "529"])
def test_a_create_that_did_not_act_is_sent_again_after_two_lists(job: JobFolder, do: str) -> None:
    at(job).fault(CREATE, do)
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == 2
    seen = [(one["method"], one["path"]) for one in at(job).calls()]
    first = seen.index(("POST", "/v1/messages/batches"))
    second = seen.index(("POST", "/v1/messages/batches"), first + 1)
    assert seen[first:second].count(("GET", "/v1/messages/batches")) >= 2


def test_chunks_of_one_size_that_are_lost_together_get_each_its_own(job: JobFolder) -> None:
    at(job).fault(CREATE, "drop-after", count=2)
    job.until_done("run", "--wait", tries=3)
    finished(job)
    assert len(job.books.creates) == 2


def test_a_batch_that_the_list_shows_late_is_adopted(job: JobFolder) -> None:
    at(job).fault(CREATE, "drop-after", hide=1)
    job.until_done("run", "--wait", tries=3)
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize(
    ("on", "do"), [(LIST, "garbage"), (LIST, "401"), (RESULTS, "garbage"), (RESULTS, "drop-before")]
)
def test_what_cannot_be_read_proves_nothing(job: JobFolder, on: str, do: str) -> None:
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT="K10").killed
    at(job).fault(on, do, nth="every")
    job.run("run", code=4 if do == "401" else 11)
    assert job.check_balance()["held"] == 3
    at(job).clear_faults()
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == 2


# --- killed between intent and receipt ------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["K5", "K6", "K7", "K10", "K11", "K10:2"])
def test_killed_at_every_point_of_sending(job: JobFolder, point: str) -> None:
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT=point).killed
    job.check_balance()
    job.check_money()
    job.until_done("run", "--wait", tries=3)
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.slow
@pytest.mark.parametrize("first", ["K7", "K10"])
@pytest.mark.parametrize("commit", ["before-commit", "after-commit"])
def test_killed_again_while_it_settles(job: JobFolder, first: str, commit: str) -> None:
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT=first).killed
    for number in (1, 2, 3):
        job.run("run", "--wait", BATCHCTL_CRASH_AT=f"{commit}:{number}")
        job.check_money()
    job.until_done("run", "--wait", tries=3)
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize("point", ["K7", "K10"])
def test_a_folder_that_was_moved_in_between_loses_nothing(job: JobFolder, point: str) -> None:
    """The chunk is the body of the create, so its path is asked for anew and never believed."""
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT=point).killed
    job.path = job.path.rename(job.path.with_name(f"{job.name}-moved"))
    job.until_done("run", "--wait", tries=3)
    finished(job)


# --- nobody can tell yet --------------------------------------------------------------------------------------------------


def test_while_the_batch_runs_its_rows_wait_and_the_other_chunks_go_on(slow: JobFolder) -> None:
    at(slow).fault(CREATE, "drop-after")
    done = slow.run("run", code=11)
    assert "its results will tell" in done.err
    balance = slow.check_balance()
    assert (balance["held"], balance["submitted"]) == (3, 3)
    for command in ("run", "poll", "submit"):
        slow.run(command, code=11)
    assert len(slow.books.creates) == 2
    shown = slow.run("resolve", "--json", code=11).json["open"][0]
    assert [one["proof"] for one in shown["candidates"]] == ["when ended"]
    end_all(slow)
    slow.run("run", "--wait", code=0)
    finished(slow)


def test_a_strangers_batch_of_our_size_is_never_adopted(slow: JobFolder) -> None:
    """A client that went by the count adopted a stranger's batch, and billed twice."""
    params = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "theirs"}]}
    theirs = [{"custom_id": f"row-{number}", "params": params} for number in range(3)]
    stranger = ask(at(slow), {"requests": theirs})
    at(slow).fault(CREATE, "drop-before")
    slow.run("run", code=11)
    slow.strangers.add(stranger)
    assert len(slow.books.creates) == 1, "chunk 1 waits, chunk 2 was sent"
    at(slow).force(stranger, status="completed")
    slow.run("run", code=8)
    assert len(slow.books.creates) == 2
    end_all(slow)
    slow.run("run", "--wait", code=0)
    known = slow.chunk_rows()
    assert sorted(one["custom_id"] for one in slow.books.rows) == sorted(known)
    assert {one["state"] for one in slow.check_results().values()} == {"completed"}


def ask(provider: Provider, body: Any) -> str:
    import anthropic

    with anthropic.Anthropic(api_key="sk-other", base_url=provider.url, max_retries=0) as client:
        return client.messages.batches.create(requests=body["requests"]).id


def test_results_that_are_gone_are_for_a_person(job: JobFolder) -> None:
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT="K10").killed
    (lost,) = (one["id"] for one in job.books.creates)
    at(job).force(lost, archived_at="2026-12-16T00:00:00Z")
    job.run("run", "--wait", code=11)
    assert job.check_balance()["held"] == 3
    made = len(job.books.creates)
    job.run("run", "--wait", code=11)
    assert len(job.books.creates) == made == 2
    job.run("resolve", "--abandon", code=0)
    job.run("validate", code=3)
    job.check_money()


# --- a person decides -----------------------------------------------------------------------------------------------------


def test_a_person_may_take_a_batch_that_is_not_proved_yet(slow: JobFolder) -> None:
    at(slow).fault(CREATE, "drop-after")
    slow.run("run", code=11)
    (lost,) = (one["batch_id"] for one in slow.run("resolve", "--json", code=11).json["open"][0]["candidates"])
    slow.run("resolve", "--adopt", lost, code=6, BATCHCTL_YES=None)
    slow.run("resolve", "--adopt", "msgbatch_of_nobody", code=2)
    slow.run("resolve", "--adopt", lost, code=0)
    end_all(slow)
    slow.run("run", "--wait", code=0)
    finished(slow)


def test_with_hold_a_create_that_acts_late_is_not_paid_twice(make: Make, new_provider: NewProvider) -> None:
    """Without a fence nothing stops a late create; with `hold` nothing is sent behind it either."""
    job = make(new_provider(), lane=HOLD)
    at(job).fault(CREATE, "late", seconds=1)
    job.run("run", "--wait", code=11)
    assert job.check_balance()["held"] == 3
    job.until_done("run", "--wait", tries=60)
    finished(job)
    assert len(job.books.creates) == 2


def test_declared_not_sent_it_is_sent_once(make: Make, new_provider: NewProvider) -> None:
    job = make(new_provider(), lane=HOLD)
    at(job).fault(CREATE, "drop-before")
    job.run("run", "--wait", code=11)
    job.run("resolve", "--not-sent", code=6, BATCHCTL_YES=None)
    job.run("resolve", "--not-sent", code=0)
    job.run("run", "--wait", code=0)
    finished(job)
