"""P16: it talks to the configured endpoint and to nobody else. Every socket of every command is watched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.desk import JOB, PROMPT, ROWS, SCHEMA

WATCH = Path(__file__).parent / "loopback"


def run(folder: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    given = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(WATCH), **env}
    return subprocess.run(argv, cwd=folder, env=given, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    for name, text in {"job.toml": JOB, "messages.csv": ROWS, "prompt.md": PROMPT, "schema.json": SCHEMA}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_watch_is_there_and_bites(job: Path) -> None:
    there = "import sys; assert 'batchctl_test_loopback' in sys.modules"
    assert run(job, sys.executable, "-c", there).returncode == 0
    for leave in (
        "import socket; socket.create_connection(('192.0.2.1', 443), 1)",
        "import socket; socket.getaddrinfo('example.com', 443)",
        "import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=1)",
    ):
        assert run(job, sys.executable, "-c", leave).returncode == 99


def test_no_command_leaves_the_machine(job: Path) -> None:
    """From init to check, dry run and batch included, with a key in the environment and a proxy that would be used."""
    batchctl = (sys.executable, "-m", "batchctl")
    outside = {
        "OPENAI_API_KEY": "sk-test",
        "HTTPS_PROXY": "http://192.0.2.1:3128",
        "HTTP_PROXY": "http://192.0.2.1:3128",
    }
    for argv in (
        ["init", "other", "--from", "messages.csv"],
        ["run", "--wait", "--set", "sample.rows=2"],
        ["status"],
        ["check"],
        ["providers"],
    ):
        done = run(job, *batchctl, *argv, **outside)
        assert done.returncode == 0, done


def test_a_remote_reference_is_never_followed(job: Path) -> None:
    (job / "schema.json").write_text('{"type": "object", "properties": {"a": {"$ref": "http://192.0.2.1/a.json"}}}')
    done = run(job, sys.executable, "-m", "batchctl", "prepare")
    assert done.returncode == 2
    assert "outside the file" in done.stderr
