"""File systems that are others than they seem, and state directories that go away."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from batchctl.ledger import places
from batchctl.model.errors import UsageError
from batchctl.workflow.prepare import prepare
from batchctl.workflow.workspace import Options
from tests.faults.test_lost_answers import CREATE, UPLOAD
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

MEMORY = Path("/dev/shm")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system than the job's."""
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == tmp_path.stat().st_dev or not os.access(MEMORY, os.W_OK):
        pytest.skip("there is one file system only")
    made = Path(tempfile.mkdtemp(dir=MEMORY, prefix="batchctl-"))
    yield made
    shutil.rmtree(made)


def test_targets_on_another_file_system(job: JobFolder, elsewhere: Path) -> None:
    """What becomes a file is written beside it: no rename crosses a border."""
    job.write(limits="chunk_rows = 3", more=f'\n[[publish]]\nto = "{elsewhere}/labels.csv"\nkey = ["id"]\n')
    job.run("run", "--wait", code=0)
    job.run("validate", "--rerun-file", f"{elsewhere}/failed.csv", code=0)
    assert (elsewhere / "labels.csv").read_text().count("\n") == 7
    assert sorted(path.name for path in elsewhere.iterdir()) == ["failed.csv", "labels.csv"]


def test_state_on_another_file_system(job: JobFolder, elsewhere: Path) -> None:
    job.run("run", "--wait", "--state", str(elsewhere / "state"), code=0)
    assert len(job.books.rows) == 6
    assert not job.state.exists()


@pytest.mark.parametrize(("on", "sent"), [(UPLOAD, 0), (CREATE, 1)])
def test_a_state_directory_that_is_deleted_meanwhile(job: JobFolder, provider: Provider, on: str, sent: int) -> None:
    """Said, and nothing more is sent; nothing of it is made again half."""
    before = len(provider.calls())
    provider.fault(on, "hang", seconds=1)
    process = job.start("run", "--wait")
    until(lambda: [one for one in provider.calls()[before:] if one["fault"] == "hang"])
    shutil.rmtree(job.state)
    done = process.wait()
    assert done.code == 12, done
    assert "Traceback" not in done.err
    assert len(job.books.creates) == sent
    assert not list(job.state.glob("*/results*"))


# --- network file systems -----------------------------------------------------------------------------------------------

SHARED = "40 23 0:35 / {place} rw,relatime shared:1 - {kind} server:/export rw,vers=4.2\n"
PLAIN = "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_state_directory_that_machines_share_is_refused(
    job: JobFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(PLAIN + SHARED.format(place=job.path, kind=kind))
    monkeypatch.setattr(places, "MOUNTS", mounts)
    with chdir(job.path), pytest.raises(UsageError, match="network file system"):
        prepare(Options(environ=job.env))
    assert not job.state.exists()
    with chdir(job.path):
        prepare(Options(environ=job.env, state=str(tmp_path / "local")))


def test_the_innermost_mount_counts(tmp_path: Path) -> None:
    text = PLAIN + SHARED.format(place=tmp_path, kind="nfs") + f"41 40 8:2 / {tmp_path}/a\\040b rw - xfs /dev/sdb rw\n"
    assert places.file_system_of(tmp_path, text) == "nfs"
    assert places.file_system_of(tmp_path / "a b" / "c", text) == "xfs"
    assert places.file_system_of(tmp_path.parent, text) == "ext4"
    assert places.file_system_of(tmp_path, "") == ""
