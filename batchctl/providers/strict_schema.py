"""A JSON Schema in the form OpenAI's strict structured output takes, or the reason it cannot take it.

Strict mode wants an object at the root, every property required, `additionalProperties: false` on every object, and
knows only some keywords (developers.openai.com/api/docs/guides/structured-outputs, read 2026-11-21). Keywords that
merely tighten an answer are left out of what is sent and judged on our side; a schema whose meaning would change is
sent whole with `strict: false`. Either way the user's full schema judges every answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TIGHTENING = frozenset(
    {
        "minLength",
        "maxLength",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "contains",
        "minContains",
        "maxContains",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "propertyNames",
    }
)
NOT_EXPRESSIBLE = frozenset(
    {
        "allOf",
        "not",
        "if",
        "then",
        "else",
        "oneOf",
        "dependentRequired",
        "dependentSchemas",
        "patternProperties",
        "prefixItems",
        "unevaluatedItems",
        "unevaluatedProperties",
        "$dynamicRef",
        "$dynamicAnchor",
        "$anchor",
        "$id",
    }
)
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
NOISE = frozenset({"$schema", "$comment", "title", "examples", "default", "deprecated", "readOnly", "writeOnly"})
ONE_SCHEMA = ("items",)
SCHEMA_MAPS = ("properties", "$defs", "definitions")
SCHEMA_LISTS = ("anyOf",)


def strict_form(schema: Mapping[str, Any]) -> tuple[dict[str, Any], bool, tuple[str, ...]]:
    """What to send, whether it is strict, and notes `pointer: keyword ...` on what the provider will not enforce."""
    blockers: list[str] = []
    dropped: list[str] = []
    if schema.get("type") != "object":
        blockers.append("#: the root is not `type: object`")
    reduced = _reduce(dict(schema), "#", blockers, dropped)
    if blockers:
        sent = {key: value for key, value in schema.items() if key != "$schema"}
        return sent, False, tuple(f"{one}; sent without strict, judged here" for one in blockers)
    return reduced, True, tuple(f"{one} is not sent, judged here" for one in dropped)


def _reduce(schema: dict[str, Any], pointer: str, blockers: list[str], dropped: list[str]) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    for key, value in schema.items():
        at = f"{pointer}/{key}"
        if key in NOISE:
            continue
        if key in NOT_EXPRESSIBLE:
            blockers.append(f"{at}: `{key}` is not part of strict mode")
        elif key in TIGHTENING or (key == "format" and value not in FORMATS):
            dropped.append(f"{at}: `{key}`")
        elif key in SCHEMA_MAPS and isinstance(value, dict):
            sent[key] = {name: _child(one, f"{at}/{name}", blockers, dropped) for name, one in value.items()}
        elif key in SCHEMA_LISTS and isinstance(value, list):
            sent[key] = [_child(one, f"{at}/{place}", blockers, dropped) for place, one in enumerate(value)]
        elif key in ONE_SCHEMA:
            sent[key] = _child(value, at, blockers, dropped)
        elif key != "additionalProperties":
            sent[key] = value
    kinds = schema.get("type")
    if kinds == "object" or (isinstance(kinds, list) and "object" in kinds) or "properties" in schema:
        _object(schema, sent, pointer, blockers)
    return sent


def _child(value: Any, pointer: str, blockers: list[str], dropped: list[str]) -> Any:
    if not isinstance(value, dict):
        blockers.append(f"{pointer}: a boolean schema is not part of strict mode")
        return value
    return _reduce(value, pointer, blockers, dropped)


def _object(schema: Mapping[str, Any], sent: dict[str, Any], pointer: str, blockers: list[str]) -> None:
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    optional = [name for name in properties if name not in required]
    if optional:
        blockers.append(f"{pointer}/required: `{optional[0]}` is optional, strict mode wants every property required")
    if schema.get("additionalProperties", False) is not False:
        blockers.append(f"{pointer}/additionalProperties: strict mode wants false")
    sent["properties"] = sent.get("properties", {})
    sent["required"] = list(required)
    sent["additionalProperties"] = False
