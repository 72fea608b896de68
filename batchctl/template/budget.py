"""What one row may cost. Counted as work and not as seconds, so that it is the same on every machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from batchctl.template.values import Unrenderable

MAX_CHARS = 10_000_000
"""Longest rendered text. No provider takes a request this long."""

WORK = 20 * MAX_CHARS
"""The budget of one row: characters made, and the prices below."""

ROUND = 1_000  # a loop round: at most 200,000 of them, well under a second
CALL = 5_000  # a call: some 20 times as slow
NODE = 200  # an item of a list or table that is looked through
LONGEST_RANGE = 10_000
LARGEST_BITS = 4_096
WIDEST = 1_000


class Budget:
    """What one row may still cost."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = WORK

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise Unrenderable("the template does too much work on this row")

    def spend_on(self, value: Any) -> Any:
        """Pay for looking through a value, however often its parts are shared; returns it."""
        from jinja2.utils import Namespace

        pending = [value]
        while pending:
            match pending.pop():
                case str() as text:
                    self.spend(len(text) + 1)
                case dict() as table:
                    self.spend(NODE * (len(table) + 1))
                    pending.extend(table.values())
                    pending.extend(table.keys())
                case list() | tuple() as items:
                    self.spend(NODE * (len(items) + 1))
                    pending.extend(items)
                case range() as numbers:
                    self.spend(NODE * (len(numbers) + 1))
                case Namespace() as namespace:
                    pending.append(object.__getattribute__(namespace, "_Namespace__attrs"))
                case _:
                    self.spend(1)
        return value

    def operate(self, operator: str, left: Any, right: Any) -> None:
        """Pay for `left operator right` before it is done."""
        if isinstance(left, int) and isinstance(right, int):
            bits = {
                "+": max(left.bit_length(), right.bit_length()) + 1,
                "*": left.bit_length() + right.bit_length(),
                "**": left.bit_length() * max(0, right),
            }.get(operator, 0)
            if bits > LARGEST_BITS:
                raise Unrenderable("the template makes a number that is too large")
        elif operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    before = self.left
                    self.spend_on(sequence)
                    self.spend((before - self.left) * max(0, times))
        elif operator == "+":
            self.spend_on(left)
            self.spend_on(right)
        elif operator == "%" and isinstance(left, str):
            self.format(left, right)

    def format(self, pattern: str, values: Any) -> None:
        """A width can be written as digits or taken from a value (`%*d`); neither may make a text out of nothing."""
        for width in re.findall(r"%(?:\([^)]*\))?[-#0 +]*([0-9]+|\*)?(?:\.([0-9]+|\*))?", pattern):
            if any(part == "*" or len(part) > 4 or (part and int(part) > WIDEST) for part in width):
                raise Unrenderable(f"a width of more than {WIDEST:,} in a format")
        self.spend(len(pattern) * 2)
        self.spend_on(values)

    def replace(self, text: str, old: str, new: str) -> None:
        self.spend(len(text) + text.count(old) * len(new))

    def call(self, text: str, method: str, args: Sequence[Any]) -> None:
        """Pay for a method of a text."""
        self.spend(5 * len(text))
        if method == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
            self.replace(text, args[0], args[1])


def longest_range(*bounds: int) -> range:
    numbers = range(*bounds)
    # Not len(): it overflows for what this is here to stop.
    if numbers and abs(numbers[-1] - numbers[0]) // abs(numbers.step) >= LONGEST_RANGE:
        raise Unrenderable(f"a range of more than {LONGEST_RANGE:,} numbers")
    return numbers
