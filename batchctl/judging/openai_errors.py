"""What an error of OpenAI's means for its row: codes and types before the status they came with, and never the words."""

from __future__ import annotations

from typing import Any

import orjson

from batchctl.judging.extracted import kind_of
from batchctl.judging.text import printable
from batchctl.model.rows import Reason, Retry

_BILLING = frozenset(
    (
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "blocked_api_access",
    )
)
"""Codes and types that waiting does not cure (developers.openai.com/api/docs/guides/error-codes, November 2026; the last:
console.groq.com/docs/spend-limits, read 2026-11-21)."""

_POLICY = frozenset(
    (
        "content_filter",  # Azure, for the input
        "content_policy_violation",
        "moderation_blocked",
        "invalid_prompt",
        "bio_policy",
        "misalignment_policy_violation",
        "image_content_policy_violation",
    )
)
"""Codes of an input or an answer that the provider's policy blocked (openai 3.52.0, `ResponseError.code`)."""

_TRANSIENT = frozenset(
    (
        "server_error",
        "rate_limit_exceeded",
        "request_timeout",
        "slow_down",
        "server_is_overloaded",
        "vector_store_timeout",
    )
)
_TRANSIENT_STATUS = frozenset((0, 408, 429, 500, 502, 503, 504, 529))
_REFUSED_STATUS = frozenset((400, 404, 413, 422))
_NOT_RUN = {
    "batch_expired": (Reason.EXPIRED, Retry.TRANSIENT),
    "batch_cancelled": (Reason.PROVIDER, Retry.USER),
}


def class_of(status: Any, code: str, kind: str) -> tuple[Reason, Retry]:
    """What an error means for its row. Billing and policy codes say more than the status they came with."""
    if code in _BILLING or kind in _BILLING or status == 402:
        return Reason.PROVIDER, Retry.BILLING
    if code in _POLICY:
        return Reason.REFUSED, Retry.NEVER
    if code in _NOT_RUN:
        return _NOT_RUN[code]
    if status == 200:  # no status of its own
        return Reason.PROVIDER, Retry.TRANSIENT if code in _TRANSIENT or kind in _TRANSIENT else Retry.NONE
    if type(status) is int and status in _TRANSIENT_STATUS:
        return Reason.PROVIDER, Retry.TRANSIENT
    if type(status) is int and status in _REFUSED_STATUS:
        return Reason.PROVIDER, Retry.NEVER
    return Reason.PROVIDER, Retry.NONE


def error_codes(error: Any) -> tuple[str, str]:
    """Code and type of an error object, empty where it has none."""
    if not isinstance(error, dict):
        return "", ""
    code, kind = error.get("code"), error.get("type")
    return code if isinstance(code, str) else "", kind if isinstance(kind, str) else ""


def error_words(error: Any) -> str:
    """`code: message` of an error, as far as it has them."""
    if isinstance(error, str):
        return printable(error) or "an error without words"
    if not isinstance(error, dict):
        return f"the error is {kind_of(error)}"
    code, kind = error_codes(error)
    message = error.get("message")
    if isinstance(message, dict) and "detail" in message:  # Mistral, about a body it cannot read
        message = orjson.dumps(message["detail"]).decode()
    said = printable(message) if isinstance(message, str) else ""
    return printable(": ".join([part for part in (code or kind, said) if part]) or "an error without code or message")
