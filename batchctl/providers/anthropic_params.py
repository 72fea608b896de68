"""Settings under other vendors' names in Anthropic's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from batchctl.providers.params import FLAT_EFFORT, in_words_of, without_effort

_NO_EFFORT = re.compile(
    r"claude-(?:instant|[123]|(?:opus-4(?:-[01])?|sonnet-4(?:-[05])?|haiku-4(?:-5)?)(?:-(?:20\d{6}|latest))?$)"
)
"""Models without `output_config.effort`: those before Opus 4.5 and Sonnet 4.6, and Haiku 4.5
(platform.claude.com/docs/en/build-with-claude/effort, read 2026-11-21). They do not think unless `thinking` says so."""
NEAREST = {"none": "low", "minimal": "low"}
"""Levels that this vendor does not have, as the nearest one it has."""


def translated(params: Mapping[str, Any], model: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`params` in this vendor's words, and a note on each change."""
    rest, effort = without_effort(params)
    told: tuple[str, ...] = ()
    if effort is not None and _NO_EFFORT.match(model):
        params, told = rest, (f"params: the effort is left out, {model} has no setting for it",)
    elif effort in NEAREST:
        params, told = (
            {**rest, FLAT_EFFORT: NEAREST[effort]},
            (f"params: the least effort there is: {NEAREST[effort]}",),
        )
    given, notes = in_words_of(params, caps=("max_tokens",), effort="output_config.effort")
    return given, notes + told
