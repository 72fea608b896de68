"""The answer, or why there is none, out of one OpenAI-shaped result.

A result line is `{"id", "custom_id", "response": {"status_code", "request_id", "body"} | null, "error" | null}`, the
same in output and error files; a failed request carries its error in `response.body.error`, one that never ran in the
top-level `error` (Batch guide, developers.openai.com/api/docs/guides/batch, and the OpenAPI description's
`BatchRequestOutput`, both as of November 2026). Azure sends the same with fields more or fewer; so do Mistral (mistralai
3.7.0), Together (together 3.1.1) and the files of vLLM (`vllm/entrypoints/openai/run_batch.py`), all read 2026-11-21.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from types import NoneType
from typing import Any

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
    word_of,
)
from batchctl.judging.openai_errors import class_of, error_codes, error_words
from batchctl.judging.text import printable
from batchctl.model.rows import Reason, Retry
from batchctl.model.usage import openai_usage

_MOST_SECONDS = 2**40


def openai_line(line: Any, endpoint: str, mode: str = "native") -> Extracted:
    """One parsed line of an output or error file. `endpoint` is the batch's, `mode` what the request asked for."""
    if not isinstance(line, dict):
        return Extracted(reason=Reason.PROVIDER, detail=f"the line is {kind_of(line)}, not an object")
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str):
        custom_id = None
    response = line.get("response")
    error = line.get("error")
    if response is None:
        return _not_run(error, custom_id)
    if not isinstance(response, dict):
        return Extracted(custom_id, reason=Reason.PROVIDER, detail=f"`response` is {kind_of(response)}, not an object")
    status = response.get("status_code")
    body = response.get("body")
    request_id = name_of(response.get("request_id"))
    if type(status) is not int or status != 200:
        answered = isinstance(body, dict) and any(body.get(field) for field in ("output", "choices", "data", "results"))
        if answered or type(status) not in (int, NoneType):
            detail = f"an answer with the status {word_of(status)} is not understood"
            return Extracted(custom_id, None, None, Reason.PROVIDER, detail, Retry.NONE, answered, request_id)
        return _failed(status, body, custom_id, request_id, error)
    if error is not None:
        detail = f"an answer with status 200 and an error is not understood: {error_words(error)}"
        return Extracted(custom_id, None, None, Reason.PROVIDER, detail, Retry.NONE, True, request_id)
    return _body(body, endpoint, mode, custom_id, request_id)


def openai_body(body: Any, endpoint: str, mode: str = "native") -> Extracted:
    """A body that came with status 200, in a result line or live."""
    return _body(body, endpoint, mode, None, "")


def openai_http_error(status: int | None, body: Any) -> Extracted:
    """A request the provider answered with another status than 200; 0 or None when it gave none."""
    return _failed(status, body, None, "")


def _body(body: Any, endpoint: str, mode: str, custom_id: str | None, request_id: str) -> Extracted:
    if not isinstance(body, dict):
        detail = f"the answer is {kind_of(body)}, not an object"
        return Extracted(custom_id, None, None, Reason.PROVIDER, detail, Retry.NONE, body is not None, request_id)
    reader = _READERS.get(endpoint)
    usage = openai_usage(body.get("usage"))
    text: str | None = None
    value: Any = None
    reason: Reason | None = None
    detail = ""
    retry = Retry.NONE
    paid = True
    try:
        if reader is None:
            raise unknown("endpoint", endpoint)
        found = reader(body, mode)
        if isinstance(found, str):
            if not found or found.isspace():
                raise Unusable(Reason.INVALID_JSON, EMPTY, Retry.CHANGE)
            text = found
        else:
            value = found
    except Unusable as finding:
        reason, retry = finding.reason, finding.retry
        detail = printable(finding.detail)
        paid = finding.paid or (usage is not None and usage.output_tokens > 0)
    created_at = body.get("created_at")
    if created_at is None:
        created_at = body.get("created")
    return Extracted(
        custom_id,
        text,
        usage,
        reason,
        detail,
        retry,
        paid,
        request_id,
        name_of(body.get("model")),
        created_at if type(created_at) is int and 0 <= created_at < _MOST_SECONDS else _seconds(created_at),
        value,
    )


# --- endpoints: each returns the text or the data, or raises `Unusable` -------------------------------------------


def _responses(body: dict[str, Any], mode: str) -> str:
    """`/v1/responses`: the text is in message items, beside reasoning, tool calls and items yet to be invented."""
    status = body.get("status")
    output = body.get("output")
    if not isinstance(output, list):
        if status == "completed" or status is None:
            raise _no_answer(body, "output", output)
        output = []
    messages: list[tuple[Any, list[str]]] = []
    calls: list[Any] = []
    strange = ""
    cut = False
    for item in output:
        if not isinstance(item, dict):
            raise Unusable(Reason.PROVIDER, f"an item of `output` is {kind_of(item)}, not an object")
        kind = item.get("type")
        if kind == "message":
            texts: list[str] = []
            parts = item.get("content")
            if not isinstance(parts, list):
                raise Unusable(Reason.PROVIDER, f"the content of a message is {kind_of(parts)}, not a list")
            for part in parts:
                if not isinstance(part, dict):
                    raise Unusable(Reason.PROVIDER, f"a part of a message is {kind_of(part)}, not an object")
                part_kind = part.get("type")
                if part_kind == "output_text":
                    text = part.get("text")
                    if not isinstance(text, str):
                        raise Unusable(Reason.PROVIDER, f"the text of a message is {kind_of(text)}, not a string")
                    texts.append(text)
                elif part_kind == "refusal":
                    raise refused(part.get("refusal"))
                else:
                    strange = strange or f"message part {word_of(part_kind)}"
            cut = cut or item.get("status") == "incomplete"
            messages.append((item.get("phase"), texts))
        elif kind == "function_call":
            cut = cut or item.get("status") == "incomplete"
            calls.append(item.get("arguments"))
        elif kind == "custom_tool_call":
            calls.append(item.get("input"))
        elif kind != "reasoning":
            strange = strange or f"output item {word_of(kind)}"

    if status != "completed":
        raise _not_completed(body, status)
    if body.get("error") is not None:
        raise Unusable(Reason.PROVIDER, f"completed, yet with an error: {error_words(body['error'])}")
    if cut:
        raise cut_off("a part of it is incomplete")
    if len(messages) == 1:
        answer = "".join(messages[0][1])
    else:
        phases = [phase for phase, _ in messages]
        if "final_answer" in phases:
            messages = [message for message in messages if message[0] == "final_answer"]
        elif any(phase != "commentary" for phase in phases):
            messages = [message for message in messages if message[0] != "commentary"]
        answer = "".join([text for _, texts in messages for text in texts])
    if mode == TOOL or (calls and (not answer or answer.isspace())):
        return _arguments(calls)
    if strange and (not answer or strange.startswith("message part")):
        raise Unusable(Reason.PROVIDER, f"the answer holds an unknown {strange}")
    return answer


def _not_completed(body: dict[str, Any], status: Any) -> Unusable:
    """Statuses of a response other than completed (openai 3.52.0, `ResponseStatus` and `IncompleteDetails`)."""
    if status == "incomplete":
        details = body.get("incomplete_details")
        why = details.get("reason") if isinstance(details, dict) else None
        if why == "content_filter":
            return filtered()
        if why == "max_output_tokens":
            return cut_off("max_output_tokens reached")
        return unknown("reason of an incomplete answer", why)
    if status == "failed":
        error = body.get("error")
        reason, retry = class_of(200, *error_codes(error))
        return Unusable(reason, f"failed: {error_words(error)}", retry, paid=False)
    if status == "cancelled":
        return Unusable(Reason.PROVIDER, "the response was cancelled", Retry.USER, paid=False)
    if status in ("queued", "in_progress"):
        return Unusable(Reason.PROVIDER, f"the response is still {status}", paid=False)
    if status is None and body.get("error") is not None:
        return _no_answer(body, "status", None)
    return unknown("status", status)


def _chat(body: dict[str, Any], mode: str) -> str:
    """`/v1/chat/completions`: one message a choice; several choices count only when they agree."""
    answers = []
    for choice in _choices(body):
        message = choice.get("message")
        finish = choice.get("finish_reason")
        if not isinstance(message, dict):
            if finish == "content_filter":  # Azure leaves the message out
                raise filtered()
            raise Unusable(Reason.PROVIDER, f"the message is {kind_of(message)}, not an object")
        refusal = message.get("refusal")
        if refusal:
            raise refused(refusal)
        _check_finish(finish, ("stop", "eos", "tool_calls", "function_call"))
        text = _content(message.get("content"))
        if mode == TOOL or not text or text.isspace():
            calls = _tool_calls(message)
            if calls or mode == TOOL:
                text = _arguments(calls)
        answers.append(text)
    return _agreed(answers)


def _completions(body: dict[str, Any], _: str) -> str:
    """`/v1/completions`."""
    answers = []
    for choice in _choices(body):
        _check_finish(choice.get("finish_reason"), ("stop",))
        text = choice.get("text")
        if not isinstance(text, str):
            raise Unusable(Reason.PROVIDER, f"the text is {kind_of(text)}, not a string")
        answers.append(text)
    return _agreed(answers)


def _embeddings(body: dict[str, Any], _: str) -> Any:
    """`/v1/embeddings`: the vectors in the order of the input, which is what `index` says and not their order."""
    data = body.get("data")
    if not isinstance(data, list) or not data:
        raise _no_answer(body, "data", data)
    vectors: dict[int, Any] = {}
    for item in data:
        index = item.get("index") if isinstance(item, dict) else None
        if type(index) is not int or not 0 <= index < len(data) or index in vectors:
            raise Unusable(Reason.PROVIDER, f"an embedding has the index {word_of(index)}")
        vector = item.get("embedding")
        if not _is_vector(vector):
            raise Unusable(Reason.PROVIDER, f"embedding {index} is not a list of finite numbers")
        vectors[index] = vector
    ordered = [vectors[index] for index in range(len(data))]
    return ordered[0] if len(ordered) == 1 else ordered


def _moderations(body: dict[str, Any], _: str) -> Any:
    """`/v1/moderations`: `flagged` is data, not a failure."""
    results = body.get("results")
    if not isinstance(results, list) or not results:
        raise _no_answer(body, "results", results)
    for result in results:
        if not isinstance(result, dict) or type(result.get("flagged")) is not bool:
            raise Unusable(Reason.PROVIDER, "a moderation result has no `flagged`")
    return results[0] if len(results) == 1 else results


_READERS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "/v1/responses": _responses,
    "/v1/chat/completions": _chat,
    "/v1/completions": _completions,
    "/v1/embeddings": _embeddings,
    "/v1/moderations": _moderations,
    "/chat/completions": _chat,  # Azure's batches of older API versions
}


# --- parts ---------------------------------------------------------------------------------------------------------


def _choices(body: dict[str, Any]) -> list[dict[str, Any]]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise _no_answer(body, "choices", choices)
    for choice in choices:
        if not isinstance(choice, dict):
            raise Unusable(Reason.PROVIDER, f"a choice is {kind_of(choice)}, not an object")
    if body.get("error") is not None:
        raise Unusable(Reason.PROVIDER, f"an answer and an error in one: {error_words(body['error'])}")
    return choices


def _check_finish(finish: Any, usual: tuple[str, ...]) -> None:
    if finish == "content_filter":
        raise filtered()
    if finish in ("length", "model_length"):  # Mistral's word for a full context
        raise cut_off(f"finish_reason is {finish}")
    if finish not in usual:
        raise unknown("finish_reason", finish)


def _content(content: Any) -> str:
    """A string or null; some services send the parts of a request's content back instead."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise Unusable(Reason.PROVIDER, f"the content is {kind_of(content)}, not a string")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "refusal":
            raise refused(part.get("refusal"))
        if kind == "thinking":  # Mistral's reasoning models
            continue
        text = part.get("text") if kind == "text" else None
        if not isinstance(text, str):
            raise unknown("content part", kind)
        texts.append(text)
    return "".join(texts)


def _tool_calls(message: dict[str, Any]) -> list[Any]:
    """Arguments of each call: `tool_calls`, or `function_call` as it was before."""
    calls = message.get("tool_calls")
    if calls is None:
        function = message.get("function_call")
        if function is None:
            return []
        calls = [{"function": function}]
    if not isinstance(calls, list):
        raise Unusable(Reason.PROVIDER, f"`tool_calls` is {kind_of(calls)}, not a list")
    found = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        custom = call.get("custom") if isinstance(call, dict) else None
        if isinstance(function, dict):
            found.append(function.get("arguments"))
        elif isinstance(custom, dict):
            found.append(custom.get("input"))
        else:
            raise unknown("tool call", call.get("type") if isinstance(call, dict) else call)
    return found


def _arguments(calls: list[Any]) -> str:
    """The arguments of the one tool call that is the answer."""
    if not calls:
        raise Unusable(Reason.INVALID_JSON, "the model called no tool", Retry.CHANGE)
    for arguments in calls:
        if not isinstance(arguments, str):
            raise Unusable(Reason.PROVIDER, f"the arguments of a tool call are {kind_of(arguments)}, not a string")
    if any(arguments != calls[0] for arguments in calls):
        raise Unusable(Reason.CONFLICT, f"the model made {len(calls)} different tool calls", Retry.CHANGE)
    return str(calls[0])


def _agreed(answers: list[str]) -> str:
    if any(answer != answers[0] for answer in answers):
        raise Unusable(Reason.CONFLICT, f"the {len(answers)} choices differ", Retry.CHANGE)
    return answers[0]


def _is_vector(vector: Any) -> bool:
    if isinstance(vector, str):  # encoding_format base64
        return bool(vector)
    if not isinstance(vector, list) or not vector or not set(map(type, vector)) <= {float, int}:
        return False
    try:
        return isfinite(sum(vector)) or all(map(isfinite, vector))
    except OverflowError:  # an integer beyond every float
        return False


def _no_answer(body: dict[str, Any], field: str, found: Any) -> Unusable:
    """A 200 without the field that holds answers: an error sent with the wrong status, or a shape we do not know."""
    error = body.get("error")
    if error is None:
        return Unusable(Reason.PROVIDER, f"`{field}` is {kind_of(found)} in an answer with status 200")
    reason, retry = class_of(200, *error_codes(error))
    return Unusable(reason, f"status 200 with an error: {error_words(error)}", retry, paid=False)


# --- errors --------------------------------------------------------------------------------------------------------


def _not_run(error: Any, custom_id: str | None) -> Extracted:
    """`response` is null: the request did not run, or nothing says what happened to it."""
    if error is None:
        return Extracted(custom_id, reason=Reason.PROVIDER, detail="neither a response nor an error")
    reason, retry = class_of(200, *error_codes(error))
    return Extracted(custom_id, reason=reason, detail=error_words(error), retry=retry)


def _failed(status: Any, body: Any, custom_id: str | None, request_id: str, beside: Any = None) -> Extracted:
    """`beside` is the error beside the response, where vLLM puts it, bare or in a wrapper; Mistral's body is the error."""
    error = body.get("error") if isinstance(body, dict) else None
    if error is None and isinstance(body, dict) and (body.get("object") == "error" or "message" in body):
        error = body
    if error is None:
        error = beside.get("error", beside) if isinstance(beside, dict) else beside
    codes = error_codes(error)
    if not status and any(codes):
        status = 200  # no status, yet a word that says more than its absence
        shown = "no status"
    else:
        status = status or 0  # seen in error files with an empty body: a server error (tidyverse/ellmer#830)
        shown = word_of(status) if status else "no status"
    reason, retry = class_of(status, *codes)
    detail = printable(f"{shown}, {error_words(error)}" if error is not None else shown)
    return Extracted(custom_id, None, None, reason, detail, retry, False, request_id)


# --- small values --------------------------------------------------------------------------------------------------


def _seconds(value: Any) -> int | None:
    """`created_at` is a float in the SDK's types; whole numbers arrive."""
    return int(value) if type(value) is float and 0 <= value < _MOST_SECONDS else None
