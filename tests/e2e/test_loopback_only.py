"""P16: a whole job where the kernel has no network but loopback. What wanted to go elsewhere would fail here."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.conftest import NewJob

UP = "import fcntl,socket,struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 1))"
"""SIOCSIFFLAGS with IFF_UP: what `ip link set lo up` does, without `ip`."""


def test_a_job_with_loopback_alone(new_job: NewJob) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespace can be made here")
    job = new_job(None, model='provider = "emulator"\nname = "gpt-5-mini"', sample="rows = 2")
    script = f'"{sys.executable}" -c "{UP}" && exec "{sys.executable}" -m batchctl run --wait'
    done = subprocess.run(
        [unshare, "-rn", "sh", "-c", script],
        cwd=job.path,
        env=job.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {one["state"] for one in job.lines("results.jsonl")} == {"completed"}
