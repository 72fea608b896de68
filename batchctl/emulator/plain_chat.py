"""Chat completions as vendors other than OpenAI answer them: no refusal field, no service tier, few counts.

A refusal is an ordinary text. Shapes: mistralai 3.7.0 `client/models/chatcompletionresponse.py` and together 3.1.1
`types/chat/chat_completion.py`, read 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import orjson

from batchctl.emulator import openai_checks
from batchctl.emulator.openai_answers import ChatAsked
from batchctl.emulator.openai_answers import answer as openai_answer
from batchctl.emulator.saying import Answer, say, used_of
from batchctl.emulator.wire import WireError


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
    """One 200 body, of the same words as OpenAI's for the same request."""
    if endpoint != "/v1/chat/completions":
        return openai_answer(endpoint, body, payload, seed=seed, quality=quality, created=created, nonce=nonce)
    asked = ChatAsked(body)
    said = say(asked, sha256(b"%d " % seed + payload).digest(), quality, u2028)
    used = used_of(said, asked.cap, len(payload) // 4 + 1, cached, thinking)
    message: dict[str, Any] = {"role": "assistant", "content": said.text, "tool_calls": None}
    finish = {"refusal": "stop", "content_filter": "stop"}.get(said.finish, said.finish)
    if said.tool and said.finish in ("stop", "length"):
        function = {"name": said.tool, "arguments": said.text}
        call = {"id": nonce[:9], "type": "function", "function": function, "index": 0}
        message |= {"content": "", "tool_calls": [call]}
        finish = "tool_calls" if finish == "stop" else finish
    choices = [{"index": place, "message": message, "finish_reason": finish} for place in range(body.get("n") or 1)]
    usage: dict[str, Any] = {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": used[0] + used[1]}
    if used[2]:
        usage["prompt_tokens_details"] = {"cached_tokens": used[2]}
    given = {
        "id": nonce,
        "object": "chat.completion",
        "created": created,
        "model": body["model"],
        "choices": choices,
        "usage": usage,
    }
    return Answer(orjson.dumps(given), *used)


def checks(parameters: Mapping[str, frozenset[str]], unknown: Callable[[str], WireError]) -> Callable[..., None]:
    """A check of bodies by a vendor's own parameters; their forms, as far as they are OpenAI's, are checked as OpenAI's."""

    def body_of(endpoint: str, body: dict[str, Any]) -> None:
        strange = body.keys() - parameters[endpoint]
        if strange:
            raise unknown(min(strange))
        openai_checks.body_of(endpoint, {key: body[key] for key in body if key in openai_checks.PARAMETERS[endpoint]})

    return body_of
