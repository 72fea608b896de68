"""The provider's queue: its limit is learnt from refusals, which burn no attempt and say what is queued and needed."""

from __future__ import annotations

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import until

QUEUE_FULL = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached. Limit: 1,000 enqueued tokens."}


def window(job: JobFolder) -> int:
    return int(job.sql("SELECT value FROM meta WHERE key = 'window:openai'")[0][0])


def test_refusals_narrow_the_window_and_every_chunk_gets_through(new_job: NewJob, new_provider: NewProvider) -> None:
    provider = new_provider(enqueued_token_limit=1000, latency=0.3)
    job = new_job(provider, rows=18, limits="chunk_rows = 3")
    done = job.run("run", "--wait", code=(0, 10))
    assert "queue" in done.err + done.out or done.code == 0
    job.run("run", "--wait", code=0)
    assert {one["attempt"] for one in job.check_results().values()} == {1}
    job.check_money()
    assert {one["status"] for one in job.books.creates} == {"completed", "failed"}
    assert window(job) < 8


def test_the_window_is_halved_and_grows_by_one_for_each_batch_that_ends(
    new_job: NewJob, new_provider: NewProvider
) -> None:
    slow = new_provider(latency="1h")
    job = new_job(slow, rows=18, limits="chunk_rows = 3")
    job.run("run", code=8)
    sent = [one["id"] for one in job.books.creates]
    slow.force(sent[5], status="failed", errors=[QUEUE_FULL])
    job.run("poll", code=10)
    assert window(job) == 3, "half of the six that were there"
    for number, (expected, creates) in enumerate([(4, 6), (5, 7)]):
        slow.force(sent[number], status="completed")
        job.run("poll", code=8)
        assert (window(job), len(job.books.creates)) == (expected, creates)
    assert job.sql("SELECT DISTINCT attempt FROM chunk") == [(1,)]
    assert job.check_balance()["submitted"] == 18


def test_a_refusal_says_limit_queued_and_needed(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(enqueued_token_limit=1000, latency=5), rows=18, limits="chunk_rows = 3")
    job.run("run", code=(8, 10))
    refused = until(lambda: (done := job.run("poll", code=(8, 10))).code == 10 and done)
    assert "Limit: 1,000 enqueued tokens" in refused.err
    assert "this chunk needs about " in refused.err
    assert "of this workspace hold about " in refused.err
    assert {one["attempt"] for one in job.lines("results.jsonl")} == {1}


def test_a_chunk_that_never_fits_is_told_so(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(enqueued_token_limit=50), rows=6)
    done = job.run("run", "--wait", code=10)
    assert "the chunk alone may be too large for the queue" in done.err
    assert job.check_balance()["queued"] + job.check_balance()["submitted"] == 6
