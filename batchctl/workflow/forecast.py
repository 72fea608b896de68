"""From a sample's real tokens to the cost of the whole run, with an interval that says how sure it is.

Cost per request is regressed on the length of its line, which is known for every request; the fitted line at the mean
length of the run, times the requests, is the midpoint. The interval is the 95 % one of that regression: Student's t, what
the sample leaves unexplained, the distance between the sample's and the run's mean length (so a sample of the longest rows
is not taken for a typical one), and the finite run. To that comes what a small sample easily misses: the high end counts
two more answers as long as the output cap, the low end two more requests that are not billed at all. A stratified sample
counts each stratum by its share of the rows. What it does not know: further attempts, and a provider that behaves
otherwise in batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from statistics import NormalDist

from batchctl.prices import as_usd, usd_text

CONFIDENCE = 0.95
LEAST_POINTS = 3
MISSED = 2  # answers of the rare kinds that a sample may well have missed
METHOD = "95 % interval, cost regressed on request length"


@dataclass(frozen=True, slots=True)
class Point:
    """One answered request of a sample: bytes of its line, its cost in picodollars, how many rows it stands for."""

    size: int
    cost: int
    weight: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Picodollars for the whole run. `low` and `high` are None when there are too few answers to tell."""

    mid: int
    low: int | None
    high: int | None
    answers: int

    def as_dict(self) -> dict[str, str | None]:
        return {
            "usd": as_usd(self.mid),
            "usd_low": None if self.low is None else as_usd(self.low),
            "usd_high": None if self.high is None else as_usd(self.high),
        }

    @property
    def text(self) -> str:
        """`$1.97 ($1.80 to $2.14)`."""
        if self.low is None or self.high is None:
            return f"about {usd_text(self.mid)}"
        return f"{usd_text(self.mid)} ({usd_text(self.low)} to {usd_text(self.high)})"


def forecast(points: Sequence[Point], *, requests: int, total_bytes: int, longest: int = 0) -> Forecast | None:
    """The cost of `requests` requests of `total_bytes` bytes together; None without an answer to go by.

    `longest` is what a request with the longest possible answer costs, as far as a cap bounds it.
    """
    if not points or not requests:
        return None
    weights = [float(one.weight) for one in points]
    sizes = [float(one.size) for one in points]
    costs = [float(one.cost) for one in points]
    total = sum(weights)
    mean_size = _mean(weights, sizes)
    mean_cost = _mean(weights, costs)
    spread = sum(w * (x - mean_size) ** 2 for w, x in zip(weights, sizes, strict=True)) / total
    slope = 0.0
    if spread > 0 and len(points) >= 2 * LEAST_POINTS:
        both = sum(w * (x - mean_size) * (y - mean_cost) for w, x, y in zip(weights, sizes, costs, strict=True))
        slope = both / total / spread
    away = total_bytes / requests - mean_size
    mid = max(0.0, (mean_cost + slope * away) * requests)
    free = len(points) - (2 if slope else 1)
    if free < LEAST_POINTS - 1:
        return Forecast(round(mid), None, None, len(points))
    left = [y - mean_cost - slope * (x - mean_size) for x, y in zip(sizes, costs, strict=True)]
    variance = sum(w * e * e for w, e in zip(weights, left, strict=True)) / total * len(points) / free
    effective = total**2 / sum(w * w for w in weights)
    unseen = max(0.0, 1 - len(points) / requests)
    error = variance * (unseen / effective + (away**2 / spread / effective if slope else 0.0))
    half = student_t(free) * sqrt(error) * requests
    rare = MISSED / (len(points) + MISSED) * unseen
    low = mid * (1 - rare) - half
    high = mid + half + max(0.0, longest * requests - mid) * rare
    return Forecast(round(mid), max(0, round(low)), round(high), len(points))


def _mean(weights: Sequence[float], values: Sequence[float]) -> float:
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def student_t(free: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t with `free` degrees of freedom (Cornish-Fisher; within 3 % from 2 on)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(sum(term / free**power for power, term in enumerate(terms)))
