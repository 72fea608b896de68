"""A JSON Schema in the form that Gemini and Vertex take as `responseJsonSchema`, or the reasons they cannot take it.

Known: `type`, `enum`, `format`, `title`, `description`, `properties`, `required`, `additionalProperties`, `items`,
`prefixItems`, `minItems`, `maxItems`, `minimum`, `maximum`, `anyOf`, `oneOf` (read as `anyOf`), `$defs`, `$ref`, `$id`,
`$anchor`; beside a `$ref` nothing else may stand (ai.google.dev/api/generate-content and the aiplatform v1 discovery
document of 2026-11-06, read 2026-11-21). Other keywords are ignored there without a word. What only tightens an answer
is left out, written into the description, and judged on our side; a schema whose meaning would change is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchctl.model.errors import UsageError
from batchctl.providers.dialect import NOISE, TIGHTENING, Dialect, Findings, reduced

NAME = "Google's structured output"
NOT_EXPRESSIBLE = frozenset(
    {
        "allOf",
        "patternProperties",
        "additionalItems",
        "unevaluatedItems",
        "unevaluatedProperties",
        "$dynamicRef",
        "$dynamicAnchor",
    }
)
DROPPED = TIGHTENING | {
    "pattern",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
}
FORMATS = frozenset({"date-time", "date", "time"})


def schema_part(schema: Mapping[str, Any], *, tool: bool, name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields of a request that carry the schema, and notes. `UsageError` when it cannot be said."""
    sent, findings = reduced(schema, DIALECT)
    blockers = list(findings.blockers)
    if tool and schema.get("type") != "object":
        blockers.insert(0, "#: the root is not `type: object`, which a tool needs")
    if blockers:
        more = f" ({len(blockers) - 5} more)" if len(blockers) > 5 else ""
        raise UsageError(
            "the schema cannot be sent to Google as it is" + more,
            where=blockers[:5],
            effect="nothing was written",
            hint='set [output] mode = "prompt", or change the schema',
        )
    notes = tuple(f"{one} is not enforced by the provider, judged here" for one in findings.dropped)
    if not tool:
        return {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": sent}}, notes
    function = {"name": name, "parametersJsonSchema": sent}
    calling = {"mode": "ANY", "allowedFunctionNames": [name]}
    return {
        "tools": [{"functionDeclarations": [function]}],
        "toolConfig": {"functionCallingConfig": calling},
    }, notes


def _each(schema: Mapping[str, Any], sent: dict[str, Any], pointer: str, findings: Findings) -> None:
    """Close what `reduced` leaves to the vendor: additional properties, constants, and what stands beside a `$ref`."""
    extra = schema.get("additionalProperties")
    if isinstance(extra, bool):
        sent["additionalProperties"] = extra
    elif isinstance(extra, dict):
        sent["additionalProperties"], inner = reduced(extra, DIALECT)
        for found, given in ((findings.blockers, inner.blockers), (findings.dropped, inner.dropped)):
            found += [f"{pointer}/additionalProperties{one.removeprefix('#')}" for one in given]
    if isinstance(sent.get("enum"), list) and any(isinstance(one, dict | list) for one in sent["enum"]):
        findings.blockers.append(f"{pointer}/enum: `enum` of objects or lists is not part of {NAME}")
    if "const" in sent:
        value = sent.pop("const")
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            sent["enum"] = [value]
        else:
            findings.dropped.append(f"{pointer}/const: `const`")
    reference = sent.get("$ref")
    if isinstance(reference, str):
        if not reference.startswith("#"):
            findings.blockers.append(f"{pointer}/$ref: `$ref` leads out of the schema")
        for key in [key for key in sent if not key.startswith("$")]:
            del sent[key]
            if key not in ("title", "description"):
                findings.dropped.append(f"{pointer}/{key}: `{key}` beside `$ref`")


DIALECT = Dialect(
    NAME,
    NOT_EXPRESSIBLE,
    _each,
    dropped=DROPPED,
    noise=NOISE - {"title"},
    formats=FORMATS,
    schema_lists=("anyOf", "prefixItems"),
    renamed={"oneOf": "anyOf"},
    explains=True,
)
