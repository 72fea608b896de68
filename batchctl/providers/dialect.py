"""Reducing a JSON Schema to what a vendor's structured output takes: the walk that all vendors share.

A vendor knows only some keywords. One that merely tightens an answer is *dropped* from what is sent and judged on our
side; one whose loss would change what an answer means is a *blocker*. Both are told with pointer and keyword. Which is
which, and what every object must carry, is the vendor's `Dialect`; the user's full schema judges every answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

NOISE = frozenset({"$schema", "$comment", "title", "examples", "default", "deprecated", "readOnly", "writeOnly"})
TIGHTENING = frozenset(
    {
        "minLength",
        "maxLength",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "contains",
        "minContains",
        "maxContains",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "propertyNames",
    }
)
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
SCHEMA_MAPS = ("properties", "$defs", "definitions")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one vendor's structured output knows.

    `each` sees every schema after its parts: it may change what is sent of it and add findings. `drops` says of a value
    whether its keyword has to be left out, where that depends on the value. `explains` writes dropped keywords into the
    description, where the model reads them.
    """

    name: str
    refused: frozenset[str]
    each: Callable[[Mapping[str, Any], dict[str, Any], str, Findings], None]
    dropped: frozenset[str] = TIGHTENING
    noise: frozenset[str] = NOISE
    formats: frozenset[str] = FORMATS
    schema_lists: tuple[str, ...] = ("anyOf",)
    renamed: Mapping[str, str] = field(default_factory=dict)
    drops: Callable[[str, Any], bool] = lambda _key, _value: False
    explains: bool = False


@dataclass(slots=True)
class Findings:
    """What could not be sent, each as `pointer: words`."""

    blockers: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def reduced(schema: Mapping[str, Any], dialect: Dialect) -> tuple[dict[str, Any], Findings]:
    """What to send of `schema` in this dialect, and what that leaves out."""
    findings = Findings()
    return _reduce(schema, "#", dialect, findings), findings


def _reduce(schema: Mapping[str, Any], pointer: str, dialect: Dialect, findings: Findings) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    lost: dict[str, Any] = {}
    for key, value in schema.items():
        at = f"{pointer}/{key}"
        if key in dialect.noise:
            continue
        if key in dialect.refused:
            findings.blockers.append(f"{at}: `{key}` is not part of {dialect.name}")
        elif key in dialect.dropped or (key == "format" and value not in dialect.formats) or dialect.drops(key, value):
            findings.dropped.append(f"{at}: `{key}`")
            lost[key] = value
        elif key in SCHEMA_MAPS and isinstance(value, dict):
            sent[key] = {name: _child(one, f"{at}/{name}", dialect, findings) for name, one in value.items()}
        elif key in (*dialect.schema_lists, *dialect.renamed) and isinstance(value, list):
            parts = [_child(one, f"{at}/{place}", dialect, findings) for place, one in enumerate(value)]
            sent[dialect.renamed.get(key, key)] = parts
        elif key == "items":
            sent[key] = _child(value, at, dialect, findings)
        elif key != "additionalProperties":
            sent[key] = value
    if lost and dialect.explains:
        words = "{" + ", ".join(f"{key}: {value}" for key, value in lost.items()) + "}"
        sent["description"] = f"{sent['description']}\n\n{words}" if "description" in sent else words
    dialect.each(schema, sent, pointer, findings)
    return sent


def _child(value: Any, pointer: str, dialect: Dialect, findings: Findings) -> Any:
    if not isinstance(value, dict):
        findings.blockers.append(f"{pointer}: a boolean schema is not part of {dialect.name}")
        return value
    return _reduce(value, pointer, dialect, findings)


def is_object(schema: Mapping[str, Any]) -> bool:
    """Whether a schema describes objects, as far as it says."""
    kinds = schema.get("type")
    return kinds == "object" or (isinstance(kinds, list) and "object" in kinds) or "properties" in schema


def close_object(
    schema: Mapping[str, Any], sent: dict[str, Any], pointer: str, dialect: str, findings: Findings
) -> None:
    """Make an object take its named properties only; a schema that lets others in cannot be sent."""
    if schema.get("additionalProperties", False) is not False:
        findings.blockers.append(f"{pointer}/additionalProperties: {dialect} wants false")
    sent["properties"] = sent.get("properties", {})
    sent["required"] = list(schema.get("required", []))
    sent["additionalProperties"] = False
