"""The answer, or why there is none, out of one result of Anthropic's Message Batches.

A result line is `{"custom_id", "result": {"type": "succeeded" | "errored" | "canceled" | "expired", ...}}`: a message, an
error response whose real type is at `result.error.error.type`, or nothing more (types of anthropic 2.12.0; guides at
platform.claude.com/docs/en/build-with-claude/batch-processing, read 2026-11-21). Succeeded rows are billed whatever their
`stop_reason`, the others are not.
"""

from __future__ import annotations

from typing import Any

import orjson

from batchctl.judging.extracted import (
    EMPTY,
    TOOL,
    Extracted,
    Unusable,
    cut_off,
    kind_of,
    name_of,
    refused,
    unknown,
    word_of,
)
from batchctl.judging.text import printable
from batchctl.model.rows import Reason, Retry, Usage
from batchctl.model.usage import counted

_COMPLETE = ("end_turn", "stop_sequence", "tool_use")
_PASSED_OVER = (
    "thinking",
    "redacted_thinking",
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "container_upload",
)
"""Blocks that are no part of the answer (anthropic 2.12.0, `ContentBlock`)."""
_TRANSIENT = frozenset(("rate_limit_error", "api_error", "overloaded_error", "timeout_error"))
_REFUSED = frozenset(
    ("invalid_request_error", "not_found_error", "authentication_error", "permission_error", "request_too_large")
)
_BILLING = frozenset(
    (
        "billing_error",
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "linked_organization_spend_limit_reached",
    )
)
_TRANSIENT_STATUS = frozenset((0, 408, 409, 429, 500, 502, 503, 504, 529))
_REFUSED_STATUS = frozenset((400, 404, 413, 422))


def anthropic_line(line: Any, _endpoint: str, mode: str = "native") -> Extracted:
    """One parsed line of a result file. `mode` is what the request asked for."""
    if not isinstance(line, dict):
        return Extracted(reason=Reason.PROVIDER, detail=f"the line is {kind_of(line)}, not an object")
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str):
        custom_id = None
    result = line.get("result")
    if not isinstance(result, dict):
        return Extracted(custom_id, reason=Reason.PROVIDER, detail=f"`result` is {kind_of(result)}, not an object")
    kind = result.get("type")
    if kind == "succeeded":
        return _message(result.get("message"), mode, custom_id)
    if kind == "errored":
        return _errored(result.get("error"), custom_id, None)
    if kind == "expired":
        detail = "the batch expired before this request was run"
        return Extracted(custom_id, reason=Reason.EXPIRED, detail=detail, retry=Retry.TRANSIENT)
    if kind == "canceled":
        detail = "the batch was cancelled before this request was run"
        return Extracted(custom_id, reason=Reason.PROVIDER, detail=detail, retry=Retry.USER)
    answered = result.get("message") is not None
    return Extracted(custom_id, reason=Reason.PROVIDER, detail=f"unknown result type {word_of(kind)}", paid=answered)


def anthropic_body(body: Any, _endpoint: str, mode: str = "native") -> Extracted:
    """A message that came with status 200, live."""
    return _message(body, mode, None)


def anthropic_http_error(status: int | None, body: Any) -> Extracted:
    """A request the provider answered with another status than 200; 0 or None when it gave none."""
    return _errored(body, None, status or 0)


def _message(message: Any, mode: str, custom_id: str | None) -> Extracted:
    if not isinstance(message, dict):
        detail = f"the message is {kind_of(message)}, not an object"
        return Extracted(custom_id, None, None, Reason.PROVIDER, detail, paid=message is not None)
    text: str | None = None
    reason: Reason | None = None
    detail, retry, paid = "", Retry.NONE, True
    usage = _usage(message.get("usage"))
    try:
        text = _answer(message, mode)
    except Unusable as finding:
        reason, retry, detail = finding.reason, finding.retry, printable(finding.detail)
        paid = finding.paid or (usage is not None and usage.output_tokens > 0)
    return Extracted(
        custom_id, text, usage, reason, detail, retry, paid, name_of(message.get("id")), name_of(message.get("model"))
    )


def _answer(message: dict[str, Any], mode: str) -> str:
    """The text of a message, or the input of its tool call; raises `Unusable`."""
    if message.get("type") == "error":
        reason, retry = _class_of(200, *_codes(message))
        raise Unusable(reason, f"status 200 with an error: {_words(message)}", retry, paid=False)
    stop = message.get("stop_reason")
    if stop == "refusal":
        details = message.get("stop_details")
        category = details.get("category") if isinstance(details, dict) else None
        raise refused(f"category {category}" if isinstance(category, str) else None)
    blocks = message.get("content")
    if not isinstance(blocks, list):
        raise Unusable(Reason.PROVIDER, f"the content is {kind_of(blocks)}, not a list")
    texts, calls, strange = _read(blocks)
    if stop == "max_tokens":
        raise cut_off("max_tokens reached")
    if stop == "model_context_window_exceeded":
        raise cut_off("the model's context window is full; more tokens do not help")
    if stop == "pause_turn":
        raise Unusable(
            Reason.PROVIDER, "the model paused for a tool of the provider; a batch cannot go on", Retry.CHANGE
        )
    if stop not in _COMPLETE:
        raise unknown("stop_reason", stop)
    answer = "".join(texts)
    if mode == TOOL or (calls and not answer.strip()):
        return _input(calls)
    if strange:
        raise Unusable(Reason.PROVIDER, f"the answer holds an unknown content block {strange}")
    if not answer.strip():
        raise Unusable(Reason.INVALID_JSON, EMPTY, Retry.CHANGE)
    return answer


def _read(blocks: list[Any]) -> tuple[list[str], list[Any], str]:
    """Texts, tool inputs, and the first kind of block that is not known."""
    texts: list[str] = []
    calls: list[Any] = []
    strange = ""
    for block in blocks:
        if not isinstance(block, dict):
            raise Unusable(Reason.PROVIDER, f"a content block is {kind_of(block)}, not an object")
        kind = block.get("type")
        if kind == "text":
            text = block.get("text")
            if not isinstance(text, str):
                raise Unusable(Reason.PROVIDER, f"the text of a message is {kind_of(text)}, not a string")
            texts.append(text)
        elif kind == "tool_use":
            calls.append(block.get("input"))
        elif kind not in _PASSED_OVER:
            strange = strange or word_of(kind)
    return texts, calls, strange


def _input(calls: list[Any]) -> str:
    """The input of the one tool call that is the answer: an object here, so it is written as JSON again."""
    if not calls:
        raise Unusable(Reason.INVALID_JSON, "the model called no tool", Retry.CHANGE)
    for given in calls:
        if not isinstance(given, dict):
            raise Unusable(Reason.PROVIDER, f"the input of a tool call is {kind_of(given)}, not an object")
    if any(given != calls[0] for given in calls):
        raise Unusable(Reason.CONFLICT, f"the model made {len(calls)} different tool calls", Retry.CHANGE)
    try:
        return orjson.dumps(calls[0]).decode()
    except TypeError as error:  # a lone surrogate, or a number beyond 64 bits
        raise Unusable(Reason.INVALID_JSON, f"the input of a tool call is no JSON: {error}", Retry.CHANGE) from error


# --- errors --------------------------------------------------------------------------------------------------------


def _errored(response: Any, custom_id: str | None, status: int | None) -> Extracted:
    """An error response; `status` is None in a batch, where a row has none."""
    kind, code = _codes(response)
    reason, retry = _class_of(200 if status is None or (not status and (kind or code)) else status, kind, code)
    words = _words(response)
    shown = words if status is None else f"{status or 'no status'}, {words}"
    request_id = response.get("request_id") if isinstance(response, dict) else None
    return Extracted(custom_id, None, None, reason, printable(shown), retry, False, name_of(request_id))


def _class_of(status: int, kind: str, code: str) -> tuple[Reason, Retry]:
    """What an error means for its row; a type says more than the status it came with, a code more than the type."""
    if code in _BILLING or kind in _BILLING or status == 402:
        return Reason.PROVIDER, Retry.BILLING
    if kind in _TRANSIENT:
        return Reason.PROVIDER, Retry.TRANSIENT
    if kind in _REFUSED:
        return Reason.PROVIDER, Retry.NEVER
    if status in _TRANSIENT_STATUS:
        return Reason.PROVIDER, Retry.TRANSIENT
    return Reason.PROVIDER, Retry.NEVER if status in _REFUSED_STATUS else Retry.NONE


def _error(response: Any) -> Any:
    return response.get("error") if isinstance(response, dict) else None


def _codes(response: Any) -> tuple[str, str]:
    """Type and `error_code` of an error response, empty where it has none."""
    error = _error(response)
    if not isinstance(error, dict):
        return "", ""
    details = error.get("details")
    kind, code = error.get("type"), details.get("error_code") if isinstance(details, dict) else None
    return kind if isinstance(kind, str) else "", code if isinstance(code, str) else ""


def _words(response: Any) -> str:
    """`type: message` of an error response, as far as it has them."""
    error = _error(response)
    if isinstance(error, str):
        return printable(error) or "an error without words"
    if not isinstance(error, dict):
        return f"the error is {kind_of(error)}"
    kind, code = _codes(response)
    message = error.get("message")
    said = printable(message) if isinstance(message, str) else ""
    return printable(": ".join(part for part in (code or kind, said) if part) or "an error without type or message")


def _usage(usage: Any) -> Usage | None:
    """Tokens, with `input_tokens` made whole: the vendor counts there only those after the last cache breakpoint."""
    if not isinstance(usage, dict):
        return None
    fields = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    given = [usage.get(field) for field in fields]
    plain, read, written, out = (0 if one is None and place else one for place, one in enumerate(given))
    details = usage.get("output_tokens_details")
    if details is not None and not isinstance(details, dict):
        return None
    thought = (details or {}).get("thinking_tokens")
    whole = counted(plain, out, read, written)
    if whole is None:
        return None
    taken = whole.input_tokens + whole.cached_tokens + whole.cache_write_tokens
    return counted(taken, out, read, written, 0 if thought is None else thought)
