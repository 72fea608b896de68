"""Answers match the schema they were made from, whatever it is."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchctl.emulator.answers import compiled
from batchctl.emulator.openai_checks import strict_problem
from batchctl.emulator.patterns import FORMATS, Dice, matching

NAMES = st.sampled_from(["a", "b", "c", "subject", "a b", "ü"])
SMALL = st.integers(min_value=0, max_value=5)


def texts() -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.tuples(SMALL, SMALL).map(lambda both: {"minLength": min(both), "maxLength": max(both) + 1})
    patterns = ["^[A-Z]{2}-[0-9]{4}$", "^(red|green)$", "[a-z]+@[a-z]+\\.com", "^\\d{3}$", "^[^,]{2,5}$", "^x*$"]
    return st.one_of(
        st.just({}),
        bounds,
        st.sampled_from(patterns).map(lambda one: {"pattern": one}),
        st.sampled_from(sorted(FORMATS)).map(lambda one: {"format": one}),
    ).map(lambda more: {"type": "string"} | more)


def numbers() -> st.SearchStrategy[dict[str, Any]]:
    def bounded(drawn: tuple[int, int, str, str, str]) -> dict[str, Any]:
        low, span, kind, first, last = drawn
        return {"type": kind, first: low, last: low + span + 2}

    return st.one_of(
        st.tuples(
            st.integers(-1000, 1000),
            st.integers(0, 50),
            st.sampled_from(["integer", "number"]),
            st.sampled_from(["minimum", "exclusiveMinimum"]),
            st.sampled_from(["maximum", "exclusiveMaximum"]),
        ).map(bounded),
        st.sampled_from([3, 0.01, 0.5, 10]).map(lambda step: {"type": "number", "multipleOf": step}),
        st.sampled_from([3, 7]).map(lambda step: {"type": "integer", "multipleOf": step, "minimum": 20}),
    )


LEAVES = st.one_of(
    texts(),
    numbers(),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.lists(st.one_of(st.text(max_size=4), st.integers(-5, 5), st.none()), min_size=1, max_size=4).map(
        lambda words: {"enum": words}
    ),
    st.sampled_from(["x", 3, None, {"a": [1]}]).map(lambda one: {"const": one}),
    st.just({"type": ["string", "null"]}),
    st.just({"type": ["integer", "boolean"]}),
)


def wider(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    objects = st.tuples(st.dictionaries(NAMES, inner, max_size=4), st.booleans(), st.booleans()).map(
        lambda drawn: {
            "type": "object",
            "properties": drawn[0],
            "required": sorted(drawn[0])[: None if drawn[1] else 1],
            "additionalProperties": drawn[2],
        }
    )
    arrays = st.tuples(inner, SMALL, SMALL).map(
        lambda drawn: {"type": "array", "items": drawn[0], "minItems": min(drawn[1:]), "maxItems": max(drawn[1:])}
    )
    tuples = st.lists(inner, min_size=1, max_size=3).map(
        lambda parts: {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}
    )
    unions = st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts})
    return st.one_of(objects, arrays, tuples, unions)


SCHEMAS = st.recursive(LEAVES, wider, max_leaves=12)


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, st.binary(min_size=32, max_size=32))
def test_an_answer_matches_its_schema(schema: dict[str, Any], seed: bytes) -> None:
    value = compiled(orjson.dumps(schema)).make(seed, "a prompt that says x")
    assert jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(value), value


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, st.binary(min_size=32, max_size=32))
def test_a_broken_answer_does_not(schema: dict[str, Any], seed: bytes) -> None:
    maker = compiled(orjson.dumps(schema))
    broken = maker.broken(maker.make(seed), seed)
    assert not jsonschema_rs.validator_for(schema).is_valid(broken)


HARD = {
    "recursion": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["name", "children"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    "linked list": {
        "type": "object",
        "properties": {"value": {"type": "number"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["value", "next"],
        "additionalProperties": False,
    },
    "allOf": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"properties": {"b": {"type": "integer", "minimum": 3}}, "required": ["b"]},
        ]
    },
    "oneOf": {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 5}]},
    "not": {"type": "integer", "minimum": 0, "maximum": 3, "not": {"const": 2}},
    "if": {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "size": {"type": "integer"}},
        "required": ["kind"],
        "if": {"properties": {"kind": {"const": "a"}}},
        "then": {"required": ["size"]},
    },
    "unique": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 3},
    "pattern names": {"type": "object", "patternProperties": {"^x-": {"type": "integer"}}, "required": ["x-a"]},
    "least properties": {"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}},
    "contains": {"type": "array", "items": {"enum": [1, 2]}, "contains": {"const": 2}, "minItems": 2},
    "beside a reference": {"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "maxLength": 4},
    "no type": {"properties": {"a": {"minimum": 3}}, "required": ["a"]},
    "anything": {},
    "numbers close": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
    "long": {"type": "string", "minLength": 5000},
    "unicode class": {"type": "string", "pattern": "^\\p{L}+ [\\p{L}0-9]{3}$"},
}


@pytest.mark.parametrize("name", list(HARD))
def test_the_harder_keywords(name: str) -> None:
    judge = jsonschema_rs.validator_for(HARD[name])
    maker = compiled(orjson.dumps(HARD[name]))
    for number in range(50):
        value = maker.make(number.to_bytes(32, "little"), "")
        assert judge.is_valid(value), value


def test_the_same_seed_gives_the_same_answer() -> None:
    maker = compiled(orjson.dumps(HARD["recursion"]))
    assert maker.make(b"1" * 32) == maker.make(b"1" * 32)
    assert len({orjson.dumps(maker.make(bytes([number]) * 32)) for number in range(50)}) > 25


def test_a_pattern_that_cannot_be_read_yields_nothing() -> None:
    assert matching(Dice(b"12345678"), "(") is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"type": "array", "items": {}}, "type"),
        ({"additionalProperties": True}, "additionalProperties"),
        ({"required": []}, "required"),
        ({"allOf": []}, "allOf"),
        ({"properties": {"a": {"type": "string", "minLength": 2}}}, "minLength"),
        ({"properties": {"a": {}}}, "type"),
        ({"properties": {"a": {"type": "string", "format": "uri"}}}, "format"),
        ({"properties": {"a": {"type": "array"}}}, "items"),
    ],
)
def test_strict_schemas_are_checked(change: dict[str, Any], word: str) -> None:
    good = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
    assert strict_problem(orjson.dumps(good)) is None
    assert word in (strict_problem(orjson.dumps(good | change)) or "")
