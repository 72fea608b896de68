"""Settings that every vendor has, each under a name of its own: one job file asks for them at any of them.

Only names that an endpoint does not have are changed; whatever it knows, and whatever nobody knows, is passed as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchctl.model.errors import UsageError

CAPS = ("max_output_tokens", "max_completion_tokens", "max_tokens")
"""The most tokens of an answer."""


def in_words_of(
    params: Mapping[str, Any], *, caps: Sequence[str], nested_effort: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`params` with the output cap under the first of `caps`, unless it has a name in it, and the reasoning effort as
    `reasoning.effort` or `reasoning_effort`; and a note on each change."""
    out: dict[str, Any] = {}
    notes = []
    for key, value in params.items():
        name, given = key, value
        if key in CAPS and key not in caps:
            name = caps[0]
        elif not nested_effort and key == "reasoning" and isinstance(value, Mapping) and set(value) == {"effort"}:
            name, given = "reasoning_effort", value["effort"]
        elif nested_effort and key == "reasoning_effort":
            name, given = "reasoning", {"effort": value}
        if name != key:
            if name in params:
                raise UsageError(
                    f"`{key}` and `{name}` say the same",
                    where="[model] params",
                    effect="nothing was written",
                    hint="remove one of them",
                )
            notes.append(f"params: `{key}` is sent as `{name}`")
        out[name] = given
    return out, tuple(notes)
