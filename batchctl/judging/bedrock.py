"""The answer, or why there is none, out of one result of a Bedrock batch job, whatever model family answered.

A line is `{"recordId", "modelInput", "modelOutput"}`, or with `error: {"errorCode": <like HTTP>, "errorMessage"}` in place
of the output; one with neither is no answer. `modelOutput` has the shape of the Converse API, or that of the model: a
message of Anthropic's, a message of Nova's (Converse's shape), Llama's `generation`, Mistral's `outputs` or `choices`,
Titan's `embedding`. The shape tells which it is; one that is none of them is not guessed at.

Facts: docs.aws.amazon.com/bedrock/latest/userguide (batch-inference-results, model-parameters-*) and the service model
of botocore 1.44.5, read 2026-11-21.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from batchctl.judging.anthropic import anthropic_body
from batchctl.judging.extracted import (
    EMPTY,
    TOOL,
    Extracted,
    Unusable,
    cut_off,
    filtered,
    kind_of,
    refused,
    unknown,
)
from batchctl.judging.text import printable
from batchctl.model.rows import Reason, Retry, Usage
from batchctl.model.usage import counted

_TRANSIENT = frozenset((408, 409, 429))
_NEVER = frozenset((400, 401, 403, 404, 413, 422, 424))
_COMPLETE = ("end_turn", "stop_sequence", "tool_use")
_FILTERED = ("guardrail_intervened", "content_filtered")
_MALFORMED = ("malformed_model_output", "malformed_tool_use")


def bedrock_line(line: Any, endpoint: str, mode: str = "native") -> Extracted:
    """One parsed line of an output file."""
    if not isinstance(line, dict):
        return Extracted(reason=Reason.PROVIDER, detail=f"the line is {kind_of(line)}, not an object")
    record_id = line.get("recordId")
    if not isinstance(record_id, str):
        record_id = None
    if line.get("modelOutput") is not None:
        return replace(bedrock_body(line["modelOutput"], endpoint, mode), custom_id=record_id)
    error = line.get("error")
    if error is not None:
        return replace(_errored(error), custom_id=record_id)
    detail = "the line holds neither an output nor an error"
    return Extracted(record_id, reason=Reason.MISSING, detail=detail, retry=Retry.TRANSIENT)


def bedrock_body(body: Any, endpoint: str, mode: str = "native") -> Extracted:
    """What a model put out: `modelOutput` of a line, or a live answer with status 200."""
    if not isinstance(body, dict):
        detail = f"the output is {kind_of(body)}, not an object"
        return Extracted(reason=Reason.PROVIDER, detail=detail, paid=body is not None)
    if body.get("type") == "message" or isinstance(body.get("content"), list):
        return anthropic_body(body, endpoint, mode)
    if "embedding" in body or "embeddingsByType" in body:
        return _embedding(body)
    reason: Reason | None = None
    text: str | None = None
    detail, retry, paid = "", Retry.NONE, True
    usage = _usage(body)
    try:
        text = _answer(body, mode)
    except Unusable as finding:
        reason, retry, detail = finding.reason, finding.retry, printable(finding.detail)
        paid = finding.paid or (usage is not None and usage.output_tokens > 0)
    return Extracted(None, text, usage, reason, detail, retry, paid)


def bedrock_http_error(status: int | None, body: Any) -> Extracted:
    """A live request that was answered with another status than 200; 0 or None when it got no answer."""
    message = body.get("message") if isinstance(body, dict) else None
    code = body.get("code") if isinstance(body, dict) else None
    error = body.get("error") if isinstance(body, dict) else None
    if message is None and isinstance(error, dict):
        message = error.get("message")
    said = ": ".join(one for one in (code, message) if isinstance(one, str) and one) or "an error without words"
    reason, retry = _class_of(status) if status else (Reason.PROVIDER, Retry.TRANSIENT)
    return Extracted(reason=reason, detail=printable(f"{status or 'no status'}, {said}"), retry=retry)


def _errored(error: Any) -> Extracted:
    """The `error` of a line. Its number decides, never its words."""
    if not isinstance(error, dict):
        return Extracted(reason=Reason.PROVIDER, detail=f"`error` is {kind_of(error)}, not an object")
    code, message = error.get("errorCode"), error.get("errorMessage")
    said = message if isinstance(message, str) and message else "an error without words"
    if isinstance(code, str) and code.isdigit() and len(code) == 3:
        code = int(code)
    if type(code) is not int:
        return Extracted(reason=Reason.PROVIDER, detail=printable(f"errorCode is {kind_of(code)}: {said}"))
    reason, retry = _class_of(code)
    return Extracted(reason=reason, detail=printable(f"{code}, {said}"), retry=retry)


def _class_of(status: int) -> tuple[Reason, Retry]:
    if status in _TRANSIENT or 500 <= status < 600:
        return Reason.PROVIDER, Retry.TRANSIENT
    return Reason.PROVIDER, Retry.NEVER if status in _NEVER else Retry.NONE


# --- the shapes of the families ------------------------------------------------------------------------------------


def _answer(body: dict[str, Any], mode: str) -> str:
    """The text of an output; raises `Unusable`."""
    if "output" in body:
        return _converse(body, mode)
    if "generation" in body:
        return _text_of(body["generation"], body.get("stop_reason"))
    if "outputs" in body:
        one = _first(body["outputs"], "outputs")
        return _text_of(one.get("text"), one.get("stop_reason"))
    if "choices" in body:
        one = _first(body["choices"], "choices")
        message = one.get("message")
        if not isinstance(message, dict):
            raise Unusable(Reason.PROVIDER, f"the message is {kind_of(message)}, not an object")
        return _text_of(message.get("content"), one.get("stop_reason") or one.get("finish_reason"))
    raise Unusable(Reason.PROVIDER, "the output has the shape of no model family batchctl knows", paid=True)


def _first(listed: Any, name: str) -> dict[str, Any]:
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], dict):
        raise Unusable(Reason.PROVIDER, f"`{name}` is no list of objects")
    if len(listed) > 1:
        raise Unusable(Reason.CONFLICT, f"`{name}` holds {len(listed)} answers", Retry.CHANGE)
    found: dict[str, Any] = listed[0]
    return found


def _text_of(text: Any, stop: Any) -> str:
    """An answer of Llama or Mistral with its stop reason."""
    if stop == "length" or stop == "max_tokens":
        raise cut_off("the most tokens an answer may have are reached")
    if stop in ("content_filter", *_FILTERED):
        raise filtered()
    if stop not in ("stop", "end_turn", "stop_sequence", "eos"):
        raise unknown("stop_reason", stop)
    if not isinstance(text, str):
        raise Unusable(Reason.PROVIDER, f"the text is {kind_of(text)}, not a string")
    if not text.strip():
        raise Unusable(Reason.INVALID_JSON, EMPTY, Retry.CHANGE)
    return text


def _converse(body: dict[str, Any], mode: str) -> str:
    """An output of the Converse API, or of Nova, which has its shape."""
    stop = body.get("stopReason")
    if stop in _FILTERED:
        raise filtered()
    if stop == "refusal":
        raise refused(None)
    message = body["output"].get("message") if isinstance(body["output"], dict) else None
    blocks = message.get("content") if isinstance(message, dict) else None
    if not isinstance(blocks, list):
        raise Unusable(Reason.PROVIDER, f"the content is {kind_of(blocks)}, not a list")
    if stop == "max_tokens":
        raise cut_off("maxTokens reached")
    if stop == "model_context_window_exceeded":
        raise cut_off("the model's context window is full; more tokens do not help")
    if stop in _MALFORMED:
        raise Unusable(Reason.INVALID_JSON, f"the provider says {stop}", Retry.CHANGE)
    if stop not in _COMPLETE:
        raise unknown("stopReason", stop)
    texts, calls = _blocks(blocks)
    answer = "".join(texts)
    if mode == TOOL or (calls and not answer.strip()):
        return _input(calls)
    if not answer.strip():
        raise Unusable(Reason.INVALID_JSON, EMPTY, Retry.CHANGE)
    return answer


def _blocks(blocks: list[Any]) -> tuple[list[str], list[Any]]:
    """Texts and tool inputs. A block is an object with one member, which names its kind."""
    texts: list[str] = []
    calls: list[Any] = []
    for block in blocks:
        if not isinstance(block, dict):
            raise Unusable(Reason.PROVIDER, f"a content block is {kind_of(block)}, not an object")
        if "text" in block:
            if not isinstance(block["text"], str):
                raise Unusable(Reason.PROVIDER, f"the text is {kind_of(block['text'])}, not a string")
            texts.append(block["text"])
        elif isinstance(block.get("toolUse"), dict):
            calls.append(block["toolUse"].get("input"))
        elif "reasoningContent" not in block:
            raise Unusable(Reason.PROVIDER, f"the answer holds an unknown content block {printable(str(list(block)))}")
    return texts, calls


def _input(calls: list[Any]) -> str:
    if len(calls) != 1 or not isinstance(calls[0], dict):
        what = "the model called no tool" if not calls else f"the model made {len(calls)} tool calls"
        raise Unusable(Reason.INVALID_JSON, what, Retry.CHANGE)
    try:
        return orjson.dumps(calls[0]).decode()
    except TypeError as error:
        raise Unusable(Reason.INVALID_JSON, f"the input of a tool call is no JSON: {error}", Retry.CHANGE) from error


def _embedding(body: dict[str, Any]) -> Extracted:
    usage = counted(body.get("inputTextTokenCount"), 0)
    value = body.get("embedding")
    by_type = body.get("embeddingsByType")
    if value is None and isinstance(by_type, dict) and by_type:
        value = by_type.get("float", next(iter(by_type.values())))
    if not isinstance(value, list) or not value:
        detail = f"the embedding is {kind_of(value)}, not a list of numbers"
        return Extracted(usage=usage, reason=Reason.PROVIDER, detail=detail, paid=True)
    if any(type(one) not in (int, float) for one in value):
        return Extracted(usage=usage, reason=Reason.PROVIDER, detail="the embedding holds no numbers", paid=True)
    return Extracted(usage=usage, value=value, paid=True)


# --- tokens ----------------------------------------------------------------------------------------------------------


def _usage(body: dict[str, Any]) -> Usage | None:
    """Tokens, with `input_tokens` made whole; None where the shape has none (Mistral's own) or they are no counts."""
    usage = body.get("usage")
    if isinstance(usage, dict):
        return _counted(usage)
    if "generation" in body:
        return counted(body.get("prompt_token_count"), body.get("generation_token_count"))
    return None


def _counted(usage: dict[str, Any]) -> Usage | None:
    """Converse counts input read from or written to a cache beside `inputTokens`; `totalTokens` tells when it does not."""
    if "prompt_tokens" in usage:
        return counted(usage["prompt_tokens"], usage.get("completion_tokens", 0))
    into, out = usage.get("inputTokens"), usage.get("outputTokens")
    read = usage.get("cacheReadInputTokens", usage.get("cacheReadInputTokenCount"))
    written = usage.get("cacheWriteInputTokens", usage.get("cacheWriteInputTokenCount"))
    found = counted(into, out, 0 if read is None else read, 0 if written is None else written)
    if found is None:
        return None
    if usage.get("totalTokens") == found.input_tokens + found.output_tokens:
        return found
    whole = found.input_tokens + found.cached_tokens + found.cache_write_tokens
    return counted(whole, found.output_tokens, found.cached_tokens, found.cache_write_tokens)
