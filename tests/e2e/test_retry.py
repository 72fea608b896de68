"""What is sent again by itself, how often, and who is asked when it does not help."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider


@pytest.fixture
def slow(new_provider: NewProvider) -> Provider:
    """A provider at which nothing ends before it is told to."""
    return new_provider(latency="1h")


def end(job: JobFolder, status: str) -> None:
    assert job.provider is not None
    for one in job.books.creates:
        if one["status"] not in ("completed", "failed", "cancelled", "expired"):
            job.provider.force(one["id"], status=status)


def test_run_sends_expired_rows_again_until_the_cap_and_then_asks_a_person(new_job: NewJob, slow: Provider) -> None:
    job = new_job(slow, retry="transient = 2")
    job.run("run", code=8)
    for attempt in (1, 2, 3):
        assert len(job.books.creates) == attempt
        end(job, "expired")
        done = job.run("run", code=8 if attempt < 3 else 3)
        assert ("New attempt for 6 rows" in done.err) == (attempt < 3)
    rows = job.check_results()
    assert {(one["state"], one["reason"], one["attempt"]) for one in rows.values()} == {
        ("review_required", "expired", 3)
    }
    assert "3 attempts without an answer" in rows["R-000"]["detail"]
    job.run("run", code=3)
    job.run("rerun", code=3)
    assert len(job.books.creates) == 3, "a cap leads to a person, never to a loop"
    assert job.lines("rerun.jsonl") == []
    job.run("rerun", "--only", "expired", code=8)
    end(job, "completed")
    job.run("run", "--wait", code=0)
    job.check_money()
    job.check_results()


def test_a_row_that_is_missing_twice_waits_for_a_person(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(results=["cut-last"]))
    job.run("run", "--wait", code=3)
    rows = job.check_results()
    waiting = [one for one in rows.values() if one["state"] != "completed"]
    assert [(one["state"], one["reason"], one["attempt"]) for one in waiting] == [("review_required", "missing", 2)]
    assert "missing 2 times" in waiting[0]["detail"]
    assert len(job.books.creates) == 2


def test_nothing_is_sent_again_without_a_word(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(error500=1.0))
    job.run("prepare", code=0)
    job.run("submit", code=8)
    job.run("poll", "--wait", code=0)
    done = job.run("run", "--no-input", BATCHCTL_YES=None, code=3)
    assert "6 failed rows may be sent again by [retry]; it needs your word (--yes)" in done.err
    assert len(job.books.creates) == 1


def test_what_a_person_gave_up_is_not_sent_again_by_itself(new_job: NewJob, new_provider: NewProvider) -> None:
    provider = new_provider(latency="1h")
    job = new_job(provider, lane='on_ambiguous = "hold"')
    job.run("prepare", code=0)
    provider.fault("POST /v1/batches", "drop-before")
    job.run("submit", code=11)
    job.run("resolve", "--abandon", code=(0, 3, 8))
    job.run("run", code=3)
    assert job.books.creates == []
    job.run("rerun", code=8)
    assert len(job.books.creates) == 1


def test_truncated_answers_go_again_once_with_more_room(new_job: NewJob, new_provider: NewProvider) -> None:
    provider = new_provider(truncated=1.0)
    job = new_job(
        provider,
        retry="truncated = { attempts = 1, set = { max_output_tokens = 600 } }",
        model='provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 200 }',
    )
    job.run("run", "--wait", code=3)
    caps = [json.loads(line)["body"]["max_output_tokens"] for line in sent(job)]
    assert Counter(caps) == {200: 6, 600: 6}
    rows = job.check_results()
    assert {(one["state"], one["reason"]) for one in rows.values()} == {("review_required", "truncated")}
    assert "2 paid answers" in rows["R-000"]["detail"]
    job.run("rerun", "--same-prompt", code=3)
    assert len(job.books.creates) == 2


def sent(job: JobFolder) -> list[str]:
    chunks = sorted((job.directory / "chunks").glob("*.jsonl"))
    return [line for chunk in chunks for line in chunk.read_text().splitlines()]


@pytest.mark.parametrize("allowed", [0, 1])
def test_unusable_answers_go_again_by_themselves_only_if_allowed_and_after_a_change(
    new_job: NewJob, new_provider: NewProvider, allowed: int
) -> None:
    job = new_job(new_provider(schema=1.0, latency="1h"), retry=f"invalid = {allowed}")
    job.run("run", code=8)
    (job.path / "prompt.md").write_text("Better: {{ id }} {{ text }}")
    end(job, "completed")
    job.run("run", code=8 if allowed else 3)
    assert len(job.books.creates) == 1 + allowed
    if not allowed:
        job.run("rerun", code=8)
    end(job, "completed")
    job.run("poll", "--wait", code=0)
    job.run("validate", code=3)
    rows = job.check_results()
    assert {(one["state"], one["attempt"]) for one in rows.values()} == {("review_required", 2)}
    job.run("rerun", "--same-prompt", code=3)
    assert len(job.books.creates) == 2, "two paid answers are the most"
    job.check_money()


def test_unusable_answers_wait_for_a_change(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(schema=1.0), retry="invalid = 3")
    job.run("run", "--wait", code=3)
    job.run("run", "--wait", code=3)
    job.run("rerun", code=3)
    assert len(job.books.creates) == 1, "the same request would fail again"
    job.run("rerun", "--same-prompt", "--wait", code=3)
    assert {one["state"] for one in job.check_results().values()} == {"invalid_output"}, "[retry] allows it more"


def test_refusals_go_again_only_if_allowed(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(refused=1.0), retry="refused = 1")
    job.run("run", "--wait", code=3)
    rows: dict[str, Any] = job.check_results()
    assert {(one["state"], one["reason"], one["attempt"]) for one in rows.values()} == {
        ("review_required", "refused", 2)
    }
    assert len(job.books.creates) == 2


def test_what_is_fine_by_the_rules_of_now_is_not_sent_again(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, more='\n[[rules]]\nname = "never"\ncheck = "false"\n')
    job.run("run", "--wait", code=3)
    text = (job.path / "job.toml").read_text()
    (job.path / "job.toml").write_text(text.partition("\n[[rules]]")[0])
    job.run("rerun", "--same-prompt", code=0)
    assert len(job.books.creates) == 1
    job.check_results()
