"""Whole jobs at each of OpenAI's neighbours: nothing is lost, nothing paid twice. The sample there: `test_samples.py`."""

from __future__ import annotations

import pytest

from batchctl.emulator import ADDRESSES
from tests.conftest import NewJob, NewProvider

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


@pytest.mark.parametrize("name", ["mistral", "together"])
def test_an_empty_purse_stops_the_live_lane_and_fails_no_row(
    name: str, new_job: NewJob, new_provider: NewProvider
) -> None:
    """402 is about the account: the rows wait, and are asked once it is filled."""
    model, variable = AT[name]
    vendor = new_provider()
    where = f'base_url = "{vendor.url}{ADDRESSES[name]}"'
    job = new_job(vendor, rows=12, model=f'provider = "{name}"\nname = "{model}"\n{where}')
    job.marked = False
    job.env[variable] = KEY
    vendor.fault(f"POST {ADDRESSES[name]}/v1/chat/completions", "insufficient_quota", nth="every")
    done = job.run("run", "--lane", "live", "--wait", code=10)
    assert "402" in done.err
    balance = job.check_balance()
    assert (balance["provider_error"], balance["invalid_output"], balance["completed"]) == (0, 0, 0)
    vendor.clear_faults()
    job.run("run", "--lane", "live", "--wait", code=0)
    assert {one["state"] for one in job.check_results().values()} == {"completed"}
    assert job.books.live == 12
