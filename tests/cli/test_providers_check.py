"""`providers check JOB`: what works is said to work, what does not is named, and nothing of it is billed."""

from __future__ import annotations

import json

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.gcs import Gcs
from tests.support.jobs import JobFolder

MODELS = {"openai": "gpt-5.4-mini", "anthropic": "claude-haiku-4-5", "gemini": "gemini-2.5-flash"}


def checks(job: JobFolder, code: int, **env: str) -> dict[str, bool | None]:
    said = json.loads(job.run("providers", "check", "--json", code=code, **env).out)
    assert (said["schema"], said["exit"]) == ("batchctl/providers@1", code)
    return {one["check"]: one["ok"] for one in said["checks"]}


@pytest.mark.parametrize("name", MODELS)
def test_everything_works(new_job: NewJob, new_provider: NewProvider, name: str) -> None:
    provider = new_provider()
    job = new_job(provider, model=f'provider = "{name}"\nname = "{MODELS[name]}"')
    assert set(checks(job, 0).values()) == {True}
    assert (job.books.creates, job.books.live) == ([], 0)
    if name != "anthropic":
        left = [one["path"] for one in provider.calls("DELETE")]
        assert len(left) == 1, "what was uploaded is deleted again"


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_not_there(new_job: NewJob, new_provider: NewProvider, name: str) -> None:
    job = new_job(new_provider(), model=f'provider = "{name}"\nname = "nonexistent-1"')
    done = job.run("providers", "check", code=10)
    assert "nonexistent-1` is not there for this key" in done.err + done.out


@pytest.mark.parametrize("place", ["gcs", "bigquery"])
def test_vertex_stores_and_lists_and_cannot_tell_about_the_model(
    new_job: NewJob, new_provider: NewProvider, gcs: Gcs, place: str
) -> None:
    bucket = gcs.bucket() if place == "gcs" else "bq://a-project.batchctl"
    job = new_job(
        new_provider(gcs=gcs.url), model=f'provider = "vertex"\nname = "gemini-2.5-flash"\nbucket = "{bucket}"'
    )
    assert checks(job, 0) == {"key": True, "batches": True, "upload": True, "model": None}
    assert (job.books.creates, job.books.live) == ([], 0)


def test_a_bucket_that_is_not_there(new_job: NewJob, new_provider: NewProvider, gcs: Gcs) -> None:
    model = 'provider = "vertex"\nname = "gemini-2.5-flash"\nbucket = "no-such-bucket"'
    job = new_job(new_provider(gcs=gcs.url), model=model)
    assert checks(job, 10)["upload"] is False


@pytest.mark.parametrize("key", ["", "sk-bad"])
def test_a_key_that_is_missing_or_wrong(new_job: NewJob, new_provider: NewProvider, key: str) -> None:
    job = new_job(new_provider())
    found = checks(job, 4, OPENAI_API_KEY=key)
    assert False in found.values()
    assert found["model"] is None, "not tried with a key that does not work"


def test_wrong_words(new_job: NewJob) -> None:
    job = new_job(None)
    assert "batchctl providers check" in job.run("providers", "chek", code=2).err
