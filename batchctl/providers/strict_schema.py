"""A JSON Schema in the form OpenAI's strict structured output takes, or the reason it cannot take it.

Strict mode wants an object at the root, every property required, `additionalProperties: false` on every object, and
knows only some keywords (developers.openai.com/api/docs/guides/structured-outputs, read 2026-11-21). Keywords that
merely tighten an answer are left out of what is sent and judged on our side; a schema whose meaning would change is
sent whole with `strict: false`. Either way the user's full schema judges every answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchctl.providers.dialect import Dialect, Findings, close_object, is_object, reduced

NAME = "strict mode"
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


def strict_form(schema: Mapping[str, Any]) -> tuple[dict[str, Any], bool, tuple[str, ...]]:
    """What to send, whether it is strict, and notes `pointer: keyword ...` on what the provider will not enforce."""
    sent, findings = reduced(schema, STRICT)
    blockers = [] if schema.get("type") == "object" else ["#: the root is not `type: object`"]
    blockers += findings.blockers
    if blockers:
        whole = {key: value for key, value in schema.items() if key != "$schema"}
        return whole, False, tuple(f"{one}; sent without strict, judged here" for one in blockers)
    return sent, True, tuple(f"{one} is not sent, judged here" for one in findings.dropped)


def _each(schema: Mapping[str, Any], sent: dict[str, Any], pointer: str, findings: Findings) -> None:
    if not is_object(schema):
        return
    required = schema.get("required", [])
    optional = [name for name in schema.get("properties", {}) if name not in required]
    if optional:
        findings.blockers.append(
            f"{pointer}/required: `{optional[0]}` is optional, strict mode wants every property required"
        )
    close_object(schema, sent, pointer, NAME, findings)


STRICT = Dialect(NAME, NOT_EXPRESSIBLE, _each)


def openai_part(schema: Mapping[str, Any], *, strict: bool, chat: bool, tool: bool, name: str) -> dict[str, Any]:
    """The part of a request body that carries a schema: structured output, or the one tool that must be called."""
    if tool and chat:
        function = {"name": name, "strict": strict, "parameters": schema}
        choice = {"type": "function", "function": {"name": name}}
        return {"tools": [{"type": "function", "function": function}], "tool_choice": choice}
    if tool:
        function = {"type": "function", "name": name, "strict": strict, "parameters": schema}
        return {"tools": [function], "tool_choice": {"type": "function", "name": name}}
    form = {"name": name, "strict": strict, "schema": schema}
    if chat:
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    return {"text": {"format": {"type": "json_schema", **form}}}
