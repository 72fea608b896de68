"""Format, lint, types and layers, so that one `pytest` says whether a change can go in."""

from __future__ import annotations

import subprocess

import pytest

from tests.check import QUALITY, ROOT


@pytest.mark.parametrize("name", QUALITY)
def test_the_code_passes(name: str) -> None:
    done = subprocess.run(
        QUALITY[name], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{name}\n{done.stdout}{done.stderr}"
