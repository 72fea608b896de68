"""A state directory that is copied, put on a network file system, or backed up while someone works in it."""

from __future__ import annotations

import shutil
import signal

import pytest

from tests.conftest import NewJob, NewProvider
from tests.faults.test_at_once import holds_the_lock
from tests.faults.test_lost_answers import CREATE, finished
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until


def copy_of(job: JobFolder) -> JobFolder:
    """The whole folder once more, as `cp -r` or a restored backup leaves it."""
    place = job.path.with_name(f"{job.path.name}-copy")
    shutil.copytree(job.path, place)
    twin = JobFolder(place, job.commands, job.provider, job.name)
    twin.env, twin.marked = {**job.env, "HOME": str(place)}, job.marked
    return twin


@pytest.mark.parametrize("model", ["", 'provider = "anthropic"\nname = "claude-haiku-4-5"'])
def test_two_copies_of_a_state_directory_send_a_chunk_once(
    new_job: NewJob, new_provider: NewProvider, model: str
) -> None:
    """Both give a chunk the same mark (or the same custom_ids): the copy finds what the first one sent, and takes it."""
    job = new_job(new_provider(), limits="chunk_rows = 3", **({"model": model} if model else {}))
    job.run("prepare", code=0)
    twin = copy_of(job)
    job.run("run", "--wait", code=0)
    twin.until_done("run", "--wait")
    assert "copied" in twin.done[0].err
    assert len(job.books.creates) == 2
    finished(twin)
    assert not [one for one in job.done if "copied" in one.err]


def test_a_copy_alone_goes_on_by_itself(job: JobFolder) -> None:
    """Moved to another disk, restored from a backup, kept in a cache: nobody else has sent anything."""
    job.run("prepare", code=0)
    twin = copy_of(job)
    twin.run("run", "--wait", code=0)
    finished(twin)


def test_a_backup_made_while_someone_writes_is_whole(job: JobFolder, provider: Provider) -> None:
    provider.fault(CREATE, "hang", seconds=1)
    before = len(provider.calls())
    process = job.start("run", "--wait")
    until(lambda: holds_the_lock(job, process) and [one for one in provider.calls()[before:] if one["fault"]])
    process.signal(signal.SIGSTOP)
    twin = copy_of(job)
    process.signal(signal.SIGCONT)
    assert process.wait().code == 0
    twin.run("check", code=0)
    assert twin.check_balance()["rows"] == 6
    finished(job)
    twin.until_done("run", "--wait")
    assert len(job.books.creates) == 2
    finished(twin)
