"""What a provider may say about a batch, and what may be in its result files. The unknown is never a success."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import NewJob, NewProvider
from tests.faults.test_lost_answers import CREATE, finished
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

TRANSIENT = {"code": "invalid_request", "message": "Cannot find file", "line": None, "param": "file_id"}
BAD_LINE = {"code": "invalid_request", "message": "Invalid value", "line": 2, "param": "body.input"}
QUEUE_FULL = {"code": "token_limit_exceeded", "message": "Enqueued token limit", "line": None, "param": None}
NO_CREDIT = {"code": "billing_hard_limit_reached", "message": "Billing hard limit", "line": None, "param": None}


@pytest.fixture
def slow(new_provider: NewProvider) -> Provider:
    """A provider at which nothing ends before it is told to."""
    return new_provider(latency="1h")


@pytest.fixture
def sent(new_job: NewJob, slow: Provider) -> JobFolder:
    """Six rows in two batches that run."""
    job = new_job(slow, limits="chunk_rows = 3")
    job.run("run", code=8)
    assert len(job.books.creates) == 2
    return job


def end(job: JobFolder, status: str = "completed", *, but: str = "") -> None:
    """Every batch that has not ended ends with `status`."""
    assert job.provider is not None
    for one in job.books.creates:
        if one["id"] != but and one["status"] not in ("completed", "failed", "cancelled", "expired"):
            job.provider.force(one["id"], status=status)


def shown(job: JobFolder, number: int = 0) -> dict[str, Any]:
    """A batch as the provider shows it now."""
    assert job.provider is not None
    batch: dict[str, Any] = job.provider.ask("GET", f"/v1/batches/{job.books.creates[number]['id']}")
    return batch


def until_ended(job: JobFolder, *numbers: int) -> None:
    for number in numbers or range(len(job.books.creates)):
        until(lambda number=number: shown(job, number)["status"] in ("completed", "expired"))


def test_an_unknown_status_is_waited_for(sent: JobFolder, slow: Provider) -> None:
    first = sent.books.creates[0]["id"]
    slow.force(first, status="hibernating")
    done = sent.run("poll", code=8)
    assert "hibernating" in done.err
    assert sent.check_balance()["submitted"] == 6
    slow.force(first, status=None)
    end(sent)
    sent.run("run", "--wait", code=0)
    finished(sent)


def test_a_completed_batch_without_files_is_not_believed(sent: JobFolder, slow: Provider) -> None:
    end(sent)
    until_ended(sent)
    files = shown(sent)
    slow.force(files["id"], output_file_id=None, error_file_id=None)
    for _ in range(2):
        sent.run("run", code=10)
    balance = sent.check_balance()
    assert (balance["submitted"], balance["completed"]) == (3, 3)
    slow.force(files["id"], output_file_id=files["output_file_id"], error_file_id="")
    sent.run("run", "--wait", code=0)
    finished(sent)


def no_file(job: JobFolder, slow: Provider) -> None:
    slow.force(job.books.creates[0]["id"], output_file_id=None, error_file_id=None)


def no_content(job: JobFolder, slow: Provider) -> None:
    slow.fault(f"GET /v1/files/{shown(job)['output_file_id']}/content", "404", nth="every")


def no_batch(job: JobFolder, slow: Provider) -> None:
    slow.fault(f"GET /v1/batches/{job.books.creates[0]['id']}", "404", nth="every")


@pytest.mark.parametrize(
    ("harm", "said"),
    [(no_file, "names no result file"), (no_content, "has 1 of 1 result file no more"), (no_batch, "does not know")],
)
def test_answers_that_cannot_be_had_are_given_up_by_a_person(
    sent: JobFolder, slow: Provider, harm: Callable[[JobFolder, Provider], None], said: str
) -> None:
    """Without a word nothing moves. With it the rows are missing, and only they are sent again."""
    assert "still at work" in sent.run("resolve", "--chunk", "1", "--abandon", code=2).err
    end(sent)
    until_ended(sent)
    assert "its answers can be had" in sent.run("resolve", "--chunk", "1", "--abandon", code=2).err
    harm(sent, slow)
    sent.run("run", code=10)
    shows = sent.run("resolve", "--chunk", "1", code=3)
    assert said in shows.out
    sent.run("resolve", "--chunk", "1", "--not-sent", code=2)
    sent.run("resolve", "--chunk", "1", "--abandon", code=6, BATCHCTL_YES=None)
    balance = sent.check_balance()
    assert (balance["submitted"], balance["completed"]) == (3, 3)
    sent.run("resolve", "--chunk", "1", "--abandon", code=0)
    reasons = Counter(one["reason"] for one in sent.lines("results.jsonl"))
    assert reasons == {None: 3, "missing": 3}
    assert len(sent.books.creates) == 2
    sent.run("check", code=0)
    slow.clear_faults()
    sent.run("run", "--wait", code=3)
    assert len(sent.books.creates) == 2, "only a person sends them again: the batch may still run"
    sent.run("rerun", code=8)
    end(sent)
    sent.run("run", "--wait", code=0)
    assert {one["state"] for one in sent.check_results().values()} == {"completed"}
    assert sorted(sent.books.requests.values()) == [1, 1, 1, 2, 2, 2]


def test_what_is_there_of_answers_that_are_given_up_is_kept(sent: JobFolder, slow: Provider) -> None:
    """The file of errors was deleted: the answers beside it are not bought again."""
    end(sent)
    until_ended(sent)
    slow.force(sent.books.creates[0]["id"], error_file_id="file-gone")
    sent.run("run", code=10)
    assert "has 1 of 2 result files no more" in sent.run("resolve", "--chunk", "1", code=3).out
    sent.run("resolve", "--chunk", "1", "--abandon", code=0)
    finished(sent)


def test_answers_that_a_crash_left_here_are_not_given_up(sent: JobFolder, slow: Provider) -> None:
    end(sent)
    until_ended(sent)
    assert sent.run("poll", BATCHCTL_CRASH_AT="K14").killed
    no_content(sent, slow)
    sent.run("run", code=10)
    done = sent.run("resolve", "--chunk", "1", "--abandon", code=0)
    assert "every answer of chunk 1 was there" in done.out
    finished(sent)


@pytest.mark.parametrize("command", ["run", "poll"])
def test_wait_ends_when_a_completed_batch_never_names_its_files(
    new_job: NewJob, new_provider: NewProvider, command: str
) -> None:
    """Nothing else is under way: waiting longer would hide the problem. The other chunk's answers are collected first."""
    job = new_job(new_provider(latency="1h"), limits="chunk_rows = 3")
    assert job.provider is not None
    job.run("run", code=8)
    end(job)
    until_ended(job)
    job.provider.force(job.books.creates[0]["id"], output_file_id=None, error_file_id=None)
    done = job.run(command, "--wait", code=10)
    assert "names no result file" in done.err
    assert job.sql("SELECT state FROM chunk ORDER BY number")[0] == ("submitted",)
    assert job.sql("SELECT state FROM chunk ORDER BY number")[1][0] in ("fetched", "applied")


def test_the_other_batches_are_cancelled_when_one_is_not_known(sent: JobFolder, slow: Provider) -> None:
    first, second = (one["id"] for one in sent.books.creates)
    slow.fault(f"* /v1/batches/{first}*", "404", nth="every")
    assert "does not know batch" in sent.run("cancel", code=10).err
    until(lambda: shown(sent, 1)["status"] in ("cancelling", "cancelled"))
    assert second


def test_wait_ends_when_the_provider_does_not_know_the_batch(sent: JobFolder, slow: Provider) -> None:
    slow.fault("GET /v1/batches/*", "404", nth="every")
    sent.run("run", "--wait", code=10)
    assert sent.check_balance()["submitted"] == 6


def test_wait_outlasts_a_provider_that_is_away(sent: JobFolder, slow: Provider) -> None:
    end(sent)
    until_ended(sent)
    slow.fault("GET /v1/batches/*", "503", count=120)
    sent.run("run", "--wait", code=0)
    finished(sent)


def test_a_status_that_goes_backwards_is_not_a_reason_to_send(sent: JobFolder, slow: Provider) -> None:
    end(sent)
    until_ended(sent)
    assert sent.run("poll", BATCHCTL_CRASH_AT="K13").killed
    first = sent.books.creates[0]["id"]
    slow.force(first, status="in_progress")
    sent.run("run", code=8)
    assert sent.check_balance()["submitted"] == 3
    slow.force(first, status=None)
    sent.run("run", "--wait", code=0)
    finished(sent)


def test_a_batch_the_provider_does_not_know_any_more_is_not_sent_again(sent: JobFolder, slow: Provider) -> None:
    slow.fault("GET /v1/batches/*", "404", nth="every")
    sent.run("run", code=10)
    assert sent.check_balance()["submitted"] == 6
    slow.clear_faults()
    end(sent)
    sent.run("run", "--wait", code=0)
    finished(sent)


def test_a_revoked_key_stops_everything_and_loses_nothing(sent: JobFolder, slow: Provider) -> None:
    slow.fault("* /v1/*", "401", nth="every")
    for command in ("run", "poll", "cancel"):
        sent.run(command, code=4)
    assert sent.check_balance()["submitted"] == 6
    slow.clear_faults()
    end(sent)
    sent.run("run", "--wait", code=0)
    finished(sent)


def test_another_key_neither_polls_nor_adopts_nor_sends(new_job: NewJob, provider: Provider) -> None:
    """Another account does not list our batch; not found there would mean: send again."""
    job = new_job(provider, limits="chunk_rows = 3")
    provider.fault(CREATE, "drop-after")
    assert job.run("run", BATCHCTL_CRASH_AT="K7").killed
    done = job.run("run", code=4, OPENAI_API_KEY="sk-test-another")
    assert "another key" in done.err
    assert job.books.creates == []
    job.run("run", "--wait", code=0)
    finished(job)


def test_a_file_the_provider_lost_sight_of_is_uploaded_again(sent: JobFolder, slow: Provider) -> None:
    slow.force(sent.books.creates[0]["id"], status="failed", errors=[TRANSIENT])
    sent.run("poll", code=8)
    assert len(sent.books.creates) == 3
    end(sent)
    sent.run("run", "--wait", code=0)
    finished(sent)


def test_a_bad_line_takes_no_other_row_with_it(sent: JobFolder, slow: Provider) -> None:
    slow.force(sent.books.creates[0]["id"], status="failed", errors=[BAD_LINE])
    done = sent.run("run", code=10)
    assert "0001.jsonl:2" in done.err
    end(sent)
    sent.run("poll", "--wait", code=0)
    sent.run("validate", code=3)
    rows = sent.check_results()
    assert Counter(one["reason"] for one in rows.values()) == {None: 3, "provider": 3}
    sent.run("rerun")
    end(sent)
    sent.run("poll", "--wait", code=0)
    sent.run("validate", code=3)
    rows = sent.check_results()
    assert [one["id"] for one in rows.values() if one["state"] != "completed"] == ["R-001"]
    sent.check_money()
    assert sorted(sent.books.requests.values()) == [1] * 5
    sent.run("rerun", code=3)
    assert len(sent.books.creates) == 3, "the provider refused this very request: it is not sent again unchanged"


def test_a_full_queue_is_waited_for_and_the_window_narrows(sent: JobFolder, slow: Provider) -> None:
    slow.force(sent.books.creates[1]["id"], status="failed", errors=[QUEUE_FULL])
    sent.run("poll", code=10)
    for _ in range(2):
        sent.run("run", code=8)
    assert len(sent.books.creates) == 2, "one running batch is all the queue takes"
    end(sent)
    until_ended(sent, 0)
    sent.run("poll", code=8)
    end(sent)
    sent.run("run", "--wait", code=0)
    finished(sent)


def test_out_of_credit_in_validation_stops_and_goes_on_later(sent: JobFolder, slow: Provider) -> None:
    slow.force(sent.books.creates[0]["id"], status="failed", errors=[NO_CREDIT])
    sent.run("run", "--wait", code=10)
    assert sent.check_balance()["queued"] == 3
    sent.run("run", code=8)
    end(sent)
    sent.run("run", "--wait", code=0)
    finished(sent)


def test_answers_are_fetched_while_new_batches_are_refused(new_job: NewJob, provider: Provider) -> None:
    """Paid answers vanish after a time; a provider that takes nothing new must not keep them from being collected."""
    job = new_job(provider, limits="chunk_rows = 3\nin_flight = 1")
    job.run("prepare", code=0)
    job.run("submit", code=8)
    provider.fault(CREATE, "insufficient_quota", nth="every")
    for _ in range(2):
        job.run("run", code=10)
    balance = job.check_results() and job.check_balance()
    assert (balance["completed"], balance["queued"]) == (3, 3)
    provider.clear_faults()
    job.run("run", "--wait", code=0)
    finished(job)


def test_expired_rows_are_sent_again_and_the_others_are_not(sent: JobFolder, slow: Provider) -> None:
    slow.force(sent.books.creates[0]["id"], status="expired")
    end(sent, but=sent.books.creates[0]["id"])
    sent.run("poll", "--wait", code=7)
    sent.run("validate", code=7)
    assert Counter(one["reason"] for one in sent.check_results().values()) == {None: 3, "expired": 3}
    sent.run("rerun", "--only", "expired")
    end(sent)
    sent.run("run", "--wait", code=0)
    finished(sent)
    assert {one["attempt"] for one in sent.check_results().values()} == {1, 2}


def test_a_cancelled_run_keeps_what_was_done_and_sends_nothing_by_itself(sent: JobFolder, slow: Provider) -> None:
    slow.force(sent.books.creates[0]["id"], status="completed")
    until_ended(sent, 0)
    sent.run("cancel", "--wait", code=0)
    sent.run("validate", code=3)
    rows = sent.check_results()
    assert Counter(one["state"] for one in rows.values()) == {"completed": 3, "provider_error": 3}
    for _ in range(2):
        sent.run("run", "--wait", code=3)
    assert len(sent.books.creates) == 2
    sent.run("rerun")
    end(sent)
    sent.run("poll", "--wait", code=0)
    sent.run("validate", code=0)
    finished(sent)


def test_cancel_also_stops_what_waits_for_room(new_job: NewJob, slow: Provider) -> None:
    job = new_job(slow, limits="chunk_rows = 2\nin_flight = 1")
    job.run("run", code=8)
    job.run("cancel", "--wait")
    for command in ("run", "poll"):
        job.run(command)
    assert len(job.books.creates) == 1
    balance = job.check_balance()
    assert balance["queued"] == 4
    job.run("rerun")
    job.run("poll")
    assert [one["requests"] for one in job.books.creates if one["status"] != "cancelled"] in ([2], [0]), (
        "a rerun of the cancelled rows sent chunks that were cancelled before they were sent"
    )
    job.check_money()


# --- what may be in the result files --------------------------------------------------------------------------------

FINE = {"completed": 6}


@pytest.mark.parametrize(
    ("oddity", "states"),
    [
        ("stranger", FINE),
        ("null-id", FINE),
        ("no-final-newline", FINE),
        ("crlf", FINE),
        ("blank", FINE),
        ("u2028", FINE),
        ("cut-last", {"completed": 5, "review_required": 1}),  # twice
        ("both-files", {"completed": 5, "review_required": 1}),
    ],
)
def test_odd_result_files_put_no_answer_to_the_wrong_row(
    new_job: NewJob, new_provider: NewProvider, oddity: str, states: dict[str, int]
) -> None:
    job = new_job(new_provider(results=[oddity], reordered=1))
    job.run("run", "--wait", code=0 if states == FINE else 3)
    rows = job.check_results()
    assert Counter(one["state"] for one in rows.values()) == states
    job.check_money()
    made = len(job.books.creates)
    job.run("run", "--wait")
    assert len(job.books.creates) == made


def test_two_different_answers_for_one_row_go_to_a_person(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(conflict=1))
    job.run("run", "--wait", code=3)
    rows = job.check_results()
    assert {(one["state"], one["reason"]) for one in rows.values()} == {("review_required", "conflict")}
    job.run("rerun", code=3)
    assert len(job.books.creates) == 1
