"""Retention: after a purge no text is left in any file, nothing is bought twice for it, and it is said what remains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

ID, TEXT, ANSWER = "canary-id", "canary-question", "[simulated] note"  # every answer of the emulator has the last
CANARIES = (ID.encode(), TEXT.encode(), ANSWER.encode())
ROWS = [{"id": f"{ID}-{number}", "text": f"{TEXT} {number // 2}"} for number in range(8)]
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["card", "other"]}, "note": {"type": "string"}},
    "required": ["label", "note"],
    "additionalProperties": False,
}
REVIEW = "\n[review]\nwhen = 'true'\n"


def holds_canary(job: JobFolder) -> list[str]:
    """Files of the state directory that hold a canary: the bytes themselves, and what Parquet packs."""
    return [str(path) for path in files(job.state) if any(one in content(path) for one in CANARIES)]


def files(state: Path) -> Iterator[Path]:
    return (path for path in state.rglob("*") if path.is_file())


def content(path: Path) -> bytes:
    if path.suffix != ".parquet":
        return path.read_bytes()
    return path.read_bytes() + json.dumps(pq.read_table(path).to_pylist(), default=str).encode()


@pytest.fixture
def done(new_job: NewJob, provider: Provider) -> JobFolder:
    """A run at its end, with copies, decisions, an edit and a dry run."""
    job = new_job(provider, rows=ROWS, schema=SCHEMA, prompt="{{ text }}", sample="rows = 2", more=REVIEW)
    job.run("run", "--wait", code=(0, 3))
    waiting = [one["id"] for one in job.run("review", "list", "--json").json["rows"]]
    assert waiting
    job.run("review", "edit", waiting[0], "--output", json.dumps({"label": "card", "note": ANSWER}), "--note", TEXT)
    job.run("review", "accept", "--all")
    return job


def test_nothing_is_left_of_a_purged_run_but_what_keeps_it_from_being_paid_twice(
    done: JobFolder, provider: Provider
) -> None:
    assert holds_canary(done)
    before = done.check_balance()
    assert "says nothing about retention" in done.run("purge", code=2).err
    planned = done.run("purge", done.run_id, "--plan", "--json", code=0).json
    assert [one["run"] for one in planned["due"]] == [done.run_id]
    assert done.run("purge", done.run_id, "--no-input", BATCHCTL_YES=None, code=6).err.startswith(
        "error: deleting the texts"
    )
    assert holds_canary(done)
    assert len(done.lines("results.jsonl")) == 8, "a plan and a refusal delete nothing"
    said = done.run("purge", done.run_id, code=0)
    assert "What remains" in said.err + said.out
    assert holds_canary(done) == []
    assert done.check_balance() == before
    done.check_files()
    done.run("status", code=0)
    done.run("report", code=0)
    done.run("validate", "--again", code=0)
    assert holds_canary(done) == []
    assert "were purged" in done.run("rerun", "--same-prompt", code=2).err
    assert "were purged" in done.run("dry-run", "--rows", "2", code=2).err
    assert "were purged" in done.run("review", "show", "x", code=2).err
    assert done.run("purge", done.run_id, code=0).err.startswith("Nothing is due")
    creates = len(done.books.creates)
    done.run("run", "--wait", code=0)
    rows = [*ROWS, {"id": f"{ID}-new", "text": f"{TEXT} new"}]
    (done.path / "rows.csv").write_text("id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in rows))
    done.run("run", "--wait", code=(0, 3))
    assert len(done.books.creates) == creates, "nothing of the purged run was sent again"
    assert sum(one["requests"] for one in provider.books(f"{done.name}-0002").creates) == 1
    (done.path / "prompt.md").write_text("Other: {{ text }}")
    assert "changed" in done.run("prepare", code=6).err, "rows that were done are still known by their ids"


def test_what_the_provider_said_of_a_row_goes_as_well(new_job: NewJob, new_provider: NewProvider) -> None:
    """A refusal may quote the row: it is in the ledger, in its history and in its journal."""
    provider = new_provider(latency="1h")
    job = new_job(provider, rows=ROWS, schema=SCHEMA)
    job.run("run", code=8)
    complaint = {"code": "token_limit_exceeded", "message": f"no room for {TEXT}", "line": None, "param": None}
    provider.force(job.books.creates[0]["id"], status="failed", errors=[complaint])
    job.run("poll", code=10)
    job.run("run", code=8)
    provider.force(job.books.creates[1]["id"], status="completed")
    job.run("run", "--wait", code=0)
    assert TEXT.encode() in (job.state / "ledger.journal").read_bytes()
    job.run("purge", job.run_id, "--local", code=0)
    assert holds_canary(job) == []
    job.check_files()


def test_files_at_the_provider_are_deleted_once_the_answers_are_here(done: JobFolder, provider: Provider) -> None:
    assert done.run("purge", done.run_id, "--json", code=0).json["remote_files"] == 2
    gone = [one["path"].rpartition("/")[2] for one in provider.calls("DELETE", "/v1/files/")]
    batch = done.books.creates[0]
    assert {batch["input_file_id"]} <= set(gone)
    assert len(set(gone)) >= 2, "the results as well"


def test_retention_by_age(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, rows=ROWS, schema=SCHEMA, retention='inputs = "0s"\noutputs = "365d"')
    job.run("run", "--wait", code=0)
    job.run("purge", "--local", code=0)
    left = [one for one in job.lines("results.jsonl") if one["output"] is not None]
    assert [one["id"] for one in left] == [row["id"] for row in ROWS], "answers and ids are kept a year"
    assert {json.dumps(one["row"]) for one in left} == {"{}"}
    assert not [path for path in files(job.state) if TEXT.encode() in content(path)]
    job.check_files()
    job.run("purge", "--older-than", "0s", "--local", code=0)
    assert holds_canary(job) == []


def test_rejected_rows_stay_counted_without_their_text(new_job: NewJob, provider: Provider) -> None:
    rows = [*({**row, "age": "7"} for row in ROWS), {"id": f"{ID}-odd", "text": TEXT, "age": TEXT}]
    source = "path = 'rows.csv'\nid = 'id'\nwhere = 'int(row.age) > 1'\nmax_rejects = '50%'"
    job = new_job(provider, rows=rows, schema=SCHEMA, source=source)
    job.run("run", "--wait", code=0)
    job.run("purge", job.run_id, "--local", code=0)
    assert holds_canary(job) == []
    assert job.check_balance()["rejected"] == 1
    assert [one["state"] for one in job.lines("results.jsonl")].count("rejected") == 1
    job.check_files()


def test_an_id_that_looks_purged_is_purged_like_any_other(new_job: NewJob, provider: Provider) -> None:
    """Carried on after a kill as well: what stands for an id is not taken for an id, nor an id for what stands for one."""
    rows = [{"id": f"purged:{ID}-{number}", "text": f"{TEXT} {number // 2}"} for number in range(4)]
    bad = {"id": f"purged:{ID}-odd", "text": TEXT, "age": TEXT}
    source = "path = 'rows.csv'\nid = 'id'\nwhere = 'int(row.age) > 1'\nmax_rejects = '50%'"
    job = new_job(provider, rows=[*({**row, "age": "7"} for row in rows), bad], schema=SCHEMA, source=source)
    job.run("run", "--wait", code=0)
    assert job.run("purge", job.run_id, "--local", BATCHCTL_CRASH_AT="purge-files").killed
    stand_ins = pq.read_table(job.directory / "chunks" / "0001.rows.parquet", columns=["id"])
    rejected = job.lines("rejects.jsonl")
    job.run("purge", job.run_id, "--local", code=0)
    assert holds_canary(job) == []
    assert pq.read_table(job.directory / "chunks" / "0001.rows.parquet", columns=["id"]) == stand_ins
    assert job.lines("rejects.jsonl") == rejected
    job.check_files()
    job.run("run", "--wait", code=0)
    assert len(job.books.creates) == 1, "the rows are still known"


def test_other_jobs_of_the_state_directory_keep_what_they_work_on(new_job: NewJob, provider: Provider) -> None:
    """One may be reading its copy of standard input, or be about to give its run a name, at this moment."""
    job = new_job(provider, rows=ROWS, schema=SCHEMA)
    job.run("run", "--wait", code=0)
    own = [job.state / "sources" / job.name / "stdin", job.state / f"{job.name}-0002.part" / "job.toml"]
    others = [job.state / "sources" / "other" / "stdin", job.state / f"{job.name}-more-0001.part" / "job.toml"]
    for path in (*own, *others):
        path.parent.mkdir(mode=0o700, parents=True)
        path.write_text("rows")
    job.run("purge", job.run_id, "--local", code=0)
    assert [path.exists() for path in own] == [False, False]
    assert [path.exists() for path in others] == [True, True]


def test_a_run_under_way_and_a_job_without_retention_are_left_alone(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(latency="1h"), rows=ROWS, schema=SCHEMA)
    job.run("run", code=8)
    assert "is not at its end" in job.run("purge", job.run_id, code=2).err
    assert job.run("purge", code=0).err.startswith("Nothing is due")
    assert holds_canary(job)


def test_what_was_decided_still_counts_in_the_files_of_a_purged_run(
    done: JobFolder, new_job: NewJob, new_provider: NewProvider
) -> None:
    torn = new_job(new_provider(conflict=1), rows=ROWS[:2], schema=SCHEMA, prompt="{{ text }}")
    torn.run("run", "--wait", code=3)
    torn.run("review", "accept", "--all", "--answer", "2", code=0)
    for job in (done, torn):
        before = job.check_balance()
        assert before["completed"] == before["rows"]
        job.run("purge", job.run_id, "--local", code=0)
        assert job.check_balance() == before
        assert [one["state"] for one in job.lines("results.jsonl")] == ["completed"] * before["rows"]


@pytest.mark.parametrize("point", ["purge-begun", "purge-files", "before-commit:2"])
def test_an_interrupted_purge_is_carried_on(done: JobFolder, point: str) -> None:
    before = done.check_balance()
    assert done.run("purge", done.run_id, "--local", BATCHCTL_CRASH_AT=point).code == -9
    done.run("status", code=0)
    done.check_files()
    done.run("purge", done.run_id, "--local", code=0)
    assert holds_canary(done) == []
    assert done.check_balance() == before
    done.check_files()


@pytest.mark.parametrize("point", ["purge-begun", "purge-files", "before-commit:2"])
def test_an_interrupted_purge_makes_no_done_row_a_new_one(done: JobFolder, point: str) -> None:
    """Its segments may have ids or what stands for them: a changed prompt asks first, whichever it is."""
    made = len(done.books.creates)
    done.run("purge", done.run_id, "--local", BATCHCTL_CRASH_AT=point)
    done.run("run", "--wait")
    (done.path / "prompt.md").write_text("Another prompt. {{ text }}")
    assert "would be bought again" in done.run("run", "--wait", code=6).err
    assert len(done.books.creates) == made


def test_the_emulators_own_files_go_with_the_run(new_job: NewJob) -> None:
    job = new_job(None, rows=ROWS, schema=SCHEMA, model='provider = "emulator"\nname = "gpt-5.4-mini"')
    job.run("run", "--wait", code=0)
    assert holds_canary(job)
    job.run("purge", job.run_id, code=0)
    assert holds_canary(job) == []


def test_publishing_deletes_the_providers_files_and_never_a_purged_runs_rows(
    new_job: NewJob, provider: Provider
) -> None:
    job = new_job(
        provider,
        rows=ROWS,
        schema=SCHEMA,
        retention='remote_files = "on-publish"',
        more='\n[[publish]]\nto = "labels.jsonl"\nkey = ["id"]\n',
    )
    before = len(provider.calls("DELETE", "/v1/files/"))
    job.run("run", "--wait", code=0)
    assert len(provider.calls("DELETE", "/v1/files/")) - before == 2, "the input and the results"
    published = (job.path / "labels.jsonl").read_bytes()
    assert published.count(b"\n") == 8
    job.run("purge", job.run_id, code=0)
    assert "would lose its rows" in job.run("publish", code=2).err
    assert (job.path / "labels.jsonl").read_bytes() == published
    assert job.check_balance()["published"] == 8


@pytest.mark.parametrize(("said", "days"), [("1d", 7), ("14d", 14), ("365d", 30), ("on-publish", 30)])
def test_the_provider_is_told_when_to_delete_its_files(
    new_job: NewJob, provider: Provider, said: str, days: int
) -> None:
    """Also for those that nobody purges. Never so early that answers are lost before somebody looks."""
    job = new_job(provider, rows=ROWS, schema=SCHEMA, retention=f"remote_files = '{said}'")
    job.run("run", "--wait", code=0)
    [made] = job.books.creates
    batch = provider.ask("GET", f"/v1/batches/{made['id']}")
    for name in ("input_file_id", "output_file_id"):
        file = provider.ask("GET", f"/v1/files/{batch[name]}")
        assert file["expires_at"] - file["created_at"] == days * 86_400, f"{name}; 30 days by themselves"


def test_a_purge_by_age_is_planned_first(done: JobFolder, provider: Provider) -> None:
    text = (done.path / "job.toml").read_text()
    retention = '\n[retention]\nremote_files = "{}"\ninputs = "30d"\noutputs = "365d"\n'
    (done.path / "job.toml").write_text(text + retention.format("1h"))
    before = len(provider.calls("DELETE", "/v1/files/"))
    assert done.run("purge", "--plan", code=0).err.startswith("Nothing is due"), "nothing is old enough"
    planned = done.run("purge", "--plan", "--older-than", "0s", "--json", code=0).json
    assert planned["due"] == [{"run": done.run_id, "inputs": True, "outputs": True, "remote": True}]
    told = done.run("purge", "--plan", "--older-than", "0s", code=0).err
    assert "Would purge 1 run; nothing was deleted" in told
    assert "request texts, answers, files at the provider" in told
    assert holds_canary(done)
    (done.path / "job.toml").write_text(text + retention.format("0s"))
    assert done.run("purge", "--plan", "--json", code=0).json["due"] == [
        {"run": done.run_id, "inputs": False, "outputs": False, "remote": True}
    ]
    assert len(provider.calls("DELETE", "/v1/files/")) == before
    said = done.run("purge", code=0).err
    assert len(provider.calls("DELETE", "/v1/files/")) - before == 2
    assert "counts, money, history and digests in the ledger" in said
    assert holds_canary(done), "texts here are younger than a month"
    assert done.run("purge", code=0).err.startswith("Nothing is due")


def test_it_is_said_what_stays_where_no_file_can_be_deleted(new_job: NewJob, provider: Provider) -> None:
    model = 'provider = "anthropic"\nname = "claude-haiku-4-5"\nparams = { max_tokens = 64 }'
    job = new_job(provider, rows=ROWS, schema=SCHEMA, model=model)
    job.run("run", "--wait", code=(0, 3))
    said = job.run("purge", job.run_id, code=0).err
    assert f"at anthropic: the batches of {job.run_id}, which only it can delete (results 29 days" in said
    assert holds_canary(job) == []
    job = new_job(provider, rows=ROWS, schema=SCHEMA)
    job.run("run", "--wait", code=(0, 3))
    kept = job.run("purge", job.run_id, "--local", code=0).err
    assert f"at openai: the files of {job.run_id} were not deleted (results 30 days)" in kept
