"""Several processes on one job, readers beside a writer, and signals in the middle of a paid call.

Nothing here waits for a certain time to pass: a process is stopped (SIGSTOP) or its call hangs at the provider while the
others act.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from tests.conftest import NewJob, NewProvider
from tests.faults.test_lost_answers import CREATE, UPLOAD, finished
from tests.support.commands import Running
from tests.support.jobs import STATES, JobFolder
from tests.support.provider import Provider, until


def holds_the_lock(job: JobFolder, process: Running) -> bool:
    path = job.state / f"{job.name}.lock"
    return path.exists() and f'"pid": {process.pid}'.encode() in path.read_bytes()


@pytest.fixture
def stopped(job: JobFolder) -> Iterator[Running]:
    """A `run` that was stopped while it holds the lock; it is somewhere between its first and its last step."""
    process = job.start("run", "--wait")
    until(lambda: holds_the_lock(job, process))
    process.signal(signal.SIGSTOP)
    yield process
    if not process.ended:
        process.signal(signal.SIGCONT)
        process.wait()


def test_while_one_process_works_every_other_says_who_and_leaves(job: JobFolder, stopped: Running) -> None:
    for command in ("run", "prepare"):
        done = job.run(command, code=9)
        assert str(stopped.pid) in done.err
    assert job.run("prepare", "--json", code=9).json["error"]["code"] == "locked"
    stopped.signal(signal.SIGCONT)
    assert stopped.wait().code == 0
    finished(job)


def test_with_wait_the_second_takes_over_when_the_first_is_done(job: JobFolder, stopped: Running) -> None:
    second = job.start("run", "--wait")
    stopped.signal(signal.SIGCONT)
    assert [stopped.wait().code, second.wait().code] == [0, 0]
    finished(job)
    assert len(job.books.creates) == 2


def test_a_killed_holder_leaves_no_lock_behind(job: JobFolder, stopped: Running) -> None:
    job.run("run", code=9)
    stopped.signal(signal.SIGKILL)
    assert stopped.wait().killed
    job.run("run", "--wait", code=0)
    finished(job)


def test_of_many_that_start_together_one_works(job: JobFolder) -> None:
    started = [job.start("run", "--wait", BATCHCTL_WAIT=None) for _ in range(3)] + [job.start("run") for _ in range(3)]
    codes = [one.wait().code for one in started]
    assert codes[:3] == [0, 0, 0]
    assert set(codes[3:]) <= {0, 8, 9}
    finished(job)
    assert len(job.books.creates) == 2


def test_commands_of_a_sent_run_exclude_each_other(new_job: NewJob, new_provider: NewProvider) -> None:
    provider = new_provider(latency="1h")
    job = new_job(provider, limits="chunk_rows = 3")
    job.run("run", code=8)
    provider.fault("GET /v1/batches/*", "hang", seconds=30)
    process = job.start("poll")
    until(lambda: len([one for one in provider.calls("GET") if one["fault"] == "hang"]))
    for command in ("run", "submit", "poll", "validate", "rerun", "cancel", "resolve", "dry-run"):
        job.run(command, code=9)
    assert job.run("status", code=8)
    process.signal(signal.SIGTERM)
    assert process.wait().code == 143
    job.run("poll", code=8)


def test_readers_see_whole_numbers_and_whole_files_at_any_moment(job: JobFolder) -> None:
    job.run("prepare", code=0)
    process = job.start("run", "--wait")
    seen = 0
    while not process.ended:
        balance = job.check_balance()
        assert balance["rows"] == 6
        path = job.directory / "results.jsonl"
        if path.exists():
            states = [json.loads(line)["state"] for line in path.read_bytes().split(b"\n")[:-1]]
            assert len(states) == 6
            assert set(states) <= set(STATES)
        seen += 1
    assert process.wait().code == 0
    assert job.start("status", "--json").wait().code == 0
    assert seen
    finished(job)


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143), (signal.SIGKILL, -9)]
)
@pytest.mark.parametrize("on", [CREATE, UPLOAD])
def test_a_signal_during_a_call_leaves_at_once_and_nothing_is_paid_twice(
    job: JobFolder, provider: Provider, on: str, number: int, code: int
) -> None:
    """The provider acts, but its answer hangs: nobody who is asked to leave may wait for it."""
    before = len(provider.calls())
    provider.fault(on, "hang", seconds=30)
    process = job.start("run", "--wait")
    until(lambda: [one for one in provider.calls()[before:] if one["fault"] == "hang"])
    process.signal(number)
    assert process.wait().code == code
    balance = job.check_balance()
    assert (balance["held"], balance["queued"]) == ((3, 3) if on == CREATE else (0, 6))
    job.run("run", "--wait", code=0)
    finished(job)
    assert len(job.books.creates) == 2


def test_a_second_ctrl_c_is_as_safe_as_the_first(job: JobFolder, provider: Provider) -> None:
    before = len(provider.calls())
    provider.fault(CREATE, "hang", seconds=30)
    process = job.start("run", "--wait")
    until(lambda: [one for one in provider.calls()[before:] if one["fault"] == "hang"])
    process.signal(signal.SIGINT)
    process.signal(signal.SIGINT)
    assert process.wait().code in (130, -signal.SIGINT)
    job.run("run", "--wait", code=0)
    finished(job)


def test_a_state_directory_that_changed_hands_meanwhile_sends_nothing(job: JobFolder, provider: Provider) -> None:
    """The lock file was replaced while an upload was under way: someone else may hold the job now."""
    before = len(provider.calls())
    provider.fault(UPLOAD, "hang", seconds=1)
    process = job.start("run", "--wait")
    until(lambda: [one for one in provider.calls()[before:] if one["fault"] == "hang"])
    (job.state / f"{job.name}.lock").unlink()
    assert process.wait().code == 12
    assert job.books.creates == []
    job.run("run", "--wait", code=0)
    finished(job)
