"""The background lane: created once, looked up until it ends, cancelled; a lost create is held, and says so."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from batchctl.emulator import billed_rows
from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

MODEL = 'provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 20000 }'
IDS = ["R-000", "R-001", "R-002"]
CREATE = "POST /v1/responses"


@pytest.fixture
def own(new_provider: NewProvider) -> Provider:
    return new_provider()


@pytest.fixture
def job(new_job: NewJob, own: Provider) -> JobFolder:
    return new_job(own, rows=3, model=MODEL, lane='prefer = "background"')


def creates(job: JobFolder) -> int:
    assert job.provider is not None
    return len([one for one in job.provider.calls("POST") if one["path"] == "/v1/responses"])


def billed(job: JobFolder) -> Counter[str]:
    assert job.provider is not None
    return Counter(one["digest"] for one in billed_rows(job.provider.state))


def test_a_few_long_tasks(job: JobFolder) -> None:
    job.run("run", "--wait", code=0)
    results = job.check_results(IDS)
    assert {one["state"] for one in results.values()} == {"completed"}
    assert creates(job) == len(billed(job)) == 3
    assert Decimal(job.status()["cost"]["usd_live"]) == job.books.live_usd > 0
    job.run("run", code=0)
    assert creates(job) == 3


def test_they_are_looked_up_until_they_end_and_can_be_cancelled(new_job: NewJob, new_provider: NewProvider) -> None:
    slow = new_provider(latency=100_000)
    job = new_job(slow, rows=3, model=MODEL, lane='prefer = "background"')
    for _ in range(2):
        job.run("run", code=8)
    job.run("poll", code=8)
    assert creates(job) == 3
    assert job.check_balance()["submitted"] == 3
    job.run("cancel", code=0)
    job.run("validate", code=3)
    assert {one["detail"] for one in job.check_results(IDS).values()} == {"the response was cancelled"}
    assert Decimal(job.status()["cost"]["usd"]) == job.books.live_usd == 0


def test_a_lost_create_is_held(job: JobFolder, own: Provider) -> None:
    own.fault(CREATE, "drop-after", nth=2)
    done = job.run("run", "--wait", code=11)
    assert "held" in done.err
    for command in (["run", "--wait"], ["poll"], ["rerun"], ["submit"]):
        job.run(*command, code=(0, 3, 11))
    assert creates(job) == 3
    assert Counter(one["state"] for one in job.check_results(IDS).values()) == {"completed": 2, "held": 1}
    cost = job.status()["cost"]
    assert Decimal(cost["usd"]) < job.books.live_usd <= Decimal(cost["usd_at_most"])
    job.run("resolve", "--abandon", code=0)
    job.run("rerun", "--wait", code=0)
    assert creates(job) == 4


@pytest.mark.parametrize("point", ["B2", *(pytest.param(one, marks=pytest.mark.slow) for one in ("B1", "B3", "L3"))])
def test_a_kill_creates_none_twice(point: str, job: JobFolder) -> None:
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT=point).killed
    job.run("run", "--wait", code=(0, 11))
    assert set(billed(job).values()) == {1}
    held = sum(one["state"] == "held" for one in job.check_results(IDS).values())
    assert held == (point in ("B1", "B2"))
    assert creates(job) == 3 - (point == "B1")


def test_one_cent_below_the_next_create_sends_nothing_more(job: JobFolder) -> None:
    for _ in range(2):
        job.run("run", "--wait", "--set", "limits.budget=0.09 USD", code=6)
        assert creates(job) == 0
    job.run("run", "--wait", "--set", "limits.budget=0.1 USD", code=0)  # one after the other: each cost little
    assert creates(job) == 3


def test_only_responses_run_in_background(new_job: NewJob, provider: Provider) -> None:
    chat = MODEL + '\nendpoint = "/v1/chat/completions"'
    job = new_job(provider, rows=3, model=chat, lane='prefer = "background"')
    assert "no background mode" in job.run("run", code=2).err
    claude = 'provider = "anthropic"\nname = "claude-haiku-4-5"\nparams = { max_tokens = 100 }'
    job = new_job(provider, rows=3, model=claude, lane='prefer = "background"')
    assert "no background mode" in job.run("run", code=2).err


def test_auto_takes_it_for_a_few_long_rows(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, rows=3, model=MODEL, lane='prefer = "auto"')
    assert "lane: background; 3 rows of up to 20,000 output tokens" in job.run("run", "--wait", code=0).err
