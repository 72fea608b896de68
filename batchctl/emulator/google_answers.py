"""Google's `GenerateContentResponse` and `EmbedContentResponse`, and what becomes of each row of a batch.

Shapes: ai.google.dev/gemini-api/docs/batch-api with recorded outputs, and the aiplatform v1 discovery document of
2026-11-06, read 2026-11. Counts that are 0 are left out, as the services do; a blocked prompt is billed for its input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from batchctl.emulator.faults import Fates
from batchctl.emulator.google_checks import odd
from batchctl.emulator.process import Made
from batchctl.emulator.rows import answered
from batchctl.emulator.saying import Answer, Asked, Said, as_read, say, used_of
from batchctl.emulator.settings import Settings
from batchctl.emulator.wire import ODD, WireError

_DIMENSIONS = 8


class _Request(Asked):
    """What a request in camelCase asks for."""

    def __init__(self, request: dict[str, Any]) -> None:
        config = request["generationConfig"]
        self.cap = config.get("maxOutputTokens")
        self.prompt = _words(request["contents"])
        self.any_json = config.get("responseMimeType") == "application/json"
        if "responseJsonSchema" in config:
            self.schema = as_read(orjson.dumps(config["responseJsonSchema"]))
        functions = [one for tool in request.get("tools") or () for one in tool.get("functionDeclarations") or ()]
        calling = (request.get("toolConfig") or {}).get("functionCallingConfig") or {}
        if functions and calling.get("mode") == "ANY":
            self.tool = functions[0]["name"]
            self.schema = as_read(orjson.dumps(functions[0].get("parametersJsonSchema") or {"type": "object"}))


def _words(contents: list[Any]) -> str:
    """The text of the last message of the user: where the row is."""
    for one in reversed(contents):
        if one.get("role", "user") == "user":
            return " ".join(str(part["text"]) for part in one["parts"] if "text" in part)
    return ""


@dataclass(frozen=True, slots=True)
class Manner:
    """How one batch, or one live call, answers: all that is not in the request."""

    model: str
    settings: Settings
    live: bool = False
    more_usage: tuple[tuple[str, str], ...] = ()

    def answer(self, request: dict[str, Any], payload: bytes, quality: str, nonce: str, seed: int) -> Answer:
        """One response. The words depend on seed and request alone; `nonce` only makes ids differ."""
        if "content" in request:
            return self._embedding(request, payload)
        asked, settings = _Request(request), self.settings
        u2028 = "u2028" in settings.results and not self.live
        said = say(asked, sha256(b"%d " % seed + payload).digest(), quality, u2028)
        taken, given, cached, thought = used_of(
            said, asked.cap, len(payload) // 4 + 1, settings.cached, settings.thinking
        )
        blocked = said.finish == "refusal"
        if blocked:
            given = thought = 0
        usage: dict[str, Any] = {
            "promptTokenCount": taken,
            "candidatesTokenCount": given - thought,
            "totalTokenCount": taken + given,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": taken}],
            "thoughtsTokenCount": thought,
            "cachedContentTokenCount": cached,
            **dict(self.more_usage),
        }
        response: dict[str, Any] = {}
        if blocked:
            response["promptFeedback"] = {"blockReason": "PROHIBITED_CONTENT"}
        else:
            response["candidates"] = [_candidate(said, thought)]
        response["usageMetadata"] = {key: value for key, value in usage.items() if value}
        response["modelVersion"] = self.model
        response["responseId"] = nonce
        return Answer(orjson.dumps(response), taken, given, cached, thought)

    def _embedding(self, request: dict[str, Any], payload: bytes) -> Answer:
        size = request.get("outputDimensionality", _DIMENSIONS)
        digest = sha256(payload).digest()
        values = [(digest[place % 32] - 127.5) / 128 for place in range(size)]
        taken = len(payload) // 4 + 1
        body = {"embedding": {"values": values}, "tokenCount": str(taken)}
        return Answer(orjson.dumps(body), taken, 0)


def _candidate(said: Said, thought: int) -> dict[str, Any]:
    if said.finish == "content_filter":
        return {"finishReason": "SAFETY", "index": 0}
    parts: list[dict[str, Any]] = [{"text": "Simulated thoughts.", "thought": True}] if thought else []
    if said.tool:
        try:
            given = orjson.loads(said.text)
        except orjson.JSONDecodeError:
            return {"finishReason": "MALFORMED_FUNCTION_CALL" if said.finish == "stop" else "MAX_TOKENS", "index": 0}
        parts.append({"functionCall": {"name": said.tool, "args": given}})
    else:
        parts.append({"text": said.text})
    finish = {"stop": "STOP", "length": "MAX_TOKENS"}[said.finish]
    return {"content": {"parts": parts, "role": "model"}, "finishReason": finish, "index": 0}


class Rows:
    """Turns requests of one batch into result lines. A wire gives `check` and the forms of its lines.

    The same line of the same batch always gives the same bytes. A request that never ran has no line.
    """

    def __init__(self, *, batch_id: str, manner: Manner, check: Callable[[Any], dict[str, Any]]) -> None:
        self._mark = sha256(batch_id.encode()).hexdigest()[:18]
        self._manner = manner
        self._settings = manner.settings
        self._check = check
        self._fates = Fates(manner.settings)

    # The forms of lines, which differ from wire to wire.

    def answered(self, key: Any, request: Any, response: bytes) -> bytes:
        raise NotImplementedError

    def failed(self, key: Any, request: Any, fate: str) -> bytes:
        raise NotImplementedError

    def refused(self, key: Any, request: Any, error: WireError) -> bytes:
        raise NotImplementedError

    def make(self, line: bytes, index: int, cut_code: str | None) -> Made:
        given = orjson.loads(line)
        key, request = given["key"], given["request"]
        if cut_code is not None:
            return Made(b"", False, key, not_run=True)
        payload = orjson.dumps(request)
        digest = sha256(payload)
        fate = self._fates.draw(digest.digest(), key, payload)
        if fate.delivery == "missing":
            return Made(b"", False, key)
        if fate.delivery:
            return Made(self.failed(key, request, fate.delivery), False, key)
        try:
            checked = self._check(request)
            return answered(
                key,
                fate,
                digest.hexdigest(),
                f"{self._mark}{index:06x}",
                self._settings.seed,
                answer=lambda quality, name, seed: self._manner.answer(checked, payload, quality, name, seed),
                line=lambda _, body: self.answered(key, request, body),
            )
        except (WireError, *ODD) as error:
            refusal = error if isinstance(error, WireError) else odd(error)
            return Made(self.refused(key, request, refusal), False, key)

    def undone(self, custom_id: Any, code: str) -> bytes:  # noqa: ARG002  (there is one word for it)
        return self.failed(custom_id, {}, "expired")

    def stranger(self, custom_id: Any) -> bytes:
        request = {"contents": [{"role": "user", "parts": [{"text": "not yours"}]}], "generationConfig": {}}
        body = self._manner.answer(request, orjson.dumps(request), "", self._mark + "ffffff", 0).body
        return self.answered(custom_id, request, body)
