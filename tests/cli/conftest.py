"""A desk per test, and golden transcripts of what its commands showed (`pytest --update-golden` rewrites them)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.desk import GOLDEN, Desk, transcript
from tests.support.commands import Commands

Golden = Callable[[str], None]


@pytest.fixture
def bare(tmp_path: Path, commands: Commands) -> Desk:
    """An empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Desk(folder, commands)


@pytest.fixture
def desk(bare: Desk) -> Desk:
    """A folder with a job of three rows that needs no key and no dry run."""
    bare.job()
    return bare


@pytest.fixture
def golden(bare: Desk, request: pytest.FixtureRequest) -> Golden:
    """Compare everything the test's commands showed with `golden/NAME.txt`."""

    def compare(name: str) -> None:
        path = GOLDEN / f"{name}.txt"
        shown = transcript(bare)
        if request.config.getoption("--update-golden"):
            GOLDEN.mkdir(exist_ok=True)
            path.write_text(shown, encoding="utf-8")
        assert path.exists(), f"no {path.name}: run pytest --update-golden and read what it wrote"
        assert shown == path.read_text(encoding="utf-8")

    return compare


as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
