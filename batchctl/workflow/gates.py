"""Gates of `compare`: `accuracy >= 92%` in words, decided by an interval and not by a lucky number.

A gate on a share passes when the whole 95 % interval is on the good side of the limit, fails when it is on the bad side,
and is undecided between: then it says how many more rows like these would decide. Money and time have no interval.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from batchctl.model.errors import UsageError
from batchctl.workflow.intervals import paired_difference, rows_to_decide, wilson

SHARES = ("accuracy", "schema_valid", "refused", "truncated", "agreement")
LABELLED = ("precision", "recall")
AMOUNTS = ("usd_per_1000_completed", "p50_seconds", "p90_seconds", "input_tokens", "output_tokens")
METRICS = (*SHARES, *LABELLED, "difference", *AMOUNTS)
_GATE = re.compile(
    r"\s*(?P<metric>[a-z0-9_]+)\s*(?:\(\s*(?P<quote>['\"]?)(?P<label>.*?)(?P=quote)\s*\))?\s*(?P<sign>>=|<=)\s*"
    r"(?P<number>[+-]?[0-9]+(?:\.[0-9]+)?)\s*(?P<percent>%?)\s*"
)


class State(StrEnum):
    """What became of a gate; also of a whole verdict."""

    PASS = "pass"  # noqa: S105  (a verdict)
    FAIL = "fail"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Gate:
    """`text` as it was given; `limit` is a share for shares, else in the metric's own unit."""

    text: str
    metric: str
    label: str
    at_least: bool
    limit: float


def read_gate(text: str) -> Gate:
    """`accuracy >= 92%`, `recall(legal) >= 0.95`, `difference >= -1.5%`, `usd_per_1000_completed <= 0.20`."""
    match = _GATE.fullmatch(text)
    if match is None:
        raise _refused(text, "is not a gate", "write it like `accuracy >= 92%` or `recall(legal) >= 95%`")
    metric = match["metric"]
    if metric not in METRICS:
        near = get_close_matches(metric, METRICS, 1)
        raise _refused(
            text, f"asks for `{metric}`", f"did you mean `{near[0]}`?" if near else "there are: " + ", ".join(METRICS)
        )
    if (metric in LABELLED) != (match["label"] is not None):
        raise _refused(
            text, f"`{metric}` is not what takes a label in parentheses", "write recall(LABEL) or precision(LABEL)"
        )
    if metric in AMOUNTS and match["percent"]:
        raise _refused(text, f"`{metric}` is no share", "leave the % out")
    limit = float(match["number"]) / (100 if match["percent"] else 1)
    if metric not in AMOUNTS and not -1 <= limit <= 1:
        raise _refused(text, "has a share beyond 100 %", f"write {match['number']}%")
    return Gate(" ".join(text.split()), metric, match["label"] or "", match["sign"] == ">=", limit)


def _refused(text: str, what: str, hint: str) -> UsageError:
    return UsageError(f"`{text}`: {what}" if not what.startswith("is ") else f"`{text}` {what}", where="--gate",
                      effect="nothing was compared", hint=hint)  # fmt: skip


def decide(gate: Gate, figures: Mapping[str, Any]) -> dict[str, Any]:
    """One gate on the figures of one contestant (`compare.figures_of`): state, value, interval, rows that would decide."""
    if gate.metric in AMOUNTS:
        return _amount(gate, figures)
    if gate.metric == "difference":
        pair = figures.get("paired")
        if pair is None or pair.get("better") is None:
            raise _refused(
                gate.text, "needs gold labels and a baseline to differ from", "add --gold, and a second target"
            )
        rows, better, worse = pair["rows"], pair["better"], pair["worse"]
        return _share(gate, (better - worse) / rows if rows else 0.0, rows,
                      lambda factor: paired_difference(better * factor, worse * factor, rows * factor))  # fmt: skip
    found = figures["labels"].get(gate.label) if gate.metric in LABELLED else figures
    one = None if found is None else found.get(gate.metric)
    if one is None:
        known = ", ".join(sorted(figures["labels"])[:20]) if gate.metric in LABELLED else "a gold column: --gold COLUMN"
        raise _refused(gate.text, "cannot be told from these rows", f"there is: {known}" if known else "add --gold")
    hits, rows = one["hits"], one["rows"]
    return _share(gate, hits / rows if rows else 0.0, rows, lambda factor: wilson(hits * factor, rows * factor))


def _share(gate: Gate, value: float, rows: int, interval: Callable[[float], tuple[float, float]]) -> dict[str, Any]:
    low, high = interval(1.0)
    state = _side(gate, low, high)
    more = None
    if state is State.UNDECIDED:
        more = rows_to_decide(rows, lambda factor: _side(gate, *interval(factor)) is not State.UNDECIDED)
    return _decided(gate, state, value, low, high, rows, more)


def _side(gate: Gate, low: float, high: float) -> State:
    if gate.at_least:
        return State.PASS if low >= gate.limit else State.FAIL if high < gate.limit else State.UNDECIDED
    return State.PASS if high <= gate.limit else State.FAIL if low > gate.limit else State.UNDECIDED


def _amount(gate: Gate, figures: Mapping[str, Any]) -> dict[str, Any]:
    value = figures[gate.metric]
    if value is None:
        return _decided(gate, State.UNDECIDED, None, None, None, figures["rows"], None)
    good = float(value) >= gate.limit if gate.at_least else float(value) <= gate.limit
    return _decided(gate, State.PASS if good else State.FAIL, float(value), None, None, figures["rows"], None)


def _decided(
    gate: Gate, state: State, value: float | None, low: float | None, high: float | None, rows: int, more: int | None
) -> dict[str, Any]:
    return {
        "gate": gate.text,
        "metric": gate.metric,
        "label": gate.label or None,
        "limit": gate.limit,
        "at_least": gate.at_least,
        "state": str(state),
        "value": value,
        "low": low,
        "high": high,
        "rows": rows,
        "more_rows": more,
    }
