"""Many rows: chunks keep their limits, no more batches at once than allowed, memory that does not grow with the rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import most_at_once

IN_FLIGHT = 4


def peak_mb(job: JobFolder, *argv: str) -> float:
    """Run a command in a process of its own; its peak resident memory."""
    process = subprocess.Popen(
        [sys.executable, "-m", "batchctl", *argv], cwd=job.path, env=job.env, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    assert process.returncode == 0, said.decode()
    return usage.ru_maxrss / 1024


def write_rows(path: Path, count: int) -> None:
    filler = "Why was my card declined when I tried to pay in the shop around the corner this morning? " * 2
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        for number in range(count):
            file.write(f"R-{number:06d},question {number}: {filler}\n")


@pytest.mark.parametrize(("limit", "chunks"), [("chunk_rows = 5000", 20), ('chunk_bytes = "10MB"', None)])
def test_100_000_rows_finish_in_chunks_with_flat_memory(
    new_job: NewJob, new_provider: NewProvider, limit: str, chunks: int | None
) -> None:
    provider = new_provider()
    peaks = {}
    for rows in (20_000, 100_000):
        job = new_job(provider, limits=f"{limit}\nin_flight = {IN_FLIGHT}", output="")
        write_rows(job.path / "rows.csv", rows)
        peaks[rows] = peak_mb(job, "run", "job.toml", "--wait", "-q")
        balance = job.check_balance()
        assert balance["completed"] == balance["rows"] == rows
        assert len(job.books.creates) == len(job.status()["chunks"])
        sizes = [(one["requests"], one["bytes"]) for one in job.status()["chunks"]]
        assert all(requests <= 5000 or size <= 10_000_000 for requests, size in sizes)
        if chunks is None:
            assert all(size <= 10_000_000 for _, size in sizes)
            assert all(size > 9_900_000 for _, size in sizes[:-1])
        elif rows == 100_000:
            assert [requests for requests, _ in sizes] == [5000] * chunks
        with (job.directory / "results.jsonl").open("rb") as lines:
            assert sum(1 for _ in lines) == rows
        assert at_once(job) <= IN_FLIGHT
    assert peaks[100_000] <= 1.3 * peaks[20_000], peaks


def at_once(job: JobFolder) -> int:
    """The most batches of this run between create and the poll that saw their end, from the ledger's order of events."""
    events = job.sql("SELECT seq, chunk, became FROM event WHERE became IN ('intent', 'ended') ORDER BY seq")
    begun = {chunk: seq for seq, chunk, became in events if became == "intent"}
    ended = {chunk: seq for seq, chunk, became in events if became == "ended"}
    return most_at_once([(begun[chunk], ended[chunk]) for chunk in begun])


def test_a_long_prompt_does_not_take_memory_for_every_row(job: JobFolder) -> None:
    """Each of 4,000 rows gets 60 kB of examples: 240 MB of requests, a few of which are held at once."""
    job.write()
    write_rows(job.path / "rows.csv", 4_000)
    short = peak_mb(job, "prepare")
    (job.path / "prompt.md").write_text("An example of what is asked. " * 2_000 + "\n{{ text }}\n")
    assert peak_mb(job, "prepare") < short + 100
