"""States and reasons of rows and chunks: the words users, files and the ledger share."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class RowState(StrEnum):
    """Where a source row is. Every row is in exactly one of these; the balance counts them."""

    QUEUED = "queued"
    SUBMITTED = "submitted"
    HELD = "held"
    COMPLETED = "completed"
    INVALID_OUTPUT = "invalid_output"
    PROVIDER_ERROR = "provider_error"
    REVIEW_REQUIRED = "review_required"
    REJECTED = "rejected"
    PUBLISHED = "published"


FAILED = (RowState.INVALID_OUTPUT, RowState.PROVIDER_ERROR)
"""The states whose rows go into the rerun file."""


class Reason(StrEnum):
    """Why a row failed; what `rerun --only` takes."""

    INVALID_JSON = "invalid_json"
    SCHEMA = "schema"
    RULE = "rule"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    PROVIDER = "provider"
    EXPIRED = "expired"
    MISSING = "missing"
    CONFLICT = "conflict"


class Retry(StrEnum):
    """What a new attempt needs before it can help."""

    NONE = ""
    TRANSIENT = "transient"  # the same request may well succeed
    CHANGE = "change"  # paid for and unusable: only a changed prompt, schema, model or params can help
    NEVER = "never"  # the provider refused the request itself: the same bytes are refused again
    USER = "user"  # cancelled by someone: only if the user resumes
    BILLING = "billing"  # out of credit: the row is fine


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider billed them; all zero when it reported none.

    `input_tokens` includes cached and cache-write tokens, `output_tokens` includes reasoning; a vendor that counts them
    beside each other (Anthropic, Gemini) is added up where its answers are read.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def as_dict(self) -> dict[str, int]:
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "reasoning_tokens": self.reasoning_tokens,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """Our judgement of one result.

    `output` is JSON text of the answer (for a free-text answer: a JSON string), one line, or None.
    `paid` says that the provider delivered an answer, usable or not.
    """

    state: RowState
    reason: Reason | None = None
    detail: str = ""
    output: bytes | None = None
    usage: Usage | None = None
    retry: Retry = Retry.NONE
    paid: bool = False
    request_id: str = ""
    model: str = ""
    created_at: int | None = None  # Unix seconds, the provider's clock


@dataclass(frozen=True, slots=True)
class Unusable:
    """A source row that cannot become a request, and why. `raw` is what was read, for a digest when there is no id."""

    reason: str
    raw: bytes = b""
    row: dict[str, Any] = field(default_factory=dict)
