"""A sample of the matrix of struck system calls; `python -m tests.crash --mode all` strikes every one of them.

The sample is fixed by the calls of a run: one of each kind of call on each kind of file, some more that are spread out.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.matrix import MODES, Bench, shim


@pytest.fixture(scope="module")
def calls(bench: Bench) -> list[str]:
    return bench.calls()


def sample(calls: list[str], places: int, *, first: int = 0) -> list[int]:
    """`places` numbers out of all the groups of equal calls that follow each other, evenly spread from `first` on."""
    groups = [
        int(line.split()[0])
        for place, line in enumerate(calls)
        if not place or line.split()[1::2] != calls[place - 1].split()[1::2]
    ]
    stride = max(1, len(groups) // places)
    return groups[first::stride]


def struck(bench: Bench, numbers: list[int], hows: tuple[str, ...]) -> int:
    """Strike the calls, the ways to strike in turn; how many were struck. Any harm fails with the line that repeats it."""
    count = 0
    for place, number in enumerate(numbers):
        outcome = bench.strike(number, hows[place % len(hows)])
        assert outcome.harms == (), f"--only {number}:{outcome.how} ({outcome.call}): {outcome.harms}"
        count += outcome.struck
    return count


def test_a_run_makes_the_calls_that_are_struck(calls: list[str]) -> None:
    kinds = {line.split()[1] for line in calls}
    assert {"open", "write", "pwrite", "fsync", "fdatasync", "rename", "mkdir", "unlink", "connect", "send"} <= kinds
    assert len(calls) > 300


def test_killed_at_a_call(bench: Bench, calls: list[str]) -> None:
    assert struck(bench, sample(calls, 14), MODES["kill"]) > 9


def test_killed_while_results_are_written(bench: Bench, calls: list[str]) -> None:
    """A reader sees the old file or the new one, and never half of it."""
    numbers = [int(one.split()[0]) for one in calls if "/results.jsonl" in one and one.split()[1] in ("open", "write")]
    assert struck(bench, numbers[:2], ("after",)) == 2


def test_no_room_for_the_results_is_said(bench: Bench, calls: list[str]) -> None:
    number = next(int(one.split()[0]) for one in calls if "/results.jsonl" in one and one.split()[1] == "write")
    outcome = bench.strike(number, "ENOSPC+")
    assert outcome.harms == ()
    assert outcome.first is not None
    assert outcome.first.code == 12
    assert "the disk is full" in outcome.first.err


@pytest.mark.parametrize("mode", ["powercut", "torn"])
def test_power_cut_at_a_call(bench: Bench, calls: list[str], mode: str) -> None:
    assert struck(bench, sample(calls, 9, first=3), MODES[mode]) > 6


def test_the_clock_jumps_at_a_call(bench: Bench, calls: list[str]) -> None:
    assert struck(bench, sample(calls, 6, first=2), MODES["clock"]) > 4


@pytest.mark.parametrize("mode", ["enospc", "eio", "erofs", "efbig", "short"])
def test_a_disk_error_at_a_call(bench: Bench, calls: list[str], mode: str) -> None:
    able = [line for line in calls if mode != "short" or line.split()[1] in ("write", "pwrite")]
    assert struck(bench, sample(able, 4, first=5), MODES[mode])


@pytest.mark.parametrize("kind", ["live", pytest.param("tail", marks=pytest.mark.slow)])
def test_killed_at_a_call_of_a_job_that_asks_row_by_row(kind: str, tmp_path: Path) -> None:
    """With a dry run before it, or a batch that is cancelled for it, and two targets behind it."""
    preload = shim(tmp_path)
    if preload is None:
        pytest.skip("needs a C compiler")
    bench = Bench(tmp_path / "bench", preload, kind)
    try:
        assert struck(bench, sample(bench.calls(), 5, first=20), MODES["kill"]) > 3
    finally:
        bench.close()
