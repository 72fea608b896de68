"""What the Anthropic wire refuses: batch creates, the params of a message, and schemas.

Sources: platform.claude.com/docs/en/build-with-claude/batch-processing and .../structured-outputs, read 2026-11; parameter
names from the anthropic SDK 2.12.0. The words of messages are ours; types and statuses are the service's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import orjson

from batchctl.emulator.wire import WireError

MOST_REQUESTS = 100_000
MOST_BYTES = 256_000_000
_NAMES = (
    "cache_control container diagnostics inference_geo max_tokens messages metadata model output_config service_tier "
    "speed stop_sequences stream system temperature thinking tool_choice tools top_k top_p "
    "user_profile_id"
)
PARAMETERS = frozenset(_NAMES.split())
"""`temperature`, `top_k` and `top_p` are gone from the SDK; the service takes them for older models."""
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_KEYWORDS = (
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems "
    "uniqueItems minProperties maxProperties patternProperties propertyNames prefixItems contains "
    "minContains maxContains not if then else oneOf dependentRequired dependentSchemas unevaluatedItems "
    "unevaluatedProperties"
)
_REFUSED_KEYWORDS = frozenset(_KEYWORDS.split())
_FORMATS = frozenset(["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"])
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


class RefusedError(WireError):
    """An error answer of this wire: HTTP status and the typed error of its body."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type_: str = "",
        code: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        error: dict[str, Any] = {"type": type_ or _TYPES.get(status, "api_error" if status >= 500 else _TYPES[400])}
        error["message"] = message
        if code:
            error["details"] = {"error_code": code}
        body = {"type": "error", "error": error, "request_id": None}
        super().__init__(message, status=status, body=body, headers=headers)


def odd(error: BaseException) -> RefusedError:
    """The refusal of a request of a form that no check foresaw: it neither ends its batch nor passes as answered."""
    return RefusedError(f"Invalid request: {error}")


def _need(good: bool, message: str) -> None:
    if not good:
        raise RefusedError(message)


def batch_create(body: Any) -> list[dict[str, Any]]:
    """The requests of a create, or what the call itself refuses. Wrong params are not among it: their rows err later."""
    _need(isinstance(body, dict), "Input should be a valid dictionary")
    for name in body:
        _need(name == "requests", f"{name}: Extra inputs are not permitted")
    requests: Any = body.get("requests")
    _need(isinstance(requests, list), "requests: Field required")
    _need(bool(requests), "requests: List should have at least 1 item after validation, not 0")
    _need(len(requests) <= MOST_REQUESTS, f"requests: List should have at most {MOST_REQUESTS} items")
    ids: set[str] = set()
    for place, one in enumerate(requests):
        at = f"requests.{place}"
        _need(isinstance(one, dict), f"{at}: Input should be a valid dictionary")
        for name in one:
            _need(name in ("custom_id", "params"), f"{at}.{name}: Extra inputs are not permitted")
        custom_id = one.get("custom_id")
        _need(isinstance(custom_id, str), f"{at}.custom_id: Field required")
        _need(len(custom_id) <= 64, f"{at}.custom_id: String should have at most 64 characters")
        _need(
            bool(_CUSTOM_ID.fullmatch(custom_id)),
            f"{at}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'",
        )
        _need(custom_id not in ids, "requests: custom_id values must be unique within the batch")
        ids.add(custom_id)
        _need(isinstance(one.get("params"), dict), f"{at}.params: Field required")
        for name in ("stream", "speed"):
            _need(not one["params"].get(name), f"{at}.params.{name}: not supported in batches")
    checked: list[dict[str, Any]] = requests
    return checked


def message_params(params: dict[str, Any], models: tuple[str, ...]) -> None:
    """Refuse the params of a message as the service would; what passes here gets an answer."""
    unknown = params.keys() - PARAMETERS
    _need(not unknown, f"{min(unknown, default='')}: Extra inputs are not permitted")
    model = params.get("model")
    _need(isinstance(model, str) and bool(model), "model: Field required")
    if (models and model not in models) or str(model).startswith("nonexistent"):
        raise RefusedError(f"model: {model}", status=404)
    cap = params.get("max_tokens")
    _need(type(cap) is int, "max_tokens: Field required")
    _need(type(cap) is int and cap >= 1, "max_tokens: Input should be greater than or equal to 1")
    _messages(params.get("messages"))
    _need(isinstance(params.get("system", ""), str | list), "system: Input should be a valid string or list")
    metadata = params.get("metadata") or {}
    for name in metadata:
        _need(name == "user_id", f"metadata.{name}: Extra inputs are not permitted")
    for name in ("temperature", "top_p"):
        value = params.get(name)
        _need(value is None or 0 <= value <= 1, f"{name}: range: 0..1")
    _need(not params.get("stream"), "stream: not supported here")
    output = params.get("output_config") or {}
    _need(isinstance(output, dict), "output_config: Input should be a valid dictionary")
    effort = output.get("effort")
    _need(effort is None or effort in _EFFORTS, f"output_config.effort: Input should be one of {', '.join(_EFFORTS)}")
    form = output.get("format")
    if form is not None:
        _need(form.get("type") == "json_schema", "output_config.format.type: Input should be 'json_schema'")
        _need(set(form) == {"type", "schema"}, "output_config.format: exactly type and schema are expected")
        _schema(form["schema"], "output_config.format.schema")
    _tools(params)


def _messages(messages: Any) -> None:
    _need(isinstance(messages, list), "messages: Field required")
    _need(bool(messages), "messages: at least one message is required")
    for place, one in enumerate(messages):
        at = f"messages.{place}"
        _need(isinstance(one, dict), f"{at}: Input should be a valid dictionary")
        _need(one.get("role") in ("user", "assistant"), f"{at}.role: Input should be 'user' or 'assistant'")
        content = one.get("content")
        _need(isinstance(content, str | list), f"{at}.content: Input should be a valid string or list")
        _need(bool(content), f"{at}.content: must not be empty")
    _need(messages[-1]["role"] == "user", "messages: a final assistant message is not supported by this model")


def _tools(params: dict[str, Any]) -> None:
    names = set()
    for place, tool in enumerate(params.get("tools") or ()):
        at = f"tools.{place}"
        _need(isinstance(tool, dict), f"{at}: Input should be a valid dictionary")
        if tool.get("type", "custom") != "custom":
            continue
        _need(isinstance(tool.get("name"), str) and bool(_TOOL_NAME.fullmatch(tool["name"])), f"{at}.name: bad name")
        schema = tool.get("input_schema")
        _need(isinstance(schema, dict), f"{at}.input_schema: Field required")
        _need(schema.get("type") == "object", f"{at}.input_schema.type: Input should be 'object'")
        if tool.get("strict"):
            _schema(schema, f"{at}.input_schema")
        names.add(tool["name"])
    choice = params.get("tool_choice")
    if choice is not None:
        kind = choice.get("type")
        _need(kind in ("auto", "any", "tool", "none"), "tool_choice.type: unknown")
        _need(kind != "tool" or choice.get("name") in names, f"Tool '{choice.get('name')}' not found in provided tools")


def _schema(schema: Any, at: str) -> None:
    problem = schema_problem(orjson.dumps(schema))
    _need(problem is None, f"{at}: {problem}")


@lru_cache(maxsize=256)
def schema_problem(schema: bytes) -> str | None:
    """Why a schema is refused, or None (structured outputs guide, "JSON Schema limitations")."""
    totals = {"optional": 0, "unions": 0}
    problem = _walk(orjson.loads(schema), "#", totals)
    if problem is None and totals["optional"] > 24:
        return "more than 24 optional parameters"
    if problem is None and totals["unions"] > 16:
        return "more than 16 parameters with union types"
    return problem


def _walk(schema: Any, at: str, totals: dict[str, int]) -> str | None:
    if not isinstance(schema, dict):
        return f"{at} is not an object"
    wrong = sorted(_REFUSED_KEYWORDS & schema.keys())
    if wrong:
        return f"{at}: property '{wrong[0]}' is not supported"
    if not {"type", "anyOf", "allOf", "$ref", "enum", "const"} & schema.keys():
        return f"{at}: no type"
    if "format" in schema and schema["format"] not in _FORMATS:
        return f"{at}: format '{schema['format']}' is not supported"
    if schema.get("minItems", 0) not in (0, 1):
        return f"{at}: minItems above 1 is not supported"
    if not str(schema.get("$ref", "#")).startswith("#") or schema.get("$ref") == "#":
        return f"{at}: external or recursive references are not supported"
    kinds = schema.get("type")
    totals["unions"] += "anyOf" in schema or isinstance(kinds, list)
    parts = [(f"{at}/anyOf", part) for part in schema.get("anyOf", ())]
    parts += [(f"{at}/allOf", part) for part in schema.get("allOf", ())]
    for word in ("properties", "$defs", "definitions"):
        parts += [(f"{at}/{word}/{name}", part) for name, part in schema.get(word, {}).items()]
    if "items" in schema:
        parts.append((f"{at}/items", schema["items"]))
    if "object" in (kinds if isinstance(kinds, list) else [kinds]):
        if schema.get("additionalProperties") is not False:
            return f"{at}: For 'object' type, 'additionalProperties' must be explicitly set to false"
        totals["optional"] += len(schema.get("properties", {}).keys() - set(schema.get("required", ())))
    return next(filter(None, (_walk(part, place, totals) for place, part in parts)), None)
