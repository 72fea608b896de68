"""The statistics of `compare`: proportions, paired proportions, and how many rows would decide. Own formulas, no scipy.

Every interval is a two-sided 95 % one. The tests hold them against statsmodels and scipy.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import sqrt
from statistics import NormalDist

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
WILSON = "Wilson score interval"
MCNEMAR = "exact McNemar test"
AGRESTI_MIN = "Agresti-Min interval of the paired difference"
MOST_ROWS = 10_000_000

Interval = tuple[float, float]


def wilson(hits: float, rows: float) -> Interval:
    """Of a proportion. E. B. Wilson, JASA 22 (1927) 209-212; recommended by R. G. Newcombe, Stat. Med. 17 (1998) 857-872."""
    if not rows:
        return 0.0, 1.0
    share = hits / rows
    square = Z * Z
    middle = share + square / (2 * rows)
    spread = Z * sqrt(share * (1 - share) / rows + square / (4 * rows * rows))
    scale = 1 + square / rows
    low = 0.0 if hits == 0 else (middle - spread) / scale
    high = 1.0 if hits == rows else (middle + spread) / scale
    return max(0.0, low), min(1.0, high)


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p of the exact McNemar test: the rows on which two models differ are tosses of a fair coin.

    Q. McNemar, Psychometrika 12 (1947) 153-157; exact form: a binomial test with p = 1/2.
    """
    tosses, fewer = better + worse, min(better, worse)
    term, tail = 1, 1
    for number in range(fewer):
        term = term * (tosses - number) // (number + 1)
        tail += term
    return min(1.0, float(Fraction(2 * tail, 2**tosses)))


def paired_difference(better: float, worse: float, rows: float) -> Interval:
    """Of the difference of two proportions seen on the same rows (candidate minus baseline).

    A. Agresti and Y. Min, Stat. Med. 24 (2005) 729-740: the Wald interval after half a row is added to each of the four cells.
    """
    if not rows:
        return -1.0, 1.0
    up, down, count = better + 0.5, worse + 0.5, rows + 2
    difference = (up - down) / count
    spread = Z * sqrt(up + down - (up - down) ** 2 / count) / count
    return max(-1.0, difference - spread), min(1.0, difference + spread)


def rows_to_decide(rows: int, decided: Callable[[float], bool]) -> int | None:
    """How many more rows, with the same shares, would decide; None when no number of rows up to ten million does.

    `decided` is asked with a factor: everything seen so far, so many times over. It must stay true once it is true.
    """
    if not rows or decided(1.0):
        return 0 if rows else None
    high = rows
    while not decided(high / rows):
        if high > MOST_ROWS:
            return None
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle / rows) else (middle, high)
    return high - rows
