"""A few of the random fault scripts; `python -m tests.faults --scripts 1000` runs many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.scripts import played, written
from tests.support.commands import Commands

SEEDS = range(1, 8)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_the_script_every_row_ends_in_one_place_and_is_paid_once_per_attempt(
    seed: int, tmp_path: Path, commands: Commands
) -> None:
    course = played(tmp_path, commands, seed)
    assert course.harms == [], f"{course.harms}\n{written(seed)}"
    assert course.states["rows"] == written(seed).rows


def test_a_seed_is_one_script() -> None:
    assert written(7) == written(7) != written(8)
