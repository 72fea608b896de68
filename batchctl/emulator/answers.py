"""Answers from the request's own JSON schema.

A schema is compiled once into a tree of nodes; making one answer walks the tree with dice seeded by the request, so
that the same request always gets the same answer. Where a schema says more than the tree understands (`oneOf`, `not`,
`if`, `dependent...`), the answer is checked and drawn again. Text is marked as simulated where the schema has room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar

import orjson

from batchctl.emulator.patterns import FORMATS, MARK, Dice, matching, plain

_ENDLESS = 10**6
_DEPTH = 6
_CONTAINERS = 80
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


class Draw:
    """One answer being made: its dice, the words of the prompt, and how much room is left."""

    __slots__ = ("depth", "dice", "prompt", "room")

    def __init__(self, seed: bytes, prompt: str) -> None:
        self.dice = Dice(seed)
        self.prompt = prompt
        self.depth = 0
        self.room = _CONTAINERS

    @property
    def tight(self) -> bool:
        return self.depth >= _DEPTH or self.room <= 0


class Node:
    """`height` is the least nesting an answer needs; endless where a recursion has no way out."""

    height = _ENDLESS

    def measure(self) -> int:
        return 0

    def make(self, draw: Draw) -> Any:
        raise NotImplementedError


class One(Node):
    """An enum or a const: words of the prompt are preferred, so that answers look plausible."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values
        self._words = [(value.lower(), value) for value in values if isinstance(value, str) and len(value) > 1]

    def make(self, draw: Draw) -> Any:
        if len(self._values) == 1:
            return self._values[0]
        if self._words and draw.prompt:
            named = [value for word, value in self._words if word in draw.prompt]
            if named:
                return named[draw.dice.below(len(named))]
        return self._values[draw.dice.below(len(self._values))]


class Text(Node):
    def __init__(self, schema: Mapping[str, Any], hint: str) -> None:
        self._hint = hint
        self._shortest = int(schema.get("minLength", 0))
        longest = schema.get("maxLength")
        self._longest = None if longest is None else int(longest)
        self._pattern = schema.get("pattern")
        self._format = FORMATS.get(str(schema.get("format", "")))

    def make(self, draw: Draw) -> str:
        if self._pattern is not None:
            sample = plain(draw.dice, self._hint, self._shortest, self._longest)
            found = matching(draw.dice, self._pattern, self._shortest, self._longest)
            return sample if found is None else found
        if self._format is not None:
            return self._format(draw.dice)
        return plain(draw.dice, self._hint, self._shortest, self._longest)


class Number(Node):
    def __init__(self, schema: Mapping[str, Any], whole: bool) -> None:
        self._whole = whole
        low, high = _decimal(schema.get("minimum")), _decimal(schema.get("maximum"))
        above, below = _decimal(schema.get("exclusiveMinimum")), _decimal(schema.get("exclusiveMaximum"))
        step = _decimal(schema.get("multipleOf"))
        if step is None and whole:
            step = Decimal(1)
        elif step is not None and whole and step != step.to_integral_value():
            step = Decimal(step.as_integer_ratio()[0])  # the least whole number that is a multiple
        lows = [bound for bound in (low, above) if bound is not None]
        highs = [bound for bound in (high, below) if bound is not None]
        self._low = max(lows) if lows else None
        self._high = min(highs) if highs else None
        self._open_low = self._low is not None and self._low == above
        self._open_high = self._high is not None and self._high == below
        self._step = step or self._grain()
        first, last = self._ends(self._step)
        self._first, self._count = first, max(1, last - first + 1)

    def _grain(self) -> Decimal:
        """The step of a number that has none: cents, or finer where the bounds are close."""
        if self._low is None or self._high is None:
            return Decimal("0.01")
        grain = Decimal("0.01")
        while (self._high - self._low) / grain < 4 and grain > Decimal("1e-300"):
            grain /= 10
        return grain

    def _ends(self, step: Decimal) -> tuple[int, int]:
        span = 100
        first = None if self._low is None else math.ceil(self._low / step)
        last = None if self._high is None else math.floor(self._high / step)
        if first is not None and self._open_low and first * step == self._low:
            first += 1
        if last is not None and self._open_high and last * step == self._high:
            last -= 1
        if first is None:
            first = 0 if last is None or last >= 0 else last - span
        if last is None:
            last = first + (span if self._whole else span * 100)
        return first, last

    def make(self, draw: Draw) -> Any:
        value = (self._first + draw.dice.below(self._count)) * self._step
        if self._whole or value == value.to_integral_value():
            return int(value) if self._whole or abs(value) < 2**53 else float(value)
        return float(value)


class Flag(Node):
    def make(self, draw: Draw) -> bool:
        return bool(draw.dice.below(2))


class Nothing(Node):
    def make(self, draw: Draw) -> None:  # noqa: ARG002 - null needs no dice
        return None


class Items(Node):
    def __init__(self, schema: Mapping[str, Any], compile_: Callable[[Any, str], Node], hint: str) -> None:
        self._least = int(schema.get("minItems", 0))
        most = schema.get("maxItems")
        self._most = None if most is None else int(most)
        self._unique = bool(schema.get("uniqueItems"))
        self._first = [compile_(part, hint) for part in schema.get("prefixItems", ())]
        rest = schema.get("items", True)
        self._rest = None if rest is False else compile_(rest, hint)

    def measure(self) -> int:
        needed = self._first[: self._least]
        if self._least > len(self._first) and self._rest is not None:
            needed = [*needed, self._rest]
        return 1 + max((node.height for node in needed), default=0)

    def make(self, draw: Draw) -> list[Any]:
        least = self._least
        if draw.tight:
            wanted = least
        else:
            wanted = max(least, len(self._first), 1 + draw.dice.below(3 if draw.depth < 2 else 2))
        if self._most is not None:
            wanted = min(wanted, self._most)
        if self._rest is None:
            wanted = min(wanted, len(self._first))
        draw.depth += 1
        draw.room -= 1
        out: list[Any] = []
        seen: set[bytes] = set()
        tries = wanted * 8 + 32
        while len(out) < wanted and tries > 0:
            tries -= 1
            node = self._first[len(out)] if len(out) < len(self._first) else self._rest
            if node is None or (len(out) >= least and node.height >= _ENDLESS):
                break
            value = node.make(draw)
            if self._unique:
                key = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
                if key in seen:
                    continue
                seen.add(key)
            out.append(value)
        draw.depth -= 1
        return out


class Fields(Node):
    def __init__(self, schema: Mapping[str, Any], compile_: Callable[[Any, str], Node]) -> None:
        properties = schema.get("properties", {})
        required = set(schema.get("required", ()))
        others = schema.get("additionalProperties", True)
        self._fields: list[tuple[str, Node, bool]] = [
            (name, compile_(part, name), name in required)
            for name, part in properties.items()
            if part is not False or name in required
        ]
        extra = compile_(others if isinstance(others, dict) else True, "value")
        patterns = schema.get("patternProperties", {})
        for name in schema.get("required", ()):
            if name not in properties:
                fitting = next((part for pattern, part in patterns.items() if _finds(pattern, name)), None)
                self._fields.append((name, extra if fitting is None else compile_(fitting, name), True))
        self._extra = extra
        self._least = int(schema.get("minProperties", 0))
        most = schema.get("maxProperties")
        self._most = _ENDLESS if most is None else int(most)
        self._names = schema.get("propertyNames")

    def measure(self) -> int:
        return 1 + max((node.height for _, node, needed in self._fields if needed), default=0)

    def make(self, draw: Draw) -> dict[str, Any]:
        tight = draw.tight
        draw.depth += 1
        draw.room -= 1
        out: dict[str, Any] = {}
        spare = self._most - sum(needed for _, _, needed in self._fields)
        for name, node, needed in self._fields:
            if not needed:
                if tight or spare <= 0 or node.height >= _ENDLESS or (draw.dice.below(4) == 0 and not self._least):
                    continue
                spare -= 1
            out[name] = node.make(draw)
        while len(out) < self._least:
            out[f"simulated_{len(out)}"] = self._extra.make(draw)
        draw.depth -= 1
        return out


class Choice(Node):
    def __init__(self, options: list[Node]) -> None:
        self._options = options

    def measure(self) -> int:
        return min(node.height for node in self._options)

    def make(self, draw: Draw) -> Any:
        if draw.tight:
            return min(self._options, key=lambda node: node.height).make(draw)
        node = self._options[draw.dice.below(len(self._options))]
        if isinstance(node, Nothing) and draw.dice.below(3):  # null is allowed far more often than meant
            node = self._options[draw.dice.below(len(self._options))]
        if node.height >= _ENDLESS:
            node = min(self._options, key=lambda one: one.height)
        return node.make(draw)


class Later(Node):
    """Stands for a schema that is still being compiled: how recursion is tied."""

    def __init__(self) -> None:
        self.target: Node | None = None

    def measure(self) -> int:
        return self.target.height if self.target is not None else _ENDLESS

    def make(self, draw: Draw) -> Any:
        assert self.target is not None
        return self.target.make(draw)


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
                height = min(node.measure(), _ENDLESS)
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
                draw.depth, draw.room = 0, _CONTAINERS
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


def _decimal(value: Any) -> Decimal | None:
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Decimal(str(value))


def _finds(pattern: str, text: str) -> bool:
    import re

    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


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
