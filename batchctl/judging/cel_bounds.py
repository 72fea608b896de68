"""How long one CEL expression may work on one row: the library has no limit of its own, so one is written into the text.

CEL has no loops but its macros over lists and maps; nested ones multiply. In every macro the part that is done again for
each element is made to count a step first, and past `MOST_STEPS` the evaluation ends with an error. Steps, not time, so
that the same answer is judged the same everywhere; `MOST_SECONDS` of processor time is there for what lies between two
steps. What `map` makes can grow with each one around it, which is bounded when the expression is compiled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from batchctl.judging.cel_text import MACROS, Token, tokens

MOST_STEPS = 250_000
MOST_SECONDS = 10.0
MOST_GROWTH = 64
STEP = "step_of_ours"
_OPEN, _CLOSE = "([{", ")]}"


class Spent(Exception):
    """The evaluation has used up what it may."""


class Steps:
    """The steps of one evaluation. `spent` says in words what was used up; CEL's `||` may pass over the error itself."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self.spent = ""
        self._clock = clock
        self._left = 0
        self._end = 0.0

    def begin(self) -> None:
        """A new evaluation."""
        self.spent = ""
        self._left = MOST_STEPS
        self._end = self._clock() + MOST_SECONDS

    def step(self) -> bool:
        """Count one; raises `Spent` when there is none left."""
        self._left -= 1
        if self._left < 0:
            self.spent = f"it takes more than {MOST_STEPS:,} steps: {', '.join(MACROS)} over a long list, or nested"
        elif self._clock() > self._end:
            self.spent = f"it takes more than {MOST_SECONDS:g} s"
        if self.spent:
            raise Spent(self.spent)
        return True


def with_steps(text: str) -> str:
    """The expression with a step in every macro; the same text when it has none."""
    found = tokens(text)
    cuts: list[tuple[int, str]] = []
    for _, parts in _macros(found):
        first, last = parts[1]
        cuts += [(found[first].at, f"({STEP}() ? ("), (found[last].at + len(found[last].text), ") : null)")]
    out, end = [], 0
    for at, words in sorted(cuts):
        out += [text[end:at], words]
        end = at
    return "".join(out) + text[end:]


def growth(text: str) -> int:
    """How many times larger than what goes in the values made by `map` can be, at most."""
    found = tokens(text)
    factor = 1
    for name, parts in _macros(found):
        if name == "map":
            bound = found[parts[0][0]].text
            first, last = parts[-1]
            factor *= max(1, sum(one.kind == "name" and one.text == bound for one in found[first : last + 1]))
    return factor


def _macros(found: list[Token]) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Every `.all(x, ...)` and the like: its name, and of each argument the first and the last token."""
    for place in range(1, len(found) - 3):
        name = found[place]
        if name.text in MACROS and found[place - 1].text == "." and found[place + 1].text == "(":
            parts = list(_arguments(found, place + 2))
            if len(parts) >= 2:
                yield name.text, parts


def _arguments(found: list[Token], start: int) -> Iterator[tuple[int, int]]:
    depth = 0
    for place in range(start, len(found)):
        text = found[place].text if found[place].kind == "sign" else ""
        if text and text in _OPEN:
            depth += 1
        elif text and text in _CLOSE:
            depth -= 1
        if (text == "," and depth == 0) or depth < 0:
            if place > start:
                yield start, place - 1
            start = place + 1
        if depth < 0:
            return
