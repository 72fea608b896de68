"""What a machine may do to a process: no memory, no descriptors, no home, asleep for a day; and what children inherit."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.test_lost_answers import CREATE, finished
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

ROOT = Path(__file__).resolve().parents[2]
TRACE = b"Traceback"
ENDS = {0, 2, 8, 10, 11, 12}


def limited(which: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (most, most))


def fresh(job: JobFolder, *argv: str, before: Callable[[], None] | None = None, **env: str) -> tuple[int, str]:
    """A command in an interpreter of its own: exit code and stderr."""
    made = subprocess.run(
        [sys.executable, "-m", "batchctl", *argv],
        cwd=job.path,
        env={**job.env, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        preexec_fn=before,
        timeout=120,
        check=False,
    )
    return made.returncode, made.stderr


@pytest.mark.slow
@pytest.mark.parametrize("most_mb", [150, 250, 300, 350, 400, 450, 500, 600, 800])
def test_too_little_memory_loses_nothing(job: JobFolder, most_mb: int) -> None:
    """Wherever the memory ends (some libraries abort the process): the next command carries on."""
    fresh(job, "run", "--wait", before=limited(resource.RLIMIT_AS, most_mb << 20))
    job.until_done("run", "--wait")
    finished(job)
    assert len(job.books.creates) == 2


def test_no_memory_is_said_so(job: JobFolder) -> None:
    code, said = fresh(job, "prepare", PYTHONPATH=f"{job.path}:{ROOT}")
    assert code == 0, said
    (job.path / "sitecustomize.py").write_text(
        "import batchctl.workflow.submit as s\ndef none(*_, **__):\n    raise MemoryError\ns.consent = none\n"
    )
    code, said = fresh(job, "submit", PYTHONPATH=f"{job.path}:{ROOT}")
    assert (code, said.split("\n")[0]) == (12, "error: the memory of this machine is not enough")
    job.run("run", "--wait", code=0)
    finished(job)


@pytest.mark.parametrize("most", [16, *(pytest.param(one, marks=pytest.mark.slow) for one in (8, 10, 12, 14, 20, 32))])
def test_too_few_descriptors_lose_nothing(job: JobFolder, most: int) -> None:
    code, said = fresh(job, "run", "--wait", before=limited(resource.RLIMIT_NOFILE, most))
    assert code in ENDS, said
    job.until_done("run", "--wait")
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize("home", ["", "/nonexistent"])
def test_a_home_that_is_missing_is_not_needed(job: JobFolder, home: str) -> None:
    job.run("run", "--wait", code=0, HOME=home or None)
    finished(job)


def test_a_hook_that_outlives_its_parent_holds_no_lock(job: JobFolder) -> None:
    """A child that was started by a command inherits none of its descriptors."""
    job.write(
        limits="chunk_rows = 3",
        more='\n[[notify]]\non = ["done"]\ncommand = ["sh", "-c", "echo $$ > hook; exec sleep 60"]\n',
    )
    process = job.start("run", "--wait")
    hook = job.path / "hook"
    until(lambda: hook.exists() and hook.read_text().strip())
    child = int(hook.read_text())
    try:
        process.signal(signal.SIGKILL)
        assert process.wait().killed
        held = [os.readlink(f"/proc/{child}/fd/{one}") for one in os.listdir(f"/proc/{child}/fd")]
        assert not [one for one in held if one.startswith(str(job.path))]
        (job.path / "job.toml").write_text((job.path / "job.toml").read_text().partition("[[notify]]")[0])
        job.run("run", "--wait", code=0)
    finally:
        os.kill(child, signal.SIGKILL)
    finished(job)


def test_suspended_in_the_middle_of_a_create(job: JobFolder, provider: Provider) -> None:
    """A laptop that sleeps: the answer came, and the connection is long gone, when the process wakes up."""
    before = len(provider.calls())
    provider.fault(CREATE, "hang", seconds=0.5)
    process = job.start("run", "--wait")
    until(lambda: [one for one in provider.calls()[before:] if one["fault"] == "hang"])
    process.signal(signal.SIGSTOP)
    until(lambda: all(one["status"] == "completed" for one in job.books.creates) and job.books.creates)
    process.signal(signal.SIGCONT)
    assert process.wait().code == 0
    finished(job)
    assert len(job.books.creates) == 2


@pytest.mark.parametrize("dress", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_a_plain_terminal_of_twenty_columns(job: JobFolder, dress: dict[str, str]) -> None:
    """Progress is drawn on a terminal; where it cannot be, nothing drives it."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 20, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "batchctl", "run", "--wait"],
        cwd=job.path,
        env={**job.env, **dress, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the last writer has left
        while block := os.read(ours, 65_536):
            shown += block
    os.close(ours)
    assert process.wait(60) == 0, shown
    assert b"Balance  6 = 6 completed" in shown.replace(b"\r\n", b"\n")
    assert b"\x1b[3" not in shown, "no colours"
    assert TRACE not in shown
    finished(job)
