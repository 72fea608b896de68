"""Sources in S3 (moto) and Google Cloud Storage (gcp-storage-emulator): read with globs, kept while unchanged."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.publish.services import Objects, gcs_server, s3_server
from tests.support.jobs import JobFolder

SERVERS: dict[str, Callable[[], AbstractContextManager[Objects]]] = {"s3": s3_server, "gs": gcs_server}


@pytest.fixture(params=list(SERVERS))
def store(request: pytest.FixtureRequest) -> Iterator[Objects]:
    with SERVERS[request.param]() as server:
        yield server


def rows(*ids: str) -> bytes:
    return "".join(f"{json.dumps({'id': one, 'text': f'question {one}'})}\n" for one in ids).encode()


def reading(job: JobFolder, address: str, store: Objects | None = None) -> None:
    job.write(source=f'path = "{address}"\nid = "id"')
    job.env |= store.env if store else {}


def copies(job: JobFolder) -> dict[str, int]:
    return {one.name: one.stat().st_ino for one in (job.state / "sources").rglob("*") if one.is_file()}


def test_rows_of_objects(job: JobFolder, store: Objects) -> None:
    root = store.to.partition("tables/")[0]
    reading(job, f"{root}days/*/rows-[ab].jsonl*", store)
    store.put("days/1/rows-a.jsonl", rows("A1", "A2"))
    store.put("days/2/rows-b.jsonl.gz", gzip.compress(rows("B1")))
    store.put("days/2/deep/rows-a.jsonl", rows("no"))
    store.put("days/2/rows-c.jsonl", rows("no"))
    job.run("run", "--wait", code=0)
    assert [row["id"] for row in job.lines("results.jsonl")] == ["A1", "A2", "B1"]
    before = copies(job)
    assert len(before) == 2
    assert {(job.state / "sources").stat().st_mode & 0o777} == {0o700}
    job.run("prepare", code=0)
    assert copies(job) == before, "what did not change was fetched again"
    store.put("days/1/rows-a.jsonl", rows("A1", "A3"))
    told: Any = job.run("prepare", "--json", code=0).json
    assert (told["run"], told["balance"]["rows"]) == (f"{job.name}-0002", 1), "only the new row is to be sent"
    assert len(copies(job)) == 2, "an older copy stayed"
    store.put("days/1/rows-a.jsonl", b'{"id": "A1", "text": 1}\n{"id": \n')
    job.run("prepare", code=0)
    job.number = 3
    assert f"{root}days/1/rows-a.jsonl:2" in (job.directory / "rejects.jsonl").read_text()


def test_objects_that_are_not_there(job: JobFolder, store: Objects) -> None:
    root = store.to.partition("tables/")[0]
    for address, what in (
        (f"{root}rows.jsonl", f"there is no object `{root}rows.jsonl`"),
        (f"{root}*.jsonl", f"no object matches `{root}*.jsonl`"),
        (root.replace("bucket", "bucked") + "rows.jsonl", "there is no bucket `bucked`"),
    ):
        reading(job, address, store)
        assert what in job.run("prepare", code=2).err
    assert not copies(job)


def test_a_store_that_is_not_reached(job: JobFolder) -> None:
    reading(job, "s3://bucket/rows.jsonl")
    job.env |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    assert "no AWS credentials were found" in job.run("prepare", code=4).err
    job.env |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_MAX_ATTEMPTS": "1"}
    assert "S3 cannot be used now" in job.run("prepare", code=10, AWS_DEFAULT_REGION="us-east-1").err
