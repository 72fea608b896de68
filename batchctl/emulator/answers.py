"""Answers from the request's own JSON schema.

A schema is compiled once into a tree of nodes; making one answer walks the tree with dice seeded by the request, so
that the same request always gets the same answer. Where a schema says more than the tree understands (`oneOf`, `not`,
`if`, `dependent...`), the answer is checked and drawn again. Text is marked as simulated where the schema has room.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import orjson

from batchctl.emulator.answer_nodes import (
    CONTAINERS,
    ENDLESS,
    Choice,
    Draw,
    Fields,
    Flag,
    Items,
    Later,
    Node,
    Nothing,
    Number,
    One,
    Text,
)
from batchctl.emulator.patterns import MARK, Dice, plain

_TRIES = 25
_HARD = frozenset(
    [
        "oneOf",
        "not",
        "if",
        "dependentRequired",
        "dependentSchemas",
        "patternProperties",
        "contains",
        "propertyNames",
        "unevaluatedProperties",
        "unevaluatedItems",
        "allOf",
        "minProperties",
        "maxProperties",
        "dependencies",
    ]
)
_ANNOTATIONS = frozenset(
    [
        "title",
        "description",
        "default",
        "examples",
        "$comment",
        "$schema",
        "$id",
        "$defs",
        "definitions",
        "deprecated",
        "readOnly",
        "writeOnly",
    ]
)
_TYPE_OF = {
    "string": ["minLength", "maxLength", "pattern", "format"],
    "number": ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
    "object": ["properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"],
    "array": ["items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"],
}


class Compiled:
    """A schema ready to make answers. Deterministic in (seed, prompt)."""

    _ANY: ClassVar[dict[str, Any]] = {"type": "string"}

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._known: dict[int, Later] = {}
        self._kept: list[Any] = []  # merged schemas stay alive while their id names them
        self._nodes: list[Node] = []
        self._hard = False
        self._tree = self._compile(schema, "")
        for _ in range(len(self._nodes) + 1):  # heights settle from the leaves upwards
            changed = False
            for node in self._nodes:
                height = min(node.measure(), ENDLESS)
                changed = changed or height != node.height
                node.height = height
            if not changed:
                break
        self._check: Callable[[Any], bool] | None = _judge(schema) if self._hard else None

    def make(self, seed: bytes, prompt: str = "") -> Any:
        draw = Draw(seed, prompt)
        value = self._tree.make(draw)
        if self._check is not None:
            for _ in range(_TRIES):
                if self._check(value):
                    break
                draw.depth, draw.room = 0, CONTAINERS
                value = self._tree.make(draw)
        return value

    def broken(self, value: Any, seed: bytes) -> Any:
        """An answer that does not match: a required key gone, an unknown word, a wrong type; the list `[]` at last."""
        judge = _judge(self._root)
        dice = Dice(seed[8:16])
        options = list(_damaged(value))
        while options:
            candidate = options.pop(dice.below(len(options)))
            if not judge(candidate):
                return candidate
        others: list[Any] = [[], {}, None, 1]
        return next((other for other in others if not judge(other)), value)

    # -- compiling

    def _compile(self, schema: Any, hint: str) -> Node:
        if not isinstance(schema, dict):
            return self._keep(Text(self._ANY, hint))
        known = self._known.get(id(schema))
        if known is not None:
            return known
        later = Later()
        self._known[id(schema)] = later
        self._nodes.append(later)
        if not _HARD.isdisjoint(schema):
            self._hard = True
        later.target = self._node(schema, str(schema.get("title") or hint))
        return later.target

    def _keep(self, node: Node) -> Node:
        self._nodes.append(node)
        return node

    def _merged(self, *parts: Any) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for part in parts:
            merged = _merge(merged, part) if isinstance(part, dict) else merged
        self._kept.append(merged)
        return merged

    def _node(self, schema: dict[str, Any], hint: str) -> Node:
        if "$ref" in schema:
            target = self._resolve(schema["$ref"])
            beside = {key: value for key, value in schema.items() if key != "$ref" and key not in _ANNOTATIONS}
            return self._compile(self._merged(target, beside) if beside else target, hint)
        if "allOf" in schema:
            base = {key: value for key, value in schema.items() if key != "allOf"}
            parts = [self._dereferenced(part) for part in schema["allOf"]]
            return self._compile(self._merged(base, *parts), hint)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                base = {key: value for key, value in schema.items() if key != word and key not in _ANNOTATIONS}
                options = [option for option in schema[word] if option is not False]
                whole = [
                    self._compile(self._merged(base, self._dereferenced(option)) if base else option, hint)
                    for option in options
                ]
                return self._keep(Choice(whole)) if whole else self._keep(Nothing())
        if "if" in schema and "then" in schema:
            self._hard = True
            base = {key: value for key, value in schema.items() if key not in ("if", "then", "else")}
            branches = [self._merged(base, schema["if"], schema["then"]), self._merged(base, schema.get("else", {}))]
            return self._keep(Choice([self._compile(branch, hint) for branch in branches]))
        if "const" in schema:
            return self._keep(One([schema["const"]]))
        if "enum" in schema:
            rules = {key: value for key, value in schema.items() if key not in _ANNOTATIONS and key != "enum"}
            fitting = [value for value in schema["enum"] if not rules or _judge_plain(rules, value)]
            return self._keep(One(fitting or list(schema["enum"])))
        return self._typed(schema, hint)

    def _typed(self, schema: dict[str, Any], hint: str) -> Node:
        kind = schema.get("type")
        if kind is None:
            kind = next((name for name, words in _TYPE_OF.items() if not schema.keys().isdisjoint(words)), "string")
        if isinstance(kind, list):
            nodes = [self._typed({**schema, "type": one}, hint) for one in kind]
            return nodes[0] if len(nodes) == 1 else self._keep(Choice(nodes))
        if kind == "object":
            return self._keep(Fields(schema, self._compile))
        if kind == "array":
            return self._keep(Items(schema, self._compile, hint))
        if kind in ("integer", "number"):
            return self._keep(Number(schema, kind == "integer"))
        if kind == "boolean":
            return self._keep(Flag())
        return self._keep(Nothing() if kind == "null" else Text(schema, hint))

    def _dereferenced(self, schema: Any) -> Any:
        seen = 0
        while isinstance(schema, dict) and set(schema) - _ANNOTATIONS == {"$ref"} and seen < 20:
            schema = self._resolve(schema["$ref"])
            seen += 1
        return schema

    def _resolve(self, reference: str) -> Any:
        """A place in this schema; anything outside it stands for any value."""
        place: Any = self._root
        if not isinstance(reference, str) or not reference.startswith("#"):
            return True
        for part in reference.removeprefix("#").removeprefix("/").split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            if not part:
                continue
            if isinstance(place, list) and part.isdigit() and int(part) < len(place):
                place = place[int(part)]
            elif isinstance(place, dict) and part in place:
                place = place[part]
            else:
                return True
        return place


def _merge(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both schemas at once, as far as one schema can say it."""
    out = dict(one)
    for key, value in other.items():
        mine: Any = out.get(key)
        if key not in out or mine == value:
            out[key] = value
        elif key == "properties":
            out[key] = {**mine, **{k: {"allOf": [mine[k], v]} if k in mine else v for k, v in value.items()}}
        elif key == "required":
            out[key] = [*mine, *(name for name in value if name not in mine)]
        elif key in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            out[key] = max(mine, value)
        elif key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            out[key] = min(mine, value)
        elif key == "type":
            kinds = [mine] if isinstance(mine, str) else mine
            theirs = [value] if isinstance(value, str) else value
            both = [kind for kind in kinds if kind in theirs or (kind == "integer" and "number" in theirs)]
            both += [kind for kind in theirs if kind == "integer" and "number" in kinds and kind not in both]
            out[key] = both or mine
        elif key == "enum":
            out[key] = [word for word in mine if word in value] or mine
        elif key in ("items", "additionalProperties") and isinstance(mine, dict) and isinstance(value, dict):
            out[key] = {"allOf": [mine, value]}
        elif key in ("anyOf", "oneOf", "allOf"):
            out["allOf"] = [*out.get("allOf", ()), {key: value}] if key != "allOf" else [*mine, *value]
        elif not (key == "additionalProperties" and mine is False):
            out[key] = value
    return out


def _damaged(value: Any) -> Any:
    if isinstance(value, dict):
        for key, inside in value.items():
            yield {name: other for name, other in value.items() if name != key}
            yield {**value, key: f"{MARK} not among the allowed words"}
            yield {**value, key: {"unexpected": inside}}
    elif isinstance(value, list):
        yield [*value, {"unexpected": True}]
    else:
        yield {"unexpected": value}


def _judge(schema: Any) -> Callable[[Any], bool]:
    """Whether a value matches; a schema that cannot be judged accepts all. References outside are never fetched."""
    import jsonschema_rs

    def refuse(uri: str) -> Any:
        raise ValueError(f"outside reference: {uri}")

    try:
        return jsonschema_rs.validator_for(schema, retriever=refuse).is_valid
    except ValueError:  # jsonschema_rs.ValidationError and its reference errors are ValueErrors
        return lambda _value: True


def _judge_plain(rules: dict[str, Any], value: Any) -> bool:
    return "$ref" in rules or _judge(rules)(value)


@lru_cache(maxsize=256)
def compiled(schema: bytes) -> Compiled:
    """The answers of a schema, given as its JSON bytes: rows of a run share one."""
    return Compiled(orjson.loads(schema))


def sentence(seed: bytes, prompt: str) -> str:
    """An answer to a request that asks for no form."""
    dice = Dice(seed)
    about = " ".join(prompt.split()[:8])[:80]
    return f'{MARK} {plain(dice, "answer", 0, None).removeprefix(MARK).strip()} about "{about}".'
