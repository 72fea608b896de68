"""The key is in no file, no message and no traceback, whatever the provider answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import NewJob
from tests.faults.test_lost_answers import CONTENT, CREATE, LIST, UPLOAD, finished
from tests.support.jobs import JobFolder
from tests.support.provider import Provider
from tests.support.saying import Saying

CANARY = "sk-canary-0123456789abcdefghijklmnop"


def leaks(job: JobFolder) -> list[str]:
    """Where the key was written."""
    texts = {f"{' '.join(one.argv)}: {name}": getattr(one, name) for one in job.done for name in ("out", "err")}
    found = [name for name, text in texts.items() if CANARY in text]
    files = [path for path in job.path.rglob("*") if path.is_file() and path.name != "keys.env"]
    return found + [str(path) for path in files if CANARY.encode() in path.read_bytes()]


def test_a_job_that_meets_every_kind_of_failure_writes_the_key_nowhere(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, limits="chunk_rows = 3", sample="rows = 2")
    job.env["OPENAI_API_KEY"] = CANARY
    job.run("prepare", "-v")
    for on, do in ((UPLOAD, "401"), (CREATE, "400"), (CREATE, "429"), (CREATE, "drop-before"), (LIST, "garbage")):
        provider.fault(on, do, nth="every")
        job.run("run", "-v")
        job.run("run", "--json")
        provider.clear_faults()
    provider.fault(CONTENT, "truncate", count=3)
    job.until_done("run", "--wait", "-v")
    job.run("validate", "--again", "-v", code=0)
    job.run("check", "-v", code=0)
    finished(job)
    assert leaks(job) == []


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
def test_a_gateway_that_repeats_the_key_gets_it_into_no_file_and_no_message(new_job: NewJob, status: int) -> None:
    said = {
        "error": {"message": f"unexpected header: Bearer {CANARY}", "code": CANARY, "type": CANARY, "param": CANARY}
    }
    gateway = Saying(said, status)
    try:
        job = new_job(None, sample="rows = 2")
        job.env |= {"OPENAI_API_KEY": CANARY, "OPENAI_BASE_URL": gateway.url}
        job.run("prepare", code=0)
        job.run("dry-run", "-v")
        for verbose in ("-v", "--json"):
            job.run("submit", verbose, "--set", "sample.rows=0")
            job.run("poll", verbose)
            job.run("resolve", verbose)
    finally:
        gateway.stop()
    assert gateway.seen
    assert leaks(job) == []


@pytest.mark.parametrize(
    "broken", [f"{CANARY}\n", f'"{CANARY}"', f"{CANARY} {CANARY}", f"{CANARY}\u00e9", f"{CANARY}\x00"[:-1] + "\x07"]
)
def test_a_key_that_was_pasted_wrongly_is_named_and_not_shown(new_job: NewJob, provider: Provider, broken: str) -> None:
    job = new_job(provider)
    job.env["OPENAI_API_KEY"] = broken
    done = job.run("run", "-v")
    assert done.code in (0, 4, 8, 10, 11), done
    assert leaks(job) == []


def test_a_key_from_a_file_stays_there(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider)
    (job.path / "keys.env").write_text(f"OPENAI_API_KEY={CANARY}\n")
    (job.path / "keys.env").chmod(0o600)
    job.run("run", "--wait", "-v", "--env-file", "keys.env", code=0, OPENAI_API_KEY=None)
    assert leaks(job) == []


def test_a_key_in_the_job_file_is_refused_unread(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, model=f'provider = "openai"\nname = "gpt-5.4-mini"\nparams = {{ user = "{CANARY}" }}')
    done = job.run("prepare", "-v", code=2)
    assert CANARY not in done.out + done.err
    assert not Path(job.state).exists() or leaks(job) == [str(job.path / "job.toml")]
