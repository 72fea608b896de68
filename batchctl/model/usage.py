"""Token counts as OpenAI-shaped answers and batch objects report them. Pure; what is no count is None, never 0."""

from __future__ import annotations

from typing import Any

from batchctl.model.rows import Usage

_MOST_TOKENS = 10**12


def counted(*counts: Any) -> Usage | None:
    """`Usage` of these counts, in its own order; None when any of them is no count."""
    for count in counts:
        if type(count) is not int or not 0 <= count <= _MOST_TOKENS:
            return None
    return Usage(*counts)


def openai_usage(usage: Any) -> Usage | None:
    """Tokens under the names of `/v1/responses` or of the older endpoints; None when any of them is no count."""
    if not isinstance(usage, dict):
        return None
    if "input_tokens" in usage:
        into, out = usage["input_tokens"], usage.get("output_tokens", 0)
        ins, outs = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    else:
        into, out = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
        ins, outs = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    cached = written = thought = 0
    if ins is not None:
        if not isinstance(ins, dict):
            return None
        cached = ins.get("cached_tokens", 0)
        written = ins.get("cache_write_tokens", 0)
    if outs is not None:
        if not isinstance(outs, dict):
            return None
        thought = outs.get("reasoning_tokens", 0)
    return counted(
        into,
        out,
        0 if cached is None else cached,
        0 if written is None else written,
        0 if thought is None else thought,
    )
