"""Anthropic's messages, and the result lines of its batches: succeeded, errored, canceled or expired.

Shapes: types of the anthropic SDK 2.12.0 and the batch guide, read 2026-11. Every row becomes exactly one line of one
file; only succeeded rows are billed.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson

from batchctl.emulator.anthropic_checks import RefusedError, message_params, odd
from batchctl.emulator.faults import Fates
from batchctl.emulator.process import Made
from batchctl.emulator.rows import answered
from batchctl.emulator.saying import Answer, Asked, Said, as_read, say, used_of, words
from batchctl.emulator.settings import Settings
from batchctl.emulator.wire import ODD

_STOPS = {"stop": "end_turn", "length": "max_tokens", "refusal": "refusal", "content_filter": "refusal"}
ERRORS = {
    "error500": ("api_error", "Internal server error", 500),
    "error429": ("rate_limit_error", "This request would exceed a rate limit.", 429),
    "timeout": ("timeout_error", "Request timed out.", 504),
    "unknown": ("mystery_error", "Something new.", 500),
}
_UNDONE = {"batch_expired": "expired", "batch_cancelled": "canceled"}


class _Message(Asked):
    """What the params of a message ask for."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.cap = params["max_tokens"]
        self.prompt = words(params["messages"])
        form = (params.get("output_config") or {}).get("format") or {}
        self.schema = as_read(orjson.dumps(form["schema"])) if "schema" in form else None
        choice = params.get("tool_choice") or {}
        tools = {tool.get("name"): tool for tool in params.get("tools") or ()}
        if choice.get("type") == "any" and tools:
            self.tool = next(iter(tools))
        elif choice.get("type") == "tool":
            self.tool = choice["name"]
        if self.tool:
            self.schema = as_read(orjson.dumps(tools[self.tool]["input_schema"]))


def answer(
    params: dict[str, Any],
    payload: bytes,
    *,
    seed: int,
    quality: str,
    nonce: str,
    tier: str,
    u2028: bool = False,
    cached: float = 0.0,
    thinking: int = 0,
) -> Answer:
    """One message. The words depend on seed and params alone; `nonce` only makes ids differ."""
    asked = _Message(params)
    said = say(asked, sha256(b"%d " % seed + payload).digest(), quality, u2028)
    used = used_of(said, asked.cap, len(payload) // 4 + 1, cached, thinking)
    taken, given, from_cache, _ = used
    stop, details = _STOPS[said.finish], None
    if stop == "refusal":
        details = {"type": "refusal", "category": None, "explanation": None}
    message = {
        "id": f"msg_{nonce}",
        "type": "message",
        "role": "assistant",
        "model": params["model"],
        "content": _content(said, nonce),
        "stop_reason": "tool_use" if said.tool and stop == "end_turn" else stop,
        "stop_sequence": None,
        "stop_details": details,
        "usage": {
            "input_tokens": taken - from_cache,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": from_cache,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": given,
            "service_tier": tier,
        },
    }
    return Answer(orjson.dumps(message), *used)


def _content(said: Said, nonce: str) -> list[dict[str, Any]]:
    if said.finish == "content_filter":
        return []
    if not said.tool or said.finish == "refusal":
        return [{"type": "text", "text": said.text, "citations": None}]
    try:
        given = orjson.loads(said.text)
    except orjson.JSONDecodeError:
        given = {}  # the service gives objects only: what was cut or is no JSON has lost its fields
    return [{"type": "tool_use", "id": f"toolu_{nonce}", "name": said.tool, "input": given}]


class Rows:
    """Turns requests of one batch into result lines. The same line of the same batch always gives the same bytes."""

    def __init__(self, *, batch_id: str, settings: Settings) -> None:
        self._mark = sha256(batch_id.encode()).hexdigest()[:18]
        self._settings = settings
        self._fates = Fates(settings)
        self._u2028 = "u2028" in settings.results

    def make(self, line: bytes, index: int, cut_code: str | None) -> Made:
        request = orjson.loads(line)
        custom_id, params = request["custom_id"], request["params"]
        nonce = f"{self._mark}{index:06x}"
        if cut_code is not None:
            return Made(self.undone(custom_id, cut_code), False, custom_id, not_run=True)
        payload = orjson.dumps(params)
        digest = sha256(payload)
        fate = self._fates.draw(digest.digest(), custom_id, payload)
        if fate.delivery == "missing":
            return Made(b"", False, custom_id)
        if fate.delivery == "expired":
            return Made(self.undone(custom_id, "batch_expired"), False, custom_id, expired=True, not_run=True)
        if fate.delivery in ERRORS:
            kind, message, _ = ERRORS[fate.delivery]
            return Made(_errored(custom_id, {"type": kind, "message": message}), False, custom_id)
        try:
            message_params(params, self._settings.models)
            return answered(
                custom_id,
                fate,
                digest.hexdigest(),
                nonce,
                self._settings.seed,
                answer=lambda quality, name, seed: self._answer(params, payload, quality, name, seed),
                line=lambda _, body: _succeeded(custom_id, body),
            )
        except (RefusedError, *ODD) as error:
            refusal = error if isinstance(error, RefusedError) else odd(error)
            return Made(_errored(custom_id, refusal.body["error"]), False, custom_id)

    def _answer(self, params: dict[str, Any], payload: bytes, quality: str, nonce: str, seed: int) -> Answer:
        return answer(
            params,
            payload,
            seed=seed,
            quality=quality,
            nonce=nonce,
            tier="batch",
            u2028=self._u2028,
            cached=self._settings.cached,
            thinking=self._settings.thinking,
        )

    def undone(self, custom_id: Any, code: str) -> bytes:
        return _line(custom_id, {"type": _UNDONE[code]})

    def stranger(self, custom_id: Any) -> bytes:
        params = {"model": "claude-simulated", "max_tokens": 64, "messages": [{"role": "user", "content": "not yours"}]}
        return _succeeded(custom_id, self._answer(params, orjson.dumps(params), "", self._mark + "ffffff", 0).body)


def _line(custom_id: Any, result: Any) -> bytes:
    return orjson.dumps({"custom_id": custom_id, "result": result}, option=orjson.OPT_APPEND_NEWLINE)


def _succeeded(custom_id: Any, message: bytes) -> bytes:
    return _line(custom_id, {"type": "succeeded", "message": orjson.Fragment(message)})


def _errored(custom_id: Any, error: Any) -> bytes:
    return _line(custom_id, {"type": "errored", "error": {"type": "error", "error": error, "request_id": None}})
