"""What the Google wires refuse: requests, their settings and schemas; and the form of their errors.

Sources: ai.google.dev/api/generate-content, the aiplatform v1 discovery document of 2026-11-06, read 2026-11. Field names
are camelCase or snake_case, as protobuf JSON takes both. The words of messages are ours; codes and statuses are Google's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from batchctl.emulator.wire import WireError

STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
MESSAGES = {
    400: "Request contains an invalid argument.",
    401: "Request had invalid authentication credentials.",
    403: "The caller does not have permission",
    404: "Requested entity was not found.",
    413: "Request payload size exceeds the limit.",
    429: "You exceeded your current quota, please check your plan and billing details.",
    503: "The model is overloaded. Please try again later.",
}
_REQUEST = "contents systemInstruction generationConfig safetySettings tools toolConfig cachedContent"
REQUEST = frozenset(_REQUEST.split())
_EMBED = "content taskType title outputDimensionality"
_SETTINGS = (
    "temperature topP topK candidateCount maxOutputTokens stopSequences responseMimeType responseSchema "
    "responseJsonSchema presencePenalty frequencyPenalty responseLogprobs logprobs seed thinkingConfig "
    "responseModalities speechConfig mediaResolution enableEnhancedCivicAnswers imageConfig"
)
SETTINGS = frozenset(_SETTINGS.split())
EMBED = frozenset(_EMBED.split())
_KEYWORDS = (
    "$id $anchor $ref $defs type format title description enum items prefixItems minItems maxItems minimum maximum "
    "anyOf oneOf properties additionalProperties required propertyOrdering"
)
_KNOWN = frozenset(_KEYWORDS.split())
_LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH")


class RefusedError(WireError):
    """An error answer of Google: `{"error": {"code", "message", "status", "details"}}`."""

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 400,
        reason: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        message = message or MESSAGES.get(status, "An internal error has occurred. Please retry.")
        error: dict[str, Any] = {"code": status, "message": message, "status": STATUSES.get(status, "UNKNOWN")}
        if reason:
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
            error["details"] = [info]
        super().__init__(message, status=status, body={"error": error}, headers=headers)


class GoogleErrors:
    """The error answers that all wires of Google share; part of what a `Wire` needs."""

    billing = "This API method requires billing to be enabled."

    def refusal(self, status: int, message: str = "", headers: dict[str, str] | None = None) -> RefusedError:
        return RefusedError(message, status=status, headers=headers)

    def quota(self, headers: dict[str, str]) -> RefusedError:
        return RefusedError(self.billing, status=403, reason="BILLING_DISABLED", headers=headers)

    def odd(self, error: BaseException) -> RefusedError:
        return odd(error)


def odd(error: BaseException) -> RefusedError:
    """The refusal of a request of a form that no check foresaw: it neither ends its batch nor passes as answered."""
    return RefusedError(f"Invalid request: {error}")


def need(good: bool, message: str) -> None:
    if not good:
        raise RefusedError(message)


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def fields(given: Any, known: frozenset[str], at: str) -> dict[str, Any]:
    """An object with its names in camelCase; a name that is not known is refused."""
    need(isinstance(given, dict), f"Invalid value at '{at}': not an object")
    out: dict[str, Any] = {}
    for name, value in given.items():
        need(
            camel(name) in known,
            f"Invalid JSON payload received. Unknown name \"{name}\" at '{at}': Cannot find field.",
        )
        out[camel(name)] = value
    return out


def generate(request: Any, *, role_needed: bool = False, more: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A `GenerateContentRequest` in camelCase, or what the service refuses about it."""
    given = fields(request, REQUEST | more, "request")
    contents: Any = given.get("contents")
    need(isinstance(contents, list) and bool(contents), "Invalid value at 'contents': empty")
    for place, one in enumerate(contents):
        _content(one, f"contents[{place}]", role_needed=role_needed)
    if "systemInstruction" in given:
        _content(given["systemInstruction"], "system_instruction", role_needed=False)
    config = fields(given.get("generationConfig", {}), SETTINGS, "generation_config")
    given["generationConfig"] = config
    _bounds(config)
    need(
        not ("responseSchema" in config and "responseJsonSchema" in config),
        "only one of response_schema and response_json_schema may be set",
    )
    if "responseJsonSchema" in config:
        json = config.get("responseMimeType") == "application/json"
        need(json, "response_json_schema needs response_mime_type application/json")
        problem = schema_problem(orjson.dumps(config["responseJsonSchema"]))
        need(problem is None, f"Invalid response_json_schema: {problem}")
        need(not given.get("tools"), "Function calling with a response mime type: 'application/json' is unsupported")
    return given


def _bounds(config: dict[str, Any]) -> None:
    cap = config.get("maxOutputTokens", 1)
    need(type(cap) is int and cap >= 1, "max_output_tokens must be positive")
    heat = config.get("temperature", 0)
    need(isinstance(heat, int | float) and 0 <= heat <= 2, "temperature must be in the range [0.0, 2.0]")
    need(config.get("candidateCount", 1) == 1, "Multiple candidates is not enabled for this model")
    thinking = fields(
        config.get("thinkingConfig", {}),
        frozenset(("thinkingBudget", "thinkingLevel", "includeThoughts")),
        "generation_config.thinking_config",
    )
    need(len(thinking.keys() & {"thinkingBudget", "thinkingLevel"}) < 2, "set only one of thinking budget and level")
    level = thinking.get("thinkingLevel")
    need(level is None or level in _LEVELS, f"Invalid value at 'thinking_level': {level}")


def embed(request: Any) -> dict[str, Any]:
    """An `EmbedContentRequest` in camelCase."""
    given = fields(request, EMBED, "request")
    _content(given.get("content"), "content", role_needed=False)
    return given


def _content(one: Any, at: str, *, role_needed: bool) -> None:
    need(isinstance(one, dict), f"Invalid value at '{at}': not an object")
    need(not one.keys() - {"role", "parts"}, f"Unknown name at '{at}'")
    role = one.get("role")
    if role_needed or role is not None:
        need(role in ("user", "model"), "Please use a valid role: user, model.")
    parts = one.get("parts")
    need(isinstance(parts, list) and bool(parts), f"Invalid value at '{at}.parts': empty")
    need(all(isinstance(part, dict) and part for part in parts), f"Invalid value at '{at}.parts'")


@lru_cache(maxsize=256)
def schema_problem(schema: bytes) -> str | None:
    """Why a JSON Schema is refused, or None. Keywords that the service ignores are refused here: nobody should rely on it."""
    return _walk(orjson.loads(schema), "#")


def _walk(schema: Any, at: str) -> str | None:
    if not isinstance(schema, dict):
        return f"{at} is not an object"
    wrong = sorted(schema.keys() - _KNOWN)
    if wrong:
        return f"{at}: unknown keyword '{wrong[0]}'"
    if "$ref" in schema and any(not key.startswith("$") for key in schema):
        return f"{at}: nothing may stand beside $ref"
    parts = [(f"{at}/{word}", part) for word in ("anyOf", "oneOf", "prefixItems") for part in schema.get(word, ())]
    for word in ("properties", "$defs"):
        parts += [(f"{at}/{word}/{name}", part) for name, part in schema.get(word, {}).items()]
    parts += [
        (f"{at}/{word}", schema[word])
        for word in ("items", "additionalProperties")
        if isinstance(schema.get(word), dict)
    ]
    return next(filter(None, (_walk(part, place) for place, part in parts)), None)
