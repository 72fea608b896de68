"""What a Bedrock model is asked with: one request body per way of asking and model family.

`Converse` is one body for every chat model, built into each model's own prompt by the service. `InvokeModel` takes the
model's own body: for embeddings, for tools, and where a model has no Converse. A schema goes along where the model has
structured output; where it has none the schema is put into words, and every answer is judged on our side all the same.

Text that goes into the `prompt` of Llama or Mistral stands between their control words; a row that holds such words could
end its own turn. `Converse` keeps row text apart.

Facts: docs.aws.amazon.com/bedrock/latest/userguide (batch-inference-data, model-parameters-*, structured-output,
claude-messages-structured-outputs) and the service models of botocore 1.44.5, read 2026-11-21.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import orjson

from batchctl.model.batches import Ask
from batchctl.model.errors import UsageError
from batchctl.providers.anthropic_schema import schema_part
from batchctl.providers.http import merged
from batchctl.providers.params import CAPS, NESTED_EFFORT, NO_NAMES, in_words_of, without_effort

CONVERSE, INVOKE = "Converse", "InvokeModel"
ANTHROPIC_VERSION = "bedrock-2023-05-31"
MAX_TOKENS = 4096
LLAMA_TOKENS = 2048
SCHEMA_WORDS = (
    "Answer with one JSON value that fits this JSON Schema, and with nothing else: no code fence, no explanation.\n"
)
IN_CONFIG = {
    "temperature": "inferenceConfig.temperature",
    "top_p": "inferenceConfig.topP",
    "topP": "inferenceConfig.topP",
    "stop_sequences": "inferenceConfig.stopSequences",
    "stopSequences": "inferenceConfig.stopSequences",
}
"""Where Converse and Nova have settings that stand at the top elsewhere."""


class Family(StrEnum):
    """Model families that differ in their own request and answer."""

    ANTHROPIC = "anthropic"
    NOVA = "nova"
    LLAMA = "llama"
    MISTRAL_TEXT = "mistral, by prompt"
    MISTRAL = "mistral"
    TITAN = "titan embeddings"
    OTHER = "other"


_FAMILIES = (
    (r"anthropic\.", Family.ANTHROPIC),
    (r"amazon\.nova", Family.NOVA),
    (r"amazon\.titan-embed-text", Family.TITAN),
    (r"meta\.llama", Family.LLAMA),
    (r"mistral\.(?:mistral-7b|mixtral|mistral-large-2402|mistral-small-2402)", Family.MISTRAL_TEXT),
    (r"mistral\.", Family.MISTRAL),
)
_SHAPED = re.compile(r"claude-(?:sonnet-4-[56]|haiku-4-5|opus-4-[56])(?!\d)")
"""Claude models the vendor lists with structured output."""
_CAP_OF = {
    Family.ANTHROPIC: "max_tokens",
    Family.LLAMA: "max_gen_len",
    Family.MISTRAL_TEXT: "max_tokens",
    Family.MISTRAL: "max_tokens",
}
OWN = ("messages", "system", "prompt", "inputText", "anthropic_version", "schemaVersion", "model", "modelId", "stream")


def family_of(model: str) -> Family:
    """Whose shapes a model has, told by its id: of a model, of an inference profile, or an ARN of either."""
    name = model.rpartition("/")[2]
    return next((family for start, family in _FAMILIES if re.search(rf"(?:^|\.){start}", name)), Family.OTHER)


def takes_schema(model: str) -> bool:
    """Whether a model is listed with structured output. The newest page says that batches have it, an older one not."""
    return family_of(model) is Family.ANTHROPIC and _SHAPED.search(model) is not None


def endpoints_of(model: str) -> tuple[str, ...]:
    """The ways a model can be asked in batch, the usual one first."""
    family = family_of(model)
    if family is Family.TITAN:
        return (INVOKE,)
    return (CONVERSE,) if family is Family.OTHER and model else (CONVERSE, INVOKE)


def body_of(ask: Ask) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body for one row, and notes. `UsageError` for what every row would be refused for."""
    family = family_of(ask.model)
    if ask.endpoint not in endpoints_of(ask.model):
        raise UsageError(
            f"`{ask.model}` cannot be asked by {ask.endpoint} in batch",
            where="[model] endpoint",
            effect="nothing was written",
            hint="use " + " or ".join(endpoints_of(ask.model)),
        )
    params, renamed = _translated(ask.endpoint, family, ask.params)
    system = ask.system
    notes: tuple[str, ...] = ()
    shape: dict[str, Any] = {}
    if ask.schema is not None and ask.mode != "prompt" and family is not Family.TITAN:
        shape, words, notes = _schema(ask, family, ask.schema)
        if words:
            system = words if system is None else f"{system}\n\n{words}"
    if ask.endpoint == CONVERSE:
        body = _converse(ask.prompt, system, user_only=family is Family.MISTRAL_TEXT)
    else:
        body = _INVOKE[family](ask.prompt, system)
        cap = _CAP_OF.get(family)
        if cap in body and cap not in params:
            notes = (f"{cap}: {body[cap]:,}, because [model] params sets none", *notes)
    return merged(body | shape, params, OWN), renamed + notes


def _translated(endpoint: str, family: Family, params: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Settings under the names this way of asking has for them, and notes. Every request would be refused otherwise."""
    if family is Family.TITAN:
        foreign = next((one for one in CAPS if one in params), None)
        if foreign is None:
            return params, ()
        raise UsageError(
            f"bedrock knows no `{foreign}` for this model by {endpoint}",
            where="[model] params",
            effect="nothing was written",
            hint="remove it: an embedding has no output tokens",
        )
    params, effort = without_effort(params)
    told = () if effort is None else ("params: the effort is left out, not verified in Bedrock's batch",)
    nested = endpoint == CONVERSE or family is Family.NOVA
    caps = ("inferenceConfig.maxTokens",) if nested else (_CAP_OF[family],)
    given, notes = in_words_of(params, caps=caps, effort=NESTED_EFFORT, renamed=IN_CONFIG if nested else NO_NAMES)
    return given, notes + told


# --- schemas -------------------------------------------------------------------------------------------------------


def _schema(ask: Ask, family: Family, schema: Mapping[str, Any]) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """The schema as members of the body, or as words, and notes."""
    if ask.mode == "tool":
        if ask.endpoint == INVOKE and family is Family.ANTHROPIC:
            part, notes = schema_part(schema, tool=True, name=ask.schema_name)
            return part, "", notes
        claude = family is Family.ANTHROPIC
        raise UsageError(
            "tools cannot be used here in batch: Bedrock refuses them in Converse jobs, and batchctl writes them for "
            "Claude only",
            where='[output] mode = "tool"',
            effect="nothing was written",
            hint='set [model] endpoint = "InvokeModel"' if claude else 'use mode = "native" or "prompt"',
        )
    if takes_schema(ask.model):
        part, notes = schema_part(schema, tool=False, name=ask.schema_name)
        if ask.endpoint == INVOKE:
            return part, "", notes
        text = orjson.dumps(part["output_config"]["format"]["schema"]).decode()
        form = {"type": "json_schema", "structure": {"jsonSchema": {"name": ask.schema_name, "schema": text}}}
        return {"outputConfig": {"textFormat": form}}, "", notes
    plain = {key: value for key, value in schema.items() if key != "$schema"}
    note = "#: this model has no structured output on Bedrock; the schema is sent in words and judged here"
    return {}, SCHEMA_WORDS + orjson.dumps(plain).decode(), (note,)


# --- bodies --------------------------------------------------------------------------------------------------------


def _joined(system: str | None, prompt: str) -> str:
    return prompt if system is None else f"{system}\n\n{prompt}"


def _converse(prompt: str, system: str | None, *, user_only: bool) -> dict[str, Any]:
    """`user_only`: the model takes no system text (Mistral 7B and Mixtral)."""
    if system is None or user_only:
        return {"messages": [{"role": "user", "content": [{"text": _joined(system, prompt)}]}]}
    return {"system": [{"text": system}], "messages": [{"role": "user", "content": [{"text": prompt}]}]}


def _anthropic(prompt: str, system: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"anthropic_version": ANTHROPIC_VERSION, "max_tokens": MAX_TOKENS}
    if system is not None:
        body["system"] = system
    return body | {"messages": [{"role": "user", "content": prompt}]}


def _nova(prompt: str, system: str | None) -> dict[str, Any]:
    return {"schemaVersion": "messages-v1"} | _converse(prompt, system, user_only=False)


def _llama(prompt: str, system: str | None) -> dict[str, Any]:
    turns = [] if system is None else [("system", system)]
    text = "".join(
        f"<|start_header_id|>{role}<|end_header_id|>\n\n{words}<|eot_id|>" for role, words in [*turns, ("user", prompt)]
    )
    asked = f"<|begin_of_text|>{text}<|start_header_id|>assistant<|end_header_id|>\n\n"
    return {"prompt": asked, "max_gen_len": LLAMA_TOKENS}


def _mistral_text(prompt: str, system: str | None) -> dict[str, Any]:
    return {"prompt": f"<s>[INST] {_joined(system, prompt)} [/INST]", "max_tokens": MAX_TOKENS}


def _mistral(prompt: str, system: str | None) -> dict[str, Any]:
    turns = [] if system is None else [{"role": "system", "content": system}]
    return {"messages": [*turns, {"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS}


def _titan(prompt: str, system: str | None) -> dict[str, Any]:
    return {"inputText": _joined(system, prompt)}


_INVOKE = {
    Family.ANTHROPIC: _anthropic,
    Family.NOVA: _nova,
    Family.LLAMA: _llama,
    Family.MISTRAL_TEXT: _mistral_text,
    Family.MISTRAL: _mistral,
    Family.TITAN: _titan,
}


def problem_of(endpoint: str, model: str, body: Any) -> str | None:
    """What the vendor would refuse about a body as written; None when nothing is seen."""
    if endpoint not in endpoints_of(model):
        return f"`{model}` cannot be asked by {endpoint}"
    if not isinstance(body, dict):
        return "modelInput is not an object"
    extra = {"model", "modelId", "stream"} & body.keys()
    if extra:
        return f"`{min(extra)}` belongs to the job, not to a record"
    if endpoint == CONVERSE:
        if "toolConfig" in body:
            return "`toolConfig` is refused in Converse jobs"
        wanted: tuple[str, ...] = ("messages",)
    else:
        wanted = tuple(key for key in _INVOKE[family_of(model)]("", None) if key in OWN and key != "schemaVersion")
    missing = next((key for key in wanted if key not in body), None)
    return None if missing is None else f"`{missing}` is missing, which {endpoint} needs for this model"
