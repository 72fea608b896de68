"""How many attempts a row gets: a cap leads to a person, never to a loop."""

from __future__ import annotations

from dataclasses import dataclass, replace

from batchctl.model.rows import FAILED, Reason, Retry, RowState, Tries, Verdict

PAID = 2
"""Answers of one row that are paid for, usable or not, unless [retry] allows its kind of failure more."""
MISSING = 2
MOST_ATTEMPTS = 99
"""What a custom_id can name."""


@dataclass(frozen=True, slots=True)
class Caps:
    """Further attempts by kind of failure, as [retry] has them."""

    transient: int = 5
    truncated: int = 0
    invalid: int = 0
    refused: int = 0

    def further(self, reason: Reason | str | None) -> int:
        """Further attempts for an answer that failed for this reason."""
        if reason == Reason.TRUNCATED:
            return self.truncated
        return self.refused if reason == Reason.REFUSED else self.invalid


def after(before: Tries, verdict: Verdict) -> Tries:
    """The counters with one more verdict. Stopped by a person or out of credit: not the row's fault, not counted."""
    missing = verdict.reason is Reason.MISSING
    if verdict.paid:
        return replace(before, paid=before.paid + 1)
    if missing or verdict.retry is Retry.TRANSIENT:
        return replace(before, runs=before.runs + 1, missing=before.missing + missing)
    return before


def capped(verdict: Verdict, before: Tries, attempt: int, caps: Caps) -> Verdict:
    """The verdict, with a person asked instead of another attempt once the attempts are used up.

    A refusal goes to a person at once (`Judge` says so) unless [retry] refused allows further attempts.
    """
    if verdict.reason is Reason.REFUSED and verdict.state is RowState.REVIEW_REQUIRED:
        further = after(before, verdict).paid <= caps.refused
        return replace(verdict, state=RowState.INVALID_OUTPUT) if further else verdict
    if verdict.state not in FAILED:
        return verdict
    tries = after(before, verdict)
    why = ""
    if attempt >= MOST_ATTEMPTS:
        why = f"{attempt} attempts"
    elif verdict.reason is Reason.MISSING and tries.missing >= MISSING:
        why = f"missing {tries.missing} times"
    elif verdict.retry is Retry.TRANSIENT and not verdict.paid and 0 < caps.transient < tries.runs:
        why = f"{tries.runs} attempts without an answer"
    elif verdict.paid and tries.paid >= max(PAID, 1 + caps.further(verdict.reason)):
        why = f"{tries.paid} paid answers"
    if not why:
        return verdict
    detail = f"{verdict.detail}; {why}: a person decides" if verdict.detail else f"{why}: a person decides"
    return replace(verdict, state=RowState.REVIEW_REQUIRED, detail=detail)
