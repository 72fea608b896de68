"""A schema is checked once, agrees with the official suite, and no value or schema can stop it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from batchctl.judging import schema as module
from batchctl.judging.schema import Schema
from batchctl.model.errors import UsageError

SUITE = Path(__file__).parents[4] / "shared/data/json-schema-test-suite/draft2020-12"
NEEDS_ANOTHER_FILE = {
    "dynamicRef.json": {
        "strict-tree schema, guards against misspelled properties",
        "tests for implementation dynamic anchor and reference link",
        "$ref and $dynamicAnchor are independent of order - $defs first",
        "$ref and $dynamicAnchor are independent of order - $ref first",
        "$ref to $dynamicRef finds detached $dynamicAnchor",
    },
    "refRemote.json": {
        "remote ref",
        "fragment within remote ref",
        "anchor within remote ref",
        "ref within remote ref",
        "base URI change",
        "base URI change - change folder",
        "base URI change - change folder in subschema",
        "root ref in remote ref",
        "remote ref with ref to defs",
        "Location-independent identifier in remote ref",
        "retrieved nested refs resolve relative to their URI not $id",
        "remote HTTP ref with different $id",
        "remote HTTP ref with different URN $id",
        "remote HTTP ref with nested absolute ref",
        "$ref to $ref finds detached $anchor",
    },
    "vocabulary.json": {  # their `$schema` is at localhost
        "schema that uses custom metaschema with with no validation vocabulary",
        "ignore unrecognized optional vocabulary",
    },
}


def load(schema: Any) -> Schema:
    return Schema.load(json.dumps(schema).encode(), "schema.json")


def refused(schema: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(schema)
    return caught.value


@pytest.mark.skipif(not SUITE.exists(), reason="the official suite is not beside this checkout")
def test_the_judge_agrees_with_every_required_test_of_the_official_suite() -> None:
    asked = 0
    for path in sorted(SUITE.glob("*.json")):
        for group in json.loads(path.read_text("utf-8")):
            schema = group["schema"]
            if group["description"] in NEEDS_ANOTHER_FILE.get(path.name, ()):
                refused(schema)
                continue
            judge = load(schema if isinstance(schema, dict) else {"allOf": [schema]})
            for test in group["tests"]:
                asked += 1
                name = f"{path.name}: {group['description']}: {test['description']}"
                assert (judge.problem(test["data"]) is None) == test["valid"], name
                assert (judge.explain(test["data"]) == "") == test["valid"], name
    assert asked == 1250


@pytest.mark.parametrize(
    ("schema", "where", "says"),
    [
        ({"$ref": "http://example.com/x.json"}, "#/$ref", "outside the file"),
        ({"$ref": "file:///etc/passwd"}, "#/$ref", "outside the file"),
        ({"$ref": "//host/x"}, "#/$ref", "outside the file"),
        ({"items": {"$ref": "other.json#/a"}}, "#/items/$ref", "outside the file"),
        ({"$defs": {"a/b": {"$dynamicRef": "x.json#m"}}}, "#/$defs/a~1b/$dynamicRef", "outside the file"),
        ({"anyOf": [{}, {"not": {"$ref": "x:y"}}]}, "#/anyOf/1/not/$ref", "outside the file"),
        ({"properties": {"const": {"$ref": "http://h/x"}}}, "#/properties/const/$ref", "outside the file"),
        ({"$id": "http://h/a/b.json", "$ref": "c.json"}, "#/$ref", "outside the file"),
        ({"$schema": "http://h/own"}, "#/$schema", "draft"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "#/$schema", "draft"),
        ({"$defs": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}}, "#/$defs/a/$schema", "draft"),
        ({"$ref": "#/$defs/none"}, "#", "does not exist"),
        ({"$ref": "#none"}, "#", "does not exist"),
        ({"properties": {"a": {"pattern": "("}}}, "#/properties/a/pattern", "regex"),
        ({"patternProperties": {"(": {}}}, "#/patternProperties/(", "regex"),
        ({"type": "strin"}, "#/type", "not valid"),
        ({"properties": {"a": {"minLength": -1}}}, "#/properties/a/minLength", "not valid"),
        ({"required": "a"}, "#/required", "not valid"),
        ({"$ref": "#"}, "#", "back to itself"),
        ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}, "#/$defs/a", "back to itself"),
        ([], "#", "object"),
        (True, "#", "object"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_its_place(schema: Any, where: str, says: str) -> None:
    error = refused(schema)
    assert error.where == (f"schema.json{where}",)
    assert says in error.what
    assert error.hint
    assert error.effect == "nothing was sent"


def test_a_schema_file_is_read_strictly() -> None:
    with pytest.raises(UsageError, match="appears twice"):
        Schema.load(b'{"type": "string", "type": "object"}', "schema.json")


@pytest.mark.parametrize(
    "schema",
    [
        {"$id": "https://example.com/a.json", "$ref": "a.json#/$defs/x", "$defs": {"x": {"type": "string"}}},
        {"$id": "urn:uuid:1", "$ref": "#/$defs/x", "$defs": {"x": {"$anchor": "y", "type": "string"}}},
        {"$ref": "#y", "$defs": {"x": {"$anchor": "y", "type": "string"}}},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": {"a": {"type": "string"}},
            "type": "string",
        },
        {"$schema": "http://json-schema.org/draft-04/schema", "id": "http://x/y#", "type": "string"},
        {"enum": ["a"], "default": {"$ref": "http://example.com/only-data"}},
        {"type": "string", "pattern": r"^\p{L}$"},
    ],
)
def test_local_references_data_and_other_drafts_are_fine(schema: Any) -> None:
    judge = load(schema)
    assert judge.problem("a") is None
    assert judge.problem(1)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"label": "bug"}, None),
        ({"label": "urgent"}, '/label: "urgent" is not one of "billing" or "bug"'),
        ({}, '(whole answer): "label" is a required property'),
        ({"label": "bug", "a/b": {"~": 1}}, '/a~1b/~0: 1 is not of type "string"'),
        ([1], '(whole answer): [1] is not of type "object"'),
    ],
)
def test_a_problem_names_the_place_and_the_rule(value: Any, problem: str | None) -> None:
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["billing", "bug"]}, "a/b": {"additionalProperties": {"type": "string"}}},
        "required": ["label"],
    }
    assert load(schema).problem(value) == problem


def test_an_8_mb_value_gives_a_bounded_escaped_message_that_still_names_the_rule() -> None:
    judge = load({"type": "object", "properties": {"a": {"maxLength": 5}}})
    value = {"a": "\x1b[2J\u202e" * 1_000_000}
    for text in (judge.problem(value), judge.explain(value)):
        assert text is not None
        assert len(text) <= 300
        assert text.isprintable()
        assert "longer than 5" in text


def test_a_small_value_is_explained_by_jsonschema() -> None:
    judge = load({"anyOf": [{"type": "integer"}, {"properties": {"a": {"type": "string", "minLength": 3}}}]})
    assert judge.explain({"a": "x"}) == "/a: 'x' is too short"
    assert judge.explain({"a": "xyz"}) == ""


@pytest.fixture
def no_jsonschema(monkeypatch: pytest.MonkeyPatch) -> None:
    def called(_: Any) -> None:
        raise AssertionError("jsonschema was asked to explain a value that can stop it")

    monkeypatch.setattr(jsonschema.exceptions, "best_match", called)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"maxLength": 3}, "x" * 70_000),
        ({"uniqueItems": True}, [{"a": n} for n in range(8_000)] * 2),
        ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}, {"a" * 40 + "!": 1}),
        ({"type": "string"}, json.loads("[" * 100 + "]" * 100)),
        ({"type": "string"}, "\ud800"),
    ],
)
@pytest.mark.usefixtures("no_jsonschema")
def test_a_value_that_is_big_deep_or_matched_by_names_is_never_given_to_jsonschema(schema: Any, value: Any) -> None:
    assert load(schema).explain(value)


def test_patterns_uniqueness_and_multiples_are_decided_by_the_judge_in_explanations_too() -> None:
    assert "does not match" in load({"pattern": "^(a+)+$"}).explain("a" * 60_000 + "!")
    assert "non-unique" in load({"uniqueItems": True}).explain([{"a": n} for n in range(5_000)] + [{"a": 1}])
    assert "multiple" in load({"multipleOf": 0.01}).explain(19.999)
    assert load({"multipleOf": 0.01}).explain(19.99) == ""


def test_an_explanation_that_takes_too_many_steps_gives_way_to_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EXPLAIN_STEPS", 10)
    judge = load({"items": {"type": "string"}})
    assert judge.explain(["a"] * 100 + [1]) == '/100: 1 is not of type "string"'


def test_nested_alternatives_are_not_worded_when_every_branch_of_every_level_would_be() -> None:
    node = {"properties": {"a": {"$ref": "#/$defs/node"}}, "required": ["a"]}
    judge = load({"$defs": {"node": {"anyOf": [node, node]}}, "$ref": "#/$defs/node"})
    value: Any = {}
    for _ in range(60):
        value = {"a": value}
    assert judge.problem(value) == "(whole answer): does not match any of the schema's nested alternatives"
    assert "nested alternatives" in judge.explain(value)
    assert judge.problem({}) != judge.problem(value)


def test_a_schema_whose_alternatives_multiply_is_refused_at_load() -> None:
    levels = {f"n{n}": {"anyOf": [{"$ref": f"#/$defs/n{n + 1}"}] * 2} for n in range(40)}
    assert "multiply" in refused({"$defs": {**levels, "n40": {}}, "$ref": "#/$defs/n0"}).what
    named = {f"n{n}": {"$anchor": f"n{n}", "allOf": [{"$ref": f"#n{n + 1}"}] * 2} for n in range(40)}
    assert "multiply" in refused({"$defs": {**named, "n40": {"$anchor": "n40"}}, "$ref": "#n0"}).what


def test_equal_schemas_have_one_digest_and_a_schema_travels_to_another_process() -> None:
    one = Schema.load(b'{"type": "object", "required": ["a"]}', "a.json")
    two = Schema.load(b'{"required":["a"],\n "type":"object"}', "b.json")
    assert one.digest == two.digest
    assert len(one.digest) == 64
    copy = pickle.loads(pickle.dumps(one))
    assert copy.text == one.text
    assert copy.problem({}) == one.problem({})
