"""The main job over real questions, against the emulator as a process of its own, judged from the provider's books."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import SHARED, NewJob, NewProvider
from tests.support.jobs import FAILED, SCHEMA, JobFolder

QUESTIONS = SHARED / "data" / "banking77" / "test.csv"
BAD = {
    "invalid": 0.03,
    "truncated": 0.03,
    "refused": 0.03,
    "expired": 0.03,
    "500": 0.03,
    "missing": 0.03,
    "duplicated": 0.03,
    "reordered": 0.03,
}
SOURCES = {"csv": f'path = "{QUESTIONS}"', "parquet": 'path = "questions.parquet"'}

pytestmark = pytest.mark.skipif(not QUESTIONS.is_file(), reason="the public test data is not beside the checkout")


def questions() -> list[dict[str, str]]:
    with QUESTIONS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def answers_by_row(job: JobFolder) -> dict[int, set[str]]:
    """Line of the source to the answer text in the raw result files: joined by us, from the provider's own bytes."""
    by_id = {}
    for path in (job.directory / "results").glob("*.jsonl"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            result = orjson.loads(line)
            body = (result["response"] or {}).get("body") or {}
            texts = [
                part["text"] for item in body.get("output", []) for part in item.get("content", []) if "text" in part
            ]
            if texts:
                by_id[result["custom_id"]] = "".join(texts)
    found: dict[int, set[str]] = {}
    for path in (job.directory / "chunks").glob("*.rows.parquet"):
        for one in pq.read_table(path).to_pylist():
            if one["custom_id"] in by_id:
                found.setdefault(one["position"], set()).add(by_id[one["custom_id"]])
    return found


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_3080_questions_with_bad_answers_of_every_kind(new_job: NewJob, new_provider: NewProvider, kind: str) -> None:
    provider = new_provider(**BAD)
    job = new_job(
        provider,
        source=SOURCES[kind],
        prompt="Which intent?\n\n{{ text }}",
        limits="chunk_rows = 1000",
        sample='rows = 20\nmin_valid = "50%"',
    )
    rows = questions()
    if kind == "parquet":
        columns = {name: [row[name] for row in rows] for name in ("text", "category")}
        pq.write_table(pa.table(columns), job.path / "questions.parquet")
    job.run("prepare", code=0)
    job.run("dry-run", code=0)
    live = len(provider.calls("POST", "/v1/responses"))
    assert live == 20
    job.run("submit", code=8)
    job.run("poll", "--wait", code=7)  # a batch ended as expired: some of its rows never ran
    job.run("validate", code=3)
    first = check(job, rows)
    reasons = Counter(one["reason"] for one in first if one["reason"])
    assert {"invalid_json", "schema", "truncated", "refused", "expired", "provider", "missing"} <= set(reasons)

    creates, billed = len(job.books.creates), len(job.books.rows)
    job.run(
        "run", "job.toml", "--wait", "--set", "retry.transient=0", code=3
    )  # sends nothing that [retry] does not allow
    assert (len(job.books.creates), len(job.books.rows)) == (creates, billed)
    assert len(provider.calls("POST", "/v1/responses")) == live

    job.run("rerun", "--wait", code=3)
    job.run("validate", code=3)
    second = check(job, rows)
    repeatable = {"expired", "provider", "missing"}
    for before, after in zip(first, second, strict=True):
        if before["reason"] in repeatable:
            assert after["attempt"] == 2
        else:
            assert after == before
    assert sum(one["reason"] in repeatable for one in second) < sum(one["reason"] in repeatable for one in first)
    assert len(job.books.creates) == creates + 1
    job.check_money()


def check(job: JobFolder, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Every question once, in order, with an answer that was given to it and that fits the schema."""
    job.check_results()
    job.check_money()
    results = job.lines("results.jsonl")
    assert [one["row"] for one in results] == rows
    validator = jsonschema_rs.validator_for(SCHEMA)
    answers = answers_by_row(job)
    for position, one in enumerate(results):
        if one["state"] == "completed" and one["copied_from"] is None:
            validator.validate(one["output"])
            assert one["output"] in [json.loads(text) for text in answers[position] if text.startswith("{")]
    failed = [{**one["row"]} for one in results if one["state"] in FAILED]
    again = [{key: row[key] for key in ("text", "category")} for row in job.lines("rerun.jsonl")]
    assert again == failed
    return results


def test_the_same_rows_in_another_form_are_the_same_requests(new_job: NewJob, tmp_path: Path) -> None:
    made = []
    rows = questions()[:300]
    for kind in ("rows.csv", "rows.parquet", "rows.jsonl", "rows.tsv"):
        job = new_job(None, rows=rows, source=f'path = "{kind}"', prompt="Which intent?\n\n{{ text }}")
        if kind.endswith("parquet"):
            pq.write_table(pa.Table.from_pylist(rows), job.path / kind)
        elif kind.endswith("jsonl"):
            (job.path / kind).write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        elif kind.endswith("tsv"):
            with (job.path / kind).open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
                writer.writeheader()
                writer.writerows(rows)
        done = job.run("prepare", "--json", code=0)
        directory = Path(done.json["directory"])
        lines = (job.path / directory / "chunks/0001.jsonl").read_bytes().split(b"\n")[:-1]
        made.append([orjson.loads(line)["body"]["input"] for line in lines])
    assert made[0] == made[1] == made[2] == made[3]
