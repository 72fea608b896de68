"""The parts of a schema as makers of values: each draws one that fits, with the dice and in the room it is given.

`answers.Compiled` builds the tree of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import orjson

from batchctl.emulator.patterns import FORMATS, Dice, matching, plain

ENDLESS = 10**6
"""The height of a recursion without a way out."""
CONTAINERS = 80
"""So many objects and lists one answer may have before it is kept as small as it can be."""
_DEPTH = 6


class Draw:
    """One answer being made: its dice, the words of the prompt, and how much room is left."""

    __slots__ = ("depth", "dice", "prompt", "room")

    def __init__(self, seed: bytes, prompt: str) -> None:
        self.dice = Dice(seed)
        self.prompt = prompt
        self.depth = 0
        self.room = CONTAINERS

    @property
    def tight(self) -> bool:
        return self.depth >= _DEPTH or self.room <= 0


class Node:
    """`height` is the least nesting an answer needs; endless where a recursion has no way out."""

    height = ENDLESS

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
            if node is None or (len(out) >= least and node.height >= ENDLESS):
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
        self._most = ENDLESS if most is None else int(most)
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
                if tight or spare <= 0 or node.height >= ENDLESS or (draw.dice.below(4) == 0 and not self._least):
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
        if node.height >= ENDLESS:
            node = min(self._options, key=lambda one: one.height)
        return node.make(draw)


class Later(Node):
    """Stands for a schema that is still being compiled: how recursion is tied."""

    def __init__(self) -> None:
        self.target: Node | None = None

    def measure(self) -> int:
        return self.target.height if self.target is not None else ENDLESS

    def make(self, draw: Draw) -> Any:
        assert self.target is not None
        return self.target.make(draw)


def _decimal(value: Any) -> Decimal | None:
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Decimal(str(value))


def _finds(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False
