"""The forecast as a piece of statistics: what it gets right by construction, and that its interval is honest."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from batchctl.workflow.forecast import Point, forecast, student_t

PICO = 10**6


def test_cost_that_follows_length_is_extrapolated_from_any_sample() -> None:
    """The longest ten rows of a hundred, whose cost is 3 a byte and 100 besides."""
    points = [Point(size, 100 + 3 * size) for size in range(91, 101)]
    found = forecast(points, requests=100, total_bytes=sum(range(1, 101)))
    assert found is not None
    assert found.mid == 100 * 100 + 3 * 5050


def test_a_whole_run_that_was_sampled_is_no_forecast_but_the_sum() -> None:
    costs = [5, 9, 400, 7, 8, 12, 3]
    found = forecast([Point(10, cost) for cost in costs], requests=7, total_bytes=70, longest=10**6)
    assert found is not None
    assert (found.low, found.mid, found.high) == (sum(costs),) * 3


def test_too_few_answers_give_no_interval() -> None:
    assert forecast([], requests=10, total_bytes=10) is None
    found = forecast([Point(1, 5), Point(1, 7)], requests=10, total_bytes=10)
    assert found is not None
    assert (found.mid, found.low, found.high) == (60, None, None)
    assert found.text.startswith("about ")


def test_a_stratum_counts_by_its_rows_not_by_its_sample() -> None:
    """Five rows each of a stratum of 900 that costs 10 and of one of 100 that costs 110: 20 a row, not 60."""
    points = [Point(50, 10, Fraction(900, 5))] * 5 + [Point(50, 110, Fraction(100, 5))] * 5
    found = forecast(points, requests=1000, total_bytes=50_000)
    assert found is not None
    assert found.mid == 20 * 1000


def test_the_high_end_allows_for_answers_as_long_as_the_cap_that_were_not_drawn() -> None:
    points = [Point(50, 100)] * 48
    found = forecast(points, requests=10_000, total_bytes=500_000, longest=1100)
    assert found is not None
    assert found.high is not None
    assert found.low is not None
    assert found.high - found.mid == pytest.approx(2 / 50 * 1000 * 10_000, rel=0.01)
    assert found.mid - found.low == pytest.approx(2 / 50 * 100 * 10_000, rel=0.01)


@pytest.mark.parametrize(("free", "exact"), [(2, 4.3027), (5, 2.5706), (10, 2.2281), (48, 2.0106), (1000, 1.9623)])
def test_the_quantiles_of_t(free: int, exact: float) -> None:
    assert student_t(free) == pytest.approx(exact, rel=0.05 if free == 2 else 0.005)


def test_intervals_hold_the_truth_at_least_nine_times_in_ten() -> None:
    """Costs with a long tail, 3 % of them at the cap: the hard case for fifty rows."""
    dice = random.Random(4)
    sizes = [dice.randint(300, 900) for _ in range(4000)]
    cap = 200 * PICO
    costs = [
        cap if dice.random() < 0.03 else min(cap, round(size * PICO / 20 + dice.lognormvariate(2.5, 0.7) * PICO))
        for size in sizes
    ]
    truth = sum(costs)
    held = 0
    for _ in range(200):
        drawn = dice.sample(range(4000), 50)
        found = forecast(
            [Point(sizes[one], costs[one]) for one in drawn], requests=4000, total_bytes=sum(sizes), longest=cap
        )
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert held >= 180
