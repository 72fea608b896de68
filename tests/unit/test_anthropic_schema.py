"""What Anthropic's structured output takes of a schema: reduced, told with pointer and keyword, or refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from batchctl.emulator.anthropic_checks import schema_problem
from batchctl.providers.anthropic_schema import native_form


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "sent", "told"),
    [
        ({"type": "string", "maxLength": 9}, {"type": "string", "description": "{maxLength: 9}"}, "#/maxLength"),
        (
            {"type": "integer", "minimum": 1, "maximum": 4, "description": "How urgent."},
            {"type": "integer", "description": "How urgent.\n\n{minimum: 1, maximum: 4}"},
            "#/maximum: `maximum`",
        ),
        (
            {"type": "array", "items": {"type": "null"}, "minItems": 2},
            {"type": "array", "items": {"type": "null"}, "description": "{minItems: 2}"},
            "#/minItems",
        ),
        ({"type": "array", "items": {"type": "null"}, "minItems": 1}, None, ""),
        ({"type": "string", "pattern": "^[a-z]+$"}, None, ""),
        (
            {"type": "string", "pattern": "(?=a)b"},
            {"type": "string", "description": "{pattern: (?=a)b}"},
            "#/pattern",
        ),
        ({"type": "string", "format": "uri"}, None, ""),
        ({"type": "string", "format": "iri"}, {"type": "string", "description": "{format: iri}"}, "#/format"),
        ({"oneOf": [{"type": "null"}, {"const": 1}]}, {"anyOf": [{"type": "null"}, {"const": 1}]}, ""),
        ({"properties": {"a": {"type": "null"}}}, {**obj(a={"type": "null"}), "required": []}, ""),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, None, ""),
    ],
)
def test_what_is_sent(schema: Any, sent: Any, told: str) -> None:
    found, blockers, notes = native_form(schema)
    assert found == (schema if sent is None else sent)
    assert blockers == ()
    assert any(told in one for one in notes) if told else notes == ()
    assert schema_problem(orjson.dumps(found)) is None, "the service refuses what was sent"


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        (obj(a={"type": "object", "additionalProperties": True}), "#/properties/a/additionalProperties"),
        (obj(a={"type": "object", "additionalProperties": {"type": "string"}}), "#/properties/a/additionalProperties"),
        (obj(a={"type": "object", "patternProperties": {}}), "#/properties/a/patternProperties: `patternProperties`"),
        (obj(a={"type": "array", "prefixItems": []}), "#/properties/a/prefixItems: `prefixItems`"),
        (obj(a={}), "#/properties/a: no `type`"),
        (obj(a=True), "#/properties/a: a boolean schema"),
        (obj(a={"$ref": "#"}), "#/properties/a/$ref: `$ref` leads back"),
        (obj(a={"$ref": "https://example.com/a.json"}), "#/properties/a/$ref: `$ref` leads out"),
        (obj(a={"enum": [{"b": 1}]}), "#/properties/a/enum: `enum`"),
        (
            {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "null"}}},
            "#/allOf: `allOf` together with `$ref`",
        ),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}},
            "#/$defs/a/items/$ref: `$ref` leads back",
        ),
        ({**obj(**{f"p{n}": {"type": "null"} for n in range(25)}), "required": []}, "#: 25 optional"),
        (obj(**{f"p{n}": {"type": ["null", "string"]} for n in range(17)}), "#: 17 properties of several types"),
    ],
)
def test_what_cannot_be_said_is_named_with_its_place(schema: Any, pointer: str) -> None:
    _, blockers, _ = native_form(schema)
    assert any(one.startswith(pointer) for one in blockers), blockers


def test_references_that_fan_out_are_each_looked_into_once() -> None:
    """Forty definitions that each name the next one twice: a walk along every path would not end."""
    defs: dict[str, Any] = {
        f"d{n}": obj(a={"$ref": f"#/$defs/d{n + 1}"}, b={"$ref": f"#/$defs/d{n + 1}"}) for n in range(40)
    }
    defs["d40"] = {"type": "null"}
    assert native_form({"$ref": "#/$defs/d0", "$defs": defs})[1] == ()
