"""The sample, unchanged, on other providers: only `[model] provider` and `name` are set, and every balance closes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support.commands import Commands
from tests.support.gcs import Gcs
from tests.support.jobs import FAILED, JobFolder
from tests.support.provider import Provider, ProviderProcess

SAMPLE = ROOT / "samples" / "support-tickets"
TRANSIENT = {"provider", "missing"}
FAULTS = {
    "seed": 84705,
    "invalid": "5%",
    "truncated": "5%",
    "refused": "4%",
    "500": "5%",
    "missing": "4%",
    "duplicated": "10%",
    "reordered": "100%",
    "thinking": 20,
    "results": ["stranger", "null-id", "blank", "no-final-newline"],
}
# Prices of gemini-2.5-flash, written down so that the meter does not learn them from the code it judges
# (as genai-prices 0.2.3 has them; not verified at the vendor's page).
GEMINI = {"input": 0.15, "cached": 0.015, "output": 1.25, "live_input": 0.3, "live_cached": 0.03, "live_output": 2.5}


def on(provider: Provider, commands: Commands, folder: Path, sets: Mapping[str, str]) -> JobFolder:
    """A copy of the sample, and `--set` for whoever it runs on."""
    path = folder / "support-tickets"
    shutil.copytree(SAMPLE, path)
    job = JobFolder(path, commands, provider, "support-tickets")
    job.marked = False
    job.sets = [word for key, value in sets.items() for word in ("--set", f"model.{key}={value}")]
    return job


def completes(job: JobFolder) -> dict[str, Any]:
    """Run with reruns: every row is somewhere, nothing was billed twice, the tool's bill is the provider's."""
    done = job.run("run", "job.toml", "--wait", *job.sets, code=(0, 3))
    assert "Balance  83 = " in done.err
    last = job.check_results()
    assert "refused" in {one["reason"] for one in last.values()}
    assert max(one["attempt"] for one in last.values()) > 1, "what failed at the provider's side was sent again"
    assert not {one["reason"] for one in last.values() if one["state"] in FAILED} & TRANSIENT
    job.check_files()
    job.check_money()
    assert sum(one["state"] == "completed" for one in last.values()) > 70
    assert len(job.books.rows) == len({(one["batch_id"], one["custom_id"]) for one in job.books.rows})
    return last


@pytest.fixture
def emulator(tmp_path: Path, gcs: Gcs) -> Any:
    """`batchctl emulator --port`, a process of its own."""
    started = ProviderProcess(tmp_path / "provider", **FAULTS, prices=GEMINI, gcs=gcs.url)
    yield started
    started.stop()


@pytest.mark.parametrize("where", ["gemini", "vertex gcs", pytest.param("vertex bigquery", marks=pytest.mark.slow)])
def test_the_sample_on(where: str, emulator: ProviderProcess, commands: Commands, tmp_path: Path, gcs: Gcs) -> None:
    name, _, storage = where.partition(" ")
    sets = {"provider": name, "name": "gemini-2.5-flash"}
    if storage:
        sets["bucket"] = gcs.bucket() if storage == "gcs" else "bq://a-project.batchctl"
    last = completes(on(emulator, commands, tmp_path, sets))
    assert {one["provider"] for one in last.values()} == {name}
    assert {one["model"] for one in last.values()} == {"gemini-2.5-flash"}
