"""`python -m tests.bench.forecast` in small: the forecast of real questions against the emulator's money meter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.forecast import DATA, honesty


@pytest.mark.skipif(not DATA.is_dir(), reason="the public test data is not beside the checkout")
@pytest.mark.parametrize("pick", ["random", "stratified:category", "longest"])
def test_forecasts_are_honest(pick: str, tmp_path: Path) -> None:
    seeds = 1 if pick == "longest" else 8  # the longest rows are the same for every seed
    found = honesty(tmp_path, rows=600, sample=50, seeds=seeds, pick=pick)
    assert found.covered == found.near == seeds
