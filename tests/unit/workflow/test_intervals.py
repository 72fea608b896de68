"""Our statistics beside those of statsmodels and scipy, and their coverage by exact enumeration."""

from __future__ import annotations

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchctl.workflow.gates import State, decide, read_gate
from batchctl.workflow.intervals import mcnemar, paired_difference, rows_to_decide, wilson

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what its own dependencies have deprecated
    from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
    from statsmodels.stats.proportion import proportion_confint


@given(st.integers(1, 5_000).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_wilson_is_that_of_statsmodels(seen: tuple[int, int]) -> None:
    hits, rows = seen
    assert wilson(hits, rows) == pytest.approx(proportion_confint(hits, rows, method="wilson"), abs=1e-12)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_that_of_statsmodels_and_the_binomial_test(better: int, worse: int) -> None:
    p = mcnemar(better, worse)
    assert p == pytest.approx(their_mcnemar([[5, better], [worse, 7]], exact=True).pvalue, rel=1e-9)
    if better + worse:
        assert p == pytest.approx(stats.binomtest(better, better + worse, 0.5).pvalue, rel=1e-9)


def test_mcnemar_of_many_rows_is_not_lost_to_rounding() -> None:
    assert mcnemar(50_000, 50_000) == 1.0
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(20_100, 19_900) == pytest.approx(stats.binomtest(20_100, 40_000, 0.5).pvalue, rel=1e-9)
    assert 0 <= mcnemar(0, 5_000) < 1e-300


def test_the_difference_of_a_worked_example() -> None:
    """A. Agresti, Y. Min (2005): half a row in each cell, then Wald; the numbers are worked by hand."""
    low, high = paired_difference(14, 9, 400)
    middle, spread = 5 / 402, 1.959963984540054 * math.sqrt(24 - 25 / 402) / 402
    assert (low, high) == pytest.approx((middle - spread, middle + spread), abs=1e-15)
    assert paired_difference(0, 0, 0) == (-1.0, 1.0)


@pytest.mark.parametrize("shares", [(0.05, 0.05), (0.02, 0.1), (0.2, 0.1), (0.01, 0.01)])
def test_the_difference_is_covered_as_often_as_promised(shares: tuple[float, float]) -> None:
    """Over every outcome of 60 rows, weighted by its probability: not less than the nominal 95 % by more than rounding."""
    rows, (up, down) = 60, shares
    covered = 0.0
    for better in range(rows + 1):
        for worse in range(rows + 1 - better):
            low, high = paired_difference(better, worse, rows)
            if low <= up - down <= high:
                rest = rows - better - worse
                covered += stats.multinomial.pmf([better, worse, rest], rows, [up, down, 1 - up - down])
    assert covered >= 0.94


@given(st.floats(0.5, 0.99), st.floats(0.5, 0.99), st.integers(20, 400))
def test_so_many_more_rows_decide_and_one_less_does_not(seen: float, limit: float, rows: int) -> None:
    def decided(factor: float) -> bool:
        low, high = wilson(seen * rows * factor, rows * factor)
        return low >= limit or high < limit

    more = rows_to_decide(rows, decided)
    if more is None:
        assert abs(seen - limit) < 0.001
    elif more:
        assert decided((rows + more) / rows)
        assert not decided((rows + more - 1) / rows)
    else:
        assert decided(1.0)


def figures(hits: int, rows: int) -> dict[str, object]:
    return {"accuracy": {"hits": hits, "rows": rows}, "labels": {}, "rows": rows}


@given(st.integers(1, 2_000).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))), st.integers(1, 99))
def test_a_gate_on_a_share_agrees_with_statsmodels(seen: tuple[int, int], limit: int) -> None:
    hits, rows = seen
    low, high = proportion_confint(hits, rows, method="wilson")
    verdict = decide(read_gate(f"accuracy >= {limit}%"), figures(hits, rows))["state"]
    if abs(low - limit / 100) > 1e-9 and abs(high - limit / 100) > 1e-9:
        assert verdict == (State.PASS if low > limit / 100 else State.FAIL if high < limit / 100 else State.UNDECIDED)
        other = decide(read_gate(f"accuracy <= {limit}%"), figures(hits, rows))["state"]
        assert other == {State.PASS: State.FAIL, State.FAIL: State.PASS}.get(verdict, verdict)


@pytest.mark.parametrize("text", ["accuracy", "acuracy >= 9%", "recall >= 9%", "accuracy(x) >= 1%", "accuracy >= 92",
                                  "p90_seconds <= 5%", "accuracy > 5%"])  # fmt: skip
def test_what_is_no_gate_is_refused(text: str) -> None:
    from batchctl.model.errors import UsageError

    with pytest.raises(UsageError) as caught:
        read_gate(text)
    assert caught.value.hint
