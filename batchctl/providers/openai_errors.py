"""What an error of OpenAI's wire means: refused, throttled, not allowed, billing or unknown; told by codes before statuses.

The neighbours of OpenAI have forms of their own: Azure's gateway and Mistral put code and message at the top of the body,
Groq says with status 400 that a spend limit is reached, Together with 402.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchctl.model.batches import LineError, Refusal
from batchctl.model.errors import BatchctlError, NotAllowed, NotFound, OutcomeUnknown, Rejected, Throttled
from batchctl.providers.http import Key, no_money, retry_after
from batchctl.providers.profiles import ACCOUNT_CODES, BILLING_CODES

REFUSES = frozenset({400, 402, 403, 413, 422, 429})
"""Statuses that say that nothing was begun, whatever the code."""
UPLOAD_AGAIN = frozenset({"input_modified", "input_no_permissions"})
"""Of a batch whose input Azure could not read as it was uploaded (MicrosoftDocs/azure-ai-docs, read 2026-11-21)."""


def facts_of(error: Any) -> dict[str, Any]:
    """What an SDK's exception knows of the error object."""
    body = error.body if isinstance(error.body, dict) else {}
    return {**body, "code": getattr(error, "code", None), "type": getattr(error, "type", None)}


def codes_of(error: Mapping[str, Any]) -> set[str]:
    """Code and type: which of the two says it differs from server to server."""
    return {str(error.get("code") or ""), str(error.get("type") or "")}


def of_account(status: int, error: Mapping[str, Any]) -> bool:
    """Whether an error is about who asks and not about the one request: every other row would meet it as well."""
    return status == 402 or (status in REFUSES and bool(codes_of(error) & (BILLING_CODES | ACCOUNT_CODES)))


def meaning_of(
    status: int, error: Mapping[str, Any], headers: Mapping[str, str], words: str, *, name: str, key: Key, where: str
) -> BatchctlError:
    """What an error answer means; `error` is the object of that name in its body, `words` say it otherwise."""
    code = key.hidden_in(str(error.get("code") or ""))[:100]
    said = key.hidden_in(str(error.get("message") or words))[:300]
    text = f"{name} answered {status}" + (f" {code}" if code else "") + f": {said}"
    if status == 402 or (status in REFUSES and codes_of(error) & BILLING_CODES):
        return no_money(text, where=where)
    if status in (401, 403) or (status in REFUSES and codes_of(error) & ACCOUNT_CODES):
        return NotAllowed(
            text,
            where=where,
            effect="rows stay where they are",
            hint=f"check the key in `{key.variable}` and the project it belongs to",
        )
    if status == 404:
        return NotFound(text, where=where, hint="check the address and that the key belongs to the same project")
    if status in (400, 413, 422):
        return Rejected(text, where=where, effect="nothing was billed")
    if status == 429:
        return Throttled(text, where=where, wait_seconds=retry_after(headers))
    return OutcomeUnknown(text, where=where)


def refusal_of(complaints: tuple[LineError, ...]) -> Refusal:
    """Why a whole batch failed in validation: whether its file is wrong, or may be sent again as it is."""
    codes = {one.code for one in complaints}
    if "token_limit_exceeded" in codes:
        return Refusal.CAPACITY
    if codes & BILLING_CODES:
        return Refusal.BILLING
    if codes & UPLOAD_AGAIN:
        return Refusal.ACCESS
    # The service at times refuses batches on files it has already processed (seen Aug-Sep 2026): upload again.
    if any(one.code == "invalid_request" and one.param == "file_id" and one.line is None for one in complaints):
        return Refusal.ACCESS
    return Refusal.FILE
