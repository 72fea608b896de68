"""`[limits] budget`: nothing is sent that could break it, over attempts, dry runs and restarts."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from pathlib import Path

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

MODEL = 'provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 64 }'
PICOS = 10**12


def bounds(job: JobFolder) -> list[Decimal]:
    """What each chunk could have cost at most, as it was recorded before it was sent."""
    return [Decimal(one) / PICOS for (one,) in job.sql("SELECT bound FROM chunk ORDER BY number")]


def budget(amount: Decimal) -> tuple[str, str]:
    return "--set", f"limits.budget={amount.quantize(Decimal('0.000001'), ROUND_CEILING)} USD"


@pytest.fixture
def measured(new_job: NewJob, provider: Provider) -> list[Decimal]:
    """The bounds of a job's three chunks, from the same job without a budget."""
    job = new_job(provider, rows=9, limits="chunk_rows = 3", model=MODEL)
    job.run("run", "--wait", code=0)
    assert [one for one in bounds(job) if one <= 0] == []
    return bounds(job)


@pytest.fixture
def job(new_job: NewJob, provider: Provider) -> JobFolder:
    return new_job(provider, rows=9, limits="chunk_rows = 3", model=MODEL)


def test_one_cent_below_the_first_chunk_nothing_is_sent(job: JobFolder, measured: list[Decimal]) -> None:
    for _ in range(2):
        done = job.run("run", "--wait", *budget(measured[0] - Decimal("0.000001")), code=6)
        assert "the budget has no room for chunk 1" in done.err
        assert job.books.creates == []
    assert "raise it with --budget 0.0" in done.err
    done = job.run("run", "--wait", "--json", *budget(measured[0] - Decimal("0.000001")), code=6)
    assert done.json["error"]["code"] == "budget"
    job.run("run", "--wait", *budget(measured[0]), code=6)
    assert len(job.books.creates) == 1


def test_below_the_next_chunk_nothing_more_is_sent_whatever_is_tried(job: JobFolder, measured: list[Decimal]) -> None:
    job.run("prepare", code=0)
    job.run("submit", "--max-batches", "1", code=8)
    job.run("poll", "--wait", *budget(measured[0]), code=6)
    spent = job.books.usd
    assert spent < measured[0]
    assert Decimal(job.status()["cost"]["usd"]) == spent
    short = budget(spent + measured[1] - Decimal("0.000001"))
    for command in (["submit"], ["poll"], ["run"], ["run", "--wait"], ["rerun"]):
        job.run(*command, *short, code=(0, 6, 8))
        assert len(job.books.creates) == 1
    job.run("poll", *budget(spent + measured[1] + Decimal("0.000001")), code=(6, 8))
    assert len(job.books.creates) == 2
    job.check_balance()


def test_what_came_back_cheaper_makes_room_for_the_rest(job: JobFolder, measured: list[Decimal]) -> None:
    job.run("run", "--wait", *budget(measured[0] * Decimal("1.9")), code=0)
    assert len(job.books.creates) == 3
    assert job.books.usd < measured[0] * Decimal("1.9")


@pytest.mark.parametrize("point", ["K4", "K7", "K10", "K11", "K14", "K15"])
def test_a_kill_does_not_widen_the_budget(point: str, job: JobFolder, measured: list[Decimal]) -> None:
    limit = budget(measured[0])
    job.run("run", "--wait", *limit, BATCHCTL_CRASH_AT=point)
    for _ in range(3):
        job.run("run", "--wait", *limit, code=(6, 8, 11))
    assert job.books.usd <= measured[0]
    assert Decimal(job.status()["cost"]["usd"]) == job.books.usd
    job.check_money()


def test_dry_runs_count_even_those_of_a_run_that_was_replaced(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(), rows=9, model=MODEL, sample='rows = 5\nmin_valid = "0%"')
    job.run("prepare", code=0)
    done = job.run("dry-run", *budget(Decimal("0.0001")), code=6)
    assert "a dry run of 5 calls" in done.err
    assert job.books.live == 0
    job.run("dry-run", code=0)
    first = job.books.live_usd
    (job.path / "prompt.md").write_text("Another {{ id }}: {{ text }}")
    job.run("prepare", code=0)
    cost = job.status()["cost"]
    assert Decimal(cost["usd"]) == Decimal(cost["usd_dry_runs"]) == first > 0
    job.run("dry-run", *budget(first), code=6)
    assert job.books.live_usd == first


def test_reruns_count(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(**{"500": 1.0}), rows=3, model=MODEL)
    for command, code in ((["prepare"], 0), (["submit"], 8), (["poll", "--wait"], 0), (["validate"], 3)):
        job.run(*command, code=code)  # step by step: `run` would send them again by itself
    done = job.run("rerun", "--wait", *budget(Decimal("0.0001")), code=6)
    assert "the budget has no room for chunk 2" in done.err
    assert len(job.books.creates) == 1
    job.run("rerun", "--wait", *budget(Decimal("1")), code=3)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ('provider = "openai"\nname = "gpt-of-next-year"\nparams = { max_output_tokens = 64 }', "price_unknown"),
        ('provider = "openai"\nname = "gpt-5.4-mini"', "no_bound"),
    ],
)
def test_what_cannot_be_bounded_is_not_sent_under_a_budget(
    model: str, code: str, new_job: NewJob, provider: Provider
) -> None:
    job = new_job(provider, model=model, limits='budget = "100 USD"')
    done = job.run("run", "--wait", "--json", code=6)
    assert done.json["error"]["code"] == code
    assert job.books.creates == []


def test_no_chunk_has_cost_more_than_its_bound(new_job: NewJob, new_provider: NewProvider, tmp_path: Path) -> None:
    for number, faults in enumerate(({"thinking": 500}, {"truncated": 0.5, "refused": 0.2}, {"conflict": 0.5})):
        job = new_job(new_provider(seed=number, **faults), rows=30, limits="chunk_rows = 10", model=MODEL)
        job.run("run", "--wait", code=(0, 3))
        for bound, cost in job.sql("SELECT bound, cost FROM chunk"):
            assert 0 < cost <= bound


# --- ahead of the forecast, and a budget given by hand ----------------------------------------------------------------

DEAR = 'provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 220 }'


@pytest.fixture
def ahead(new_job: NewJob, new_provider: NewProvider) -> JobFolder:
    """Five chunks, one at a time; the answers of the batches are longer than those of the dry run were. One is back."""
    job = new_job(new_provider(), rows=15, limits="chunk_rows = 3\nin_flight = 1", model=DEAR, sample="rows = 5")
    job.run("prepare", code=0)
    job.run("dry-run", code=0)
    job.provider = new_provider(thinking=60)
    job.env["OPENAI_BASE_URL"] = job.provider.base_url
    job.run("submit", code=8)
    job.run("poll", code=8, BATCHCTL_POLL_SECONDS="0.01")
    until(lambda: job.books.creates[0]["status"] == "completed")
    return job


def test_ahead_of_the_forecast_the_next_wave_is_not_sent(ahead: JobFolder) -> None:
    sent = len(ahead.books.creates)
    limit = (ahead.books.usd / sent * 5).quantize(Decimal("0.000001"))
    (ahead.path / "job.toml").write_text(
        (ahead.path / "job.toml").read_text().replace("in_flight = 1", f'in_flight = 1\nbudget = "{limit} USD"')
    )
    for command in (["poll", "--wait"], ["poll"], ["run", "--wait"], ["submit"]):
        done = ahead.run(*command, code=6)
    assert "at this rate the run ends at" in done.err
    assert "the dry run said" in done.err
    assert f"batchctl submit {ahead.run_id} --budget " in done.err
    sent = len(ahead.books.creates)
    assert sent < 5
    refused = ahead.run("poll", "--json", code=6)
    assert refused.json["error"]["code"] == "ahead_of_forecast"
    assert "answers to" in refused.json["error"]["effect"]
    ahead.run("submit", "--budget", f"{limit * 2}USD", code=8)
    assert len(ahead.books.creates) == sent + 1
    ahead.run("run", "--wait", code=0)  # the budget that was given is kept to
    assert len(ahead.books.creates) == 5
    ahead.check_money()


def test_a_budget_given_by_hand_holds_until_the_job_file_says_another(job: JobFolder, measured: list[Decimal]) -> None:
    job.run("prepare", code=0)
    job.run("submit", "--budget", "0.000001USD", code=6)
    for command in ("submit", "run"):
        job.run(command, code=6)
    assert job.books.creates == []
    text = (job.path / "job.toml").read_text()
    (job.path / "job.toml").write_text(text.replace("chunk_rows = 3", 'chunk_rows = 3\nbudget = "100 USD"'))
    job.run("run", "--wait", code=0)
    assert len(job.books.creates) == 3


def test_what_is_no_budget_is_refused(job: JobFolder) -> None:
    job.run("prepare", code=0)
    assert "is no budget" in job.run("submit", "--budget", "5 EUR", code=2).err
    assert job.books.creates == []
