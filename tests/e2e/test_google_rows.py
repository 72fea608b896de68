"""3,080 public questions on Gemini and Vertex, with bad answers of every kind: each is somewhere, and paid once."""

from __future__ import annotations

import csv
from collections import Counter

import pytest

from tests.conftest import SHARED, NewJob, NewProvider
from tests.support.gcs import Gcs

QUESTIONS = SHARED / "data" / "banking77" / "test.csv"
BAD = {
    "invalid": 0.03,
    "truncated": 0.03,
    "refused": 0.03,
    "500": 0.03,
    "429": 0.03,
    "missing": 0.03,
    "duplicated": 0.03,
    "conflict": 0.01,
    "reordered": 1.0,
    "thinking": 30,
    "cached": 0.5,
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not QUESTIONS.is_file(), reason="the public test data is not beside the checkout"),
]


@pytest.mark.parametrize("where", ["gemini", "vertex gcs", "vertex bigquery"])
def test_3080_questions(new_job: NewJob, new_provider: NewProvider, gcs: Gcs, where: str) -> None:
    name, _, storage = where.partition(" ")
    model = f'provider = "{name}"\nname = "gemini-2.5-flash"'
    if storage:
        model += f'\nbucket = "{gcs.bucket() if storage == "gcs" else "bq://a-project.batchctl"}"'
    job = new_job(
        new_provider(gcs=gcs.url, **BAD),
        source=f'path = "{QUESTIONS}"',
        prompt="Which intent?\n\n{{ text }}",
        limits="chunk_rows = 1000",
        model=model,
    )
    with QUESTIONS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    job.run("run", "--wait", code=3)
    job.check_balance()
    job.check_money()
    job.check_files()
    results = job.lines("results.jsonl")
    assert [one["row"] for one in results] == rows
    assert {one["state"] for one in results} <= {"completed", "invalid_output", "provider_error", "review_required"}
    assert Counter(one["state"] for one in results)["completed"] > 2_600
    reasons = {one["reason"] for one in results}
    assert {"invalid_json", "schema", "refused", "conflict"} <= reasons
    paid = [one["usage"] for one in results if one["state"] == "completed" and one["copied_from"] is None]
    assert all(0 < one["cached_tokens"] <= one["input_tokens"] for one in paid)
    assert all(0 < one["reasoning_tokens"] < one["output_tokens"] for one in paid)
