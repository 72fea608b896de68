"""What a workflow function returns: one frozen value from which text, `--json` and the exit code are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchctl.model.errors import Exit


@dataclass(frozen=True, slots=True)
class Report:
    """`lines` are the summary for people, `facts` the fields of `--json` beside run, exit, balance and cost."""

    command: str
    run: str | None = None
    exit: Exit = Exit.OK
    balance: Mapping[str, int] | None = None
    cost: Mapping[str, Any] | None = None
    lines: tuple[str, ...] = ()
    next: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    simulated: bool = False
    data: str | None = None  # goes to stdout as it is, in text mode


def plural(count: int, word: str, many: str | None = None) -> str:
    """`1 row`, `2 rows`, `3,080 rows`."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"
