"""The shape of `results.jsonl`: the same columns, in the same order, of the same types, whoever answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NULL, TEXT = "null", "text"
COLUMNS: dict[str, set[str]] = {
    "id": {TEXT},
    "state": {TEXT},
    "output": {"object", NULL},
    "reason": {TEXT, NULL},
    "detail": {TEXT, NULL},
    "attempt": {"whole"},
    "copied_from": {TEXT, NULL},
    "usage": {"object", NULL},
    "cost_usd": {TEXT, NULL},
    "provider": {TEXT},
    "model": {TEXT},
    "batch_id": {TEXT, NULL},
    "request_id": {TEXT, NULL},
    "prompt_version": {TEXT, NULL},
    "schema_version": {TEXT, NULL},
    "created_at": {TEXT, NULL},
    "row": {"object"},
}
"""For a job with a schema whose answers are objects."""
USAGE = {
    "input_tokens": {"whole"},
    "output_tokens": {"whole"},
    "cached_tokens": {"whole", NULL},
    "cache_write_tokens": {"whole", NULL},
    "reasoning_tokens": {"whole", NULL},
}
_NAMES = {str: TEXT, int: "whole", float: "number", bool: "flag", dict: "object", list: "list", type(None): NULL}


def types_of(objects: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Columns in their order, each with the types its values have. Objects of different columns have no shape."""
    assert len({tuple(one) for one in objects}) == 1, "the columns differ from line to line"
    return {name: {_NAMES[type(one[name])] for one in objects} for name in objects[0]}


def check_shape(path: Path) -> list[dict[str, Any]]:
    """The lines of a `results.jsonl` that has the one shape."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    for found, wanted in (
        (types_of(lines), COLUMNS),
        (types_of([one["usage"] for one in lines if one["usage"]]), USAGE),
    ):
        assert list(found) == list(wanted)
        assert {name: types for name, types in found.items() if not types <= wanted[name]} == {}
    return lines
