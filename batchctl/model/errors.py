"""The error tree. An error is a value with four parts, an exit code and a stable code word.

The exit code tells a script what to do next (README, "Exit codes"); the class answers the questions our own code asks.
Text is for people: raise where the facts are known, name the exact next command in `hint`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command, the same with and without `--json`."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    ATTENTION = 3
    NOT_ALLOWED = 4
    GATE = 5
    CONSENT = 6
    DEADLINE = 7
    PENDING = 8
    LOCKED = 9
    PROVIDER = 10
    UNKNOWN = 11
    STORAGE = 12
    INTERRUPTED = 130
    TERMINATED = 143


class BatchctlError(Exception):
    """What happened, where, its effect on data and money, and what to do; all plain text without secrets or row text."""

    exit_code: Exit = Exit.INTERNAL
    code: str = "internal"

    def __init__(
        self, what: str, *, where: str | Sequence[str] = (), effect: str = "", hint: str = "", code: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where: tuple[str, ...] = (where,) if isinstance(where, str) else tuple(where)
        self.effect = effect
        self.hint = hint
        if code is not None:
            self.code = code


class UsageError(BatchctlError):
    """Wrong use, bad job file or bad input. Nothing was sent."""

    exit_code = Exit.USAGE
    code = "usage"


class NotAllowed(BatchctlError):
    """Credentials missing or refused, or the wrong account."""

    exit_code = Exit.NOT_ALLOWED
    code = "not_allowed"


class GateFailed(BatchctlError):
    """A gate (`dry-run`, later `compare` and run-level rules) is not passed."""

    exit_code = Exit.GATE
    code = "gate"


class ConsentMissing(BatchctlError):
    """Something that spends needs a word from a person, or a limit is reached."""

    exit_code = Exit.CONSENT
    code = "consent"


class BudgetReached(BatchctlError):
    """What is asked for could cost more than `[limits] budget` leaves, or nobody can tell. It was not sent."""

    exit_code = Exit.CONSENT
    code = "budget"


class Locked(BatchctlError):
    """Another process holds this workspace."""

    exit_code = Exit.LOCKED
    code = "locked"


class ProviderError(BatchctlError):
    """The provider refused or cannot be reached. Base of the outcomes of one call."""

    exit_code = Exit.PROVIDER
    code = "provider"


class Rejected(ProviderError):
    """Certainly not acted upon, and the same request would be refused again: fix and resend."""

    code = "rejected"


class Throttled(ProviderError):
    """Certainly not acted upon; the same request may pass later. `wait_seconds` is the provider's word, if it gave one."""

    code = "throttled"

    def __init__(self, what: str, *, wait_seconds: float | None = None, billing: bool = False, **parts: str) -> None:
        super().__init__(what, **parts)
        self.wait_seconds = wait_seconds
        self.billing = billing


class NotFound(ProviderError):
    """The provider does not know this object: wrong project or key, or deleted there."""

    code = "not_found"


class OutcomeUnknown(BatchctlError):
    """A call that may have been acted upon. Ask the provider; never resend."""

    exit_code = Exit.UNKNOWN
    code = "outcome_unknown"


class StorageFailed(BatchctlError):
    """Local disk or ledger: full, read-only, damaged."""

    exit_code = Exit.STORAGE
    code = "storage"


class StaleState(BatchctlError):
    """A move was asked of something that is no longer where the move starts: a bug, caught before it costs."""

    code = "stale_state"
