"""What the OpenAI wire refuses: batch creates, input files, request bodies and schemas.

Sources: developers.openai.com/api/docs/guides/batch and .../guides/structured-outputs, read 2026-11; parameter lists
from the openai SDK 3.52. The words of messages are ours; codes, types and parameters are the service's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import orjson

from batchctl.emulator.wire import WireError

ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
)
_WORDS = {
    "/v1/responses": "background context_management conversation include input instructions max_output_tokens"
    " max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt prompt_cache_key"
    " prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options"
    " temperature text tool_choice tools top_logprobs top_p truncation user access_programs",
    "/v1/chat/completions": "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens"
    " max_tokens messages metadata modalities model moderation n parallel_tool_calls prediction presence_penalty"
    " prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier"
    " seed service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user"
    " verbosity web_search_options",
    "/v1/embeddings": "dimensions encoding_format input model user",
    "/v1/completions": "best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt"
    " seed stop stream stream_options suffix temperature top_p user",
    "/v1/moderations": "input model",
    "/v1/images/generations": "background model moderation n output_compression output_format partial_images prompt"
    " quality response_format size stream style user",
}
PARAMETERS = {endpoint: frozenset(words.split()) for endpoint, words in _WORDS.items()}
NEEDED = {
    "/v1/responses": "input",
    "/v1/chat/completions": "messages",
    "/v1/embeddings": "input",
    "/v1/completions": "prompt",
    "/v1/moderations": "input",
    "/v1/images/generations": "prompt",
}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_REFUSED_KEYWORDS = frozenset(
    [
        "allOf",
        "not",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
        "if",
        "then",
        "else",
        "oneOf",
        "patternProperties",
        "uniqueItems",
        "minLength",
        "maxLength",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "contains",
        "minContains",
        "maxContains",
        "unevaluatedProperties",
        "unevaluatedItems",
        "prefixItems",
    ]
)
_FORMATS = frozenset(["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"])
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class RefusedError(WireError):
    """An error answer of this wire: HTTP status and the four fields of its body."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        type_: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ) -> None:
        body = {"error": {"message": message, "type": type_, "param": param, "code": code}}
        super().__init__(message, status=status, body=body, headers=headers)


def odd(error: BaseException) -> RefusedError:
    """The refusal of such a request: it must neither end the batch it is in nor pass as answered."""
    return RefusedError(f"Invalid request: {error}.", code="invalid_request")


def _kind(value: Any) -> str:
    names = {
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "null")


def _typed(value: Any, wanted: type | tuple[type, ...], param: str, name: str) -> None:
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        message = f"Invalid type for '{param}': expected {name}, but got {_kind(value)} instead."
        raise RefusedError(message, param=param, code="invalid_type")


def missing(param: str) -> RefusedError:
    return RefusedError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def invalid_value(param: str, value: Any, supported: tuple[str, ...]) -> RefusedError:
    listed = ", ".join(f"'{word}'" for word in supported)
    return RefusedError(f"Invalid value: '{value}'. Supported values are: {listed}.", param=param, code="invalid_value")


def integer_between(value: Any, param: str, low: int, high: int) -> int:
    _typed(value, int, param, "an integer")
    if value < low:
        message = f"Invalid '{param}': integer below minimum value. Expected a value >= {low}, but got {value} instead."
        raise RefusedError(message, param=param, code="integer_below_min_value")
    if value > high:
        message = (
            f"Invalid '{param}': integer above maximum value. Expected a value <= {high}, but got {value} instead."
        )
        raise RefusedError(message, param=param, code="integer_above_max_value")
    return int(value)


def batch_create(body: Any, endpoints: tuple[str, ...] = ENDPOINTS, windows: tuple[str, ...] = ("24h",)) -> None:
    """Refuse what the create call itself refuses. An unknown file is not among it: the batch fails later."""
    if not isinstance(body, dict):
        raise RefusedError("We could not parse the JSON body of your request.", code=None)
    for name in ("input_file_id", "endpoint", "completion_window"):
        if name not in body:
            raise missing(name)
        _typed(body[name], str, name, "a string")
    for name in body:
        if name not in ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"):
            raise RefusedError(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if body["endpoint"] not in endpoints:
        raise invalid_value("endpoint", body["endpoint"], endpoints)
    if body["completion_window"] not in windows:
        raise invalid_value("completion_window", body["completion_window"], windows)
    metadata(body.get("metadata"))
    if body.get("output_expires_after") is not None:
        expiry(body["output_expires_after"], "output_expires_after")


def metadata(value: Any) -> None:
    """At most 16 pairs of strings, keys up to 64 and values up to 512 characters (API reference, batches)."""
    if value is None:
        return
    _typed(value, dict, "metadata", "an object")
    if len(value) > 16:
        message = f"Invalid 'metadata': too many properties. Expected an object with at most 16, but got {len(value)}."
        raise RefusedError(message, param="metadata", code="object_above_max_properties")
    for key, text in value.items():
        if len(key) > 64:
            message = f"Invalid 'metadata': property name too long. Expected at most 64 characters, but got {len(key)}."
            raise RefusedError(message, param="metadata", code="string_above_max_length")
        _typed(text, str, f"metadata.{key}", "a string")
        if len(text) > 512:
            message = (
                f"Invalid 'metadata.{key}': string too long. Expected at most 512 characters, but got {len(text)}."
            )
            raise RefusedError(message, param=f"metadata.{key}", code="string_above_max_length")


def expiry(value: Any, param: str) -> int:
    _typed(value, dict, param, "an object")
    if value.get("anchor") != "created_at":
        raise invalid_value(f"{param}.anchor", value.get("anchor"), ("created_at",))
    return integer_between(value.get("seconds"), f"{param}.seconds", 3600, 2592000)


def body_of(endpoint: str, body: dict[str, Any]) -> None:
    """Refuse a request body as the endpoint would; what passes here gets an answer."""
    if not PARAMETERS[endpoint].issuperset(body):
        name = min(body.keys() - PARAMETERS[endpoint])
        raise RefusedError(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    model = body.get("model")
    if model is None and endpoint != "/v1/moderations":
        raise RefusedError("you must provide a model parameter", param="model", code=None)
    if model is not None:
        _typed(model, str, "model", "a string")
    needed = NEEDED[endpoint]
    value = body.get(needed)
    if value is None and not (endpoint == "/v1/responses" and body.get("prompt") is not None):
        raise missing(needed)
    if body.get("stream"):
        raise RefusedError("Streaming is not supported here.", param="stream", code="unsupported_value")
    if endpoint == "/v1/responses":
        _responses(body)
    elif endpoint == "/v1/chat/completions":
        _chat(body)
    elif endpoint == "/v1/embeddings":
        _embeddings(body)
    elif endpoint == "/v1/completions" and body.get("max_tokens") is not None:
        integer_between(body["max_tokens"], "max_tokens", 0, 10**9)


def _sampling(body: dict[str, Any]) -> None:
    for name, high in (("temperature", 2), ("top_p", 1)):
        value = body.get(name)
        if value is not None:
            _typed(value, (int, float), name, "a decimal")
            if not 0 <= value <= high:
                side = "below minimum" if value < 0 else "above maximum"
                message = f"Invalid '{name}': decimal {side} value. Expected a value from 0 to {high}, but got {value}."
                code = f"decimal_{'below_min' if value < 0 else 'above_max'}_value"
                raise RefusedError(message, param=name, code=code)
    if body.get("metadata") is not None:
        metadata(body["metadata"])


def _responses(body: dict[str, Any]) -> None:
    given = body.get("input")
    if given is not None:
        _typed(given, (str, list), "input", "a string or an array")
        if isinstance(given, list):
            for place, item in enumerate(given):
                _typed(item, dict, f"input[{place}]", "an object")
                if "type" not in item and "role" not in item:
                    raise missing(f"input[{place}].role")
                if item.get("role") is not None and item["role"] not in ("user", "assistant", "system", "developer"):
                    raise invalid_value(
                        f"input[{place}].role", item["role"], ("assistant", "system", "developer", "user")
                    )
    if body.get("max_output_tokens") is not None:
        integer_between(body["max_output_tokens"], "max_output_tokens", 16, 10**9)  # API reference: least value 16
    if body.get("instructions") is not None:
        _typed(body["instructions"], (str, list), "instructions", "a string")
    _sampling(body)
    _effort(body.get("reasoning"), "reasoning.effort")
    text = body.get("text")
    if text is not None:
        _typed(text, dict, "text", "an object")
        form = text.get("format")
        if form is not None:
            _typed(form, dict, "text.format", "an object")
            kind = form.get("type")
            if kind not in ("text", "json_object", "json_schema"):
                raise invalid_value("text.format.type", kind, ("json_object", "json_schema", "text"))
            if kind == "json_schema":
                _schema_form(form, "text.format", "text.format.schema")
    for place, tool in enumerate(body.get("tools") or ()):
        if isinstance(tool, dict) and tool.get("type") == "function":
            _tool(tool, f"tools[{place}]", strict_by_default=False)


def _chat(body: dict[str, Any]) -> None:
    messages = body["messages"]
    _typed(messages, list, "messages", "an array of objects")
    if not messages:
        message = (
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        raise RefusedError(message, param="messages", code="empty_array")
    for place, item in enumerate(messages):
        _typed(item, dict, f"messages[{place}]", "an object")
        role = item.get("role")
        if role is None:
            raise missing(f"messages[{place}].role")
        if role not in ("system", "developer", "user", "assistant", "tool", "function"):
            known = ("system", "assistant", "user", "function", "tool", "developer")
            raise invalid_value(f"messages[{place}].role", role, known)
        if role == "user" and not isinstance(item.get("content"), str | list):
            found = _kind(item.get("content"))
            message = (
                f"Invalid type for 'messages[{place}].content': expected a string or an array, but got {found} instead."
            )
            raise RefusedError(message, param=f"messages[{place}].content", code="invalid_type")
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None:
            integer_between(body[name], name, 1, 10**9)
    if body.get("max_tokens") is not None and re.match(r"o\d", body["model"]):
        # API reference, chat: max_tokens "is not compatible with o-series models", read 2026-11
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        raise RefusedError(message, param="max_tokens", code="unsupported_parameter")
    if body.get("n") is not None:
        integer_between(body["n"], "n", 1, 128)
    _sampling(body)
    _effort({"effort": body.get("reasoning_effort")}, "reasoning_effort")
    form = body.get("response_format")
    if form is not None:
        _typed(form, dict, "response_format", "an object")
        kind = form.get("type")
        if kind not in ("text", "json_object", "json_schema"):
            raise invalid_value("response_format.type", kind, ("json_object", "json_schema", "text"))
        if kind == "json_schema":
            if "json_schema" not in form:
                raise missing("response_format.json_schema")
            _typed(form["json_schema"], dict, "response_format.json_schema", "an object")
            _schema_form(form["json_schema"], "response_format.json_schema", "response_format")
    for place, tool in enumerate(body.get("tools") or ()):
        if isinstance(tool, dict) and tool.get("type") == "function":
            if not isinstance(tool.get("function"), dict):
                raise missing(f"tools[{place}].function")
            _tool(tool["function"], f"tools[{place}].function", strict_by_default=False)


def _embeddings(body: dict[str, Any]) -> None:
    _typed(body["input"], (str, list), "input", "a string or an array")
    if not body["input"]:
        raise RefusedError("'$.input' is invalid: it must not be empty.", param="input", code=None)
    if body.get("dimensions") is not None:
        integer_between(body["dimensions"], "dimensions", 1, 10**5)
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise invalid_value("encoding_format", body["encoding_format"], ("float", "base64"))


def _effort(reasoning: Any, param: str) -> None:
    if reasoning is None:
        return
    _typed(reasoning, dict, param.split(".")[0], "an object")
    if reasoning.get("effort") is not None and reasoning["effort"] not in _EFFORTS:
        raise invalid_value(param, reasoning["effort"], _EFFORTS)


def _schema_form(form: dict[str, Any], param: str, schema_param: str) -> None:
    name = form.get("name")
    if name is None:
        raise missing(f"{param}.name")
    _named(name, f"{param}.name")
    if not isinstance(form.get("schema"), dict):
        raise missing(f"{param}.schema")
    if form.get("strict"):
        problem = strict_problem(orjson.dumps(form["schema"]))
        if problem:
            message = f"Invalid schema for response_format '{name}': {problem}"
            raise RefusedError(message, param=schema_param, code="invalid_json_schema")


def _tool(tool: dict[str, Any], param: str, *, strict_by_default: bool) -> None:
    if "name" not in tool:
        raise missing(f"{param}.name")
    _named(tool["name"], f"{param}.name")
    if tool.get("strict", strict_by_default) and isinstance(tool.get("parameters"), dict):
        problem = strict_problem(orjson.dumps(tool["parameters"]))
        if problem:
            message = f"Invalid schema for function '{tool['name']}': {problem}"
            raise RefusedError(message, param=f"{param}.parameters", code="invalid_function_parameters")


def _named(name: Any, param: str) -> None:
    _typed(name, str, param, "a string")
    if not _NAME.fullmatch(name):
        message = (
            f"Invalid '{param}': string does not match pattern. Expected a string that matches '^[a-zA-Z0-9_-]+$'."
        )
        raise RefusedError(message, param=param, code="invalid_value")


@lru_cache(maxsize=256)
def strict_problem(schema: bytes) -> str | None:
    """Why a strict schema is refused, or None (structured outputs guide, "supported schemas")."""
    root = orjson.loads(schema)
    if "anyOf" in root or root.get("type") != "object":
        found = root.get("type")
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{found}\"'."
    totals = {"properties": 0, "enum": 0, "letters": 0}
    problem = _strict(root, (), 0, totals)
    if problem:
        return problem
    if totals["properties"] > 5000:
        return "the schema has more than 5000 properties."
    if totals["enum"] > 1000:
        return "the schema has more than 1000 enum values."
    return "names and enum values are longer than 120000 characters." if totals["letters"] > 120_000 else None


def _strict(schema: Any, path: tuple[str, ...], depth: int, totals: dict[str, int]) -> str | None:
    at = f"In context={path!r},"
    if not isinstance(schema, dict):
        return f"{at} schema must have a 'type' key."
    for word in schema:
        if word in _REFUSED_KEYWORDS:
            return f"{at} '{word}' is not permitted."
    if isinstance(schema.get("format"), str) and schema["format"] not in _FORMATS:
        return f"{at} '{schema['format']}' is not a valid format."
    if not ({"type", "anyOf", "$ref", "enum", "const"} & schema.keys()):
        return f"{at} schema must have a 'type' key."
    if "$ref" in schema and not str(schema["$ref"]).startswith("#"):
        return f"{at} reference can only point to definitions inside the schema."
    if "enum" in schema:
        words = schema["enum"]
        letters = sum(len(word) for word in words if isinstance(word, str))
        totals["enum"] += len(words)
        totals["letters"] += letters
        if len(words) > 250 and letters > 15_000:
            return f"{at} an enum of more than 250 values is longer than 15000 characters."
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    parts: list[tuple[Any, tuple[str, ...], int]] = []
    if "object" in kinds:
        if depth >= 10:
            return f"{at} the schema is nested deeper than 10 levels."
        if schema.get("additionalProperties") is not False:
            return f"{at} 'additionalProperties' is required to be supplied and to be false."
        properties = schema.get("properties", {})
        lacking = [name for name in properties if name not in schema.get("required", ())]
        if lacking or any(name not in properties for name in schema.get("required", ())):
            extra = f" Missing '{lacking[0]}'." if lacking else " Extra required key supplied."
            listed = "'required' is required to be supplied and to be an array including every key in properties."
            return f"{at} {listed}{extra}"
        totals["properties"] += len(properties)
        totals["letters"] += sum(map(len, properties))
        parts += [(part, (*path, "properties", name), depth + 1) for name, part in properties.items()]
    if "array" in kinds:
        if "items" not in schema:
            return f"{at} array schema missing items."
        parts.append((schema["items"], (*path, "items"), depth))
    parts += [(part, (*path, "anyOf", str(place)), depth) for place, part in enumerate(schema.get("anyOf", ()))]
    for word in ("$defs", "definitions"):
        parts += [(part, (word, name), 1) for name, part in schema.get(word, {}).items()]
    for part, place, level in parts:
        problem = _strict(part, place, level, totals)
        if problem:
            return problem
    return None
