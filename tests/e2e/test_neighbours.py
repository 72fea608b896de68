"""The sample job, unchanged but for who answers, at each of OpenAI's neighbours: nothing is lost, nothing paid twice."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchctl.emulator import ADDRESSES, billed_rows
from tests.conftest import SHARED, NewJob, NewProvider
from tests.docs.blocks import ROOT
from tests.support.commands import Commands
from tests.support.provider import Provider, ProviderProcess

SAMPLE = ROOT / "samples" / "support-tickets"
KEY = "sk-test-key"
AT = {
    "openai-compatible": ("some-model", "OPENAI_API_KEY"),
    "azure-openai": ("my-deployment", "AZURE_OPENAI_API_KEY"),
    "mistral": ("mistral-small-latest", "MISTRAL_API_KEY"),
    "together": ("meta-llama/Llama-3.3-70B-Instruct-Turbo", "TOGETHER_API_KEY"),
}
"""Of each provider: a model, and the usual variable for its key."""


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """`batchctl emulator --port`, answering as badly as the sample's own [emulator] table says."""
    faults: dict[str, Any] = tomllib.loads((SAMPLE / "job.toml").read_text())["emulator"]
    emulator = ProviderProcess(tmp_path_factory.mktemp("vendor"), **(faults | {"latency": 0}))
    yield emulator
    emulator.stop()


@pytest.mark.parametrize("name", AT)
def test_the_sample_runs_unchanged(name: str, vendor: Provider, commands: Commands, tmp_path: Path) -> None:
    model, variable = AT[name]
    folder = tmp_path / "support-tickets"
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns(".batchctl"))
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), variable: KEY, "BATCHCTL_YES": "1"}
    env |= {"BATCHCTL_POLL_SECONDS": "0.02", "BATCHCTL_RETRY_SECONDS": "0.005", "BATCHCTL_SETTLE_SECONDS": "0.05"}
    there = [f"model.provider={name}", f"model.name={model}", f"model.base_url={vendor.url}{ADDRESSES[name]}"]
    settings = [word for setting in there for word in ("--set", setting)]
    done = commands.run(["providers", "check", "job.toml", "--json", *settings], cwd=folder, env=env)
    assert done.code == 0, done
    assert not [one for one in done.json["checks"] if one["ok"] is False]
    done = commands.run(["run", "job.toml", "--wait", *settings], cwd=folder, env=env)
    assert done.code == 3, done  # some answers are bad for good

    status = commands.run(["status", "job.toml", "--json", *settings], cwd=folder, env=env).json
    balance = {state: count for state, count in status["balance"].items() if state not in ("rows", "copied")}
    assert sum(balance.values()) == status["balance"]["rows"] == 83
    assert balance["completed"] >= 60
    assert not balance["submitted"] + balance["held"] + balance["queued"]

    lines = (folder / ".batchctl/support-tickets-0001/results.jsonl").read_bytes().split(b"\n")[:-1]
    results = [json.loads(line) for line in lines]
    assert len({one["id"] for one in results}) == len(results) == 83
    assert {(one["provider"], one["model"]) for one in results} == {(name, model)}
    paid = Counter(one["custom_id"] for one in billed_rows(vendor.state) if one["batch_id"])
    assert set(paid.values()) == {1}


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
