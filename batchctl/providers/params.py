"""Settings that every vendor has, each under a name of its own: one job file asks for them at any of them.

Only names that an endpoint does not have are changed; whatever it knows, and whatever nobody knows, is passed as it is.
A name with dots is a place inside tables: `inferenceConfig.maxTokens`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchctl.model.errors import UsageError

CAPS = ("max_output_tokens", "max_completion_tokens", "max_tokens", "maxOutputTokens", "max_gen_len", "maxTokens")
"""The most tokens of an answer, as vendors call it."""
NESTED_EFFORT, FLAT_EFFORT = "reasoning.effort", "reasoning_effort"
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
"""What may be asked for at any vendor; one that has no such level gets the nearest, or none and a note."""
NO_NAMES: Mapping[str, str] = {}


def in_words_of(
    params: Mapping[str, Any],
    *,
    caps: Sequence[str],
    effort: str,
    renamed: Mapping[str, str] = NO_NAMES,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`params` with the output cap under the first of `caps`, unless it has a name in it, the reasoning effort at
    `effort`, and what `renamed` names elsewhere; and a note on each change."""
    out: dict[str, Any] = {}
    moved: list[tuple[str, str, Any]] = []
    for key, value in params.items():
        name, given = key, value
        if key in CAPS and key not in caps:
            name = caps[0]
        elif key == "reasoning" and isinstance(value, Mapping) and set(value) == {"effort"}:
            name, given = (key, value) if effort == NESTED_EFFORT else (effort, value["effort"])
        elif key == FLAT_EFFORT:
            name = effort
        else:
            name = renamed.get(key, key)
        if name == key:
            out[key] = given
        else:
            moved.append((key, name, given))
    for key, name, given in moved:
        _put(out, name, given, key)
    return out, tuple(f"params: `{key}` is sent as `{name}`" for key, name, _ in moved)


def _put(out: dict[str, Any], name: str, value: Any, key: str) -> None:
    """Set `name`, making copies of the tables on the way."""
    *tables, last = name.split(".")
    for table in tables:
        inner = out.get(table, {})
        if not isinstance(inner, Mapping):
            raise UsageError(f"`{table}` must be a table", where="[model] params", effect="nothing was written")
        out[table] = out = dict(inner)
    if last in out:
        raise UsageError(
            f"`{key}` and `{name}` say the same",
            where="[model] params",
            effect="nothing was written",
            hint="remove one of them",
        )
    out[last] = value


def without_effort(params: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """`params` without `reasoning`, and the effort it asks for, for a vendor that has other words for it."""
    rest = {key: value for key, value in params.items() if key not in ("reasoning", FLAT_EFFORT)}
    if len(rest) == len(params):
        return rest, None
    named, _ = in_words_of(params, caps=CAPS, effort=FLAT_EFFORT)
    effort = named.get(FLAT_EFFORT)
    if "reasoning" in named or effort not in EFFORTS:
        raise UsageError(
            "`reasoning` can only hold `effort`, one of " + ", ".join(EFFORTS),
            where="[model] params",
            effect="nothing was written",
            hint="write the provider's own setting instead",
        )
    return rest, str(effort)
