"""Requests of Gemini and Vertex: `GenerateContentRequest` and `EmbedContentRequest`, and their lines.

A line is `{"key": "<row id>", "request": {...}}`. The model is no part of it: it stands in the endpoint, which is the
last part of the vendor's own address (`models/gemini-2.5-flash:generateContent`). Field names are emitted in camelCase,
as the vendor has them; `params` may use either spelling, and settings of `generationConfig` may stand at their top.

Field names: aiplatform v1 discovery of 2026-11-06 and ai.google.dev/api/generate-content, read 2026-11-21.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from batchctl.model.batches import Ask
from batchctl.model.errors import UsageError
from batchctl.providers.google_schema import schema_part
from batchctl.providers.http import merged
from batchctl.providers.params import NESTED_EFFORT, in_words_of, without_effort

GENERATE, EMBED = "generateContent", "embedContent"
_SETTINGS = (
    "temperature topP topK candidateCount maxOutputTokens stopSequences presencePenalty frequencyPenalty "
    "responseLogprobs logprobs seed thinkingConfig responseModalities speechConfig mediaResolution audioTimestamp "
    "routingConfig modelConfig imageConfig enableAffectiveDialog enableEnhancedCivicAnswers responseMimeType "
    "responseSchema responseJsonSchema"
)
SETTINGS = frozenset(_SETTINGS.split())
"""Fields of `generationConfig`."""
TOP = frozenset(
    ["safetySettings", "tools", "toolConfig", "cachedContent", "labels", "modelArmorConfig", "generationConfig"]
)
OWN = ("model", "contents", "content", "systemInstruction", "system_instruction")
BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
"""`reasoning.effort` in tokens for models before Gemini 3, which know no levels: the numbers of Google's OpenAI-compatible
endpoint as others report them, not verified at the vendor's page (2026-11-21); `minimal` is our own."""
LEVELS = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH"}
_BUDGET_MODELS = re.compile(r"gemini-(?:1|2)[.-]")
_KEY = re.compile(r"[ -~]{1,200}")


def method_of(model: str) -> str:
    """Embedding models answer to another method than all others."""
    return EMBED if "embedding" in model else GENERATE


def body(ask: Ask) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request for one row, and notes. `UsageError` for what the vendor would refuse in every row."""
    params, renamed = in_words_of(ask.params, caps=("max_output_tokens", "maxOutputTokens"), effort=NESTED_EFFORT)
    if method_of(ask.model) == EMBED:
        text = ask.prompt if ask.system is None else f"{ask.system}\n\n{ask.prompt}"
        return merged({"content": {"parts": [{"text": text}]}}, _camel_keys(params), OWN), renamed
    request: dict[str, Any] = {}
    if ask.system is not None:
        request["systemInstruction"] = {"parts": [{"text": ask.system}]}
    request["contents"] = [{"role": "user", "parts": [{"text": ask.prompt}]}]
    notes: tuple[str, ...] = ()
    if ask.schema is not None and ask.mode != "prompt":
        part, notes = schema_part(ask.schema, tool=ask.mode == "tool", name=ask.schema_name)
        request |= part
    given, told = _placed(params, ask.model)
    return merged(request, given, OWN), (*renamed, *told, *notes)


def _placed(params: Mapping[str, Any], model: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`params` where the vendor wants them, and notes on what was translated."""
    top: dict[str, Any] = {}
    config: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    params, effort = without_effort(params)
    if effort is not None:
        config["thinkingConfig"], notes = _thinking(effort, model)
    for key, value in params.items():
        name = camel(key)
        if name == "generationConfig":
            if not isinstance(value, Mapping):
                raise UsageError(
                    "`generationConfig` must be a table", where="[model] params", effect="nothing was written"
                )
            config |= _camel_keys(value)
        elif name in SETTINGS:
            if name in config:
                raise UsageError(f"`{key}` is set twice", where="[model] params", effect="nothing was written")
            config[name] = value
        else:
            top[name if name in TOP else key] = value
    if config.get("candidateCount", 1) != 1:
        raise UsageError(
            "one answer is kept for each row: `candidateCount` must be 1",
            where="[model] params",
            effect="nothing was written",
            hint="remove it",
        )
    return (top | {"generationConfig": config} if config else top), notes


def _thinking(effort: str, model: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`reasoning = {effort = "low"}`, as other providers have it, in this vendor's words."""
    if _BUDGET_MODELS.match(model.rpartition("/")[2]):
        return {"thinkingBudget": BUDGETS[effort]}, (f"reasoning: sent as thinkingBudget {BUDGETS[effort]:,}",)
    return {"thinkingLevel": LEVELS[effort]}, (f"reasoning: sent as thinkingLevel {LEVELS[effort]}",)


def camel(name: str) -> str:
    """`max_output_tokens` as `maxOutputTokens`; what is in camelCase stays."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _camel_keys(params: Mapping[str, Any]) -> dict[str, Any]:
    return {camel(key): value for key, value in params.items()}


def encode(custom_id: str, request: Mapping[str, Any]) -> bytes:
    """One line; the id stands first, where it is looked for."""
    return orjson.dumps({"key": custom_id, "request": request})


def empty_object(value: Any, pointer: str = "#") -> str | None:
    """The pointer of the first empty object in a request, or None. Vertex refuses a file that holds one."""
    if isinstance(value, Mapping):
        if not value:
            return pointer
        parts = value.items()
    elif isinstance(value, list):
        parts = dict(enumerate(value)).items()
    else:
        return None
    return next(filter(None, (empty_object(one, f"{pointer}/{key}") for key, one in parts)), None)


def line_problem(line: bytes, method: str) -> str | None:
    """What the vendor would refuse about a line, or None. A broken line fails the whole job there, without its number."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error}"
    if not isinstance(value, dict) or value.keys() != {"key", "request"}:
        return "not an object with exactly key and request"
    if not isinstance(value["key"], str) or not _KEY.fullmatch(value["key"]):
        return "key is not 1 to 200 printable characters"
    request = value["request"]
    if not isinstance(request, dict):
        return "request is not an object"
    if "model" in request:
        return "`model` stands in the endpoint, not in the request"
    wanted, other = ("content", "contents") if method == EMBED else ("contents", "content")
    if not request.get(wanted) or other in request:
        return f"no request for {method}"
    return None
