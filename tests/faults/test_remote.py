"""`check --remote`: what the provider has, against the ledger. It finds what would otherwise be charged unseen."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import KEY, JobFolder


def remote(job: JobFolder, code: int) -> dict[str, Any]:
    said = json.loads(job.run("check", "--remote", "--json", code=code).out)
    found = said["remote"]
    assert isinstance(found, dict)
    return found


def test_as_the_ledger_says(new_job: NewJob, new_provider: NewProvider) -> None:
    provider = new_provider()
    job = new_job(provider, limits="chunk_rows = 3")
    job.run("prepare", code=0)
    assert remote(job, 0) == {"differences": [], "batches": []}
    job.run("run", "--wait", code=0)
    calls = len(provider.calls("POST"))
    found = remote(job, 0)
    assert [one["vendor_status"] for one in found["batches"]] == ["completed", "completed"]
    assert len(provider.calls("POST")) == calls, "looking costs nothing"


def test_a_second_batch_with_our_mark_is_named(new_job: NewJob, new_provider: NewProvider) -> None:
    """Something on the way repeated the POST after its answer had come: nobody else would ever look for it."""
    provider = new_provider(latency="1h")
    job = new_job(provider)
    job.run("run", code=8)
    (ours,) = job.books.creates
    again = {key: ours[key] for key in ("input_file_id", "endpoint", "metadata")} | {"completion_window": "24h"}
    extra = provider.ask("POST", "/v1/batches", again, key=KEY)["id"]
    (said,) = remote(job, 3)["differences"]
    assert said.startswith(f"chunk 1: batch {extra} (")
    assert said.endswith("carries its mark and is not in the ledger; it may be charged")


def test_a_batch_the_provider_lost_and_counts_that_changed(new_job: NewJob, new_provider: NewProvider) -> None:
    provider = new_provider(latency="1h")
    job = new_job(provider, limits="chunk_rows = 3")
    job.run("run", code=8)
    first, second = (one["id"] for one in job.books.creates)
    provider.force(second, status="completed")
    provider.fault(f"GET /v1/batches/{first}", "404", nth="every")
    found = remote(job, 3)
    assert found["differences"] == [f"chunk 1: the provider does not know batch {first}"]
    provider.clear_faults()
    provider.force(first, status="completed")
    job.run("run", "--wait", code=0)
    provider.force(second, request_counts={"total": 3, "completed": 2, "failed": 1})
    (said,) = remote(job, 3)["differences"]
    assert f"batch {second} counts 2 completed, 1 failed, 3 total, it was 3 completed" in said
