"""An answered row as lines of a result file, as every wire has it: once, twice, or twice with different answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batchctl.emulator.faults import Fate
from batchctl.emulator.process import Made
from batchctl.emulator.saying import Answer

_OTHER = 0x5EED
"""Turns a seed into that of a second, different answer."""


def answered(
    custom_id: Any,
    fate: Fate,
    digest: str,
    nonce: str,
    seed: int,
    *,
    answer: Callable[[str, str, int], Answer],
    line: Callable[[str, bytes], bytes],
) -> Made:
    """`answer` makes a body from quality, nonce and seed, `line` a result line from nonce and body."""
    given = answer(fate.quality, nonce, seed)
    second = b""
    if fate.line == "duplicated":
        second = line(nonce, given.body)
    elif fate.line == "conflict":
        second = line(nonce + "c", answer("", nonce[:-1] + "z", seed ^ _OTHER).body)
    return Made(
        line(nonce, given.body),
        True,
        custom_id,
        second=second,
        digest=digest,
        input_tokens=given.input_tokens,
        output_tokens=given.output_tokens,
        cached_tokens=given.cached_tokens,
        reasoning_tokens=given.reasoning_tokens,
    )
