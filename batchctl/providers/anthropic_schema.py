"""A JSON Schema in the form Anthropic's structured output takes, or the reasons it cannot take it.

It wants a type, `anyOf`, `enum`, `const` or `$ref` everywhere, `additionalProperties: false` on every object and no
recursion; it knows no bounds of numbers, lengths or arrays (platform.claude.com/docs/en/build-with-claude/
structured-outputs, and `transform_schema` of anthropic 2.12.0, both read 2026-11-21). What only tightens an answer is
left out, written into the description as the vendor's SDK does, and judged on our side. There is no looser form of the
output format, so a schema whose meaning would change is refused; a tool without `strict` takes any schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from batchctl.model.errors import UsageError
from batchctl.providers.dialect import FORMATS, NOISE, TIGHTENING, Dialect, Findings, close_object, is_object, reduced

NAME = "Anthropic's structured output"
MOST_OPTIONAL = 24  # over the whole schema, as are the unions
MOST_UNIONS = 16
NOT_EXPRESSIBLE = frozenset(
    {
        "patternProperties",
        "prefixItems",
        "additionalItems",
        "unevaluatedItems",
        "unevaluatedProperties",
        "$dynamicRef",
        "$dynamicAnchor",
        "$anchor",
        "$id",
    }
)
DROPPED = TIGHTENING | {
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "maxItems",
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
}
_NOT_IN_PATTERNS = re.compile(r"\(\?[=!<]|\\[1-9bB]|\\p")
"""Lookaround, back references and word boundaries."""


def native_form(schema: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """What to send, what keeps it from being sent (`pointer: ...`), and notes on what will not be enforced."""
    sent, findings = reduced(schema, DIALECT)
    blockers = list(findings.blockers)
    cycle = _cycle(schema)
    if cycle is not None:
        blockers.append(f"{cycle}: `$ref` leads back to itself, {NAME} takes no recursion")
    optional = unions = 0
    for one in _parts(sent):
        optional += len(one.get("properties", {}).keys() - set(one.get("required", ())))
        unions += "anyOf" in one or isinstance(one.get("type"), list)
    if optional > MOST_OPTIONAL:
        blockers.append(f"#: {optional} optional properties, {NAME} takes {MOST_OPTIONAL}")
    if unions > MOST_UNIONS:
        blockers.append(f"#: {unions} properties of several types, {NAME} takes {MOST_UNIONS}")
    return (
        sent,
        tuple(blockers),
        tuple(f"{one} is not enforced by the provider, judged here" for one in findings.dropped),
    )


def schema_part(schema: Mapping[str, Any], *, tool: bool, name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The schema as this vendor takes it, and notes. `UsageError` when the output format cannot say it."""
    sent, blockers, notes = native_form(schema)
    if tool:
        if schema.get("type") != "object":
            blockers = ("#: the root is not `type: object`, which a tool needs", *blockers)
            raise _not_expressible(blockers, 'set [output] mode = "prompt", or wrap the answer in an object')
        choice = {"type": "tool", "name": name}
        if blockers:
            whole_schema = {key: value for key, value in schema.items() if key != "$schema"}
            told = tuple(f"{one}; sent without strict, judged here" for one in blockers)
            return {"tools": [{"name": name, "input_schema": whole_schema}], "tool_choice": choice}, told
        return {"tools": [{"name": name, "strict": True, "input_schema": sent}], "tool_choice": choice}, notes
    if blockers:
        raise _not_expressible(blockers, 'set [output] mode = "tool", which takes any schema, or change the schema')
    return {"output_config": {"format": {"type": "json_schema", "schema": sent}}}, notes


def _not_expressible(blockers: tuple[str, ...], hint: str) -> UsageError:
    more = f" ({len(blockers) - 5} more)" if len(blockers) > 5 else ""
    return UsageError(
        "the schema cannot be sent to Anthropic as it is" + more,
        where=blockers[:5],
        effect="nothing was written",
        hint=hint,
    )


def _each(schema: Mapping[str, Any], sent: dict[str, Any], pointer: str, findings: Findings) -> None:
    if not {"type", "anyOf", "oneOf", "allOf", "enum", "const", "$ref", "properties"} & schema.keys():
        findings.blockers.append(f"{pointer}: no `type`, {NAME} wants one")
    reference = schema.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        findings.blockers.append(f"{pointer}/$ref: `$ref` leads out of the schema")
    if "allOf" in schema and any(isinstance(one, dict) and "$ref" in one for one in [schema, *schema["allOf"]]):
        findings.blockers.append(f"{pointer}/allOf: `allOf` together with `$ref` is not part of {NAME}")
    if any(isinstance(one, dict | list) for one in schema.get("enum", ())):
        findings.blockers.append(f"{pointer}/enum: `enum` of objects or lists is not part of {NAME}")
    if is_object(schema):
        sent.setdefault("type", "object")
        close_object(schema, sent, pointer, NAME, findings)


def _drops(key: str, value: Any) -> bool:
    if key == "minItems":
        return bool(value not in (0, 1))
    return key == "pattern" and (not isinstance(value, str) or _NOT_IN_PATTERNS.search(value) is not None)


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema inside a schema that has been reduced."""
    if not isinstance(schema, dict):
        return
    yield schema
    for key in ("properties", "$defs", "definitions"):
        for one in schema.get(key, {}).values():
            yield from _parts(one)
    for key in ("anyOf", "allOf"):
        for one in schema.get(key, ()):
            yield from _parts(one)
    yield from _parts(schema.get("items"))


def _cycle(root: Mapping[str, Any]) -> str | None:
    """The pointer of a reference through which a schema contains itself, or None. Each target is looked into once."""
    done: set[str] = set()

    def walk(value: Any, pointer: str, inside: tuple[str, ...]) -> str | None:
        if isinstance(value, list):
            value = dict(enumerate(value))
        if not isinstance(value, dict):
            return None
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            if reference in inside:
                return f"{pointer}/$ref"
            found = None if reference in done else walk(_resolved(root, reference), reference, (*inside, reference))
            done.add(reference)
            if found:
                return found
        parts = ((key, one) for key, one in value.items() if key not in ("$defs", "definitions", "enum", "const"))
        return next(filter(None, (walk(one, f"{pointer}/{key}", inside) for key, one in parts)), None)

    return walk(root, "#", ("#",))


def _resolved(root: Mapping[str, Any], reference: str) -> Any:
    """What a reference inside the schema points at; None for one that points nowhere (`Schema.load` refuses those)."""
    value: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list):
            value = value[int(name)] if name.isdigit() and int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


DIALECT = Dialect(
    NAME,
    NOT_EXPRESSIBLE,
    _each,
    dropped=DROPPED,
    noise=NOISE - {"title", "default"},
    formats=FORMATS | {"uri"},
    schema_lists=("anyOf", "allOf"),
    renamed={"oneOf": "anyOf"},
    drops=_drops,
    explains=True,
)
