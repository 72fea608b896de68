"""The bodies of OpenAI's answers, written as templates around a simulated answer.

Shapes: API reference and batch guide, read 2026-11, and the types of the openai SDK 3.52. `service_tier` reads
`default` in batch results, and requests are echoed (`text`, `tools`, `instructions`) as the service does.
"""

from __future__ import annotations

import re
from array import array
from base64 import b64encode
from functools import lru_cache
from hashlib import sha256, shake_256
from typing import Any

import orjson

from batchctl.emulator.openai_checks import RefusedError
from batchctl.emulator.saying import Answer, Asked, Said, Used, say, used_of, words

_CATEGORIES = (
    "sexual",
    "hate",
    "harassment",
    "self-harm",
    "sexual/minors",
    "hate/threatening",
    "violence/graphic",
    "self-harm/intent",
    "self-harm/instructions",
    "harassment/threatening",
    "violence",
    "illicit",
    "illicit/violent",
)
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
_dumps = orjson.dumps


@lru_cache(maxsize=256)
def snapshot(model: str) -> str:
    """The dated name the service answers with when asked for a family name."""
    if re.match(r"(gpt-[4-9]|o\d)", model) and not re.search(r"\d{4}-\d{2}-\d{2}$", model):
        return f"{model}-2026-03-17"
    return model


def answer(
    endpoint: str,
    body: dict[str, Any],
    payload: bytes,
    *,
    seed: int,
    quality: str,
    created: int,
    nonce: str,
    u2028: bool = False,
    cached: float = 0.0,
    thinking: int = 0,
) -> Answer:
    """One 200 body. The words depend on seed and request alone; `nonce` only makes ids differ."""
    dice = sha256(b"%d " % seed + payload).digest()
    taken = len(payload) // 4 + 1
    if endpoint == "/v1/responses":
        asked = _Responses(body)
        said = say(asked, dice, quality, u2028)
        used = used_of(said, asked.cap, taken, cached, thinking)
        return Answer(_response(body, said, used, created, nonce), *used)
    if endpoint == "/v1/chat/completions":
        chat = ChatAsked(body)
        said = say(chat, dice, quality, u2028)
        used = used_of(said, chat.cap, taken, cached, thinking)
        return Answer(_chat(body, said, used, created, nonce), *used)
    if endpoint == "/v1/embeddings":
        return _embeddings(body)
    if endpoint == "/v1/moderations":
        return _moderations(body, dice, nonce)
    if endpoint == "/v1/completions":
        said = say(_Completions(body), dice, quality, u2028)
        return Answer(_completion(body, said, taken, created, nonce), taken, said.tokens)
    return _image(body, taken, created)


class _Responses(Asked):
    def __init__(self, body: dict[str, Any]) -> None:
        self.cap = body.get("max_output_tokens")
        self.prompt = words(body.get("input"))
        form = (body.get("text") or {}).get("format") or {}
        self.schema = form.get("schema") if form.get("type") == "json_schema" else None
        self.any_json = form.get("type") == "json_object"
        choice = body.get("tool_choice")
        if choice is not None:
            tools = {tool.get("name"): tool for tool in body.get("tools") or () if tool.get("type") == "function"}
            self.tool, self.schema = _chosen(
                choice, choice.get("name") if isinstance(choice, dict) else None, tools, self
            )


class ChatAsked(Asked):
    """What the body of a chat completion asks for."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.cap = body.get("max_completion_tokens") or body.get("max_tokens")
        self.prompt = words(body["messages"])
        form = body.get("response_format") or {}
        self.schema = form["json_schema"].get("schema") if form.get("type") == "json_schema" else None
        self.any_json = form.get("type") == "json_object"
        choice = body.get("tool_choice")
        if choice is not None:
            functions = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
            tools = {function["name"]: function for function in functions}
            named = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
            self.tool, self.schema = _chosen(choice, named, tools, self)


class _Completions(Asked):
    def __init__(self, body: dict[str, Any]) -> None:
        self.cap = body.get("max_tokens")
        self.prompt = words(body["prompt"])


def _chosen(choice: Any, named: str | None, tools: dict[str, Any], asked: Asked) -> tuple[str, Any]:
    """The forced tool and its schema; a choice left to the model never calls a tool here."""
    if isinstance(choice, dict) and named is not None:
        if named not in tools:
            message = f"Tool choice '{named}' not found in 'tools' parameter."
            raise RefusedError(message, param="tool_choice", code=None)
        return named, tools[named].get("parameters") or {"type": "object", "properties": {}}
    if choice == "required" and tools:
        name, tool = next(iter(tools.items()))
        return name, tool.get("parameters") or {"type": "object", "properties": {}}
    return "", asked.schema


def _response(body: dict[str, Any], said: Said, used: Used, created: int, nonce: str) -> bytes:
    item_status = b"incomplete" if said.finish in ("length", "content_filter") else b"completed"
    mark = nonce.encode()
    details = b"null"
    if said.finish == "length":
        details = b'{"reason":"max_output_tokens"}'
    elif said.finish == "content_filter":
        details = b'{"reason":"content_filter"}'
    if said.finish == "content_filter":
        output = b""
    elif said.tool and said.finish != "refusal":
        output = b'{"id":"fc_%b","type":"function_call","status":"%b","call_id":"call_%b","name":%b,"arguments":%b}' % (
            mark,
            item_status,
            mark[-16:],
            _dumps(said.tool),
            _dumps(said.text),
        )
    else:
        if said.finish == "refusal":
            content = b'{"type":"refusal","refusal":%b}' % _dumps(said.text)
        else:
            content = b'{"type":"output_text","annotations":[],"logprobs":[],"text":%b}' % _dumps(said.text)
        output = b'{"id":"msg_%b","type":"message","role":"assistant","status":"%b","content":[%b]}' % (
            mark,
            item_status,
            content,
        )
    get = body.get
    text = get("text")
    reasoning = get("reasoning")
    return (
        b'{"id":"resp_%b","object":"response","created_at":%d,"status":"%b","background":false,"error":null,'
        b'"incomplete_details":%b,"instructions":%b,"max_output_tokens":%b,"max_tool_calls":null,"model":%b,'
        b'"output":[%b],"parallel_tool_calls":true,"previous_response_id":null,"reasoning":%b,"service_tier":"default",'
        b'"store":%b,"temperature":%b,"text":%b,"tool_choice":%b,"tools":%b,"top_logprobs":0,"top_p":%b,'
        b'"truncation":"disabled","usage":{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,'
        b'"cache_write_tokens":0},"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d},'
        b'"user":null,"metadata":%b,"completed_at":%d}'
    ) % (
        mark,
        created,
        item_status,
        details,
        _dumps(get("instructions")),
        _dumps(get("max_output_tokens")),
        _dumps(snapshot(body["model"])),
        output,
        b'{"effort":null,"summary":null}'
        if reasoning is None
        else _dumps({"effort": None, "summary": None} | reasoning),
        b"false" if get("store") is False else b"true",
        b"1.0" if get("temperature") is None else _dumps(get("temperature")),
        b'{"format":{"type":"text"},"verbosity":"medium"}'
        if text is None
        else _dumps({"format": {"type": "text"}, "verbosity": "medium"} | text),
        _dumps(get("tool_choice") or "auto"),
        _dumps(get("tools") or []),
        b"1.0" if get("top_p") is None else _dumps(get("top_p")),
        used[0],
        used[2],
        used[1],
        used[3],
        used[0] + used[1],
        _dumps(get("metadata") or {}),
        created + 1,
    )


def _chat(body: dict[str, Any], said: Said, used: Used, created: int, nonce: str) -> bytes:
    content: Any = said.text
    refusal: Any = None
    calls = b""
    finish = said.finish
    if said.finish == "refusal":
        content, refusal, finish = None, said.text, "stop"
    elif said.finish == "content_filter":
        content = None
    elif said.tool:
        calls = b',"tool_calls":[{"id":"call_%b","type":"function","function":{"name":%b,"arguments":%b}}]' % (
            nonce[-16:].encode(),
            _dumps(said.tool),
            _dumps(said.text),
        )
        content = None
        # A forced function ends with "stop", "required" with "tool_calls"; the guide's own examples show both.
        finish = "tool_calls" if finish == "stop" else finish
    one = (
        b'"message":{"role":"assistant","content":%b,"refusal":%b,"annotations":[]%b},"logprobs":null,"finish_reason":"%b"}'
        % (
            _dumps(content),
            _dumps(refusal),
            calls,
            finish.encode(),
        )
    )
    choices = b",".join(b'{"index":%d,%b' % (place, one) for place in range(body.get("n") or 1))
    return (
        b'{"id":"chatcmpl-%b","object":"chat.completion","created":%d,"model":%b,"choices":[%b],"usage":{"prompt_tokens":%d,'
        b'"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d,"audio_tokens":0},'
        b'"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":0,"accepted_prediction_tokens":0,'
        b'"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":null}'
    ) % (
        nonce.encode(),
        created,
        _dumps(snapshot(body["model"])),
        choices,
        used[0],
        used[1],
        used[0] + used[1],
        used[2],
        used[3],
    )


def _completion(body: dict[str, Any], said: Said, taken: int, created: int, nonce: str) -> bytes:
    finish = "stop" if said.finish == "refusal" else said.finish
    return _dumps(
        {
            "id": f"cmpl-{nonce}",
            "object": "text_completion",
            "created": created,
            "model": body["model"],
            "choices": [{"text": said.text, "index": 0, "logprobs": None, "finish_reason": finish}],
            "usage": {"prompt_tokens": taken, "completion_tokens": said.tokens, "total_tokens": taken + said.tokens},
        }
    )


_DIMENSIONS = {"text-embedding-3-large": 3072}


def _embeddings(body: dict[str, Any]) -> Answer:
    given = body["input"]
    inputs = given if isinstance(given, list) and given and isinstance(given[0], str | list) else [given]
    size = body.get("dimensions") or _DIMENSIONS.get(body["model"], 1536)
    encoded = body.get("encoding_format") == "base64"
    items, taken = [], 0
    for place, one in enumerate(inputs):
        raw = _dumps(one)
        taken += len(raw) // 4 if isinstance(one, str) else len(one)
        items.append(b'{"object":"embedding","index":%d,"embedding":%b}' % (place, _vector(raw, size, encoded)))
    taken = max(1, taken)
    body_bytes = b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
        b",".join(items),
        _dumps(body["model"]),
        taken,
        taken,
    )
    return Answer(body_bytes, taken, 0)


def _vector(text: bytes, size: int, encoded: bool) -> bytes:
    """A unit vector that depends on the text alone."""
    raw = array("h")
    raw.frombytes(shake_256(text).digest(2 * size))
    norm = sum(part * part for part in raw) ** 0.5 or 1.0
    parts = [part / norm for part in raw]
    if encoded:
        return _dumps(b64encode(array("f", parts).tobytes()).decode())
    return _dumps([round(part, 8) for part in parts])


def _moderations(body: dict[str, Any], dice: bytes, nonce: str) -> Answer:
    given = body["input"]
    # A list of parts (text and images) is one input; a list of strings is one input each.
    count = len(given) if isinstance(given, list) and all(isinstance(one, str) for one in given) else 1
    results = []
    for place in range(count):
        flagged = dice[place % 32] == 0
        results.append(
            {
                "flagged": flagged,
                "categories": {name: flagged and name == "harassment" for name in _CATEGORIES},
                "category_scores": {name: 0.97 if flagged and name == "harassment" else 0.0001 for name in _CATEGORIES},
                "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
            }
        )
    model = body.get("model") or "omni-moderation-latest"
    return Answer(_dumps({"id": f"modr-{nonce}", "model": model, "results": results}), 0, 0)


def _image(body: dict[str, Any], taken: int, created: int) -> Answer:
    usage = {
        "input_tokens": taken,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": taken},
        "output_tokens": 272,
        "total_tokens": taken + 272,
    }
    image = {
        "created": created,
        "background": "opaque",
        "data": [{"b64_json": _PIXEL}] * (body.get("n") or 1),
        "output_format": "png",
        "quality": body.get("quality") or "low",
        "size": body.get("size") or "1024x1024",
        "usage": usage,
    }
    return Answer(_dumps(image), taken, 272)
