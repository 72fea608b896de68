"""Counting one chunk's verdicts: rows by state and reason, tokens, cost, rows that share rules count.

Copies are counted with their own row, rows that a newer chunk has taken over are left out, and what a person decided
about a row counts instead of its verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson

from batchctl.judging.decide import settled
from batchctl.judging.rules import Rules
from batchctl.model.rows import Decision, Reason, RowState, Usage, Verdict
from batchctl.prices import Rates

TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


class Tally:
    """The counts of one chunk, one verdict at a time."""

    def __init__(self, rates: Rates | None, rules: Rules | None, decisions: Mapping[int, Decision]) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._copied: dict[tuple[str, str], int] = {}
        self._tokens = [0, 0, 0, 0, 0, 0]
        self._rates = rates
        self._rules = rules
        self._decisions = decisions
        self._cost = 0
        self.metered = 0
        self.unmetered = 0
        self.shares: Counter[int] = Counter()

    @property
    def cost(self) -> int | None:
        """Picodollars of the answers whose tokens are known; None without a price."""
        return None if self._rates is None else self._cost

    def row(self, verdict: Verdict, position: int, row: bytes | None, *, copied: bool = False) -> None:
        """Count the row at `position`; `row` is its text, for rules that look at it."""
        state, reason, shares = str(verdict.state), str(verdict.reason or ""), verdict.shares
        if self._decisions and position in self._decisions:
            decision = self._decisions[position]
            now = settled(state, reason, verdict.detail, verdict.output, decision)
            if now.state == RowState.COMPLETED and (state != RowState.COMPLETED or decision.output is not None):
                shares = holding(self._rules, now.output, row)
            state, reason = str(now.state), str(now.reason)
        if state == RowState.COMPLETED and shares:
            self.shares.update(shares)
        key = (state, reason)
        self._counts[key] = self._counts.get(key, 0) + 1
        if copied:
            self._copied[key] = self._copied.get(key, 0) + 1

    def request(self, verdict: Verdict, *, never_sent: bool = False, untold: bool = False) -> int | None:
        """Count the tokens of one request; what it cost in picodollars, or None when nobody can tell.

        `never_sent`: a person said so of a live call without an answer. `untold`: there is no line about it.
        """
        usage = verdict.usage
        if usage is not None:
            total = self._tokens
            total[0] += usage.input_tokens
            total[1] += usage.output_tokens
            total[2] += usage.cached_tokens
            total[3] += usage.cache_write_tokens
            total[4] += usage.reasoning_tokens
        if verdict.paid:
            self._tokens[5] += 1
        if usage is None:
            unknown = untold or verdict.reason is Reason.MISSING or verdict.state is RowState.HELD
            if verdict.paid or (unknown and not never_sent):
                self.unmetered += 1
                return None
            return 0  # refused, expired or cancelled before it ran: not billed
        self.metered += 1
        if self._rates is None:
            return None
        cost = self._rates.cost(usage)
        self._cost += cost
        return cost

    @property
    def usage(self) -> dict[str, int]:
        """Token sums, and how many requests were paid."""
        return dict(zip((*TOKENS, "paid_requests"), self._tokens, strict=True))

    def tallies(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(state, reason) to (rows, of them copies)."""
        return {key: (count, self._copied.get(key, 0)) for key, count in self._counts.items()}


def holding(rules: Rules | None, output: bytes | None, row: bytes | None) -> tuple[int, ...]:
    """The share rules whose `where` holds for a stored answer."""
    if rules is None or output is None or not rules.book.shares:
        return ()
    return rules.holding(orjson.loads(output), row or b"{}")


def record(verdict: Verdict, cost: int | None) -> tuple[Any, ...]:
    """A verdict as a row of its segment."""
    usage = verdict.usage
    return (
        verdict.state,
        verdict.reason or "",
        verdict.detail,
        verdict.output,
        verdict.retry,
        verdict.paid,
        None if usage is None else usage_json(usage),
        verdict.request_id,
        verdict.model,
        verdict.created_at,
        cost,
    )


def usage_json(usage: Usage) -> bytes:
    """Tokens as `results.jsonl` shows them."""
    return (
        b'{"input_tokens":%d,"output_tokens":%d,"cached_tokens":%d,"cache_write_tokens":%d,"reasoning_tokens":%d}'
        % (
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
        )
    )
