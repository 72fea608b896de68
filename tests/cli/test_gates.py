"""Nothing is spent without a dry run, a word and a key; each refusal has its own exit code."""

from pathlib import Path

import pytest

from tests.cli.conftest import Golden
from tests.cli.desk import Desk

KEY = {"OPENAI_API_KEY": "sk-canary-0123456789abcdef"}


@pytest.fixture
def openai(desk: Desk) -> Desk:
    """A prepared job that would cost money. No key, and an address where nothing listens."""
    desk.job(('provider = "emulator"', 'provider = "openai"'), ("rows = 0", "rows = 2"))
    desk.env["OPENAI_BASE_URL"] = "http://127.0.0.1:9/v1"
    desk.run("prepare", code=0)
    return desk


def test_the_order_of_the_gates(openai: Desk, golden: Golden) -> None:
    openai.fails(5, "submit")
    openai.fails(5, "submit", "--yes")
    openai.fails(6, "run")
    openai.fails(4, "run", "--yes")
    openai.fails(4, "dry-run")
    openai.fails(6, "submit", "--set", "sample.rows=0")
    openai.fails(4, "submit", "--set", "sample.rows=0", "--yes")
    openai.fails(4, "submit", "--set", "sample.rows=0", env={"BATCHCTL_YES": "1"})
    openai.run("submit", "--plan", code=0)
    openai.run("status", code=8)
    golden("gates")


@pytest.mark.parametrize("key", ["", " ", "sk-canary-0123456789abcdef\n", "'sk-canary-0123456789abcdef' "])
def test_a_key_that_cannot_be_one(openai: Desk, key: str) -> None:
    done = openai.fails(4, "dry-run", env={"OPENAI_API_KEY": key})
    assert "`OPENAI_API_KEY`" in done.err
    assert "canary" not in done.err


def test_a_key_in_clear(openai: Desk) -> None:
    """Plain http to another machine is refused before the key goes anywhere."""
    openai.env["OPENAI_BASE_URL"] = "http://example.com/v1"
    done = openai.fails(2, "submit", "--set", "sample.rows=0", "--yes", env=KEY)
    assert "the provider's address must be https" in done.err


def test_no_key_is_ever_written(openai: Desk) -> None:
    """P14, for what a person may do wrong: the key shows up in no file and no output."""
    env_file = openai.write("keys.env", f"OPENAI_API_KEY={KEY['OPENAI_API_KEY']}\n")
    openai.env["BATCHCTL_RETRY_SECONDS"] = "0"
    done = openai.run("dry-run", "-v", "--env-file", str(env_file), code=10)
    assert "127.0.0.1:9" in done.err
    assert "sk-canary" not in done.out + done.err
    written = [path for path in openai.state.rglob("*") if path.is_file()]
    assert not [path for path in written if b"sk-canary" in path.read_bytes()]


def test_a_dry_run_that_fails(desk: Desk, golden: Golden) -> None:
    """The gate stays shut until a sample is good; a repeated look asks nothing twice."""
    desk.job(("rows = 0", "rows = 2"), more="[emulator]\nschema = 1.0\n")
    desk.run("prepare", code=0)
    desk.run("dry-run", code=5)
    assert desk.billed()["live_calls"] == 2
    desk.fails(5, "submit", "--yes")
    desk.run("run", "--yes", code=5)
    desk.run("dry-run", "--json", code=5)
    golden("dry-run-fails")
    assert desk.billed()["live_calls"] == 2
    assert desk.billed()["batches"] == 0


def test_the_key_file_is_text_of_names_and_values(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "keys.env"
    path.write_bytes(b"\xff\xfe")
    assert "it is not UTF-8 text" in desk.fails(2, "status", "--env-file", str(path)).err
    path.write_text("\ufeff# a comment\n\nexport A=\"x y\"\nB='z'\r\n")
    desk.run("prepare", "--env-file", str(path), code=0)


def test_a_person_at_no_terminal_is_never_asked(openai: Desk) -> None:
    """stdin that says yes is not a person."""
    done = openai.fresh("run", code=6, input=b"y\ny\n")
    assert "add --yes" in done.err
