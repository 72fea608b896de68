"""Whole jobs at each of OpenAI's neighbours: nothing is lost, nothing paid twice. The sample there: `test_samples.py`."""

from __future__ import annotations

import pytest

from batchctl.emulator import ADDRESSES
from tests.conftest import SHARED, NewJob, NewProvider

KEY = "sk-test-key"
AT = {
    "openai-compatible": ("some-model", "OPENAI_API_KEY"),
    "azure-openai": ("my-deployment", "AZURE_OPENAI_API_KEY"),
    "mistral": ("mistral-small-latest", "MISTRAL_API_KEY"),
    "together": ("meta-llama/Llama-3.3-70B-Instruct-Turbo", "TOGETHER_API_KEY"),
}
"""Of each provider: a model, and the usual variable for its key."""


@pytest.mark.parametrize("name", AT)
def test_the_live_lane(name: str, new_job: NewJob, new_provider: NewProvider) -> None:
    model, variable = AT[name]
    vendor = new_provider(invalid=0.2)
    where = f'base_url = "{vendor.url}{ADDRESSES[name]}"'
    job = new_job(vendor, rows=12, model=f'provider = "{name}"\nname = "{model}"\n{where}')
    job.marked = False
    job.env[variable] = KEY
    job.run("run", "--lane", "live", "--wait", code=(0, 3))
    results = job.check_results()
    assert {one["state"] for one in results.values()} <= {"completed", "invalid_output"}
    assert sum(one["state"] == "completed" for one in results.values()) >= 6
    assert not job.books.creates
    assert not [one for one in vendor.calls("POST") if one["path"].endswith(("/batches", "/jobs", "/files"))]


QUESTIONS = SHARED / "data" / "banking77" / "test.csv"
SHAPE = (
    "id state output reason detail attempt copied_from usage cost_usd provider model batch_id request_id prompt_version"
    " schema_version created_at row"
)


@pytest.mark.slow
@pytest.mark.skipif(not QUESTIONS.is_file(), reason="the public test data is not beside the checkout")
@pytest.mark.parametrize("name", AT)
def test_3080_questions_end_in_files_of_one_shape(name: str, new_job: NewJob, new_provider: NewProvider) -> None:
    model, variable = AT[name]
    bad = {"invalid": 0.03, "500": 0.03, "missing": 0.03, "reordered": 0.5}
    vendor = new_provider(**bad)
    job = new_job(
        vendor,
        source=f'path = "{QUESTIONS}"',
        prompt="Which intent?\n\n{{ text }}",
        limits="chunk_rows = 1000",
        model=f'provider = "{name}"\nname = "{model}"\nbase_url = "{vendor.url}{ADDRESSES[name]}"',
    )
    job.marked = False
    job.env[variable] = KEY
    job.run("run", "--wait", code=3)
    job.check_balance()
    job.check_money()
    results = job.lines("results.jsonl")
    assert len(results) == 3080
    assert {" ".join(one) for one in results} == {SHAPE}
    assert {one["usage"] is None for one in results if one["state"] == "completed"} == {False}
    assert sum(one["state"] == "completed" for one in results) > 2700
