"""A vendor that takes a token with a create (Bedrock): lost creates, kills, and S3 between the two.

A create whose answer is lost is asked again with the same token, which is the same job. The provider's books are the
judge: every row billed once, one job a chunk.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, NewJob, NewProvider
from tests.support.bedrock import JOB, JOBS, S3, environment, model_keys
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

CREATE, LIST, POLL = f"POST {JOB}", f"GET {JOBS}", f"GET {JOB}/*"
ROWS = 200
PRICES = "input = 0.375\noutput = 2.25\nlive_input = 0.75\nlive_output = 4.5"

Make = Callable[..., JobFolder]


def some(first: list[str], rest: list[str]) -> list[Any]:
    """Values of which CI on every push tries only the first."""
    return [*first, *(pytest.param(one, marks=pytest.mark.slow) for one in rest)]


@pytest.fixture
def make(new_job: NewJob, s3: S3) -> Make:
    def one(provider: Provider, rows: int = ROWS, **keys: str) -> JobFolder:
        given = {"limits": "chunk_rows = 100", "model": model_keys(s3.bucket()), "prices": PRICES, **keys}
        job = new_job(provider, rows=rows, **given)
        job.env |= environment(provider)
        return job

    return one


@pytest.fixture
def job(make: Make, new_provider: NewProvider, s3: S3) -> JobFolder:
    """Two chunks of as few rows as a job may have."""
    return make(new_provider(s3=s3.url))


def at(job: JobFolder) -> Provider:
    assert job.provider is not None
    return job.provider


def finished(job: JobFolder, *, rows: int = ROWS) -> None:
    """Done, answered and paid once: the state every test ends in."""
    job.check_money()
    found = job.check_results([f"R-{number:03d}" for number in range(rows)])
    assert {one["state"] for one in found.values()} == {"completed"}, job.done[-1]
    assert sorted(job.books.requests.values()) == [1] * rows
    job.check_files()


def creates(job: JobFolder) -> int:
    return len([one for one in at(job).calls("POST", JOB) if one["path"] == JOB])


def test_a_job_runs(job: JobFolder) -> None:
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == creates(job) == 2
    assert {one["wire"] for one in job.books.creates} == {"bedrock"}
    assert [one["metadata"]["clientRequestToken"] for one in job.books.creates] == [
        one for (one,) in job.sql("SELECT id FROM intent ORDER BY chunk")
    ]


@pytest.mark.parametrize("do", some(["drop-after", "no-id"], ["garbage", "500-after"]))
def test_a_create_whose_answer_is_lost_is_found_and_not_asked_again(job: JobFolder, do: str) -> None:
    at(job).fault(CREATE, do)
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == creates(job) == 2


@pytest.mark.parametrize("do", some(["drop-before"], ["503"]))
def test_a_create_that_did_not_act_is_asked_again_with_the_same_token(job: JobFolder, do: str) -> None:
    at(job).fault(CREATE, do)
    job.run("run", "--wait", code=0)
    finished(job)
    assert (len(job.books.creates), creates(job)) == (2, 3)
    assert at(job).calls("DELETE") == [], "no fence was needed"
    assert job.sql("SELECT COUNT(*) FROM intent") == [(2,)], "no second token"


def test_a_job_the_list_does_not_show_yet_is_the_answer_to_the_repeated_create(job: JobFolder) -> None:
    at(job).fault(CREATE, "drop-after", hide=5)
    job.run("run", "--wait", code=0)
    finished(job)
    assert (len(job.books.creates), creates(job)) == (2, 3)


def test_a_create_that_acts_late_is_the_same_job(job: JobFolder) -> None:
    at(job).fault(CREATE, "late", seconds=0.7)
    job.run("run", "--wait", code=0)
    finished(job)
    assert (len(job.books.creates), creates(job)) == (2, 3)


def test_a_conflict_is_looked_up_and_never_a_refusal(job: JobFolder) -> None:
    """Some services answer a repeated token with a conflict."""
    at(job).fault(CREATE, "drop-after", hide=1)
    at(job).fault(CREATE, "409", nth=2)
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == 2


def test_lost_again_and_again(job: JobFolder) -> None:
    at(job).fault(CREATE, "drop-before", count=6)
    at(job).fault(CREATE, "drop-after", nth=7, count=3)
    job.until_done("run", "--wait")
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize(("do", "code"), [("429", 10), ("403", 4), ("insufficient_quota", 10)])
def test_a_refused_repetition_says_nothing_of_the_first(job: JobFolder, do: str, code: int) -> None:
    at(job).fault(CREATE, "drop-after", hide=9)
    at(job).fault(CREATE, do, nth=2, count=9)
    job.run("run", code=code)
    assert job.check_balance()["held"] == 100
    at(job).clear_faults()
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize("created", ["created_epoch - 30000", "0", "created_epoch + 90000"])
def test_an_old_token_is_fenced_like_any_other_create(job: JobFolder, created: str) -> None:
    """After hours nobody knows whether the token is remembered: the input is deleted, and another token is used. So it is
    when nobody knows how old the token is."""
    assert job.run("run", BATCHCTL_CRASH_AT="K7").killed
    job.sql(f"UPDATE intent SET created_epoch = {created}")
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(at(job).calls("DELETE", "/s3/")) == 1
    assert [one for (one,) in job.sql("SELECT state FROM intent WHERE chunk = 1 ORDER BY send")] == [
        "absent",
        "accepted",
    ]


@pytest.mark.parametrize("do", some(["garbage", "401"], ["empty", "500", "429"]))
def test_a_list_that_cannot_be_read_is_no_reason_to_ask_again(job: JobFolder, do: str) -> None:
    at(job).fault(CREATE, "drop-after")
    at(job).fault(LIST, do, nth="every")
    job.run("run", code=4 if do == "401" else 11)
    assert job.check_balance()["held"] == 100
    at(job).clear_faults()
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == creates(job) == 2


def test_on_ambiguous_hold_asks_a_person_and_nobody_else(make: Make, new_provider: NewProvider, s3: S3) -> None:
    job = make(new_provider(s3=s3.url), lane='on_ambiguous = "hold"')
    at(job).fault(CREATE, "drop-before")
    job.run("run", code=11)
    assert creates(job) == 2
    job.run("resolve", "--not-sent", code=0)
    job.run("run", "--wait", code=0)
    finished(job)


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", some(["K5", "K7", "K10", "K13"], ["K4", "K6", "K11", "K12", "K14"]))
def test_killed_at_every_point(job: JobFolder, point: str) -> None:
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT=point).killed
    job.check_balance()
    job.check_money()
    job.until_done("run", "--wait", tries=3)
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize("second", some(["K10"], ["before-commit:1", "after-commit:1"]))
def test_killed_again_while_the_create_is_repeated(job: JobFolder, second: str) -> None:
    assert job.run("run", "--wait", BATCHCTL_CRASH_AT="K7").killed
    job.run("run", "--wait", BATCHCTL_CRASH_AT=second)
    job.check_money()
    job.until_done("run", "--wait", tries=3)
    finished(job)
    assert len(job.books.creates) == 2


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("do", some(["500"], ["drop-before", "garbage", "503", "truncate"]))
def test_a_lost_upload_is_repeated(job: JobFolder, do: str) -> None:
    at(job).fault("PUT /s3/*", do)
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize("do", some(["truncate"], ["truncate-clean", "drop-before", "500", "404", "garbage"]))
@pytest.mark.parametrize("on", ["GET /s3/*/input.jsonl.out", "GET /s3/*/manifest.json.out", "GET /s3/bucket-*"])
def test_a_download_that_is_cut_lost_or_something_else_loses_no_answer(job: JobFolder, on: str, do: str) -> None:
    at(job).fault(on, do, count=3)
    job.until_done("run", "--wait")
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize("do", some(["garbage"], ["drop-before", "500", "429"]))
def test_a_lost_poll_changes_nothing(job: JobFolder, do: str) -> None:
    at(job).fault(POLL, do, count=2)
    job.until_done("run", "--wait")
    finished(job)


def test_an_input_that_is_gone_when_the_job_starts_is_put_there_again(
    make: Make, new_provider: NewProvider, s3: S3
) -> None:
    job = make(new_provider(s3=s3.url, latency="1h"), rows=100)
    job.run("run", code=8)
    s3.delete(job.sql("SELECT staged FROM intent")[0][0])
    at(job).force(job.books.creates[0]["id"], status="completed")
    until(lambda: job.books.creates[0]["status"] == "failed")
    job.run("run", code=8)
    at(job).force(job.books.creates[1]["id"], status="completed")
    job.run("run", "--wait", code=0)
    finished(job, rows=100)
    assert [one["rows_billed"] for one in job.books.creates] == [0, 100]


# --- what the vendor cannot take --------------------------------------------------------------------------------------


def test_too_few_rows_are_said_before_anything_is_written(make: Make, new_provider: NewProvider, s3: S3) -> None:
    job = make(new_provider(s3=s3.url), rows=99, limits="")
    done = job.run("run", "--json", code=2)
    error = done.json["error"]
    assert error["code"] == "too_few_requests"
    assert "100" in error["what"]
    assert 'prefer = "live"' in error["hint"]
    assert creates(job) == 0
    assert at(job).calls("PUT") == []
    job.run("run", "--wait", "--lane", "live", code=0)  # what the hint says
    assert sum(one["state"] == "completed" for one in job.check_results().values()) == 99
    assert (creates(job), job.books.live) == (0, 99)


def test_a_last_chunk_that_would_be_too_small_shares_with_the_others(
    make: Make, new_provider: NewProvider, s3: S3
) -> None:
    job = make(new_provider(s3=s3.url), rows=230, limits="chunk_rows = 200")
    job.run("run", "--wait", code=0)
    finished(job, rows=230)
    assert job.sql("SELECT requests FROM chunk ORDER BY number") == [(115,), (115,)]


def test_failed_rows_too_few_for_a_batch_are_left_out_with_a_word(
    make: Make, new_provider: NewProvider, s3: S3
) -> None:
    job = make(new_provider(s3=s3.url, **{"500": "10%"}))
    job.run("run", "--wait", code=3)
    failed = job.check_balance()["provider_error"]
    assert 0 < failed < 100
    done = job.run("rerun", "--json", code=3)
    assert done.json["rerun_rows"] == 0
    assert [why for why in done.json["skipped"] if "sent live" in why]
    assert creates(job) == 2
    job.check_results()


def test_many_failed_rows_are_sent_again_in_a_batch_of_their_own(make: Make, new_provider: NewProvider, s3: S3) -> None:
    job = make(new_provider(s3=s3.url, missing="70%", reordered="100%", results=["crlf", "stranger"]))
    for argv in (("prepare",), ("submit",), ("poll", "--wait"), ("validate",)):
        job.run(*argv)
    assert job.check_balance()["provider_error"] >= 100
    job.run("rerun", "--wait", code=3)
    job.check_results()
    job.check_money()
    assert len(job.books.creates) == 3


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_was_done_before_the_end_is_kept(make: Make, new_provider: NewProvider, s3: S3, end: str) -> None:
    job = make(new_provider(s3=s3.url, latency="1h"), rows=100)
    job.run("run", code=8)
    (only,) = job.books.creates
    at(job).force(only["id"], status=end)
    job.run("poll", "--wait", code=(0, 7))
    job.run("validate", code=(3, 7))
    assert job.check_balance()["rows"] == 100
    job.check_money()


def test_keys_are_in_no_file_and_no_word(job: JobFolder) -> None:
    at(job).fault(CREATE, "400")
    job.run("run", code=10)
    job.run("run", "--wait", code=0)
    secret = job.env["AWS_SECRET_ACCESS_KEY"]
    assert not [path for path in job.path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert secret not in json.dumps([(done.out, done.err) for done in job.done])


@pytest.mark.parametrize("endpoint", ["Converse", "InvokeModel"])
def test_a_few_rows_are_sent_live(make: Make, new_provider: NewProvider, s3: S3, endpoint: str) -> None:
    """What a batch is too large for: the live lane asks the same requests one by one."""
    keys = model_keys(s3.bucket(), endpoint=endpoint)
    job = make(new_provider(s3=s3.url), rows=12, model=keys, lane='prefer = "live"', limits="")
    job.run("run", "--wait", code=0)
    found = job.check_results([f"R-{number:03d}" for number in range(12)])
    assert {one["state"] for one in found.values()} == {"completed"}
    assert job.books.live == 12
    assert creates(job) == 0


@pytest.mark.parametrize(
    "name",
    some(
        ["us.amazon.nova-lite-v1:0", "meta.llama3-1-70b-instruct-v1:0", "mistral.mistral-7b-instruct-v0:2"],
        ["mistral.mistral-large-2407-v1:0", "anthropic.claude-3-haiku-20240307-v1:0"],
    ),
)
@pytest.mark.parametrize("endpoint", ["Converse", "InvokeModel"])
def test_every_family_runs_and_says_what_becomes_of_the_schema(
    make: Make, new_provider: NewProvider, s3: S3, name: str, endpoint: str
) -> None:
    keys = model_keys(s3.bucket(), name, endpoint=endpoint)
    job = make(new_provider(s3=s3.url), rows=100, limits="", model=keys, sample="rows = 2")
    done = job.run("run", "--wait", code=0)
    assert "no structured output on Bedrock" in done.out + done.err
    found = job.check_results([f"R-{number:03d}" for number in range(100)])
    assert {one["state"] for one in found.values()} == {"completed"}
    assert sorted(job.books.requests.values()) == [1] * 100


def test_texts_become_embeddings(make: Make, new_provider: NewProvider, s3: S3) -> None:
    keys = model_keys(s3.bucket(), "amazon.titan-embed-text-v2:0") + "\nparams = { dimensions = 256 }"
    job = make(new_provider(s3=s3.url), rows=100, limits="", model=keys, output="")
    job.run("run", "--wait", code=0)
    found = job.check_results([f"R-{number:03d}" for number in range(100)])
    assert {len(one["output"]) for one in found.values()} == {256}
    job.check_money()


# --- the sample ---------------------------------------------------------------------------------------------------------


def test_the_sample_runs_with_a_closed_balance(
    new_job: NewJob, new_provider: NewProvider, s3: S3, tmp_path: Path
) -> None:
    """The sample's own rows, prompt and schema; so many of them that Bedrock takes a batch."""
    sample = ROOT / "samples" / "support-tickets"
    job = new_job(new_provider(s3=s3.url, invalid="3%", **{"500": "2%"}, reordered="100%"))
    job.env |= environment(at(job))
    job.marked = False
    for name in ("prompt.md", "system.md", "schema.json"):
        shutil.copy(sample / name, job.path / name)
    with (sample / "tickets.csv").open(encoding="utf-8", newline="") as file:
        tickets = list(csv.DictReader(file))
    with (job.path / "tickets.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, list(tickets[0]))
        out.writeheader()
        for turn in ("", "again "):
            out.writerows({**one, "ticket_id": turn + one["ticket_id"], "body": turn + one["body"]} for one in tickets)
    text = (sample / "job.toml").read_text()
    head, tail = text.split("\n[model]")[0], text.split("\n[emulator]")[0].split("\n[sample]")[1]
    keys = model_keys(s3.bucket()) + '\nparams = { max_output_tokens = 400, reasoning = { effort = "low" } }'
    job_text = f"{head}\n[model]\n{keys}\n\n[sample]{tail}".replace(
        'name    = "support-tickets"', f'name = "{job.name}"'
    )
    (job.path / "job.toml").write_text(f"{job_text}\n[prices]\n{PRICES}\n")
    job.run("run", "--wait", code=3)
    results = job.check_results()
    job.check_money()
    assert len(results) == 2 * len(tickets)
    balance = job.check_balance()
    assert balance["completed"] > 0.9 * len(results)
    assert balance["invalid_output"] + balance["provider_error"] == len(results) - balance["completed"]
    assert {one["wire"] for one in job.books.creates} == {"bedrock"}
