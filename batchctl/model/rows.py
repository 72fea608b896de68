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
    SAMPLE = "sample"  # nothing is wrong: a person looks at a share of the good rows as well


class Action(StrEnum):
    """What a person may decide about a row."""

    ACCEPT = "accept"  # the answer is good as it is
    REJECT = "reject"  # it is not: the row has failed
    EDIT = "edit"  # this is the answer


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

    `input_tokens` are all that went in: those read from a cache and those written to one are parts of it, whatever the
    vendor's own fields leave out. `reasoning_tokens` are part of `output_tokens`.
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
    shares: tuple[int, ...] = ()  # numbers of the share rules whose `where` holds for it


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about one row.

    `output` is the edited or chosen answer, JSON on one line; `answer` the number of a chosen one. `purged`: its texts
    are gone, and what it made of the row stays.
    """

    action: Action
    by: str
    at: str
    note: str = ""
    output: bytes | None = None
    answer: int | None = None
    purged: bool = False


@dataclass(frozen=True, slots=True)
class Tries:
    """What came of a row's attempts: taken without an answer (of them missing ones), answered and paid."""

    runs: int = 0
    paid: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Unusable:
    """A source row that cannot become a request, and why. `raw` is what was read, for a digest when there is no id."""

    reason: str
    raw: bytes = b""
    row: dict[str, Any] = field(default_factory=dict)
