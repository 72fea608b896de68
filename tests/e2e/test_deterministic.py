"""P18 and P25: the same input gives the same request files anywhere, and no clock decides anything."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from tests.conftest import ROOT, NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

ROWS = [
    {"id": one, "text": f"Istanbul iIıİ {number} 1.5 1,5 Ä"} for number, one in enumerate(("007", "ı", "I", "ä", "2e3"))
]
PLACES = (
    {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "0"},
    {"LC_ALL": "C.UTF-8", "TZ": "Pacific/Chatham", "PYTHONHASHSEED": "1"},
    {"LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns", "PYTHONHASHSEED": "2", "PYTHONUTF8": "0"},
    {"LANG": "de_DE.ISO-8859-1", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "3", "PYTHONIOENCODING": "ascii"},
)


def prepared(new_job: NewJob, **env: str) -> dict[str, str]:
    job = new_job(
        None, name="same", rows=ROWS, limits="chunk_rows = 2", prompt="{{ id }} {{ text | lower }} {{ text | sort }}"
    )
    argv = [sys.executable, "-m", "batchctl", "prepare"]  # a process of its own: places count from its start
    done = subprocess.run(
        argv, cwd=job.path, env=job.env | env | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((job.directory / "chunks").iterdir())
    }


def test_request_files_do_not_depend_on_the_place(new_job: NewJob) -> None:
    first, *others = (prepared(new_job, **place) for place in PLACES)
    assert len(first) == 6
    for other in others:
        assert other == first


@pytest.mark.parametrize("offset", [-400 * 86_400, 400 * 86_400])
def test_a_provider_whose_clock_is_a_year_off(new_job: NewJob, new_provider: NewProvider, offset: int) -> None:
    job = new_job(new_provider(clock_offset=offset), limits="chunk_rows = 3")
    at(job).fault("POST /v1/batches", "drop-after")
    job.run("run", "--wait", code=0)
    job.check_money()
    assert len(job.books.creates) == 2, "the batch whose answer was lost was found, not made again"
    assert {one["state"] for one in job.check_results().values()} == {"completed"}


def at(job: JobFolder) -> Provider:
    assert job.provider is not None
    return job.provider
