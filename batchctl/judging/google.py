"""The answer, or why there is none, out of one result of Gemini or Vertex.

A line of Gemini is `{"key", "response"}` or `{"key", "error"}`, where the error has a gRPC code. A line of Vertex has
`key`, the echoed `request`, a `status` that is empty for success or holds words and JSON, and `response`; embedding
models, older ones among them, and Claude answer there in forms of their own. Usage counts are missing where they are 0.

Shapes: ai.google.dev/gemini-api/docs/batch-api, the aiplatform v1 discovery document of 2026-11-06 and recorded lines,
read 2026-11-21.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from batchctl.judging.anthropic import anthropic_body, anthropic_http_error
from batchctl.judging.extracted import (
    EMPTY,
    TOOL,
    Extracted,
    Unusable,
    cut_off,
    filtered,
    kind_of,
    name_of,
    refused,
    unknown,
)
from batchctl.judging.text import printable
from batchctl.model.rows import Reason, Retry, Usage
from batchctl.model.usage import counted

_CUT = ("MAX_TOKENS", "CONTINUATION")
_FILTERED = frozenset(
    (
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "MODEL_ARMOR",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    )
)
_MALFORMED = ("MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE")
_MODEL_FAILED = (
    "OTHER",
    "LANGUAGE",
    "IMAGE_OTHER",
    "NO_IMAGE",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
)
_GRPC = {
    1: Retry.USER,
    **dict.fromkeys((4, 8, 10, 13, 14), Retry.TRANSIENT),
    **dict.fromkeys((3, 5, 7, 9, 11), Retry.NEVER),
}
"""What a row's error code means for sending it again (google.rpc.Code); other codes mean nothing that is known."""
_TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))
_NEVER = frozenset((400, 404, 413, 422))
_BILLING = "BILLING_DISABLED"
_PREFIXES = {
    "Bad Request": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "Not Found": 404,
    "Request Timeout": 408,
    "Too Many Requests": 429,
    "Internal": 500,
    "Bad Gateway": 502,
    "Service Unavailable": 503,
    "Gateway Timeout": 504,
}
"""How the `status` of a Vertex line begins when no JSON tells its code."""


def google_line(line: Any, _endpoint: str, mode: str = "native") -> Extracted:
    """One parsed line of a result file. `mode` is what the request asked for."""
    if not isinstance(line, dict):
        return Extracted(reason=Reason.PROVIDER, detail=f"the line is {kind_of(line)}, not an object")
    custom_id = _key(line)
    if line.get("error") is not None:
        return _row_error(line["error"], custom_id)
    status = line.get("status")
    if status:
        return _status(status, custom_id)
    if "predictions" in line:
        return _predictions(line["predictions"], custom_id)
    return _response(line.get("response"), mode, custom_id)


def google_body(body: Any, _endpoint: str, mode: str = "native") -> Extracted:
    """A response that came with status 200, live."""
    return _response(body, mode, None)


def google_http_error(status: int | None, body: Any) -> Extracted:
    """A request the provider answered with another status than 200; 0 or None when it gave none."""
    error = body.get("error") if isinstance(body, dict) else None
    reasons = [one.get("reason") for one in _details(error)]
    retry = Retry.BILLING if status == 402 or _BILLING in reasons else _retry_of(status or 0)
    detail = printable(f"{status or 'no status'}, {_words(error)}")
    return Extracted(None, None, None, Reason.PROVIDER, detail, retry)


def _key(line: dict[str, Any]) -> str | None:
    """The row id: `key`, in inline answers inside `metadata`, of Claude `custom_id`."""
    metadata = line.get("metadata")
    inline = metadata.get("key") if isinstance(metadata, dict) else None
    return next((one for one in (line.get("key"), line.get("custom_id"), inline) if isinstance(one, str)), None)


# --- answers -------------------------------------------------------------------------------------------------------


def _response(response: Any, mode: str, custom_id: str | None) -> Extracted:
    if not isinstance(response, dict):
        detail = f"the response is {kind_of(response)}, not an object"
        return Extracted(custom_id, None, None, Reason.PROVIDER, detail, paid=response is not None)
    if response.get("type") in ("message", "error"):
        found = anthropic_body(response, "", mode)
        return _with_id(found, custom_id)
    usage = _usage(response)
    text: str | None = None
    value: Any = None
    reason: Reason | None = None
    detail, retry, paid = "", Retry.NONE, True
    try:
        if "embedding" in response:
            value = _vector(response["embedding"])
        else:
            text = _answer(response, mode)
    except Unusable as finding:
        reason, retry, detail = finding.reason, finding.retry, printable(finding.detail)
        paid = finding.paid or (usage is not None and usage.output_tokens > 0)
    return Extracted(
        custom_id,
        text,
        usage,
        reason,
        detail,
        retry,
        paid,
        name_of(response.get("responseId")),
        name_of(response.get("modelVersion")),
        _epoch(response.get("createTime")),
        value,
    )


def _with_id(found: Extracted, custom_id: str | None) -> Extracted:
    return Extracted(
        custom_id,
        found.text,
        found.usage,
        found.reason,
        found.detail,
        found.retry,
        found.paid,
        found.request_id,
        found.model,
        found.created_at,
        found.value,
    )


def _answer(response: dict[str, Any], mode: str) -> str:
    """The text of the first candidate, or the arguments of its function call; raises `Unusable`."""
    feedback = response.get("promptFeedback")
    blocked = feedback.get("blockReason") if isinstance(feedback, dict) else None
    if blocked:
        raise refused(f"the prompt was blocked, {blocked}" if isinstance(blocked, str) else None)
    candidates = response.get("candidates")
    if not isinstance(candidates, list) or not candidates:
        raise Unusable(Reason.PROVIDER, "the response holds no candidate")
    candidate = candidates[0]
    if not isinstance(candidate, dict):
        raise Unusable(Reason.PROVIDER, f"the candidate is {kind_of(candidate)}, not an object")
    _finished(candidate.get("finishReason"))
    content = candidate.get("content")
    if content is not None and not isinstance(content, dict):
        raise Unusable(Reason.PROVIDER, f"the content is {kind_of(content)}, not an object")
    texts, calls = _parts((content or {}).get("parts"))
    answer = "".join(texts)
    if mode == TOOL or (calls and not answer.strip()):
        return _arguments(calls)
    if not answer.strip():
        raise Unusable(Reason.INVALID_JSON, EMPTY, Retry.CHANGE)
    return answer


def _finished(reason: Any) -> None:
    """Raise for everything that is not a whole answer."""
    if reason == "STOP":
        return
    if reason in _CUT:
        raise cut_off("maxOutputTokens reached" if reason == "MAX_TOKENS" else "the model would have gone on")
    if isinstance(reason, str) and reason in _FILTERED:
        raise filtered()
    if reason in _MALFORMED:
        raise Unusable(Reason.INVALID_JSON, f"the model's output was malformed: {reason}", Retry.CHANGE)
    if reason in _MODEL_FAILED:
        raise Unusable(Reason.PROVIDER, f"the model failed: {reason}", Retry.CHANGE)
    raise unknown("finishReason", reason)


def _parts(parts: Any) -> tuple[list[str], list[Any]]:
    """Texts and the arguments of function calls; thoughts and what is neither are passed over."""
    if parts is not None and not isinstance(parts, list):
        raise Unusable(Reason.PROVIDER, f"the parts are {kind_of(parts)}, not a list")
    texts: list[str] = []
    calls: list[Any] = []
    for part in parts or ():
        if not isinstance(part, dict):
            raise Unusable(Reason.PROVIDER, f"a part is {kind_of(part)}, not an object")
        if part.get("thought") is True:
            continue
        if "text" in part:
            if not isinstance(part["text"], str):
                raise Unusable(Reason.PROVIDER, f"the text of a part is {kind_of(part['text'])}, not a string")
            texts.append(part["text"])
        elif "functionCall" in part:
            call = part["functionCall"]
            calls.append(call.get("args") if isinstance(call, dict) else call)
    return texts, calls


def _arguments(calls: list[Any]) -> str:
    """The arguments of the one function call that is the answer: an object here, so it is written as JSON again."""
    if not calls:
        raise Unusable(Reason.INVALID_JSON, "the model called no tool", Retry.CHANGE)
    for given in calls:
        if not isinstance(given, dict):
            raise Unusable(Reason.PROVIDER, f"the arguments of a function call are {kind_of(given)}, not an object")
    if any(given != calls[0] for given in calls):
        raise Unusable(Reason.CONFLICT, f"the model made {len(calls)} different function calls", Retry.CHANGE)
    try:
        return orjson.dumps(calls[0]).decode()
    except TypeError as error:  # a lone surrogate, or a number beyond 64 bits
        raise Unusable(
            Reason.INVALID_JSON, f"the arguments of a function call are no JSON: {error}", Retry.CHANGE
        ) from error


def _vector(embedding: Any) -> list[Any]:
    values = embedding.get("values") if isinstance(embedding, dict) else None
    if not isinstance(values, list) or not values or any(type(one) not in (int, float) for one in values):
        raise Unusable(Reason.PROVIDER, "the embedding holds no numbers")
    return values


def _predictions(predictions: Any, custom_id: str | None) -> Extracted:
    """The older text embedding models: one prediction a line."""
    one = predictions[0] if isinstance(predictions, list) and len(predictions) == 1 else None
    found = one.get("embeddings") if isinstance(one, dict) else None
    statistics = found.get("statistics") if isinstance(found, dict) else None
    taken = statistics.get("token_count") if isinstance(statistics, dict) else None
    try:
        value = _vector(found)
    except Unusable as finding:
        return Extracted(custom_id, reason=finding.reason, detail=finding.detail, retry=finding.retry, paid=True)
    return Extracted(custom_id, usage=counted(taken, 0), paid=True, value=value)


def _usage(response: dict[str, Any]) -> Usage | None:
    """Tokens. Input is prompt and tool results, cached ones among them; output is answer and thoughts."""
    usage = response.get("usageMetadata")
    if usage is None and "tokenCount" in response:
        count = response["tokenCount"]
        return counted(int(count) if isinstance(count, str) and count.isdecimal() and len(count) < 13 else count, 0)
    if not isinstance(usage, dict):
        return None
    names = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    cached, *given = (usage.get(name, 0) for name in ("cachedContentTokenCount", *names))
    if counted(cached, *given) is None:
        return None
    prompt, tools, said, thought = given
    return counted(prompt + tools, said + thought, cached, 0, thought)


def _epoch(value: Any) -> int | None:
    """Unix seconds of an RFC 3339 time, or None."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None


# --- errors --------------------------------------------------------------------------------------------------------


def _row_error(error: Any, custom_id: str | None) -> Extracted:
    """Gemini's: a google.rpc.Status."""
    code = error.get("code") if isinstance(error, dict) else None
    retry = _GRPC.get(code, Retry.NONE) if type(code) is int else Retry.NONE
    shown = f"code {code}, " if type(code) is int and abs(code) < 2**31 else ""
    return Extracted(custom_id, None, None, Reason.PROVIDER, printable(shown + _words(error)), retry)


def _status(status: Any, custom_id: str | None) -> Extracted:
    """Vertex's: `Bad Request: {"error": ...}`, other words before the JSON, or words alone."""
    if not isinstance(status, str):
        return Extracted(custom_id, reason=Reason.PROVIDER, detail=f"the status is {kind_of(status)}, not a string")
    words, brace, rest = status.partition("{")
    body: Any = None
    if brace:
        try:
            body = orjson.loads(brace + rest)
        except orjson.JSONDecodeError:
            body = None
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and isinstance(error.get("type"), str):
        return _with_id(anthropic_http_error(_prefixed(words), body), custom_id)
    code = error.get("code") if isinstance(error, dict) else None
    number = code if type(code) is int else _prefixed(words)
    detail = printable(f"{number}, {_words(error)}" if isinstance(error, dict) else status)
    retry = Retry.BILLING if any(one.get("reason") == _BILLING for one in _details(error)) else _retry_of(number)
    return Extracted(custom_id, None, None, Reason.PROVIDER, detail, retry)


def _prefixed(words: str) -> int:
    """The HTTP status that words stand for, or 0."""
    found = (number for prefix, number in _PREFIXES.items() if words.strip().lower().startswith(prefix.lower()))
    return next(found, 0)


def _retry_of(status: int) -> Retry:
    if status in _TRANSIENT:
        return Retry.TRANSIENT
    return Retry.NEVER if status in _NEVER else Retry.NONE


def _details(error: Any) -> list[dict[str, Any]]:
    details = error.get("details") if isinstance(error, dict) else None
    return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


def _words(error: Any) -> str:
    """`STATUS: message` of an error, as far as it has them."""
    if isinstance(error, str):
        return error or "an error without words"
    if not isinstance(error, dict):
        return f"the error is {kind_of(error)}"
    parts = (error.get("status"), error.get("message"))
    return ": ".join(one for one in parts if isinstance(one, str) and one) or "an error without status or message"
