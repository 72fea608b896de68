"""`dry-run --canary N`: a first small batch through the batch API, whose rows are not bought again."""

from __future__ import annotations

import itertools
from decimal import ROUND_CEILING, Decimal
from typing import Any

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

IDS = [f"R-{number:03d}" for number in range(6)]
BAD_FORM = {"code": "model_not_found", "message": "The model is not available in the Batch API.", "line": 1}
MODEL = 'provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 64 }'


@pytest.fixture
def job(new_job: NewJob, provider: Provider) -> JobFolder:
    """Six rows in one chunk, prepared."""
    made = new_job(provider, model=MODEL)
    made.run("prepare", code=0)
    return made


@pytest.fixture
def slow(new_job: NewJob, new_provider: NewProvider) -> JobFolder:
    """The same, at a provider at which nothing ends before it is told to."""
    made = new_job(new_provider(latency="1h"), model=MODEL)
    made.run("prepare", code=0)
    return made


def created(job: JobFolder) -> list[dict[str, Any]]:
    return job.books.creates


def finished(job: JobFolder) -> None:
    """Every row answered, each paid once, whatever happened on the way."""
    rows = job.check_results(IDS)
    assert {one["state"] for one in rows.values()} == {"completed"}
    assert list(job.books.requests.values()) == [1] * 6
    job.check_money()
    job.check_files()


def test_the_rows_of_a_canary_are_not_bought_again(job: JobFolder) -> None:
    done = job.run("dry-run", "--canary", "2", "--wait", "--json", code=0)
    assert done.json["canary"]["state"] == "passed"
    assert done.json["canary"]["valid"] == 2
    assert done.json["balance"]["completed"] == 2
    assert done.json["balance"]["queued"] == 4
    assert Decimal(done.json["cost"]["usd"]) == job.books.usd > 0
    assert len(job.books.rows) == 2
    job.run("run", "--wait", code=0)
    assert len(created(job)) == 2
    finished(job)


def test_it_says_what_it_has_shown(job: JobFolder) -> None:
    done = job.run("dry-run", "--canary", "2", "--wait", code=0)
    assert f"Canary of {job.run_id}: 2 rows in one batch" in done.err
    assert "the batch API took this model and form" in done.err
    assert f"Next: batchctl submit {job.run_id}" in done.err
    done = job.run("status", code=8)
    assert "chunk 2 (canary)" in done.err + done.out
    job.run("submit", code=8)
    job.run("poll", "--wait", code=0)
    job.run("validate", code=0)
    finished(job)


def test_asked_for_again_it_sends_nothing(job: JobFolder) -> None:
    for _ in range(2):
        job.run("dry-run", "--canary", "2", "--wait", code=0)
    assert len(created(job)) == 1
    job.run("run", "--wait", code=0)
    done = job.run("dry-run", "--canary", "2", code=0)
    assert len(created(job)) == 2, done
    finished(job)


def test_the_rest_waits_until_it_has_ended(slow: JobFolder) -> None:
    done = slow.run("dry-run", "--canary", "2", code=8)
    assert "the rest of the run waits for it" in done.err
    for command in ("submit", "run", "poll", "run"):
        slow.run(command, code=8)
        assert len(created(slow)) == 1
    assert slow.provider is not None
    slow.provider.force(created(slow)[0]["id"], status="completed")
    slow.run("run", code=8)
    assert len(created(slow)) == 2
    slow.provider.force(created(slow)[1]["id"], status="completed")
    slow.run("run", "--wait", code=0)
    finished(slow)


def test_a_model_that_the_batch_api_refuses_shuts_the_gate(slow: JobFolder) -> None:
    slow.run("dry-run", "--canary", "2", code=8)
    assert slow.provider is not None
    slow.provider.force(created(slow)[0]["id"], status="failed", errors=[BAD_FORM])
    done = slow.run("dry-run", "--canary", "2", code=5)
    assert "not available in the Batch API" in done.err
    for command in ("run", "submit"):
        refused = slow.run(command, "--json", code=5)
        assert refused.json["error"]["code"] == "gate"
        assert len(created(slow)) == 1
    assert slow.books.rows == []
    assert slow.check_balance()["provider_error"] == 2
    slow.run("dry-run", "--canary", "2", code=8)  # asked for again after one has failed: further rows
    slow.provider.force(created(slow)[1]["id"], status="completed")
    slow.run("run", code=8)
    slow.provider.force(created(slow)[2]["id"], status="completed")
    assert len(created(slow)) == 3, "the gate is open: the rest"


def test_too_few_valid_answers_shut_the_gate(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(invalid=1.0), model=MODEL)
    job.run("prepare", code=0)
    done = job.run("dry-run", "--canary", "3", "--wait", code=5)
    assert "Not ready to submit" in done.err
    refused = job.run("run", "--wait", code=5)
    assert "the canary has failed: 0 of 3 answers valid" in refused.err
    assert len(job.books.rows) == 3


def test_after_an_edit_the_run_is_prepared_anew_and_no_good_row_bought_twice(job: JobFolder) -> None:
    job.run("dry-run", "--canary", "2", "--wait", code=0)
    (job.path / "prompt.md").write_text("Another {{ id }}: {{ text }}")
    refused = job.run("run", "--wait", code=6)
    assert "2 rows" in refused.err
    job.run("run", "--wait", "--keep-done", code=0)
    assert len(job.books.rows) == 2, "of the first run"
    job.number = 2
    assert len(job.books.rows) == 4
    balance = job.check_balance()
    assert (balance["rows"], balance["completed"]) == (4, 4)
    assert list((job.state / f"{job.name}-0001" / "chunks").glob("0001*")) == []
    job.check_files()
    job.number = 1
    assert job.sql("SELECT state FROM chunk WHERE run = ?", job.run_id) == [
        ("withdrawn",),
        ("applied",),
        ("withdrawn",),
    ]


def test_new_rows_after_a_canary_come_with_those_that_waited(job: JobFolder) -> None:
    job.run("dry-run", "--canary", "2", "--wait", code=0)
    with (job.path / "rows.csv").open("a", encoding="utf-8") as file:
        file.write("R-006,question number 6\r\n")
    job.run("run", "--wait", code=0)
    job.number = 2
    assert job.check_balance()["completed"] == 5
    assert list(job.check_results()) == [*IDS[2:], "R-006"]


def test_copies_go_with_the_row_that_pays(new_job: NewJob, provider: Provider) -> None:
    rows = [{"id": f"R-{number:03d}", "text": f"question {number % 3}"} for number in range(6)]
    job = new_job(provider, rows=rows, model=MODEL, prompt="Job {{ text }}")
    job.run("prepare", code=0)
    done = job.run("dry-run", "--canary", "2", "--wait", "--json", code=0)
    assert done.json["balance"]["completed"] == 4
    assert done.json["balance"]["copied"] == 3
    job.run("run", "--wait", code=0)
    results = job.check_results(IDS)
    assert [one["copied_from"] for one in results.values()] == [None, None, None, "R-000", "R-001", "R-002"]
    assert len(job.books.rows) == 3


@pytest.mark.parametrize("rows", ["6", "50"])
def test_a_canary_of_all_rows_is_the_run(rows: str, job: JobFolder) -> None:
    job.run("dry-run", "--canary", rows, "--wait", code=0)
    job.run("run", "--wait", code=0)
    assert len(created(job)) == 1
    finished(job)


def test_it_needs_consent_and_names_what_it_can_cost(job: JobFolder) -> None:
    refused = job.run("dry-run", "--canary", "2", "--no-input", "--json", code=6, BATCHCTL_YES=None)
    assert refused.json["error"]["code"] == "consent"
    assert "2 requests" in refused.json["error"]["what"]
    assert created(job) == []
    job.run("run", "--wait", code=0)
    finished(job)


def test_the_live_sample_comes_first_and_is_paid_once(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(), model=MODEL, sample="rows = 3")
    job.run("prepare", code=0)
    for _ in range(2):
        job.run("dry-run", "--canary", "2", "--wait", code=0)
    assert (job.books.live, len(created(job))) == (3, 1)
    job.run("run", "--wait", code=0)
    assert job.books.live == 3
    finished(job)


def test_a_failed_live_sample_sends_no_canary(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(invalid=1.0), model=MODEL, sample="rows = 3")
    job.run("prepare", code=0)
    job.run("dry-run", "--canary", "2", code=5)
    assert created(job) == []


@pytest.mark.parametrize("lane", ["live", "background"])
def test_another_lane_has_no_canary(lane: str, new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, model=MODEL, lane=f'prefer = "{lane}"')
    job.run("prepare", code=0)
    assert f"takes the {lane} lane" in job.run("dry-run", "--canary", "2", code=2).err
    assert created(job) == []


def test_what_was_submitted_needs_no_canary(job: JobFolder) -> None:
    job.run("submit", code=8)
    assert "was submitted already" in job.run("dry-run", "--canary", "2", code=2).err
    job.run("run", "--wait", code=0)
    finished(job)


def test_a_cent_below_what_it_can_cost_sends_none(job: JobFolder, new_job: NewJob, provider: Provider) -> None:
    measured = new_job(provider, model=MODEL)
    measured.run("prepare", code=0)
    measured.run("dry-run", "--canary", "2", "--wait", code=0)
    bound = Decimal(measured.sql("SELECT bound FROM chunk WHERE canary = 1")[0][0]) / 10**12
    enough = bound.quantize(Decimal("0.000001"), ROUND_CEILING)
    for _ in range(2):
        refused = job.run(
            "dry-run", "--canary", "2", "--set", f"limits.budget={enough - Decimal('0.000002')} USD", code=6
        )
        assert "the budget has no room for chunk 2" in refused.err
        assert created(job) == []
    job.run("dry-run", "--canary", "2", "--wait", "--set", f"limits.budget={enough} USD", code=0)
    assert len(created(job)) == 1


# --- killed, and answers lost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "point",
    [
        *("C1", "C2", "K1:2", "K5", "K7", "K10", "K13"),
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("K1", "K4", "K6", "K11", "K12", "K14", "K14b", "K15")),
    ],
)
def test_a_killed_canary_is_carried_on(point: str, job: JobFolder) -> None:
    done = job.run("dry-run", "--canary", "2", "--wait", BATCHCTL_CRASH_AT=point)
    assert done.killed
    assert job.check_balance()["rows"] == 6
    job.check_money()
    job.run("dry-run", "--canary", "2", "--wait", code=0)
    assert len(created(job)) == 1
    job.run("run", "--wait", code=0)
    finished(job)


@pytest.mark.parametrize("point", ["C2", "K7", "K10", pytest.param("K13", marks=pytest.mark.slow)])
def test_run_goes_on_from_a_killed_canary(point: str, job: JobFolder) -> None:
    assert job.run("dry-run", "--canary", "2", "--wait", BATCHCTL_CRASH_AT=point).killed
    job.until_done("run", "--wait", tries=3)
    finished(job)


@pytest.mark.slow
@pytest.mark.parametrize("commit", ["before-commit", "after-commit"])
def test_killed_at_every_commit(commit: str, new_job: NewJob, provider: Provider) -> None:
    for number in itertools.count(1):
        job = new_job(provider, model=MODEL)
        job.run("prepare", code=0)
        if not job.run("dry-run", "--canary", "2", "--wait", BATCHCTL_CRASH_AT=f"{commit}:{number}").killed:
            break
        assert job.check_balance()["rows"] == 6
        job.run("dry-run", "--canary", "2", "--wait", code=0)
        job.run("run", "--wait", code=0)
        finished(job)
    assert number > 5


@pytest.mark.parametrize("do", ["drop-after", "drop-before"])
def test_a_lost_create_is_found_or_sent_again(do: str, job: JobFolder, provider: Provider) -> None:
    provider.fault("POST /v1/batches", do)
    job.run("dry-run", "--canary", "2", "--wait", code=0)
    assert len(created(job)) == 1
    job.run("run", "--wait", code=0)
    finished(job)


def test_a_canary_that_is_held_holds_the_rest(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, model=MODEL, lane='on_ambiguous = "hold"')
    job.run("prepare", code=0)
    provider.fault("POST /v1/batches", "drop-before")
    done = job.run("dry-run", "--canary", "2", "--wait", code=11)
    assert f"Next: batchctl resolve {job.run_id}" in done.err
    provider.clear_faults()
    for command in ("run", "submit"):
        job.run(command, code=11)
        assert created(job) == []
    job.run("resolve", "--not-sent", code=0)
    job.run("run", "--wait", code=0)
    finished(job)
