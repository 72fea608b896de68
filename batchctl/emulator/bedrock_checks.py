"""What the Bedrock wire refuses: creates, input files, and the bodies of records.

Patterns, lengths and enums are those of the service model of botocore 1.44.5, which checks none of the patterns itself;
the rules for files are those of docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-data, read 2026-11. The
words of messages are ours; error types and statuses are the service's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson

from batchctl.emulator.anthropic_checks import message_params, schema_problem
from batchctl.emulator.wire import WireError

CONVERSE, INVOKE = "Converse", "InvokeModel"
MOST_RECORDS = 50_000
MOST_BYTES = 1_000_000_000
TYPES = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    409: "ConflictException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9+\-.])*")
_TOKEN = re.compile(r"[a-zA-Z0-9]{1,256}(-*[a-zA-Z0-9]){0,256}")
_ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+")
_URI = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+(?:/[-!_*'().a-z0-9A-Z]+)*)?/?")
_MODEL = re.compile(
    r"arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]*:[a-z-]+/[a-zA-Z0-9.:/-]+"
    r"|[a-z0-9-]{1,63}[.][a-z0-9-]{1,63}([.]?[a-z0-9-]{1,63})([:][a-z0-9-]{1,63}){0,2}"
)
_CREATE = frozenset(
    (
        "jobName",
        "roleArn",
        "clientRequestToken",
        "modelId",
        "modelInvocationType",
        "inputDataConfig",
        "outputDataConfig",
        "vpcConfig",
        "timeoutDurationInHours",
        "tags",
    )
)
_CONVERSE = frozenset(
    (
        "messages",
        "system",
        "inferenceConfig",
        "guardrailConfig",
        "additionalModelRequestFields",
        "promptVariables",
        "additionalModelResponseFieldPaths",
        "requestMetadata",
        "performanceConfig",
        "serviceTier",
        "outputConfig",
    )
)
_INFERENCE = frozenset(("maxTokens", "temperature", "topP", "stopSequences"))
_FAMILIES = {
    "prompt/llama": frozenset(("prompt", "max_gen_len", "temperature", "top_p")),
    "prompt/mistral": frozenset(("prompt", "max_tokens", "stop", "temperature", "top_p", "top_k")),
    "chat": frozenset(
        ("messages", "max_tokens", "stop", "temperature", "top_p", "response_format", "tools", "tool_choice")
    ),
    "nova": frozenset(("schemaVersion", "system", "messages", "inferenceConfig", "toolConfig")),
    "titan": frozenset(("inputText", "dimensions", "normalize", "embeddingTypes")),
}


class RefusedError(WireError):
    """An error answer of this wire: its type travels in a header, its message in the body."""

    def __init__(
        self, message: str, *, status: int = 400, type_: str = "", headers: dict[str, str] | None = None
    ) -> None:
        kind = type_ or TYPES.get(status, "InternalServerException" if status >= 500 else TYPES[400])
        named = {"x-amzn-ErrorType": f"{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
        super().__init__(message, status=status, body={"message": message}, headers=named | (headers or {}))


def odd(error: BaseException) -> RefusedError:
    """The refusal of a request of a form that no check foresaw."""
    return RefusedError(f"Malformed input request: {error}")


def _need(good: bool, message: str) -> None:
    if not good:
        raise RefusedError(message)


def _text(body: dict[str, Any], name: str, pattern: re.Pattern[str], longest: int) -> str:
    value = body.get(name)
    _need(isinstance(value, str), f"{name}: Member must not be null")
    fits = isinstance(value, str) and len(value) <= longest and pattern.fullmatch(value) is not None
    _need(fits, f"Value at '{name}' failed to satisfy constraint: pattern {pattern.pattern}")
    return str(value)


def create(body: Any, models: tuple[str, ...]) -> dict[str, Any]:
    """The request of a create, with the two addresses at `input` and `output`."""
    _need(isinstance(body, dict), "Malformed input request: not an object")
    for name in body:
        _need(name in _CREATE, f"{name}: Extra inputs are not permitted")
    _text(body, "jobName", _NAME, 63)
    _text(body, "roleArn", _ROLE, 2048)
    model = _text(body, "modelId", _MODEL, 2048)
    if "clientRequestToken" in body:
        _text(body, "clientRequestToken", _TOKEN, 256)
    kind = body.get("modelInvocationType", INVOKE)
    _need(kind in (CONVERSE, INVOKE), f"modelInvocationType: [{INVOKE}, {CONVERSE}] expected")
    hours = body.get("timeoutDurationInHours", 24)
    _need(type(hours) is int and 24 <= hours <= 168, "timeoutDurationInHours: between 24 and 168 expected")
    known = not models or model in models
    _need(known and "nonexistent" not in model, "The provided model identifier is invalid.")
    given = (body.get("inputDataConfig") or {}).get("s3InputDataConfig") or {}
    _need(given.get("s3InputFormat", "JSONL") == "JSONL", "s3InputFormat: [JSONL] expected")
    source = _text(given, "s3Uri", _URI, 1024)
    _need(source.endswith(".jsonl"), "The input file must have the extension .jsonl")
    target = _text((body.get("outputDataConfig") or {}).get("s3OutputDataConfig") or {}, "s3Uri", _URI, 1024)
    return {**body, "modelInvocationType": kind, "input": source, "output": target}


def input_problem(path: Path, least: int) -> tuple[int, str]:
    """How many records a file has, and why the job fails in validation; "" when it does not."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        return 0, f"Validation failed: the input file has {size} bytes, the limit is {MOST_BYTES}."
    count = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            count += 1
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                return 0, f"Validation failed: line {number} of the input is not JSON."
            if not isinstance(record, dict) or not isinstance(record.get("modelInput"), dict):
                return 0, f"Validation failed: line {number} of the input has no modelInput."
            if not isinstance(record.get("recordId", ""), str):
                return 0, f"Validation failed: recordId in line {number} is not a string."
    if count < least:
        return 0, f"Validation failed: the number of records ({count}) is below the minimum ({least}) for this model."
    if count > MOST_RECORDS:
        return 0, f"Validation failed: the number of records ({count}) is above the maximum ({MOST_RECORDS})."
    return count, ""


def family_of(model: str) -> str:
    """Whose bodies a model takes, in this module's own words."""
    for start, family in (
        ("anthropic.", "anthropic"),
        ("amazon.nova", "nova"),
        ("amazon.titan-embed", "titan"),
        ("meta.llama", "prompt/llama"),
        ("mistral.mistral-7b", "prompt/mistral"),
        ("mistral.mixtral", "prompt/mistral"),
        ("mistral.mistral-large-2402", "prompt/mistral"),
        ("mistral.mistral-small-2402", "prompt/mistral"),
    ):
        if start in model:
            return family
    return "chat"


def record_body(kind: str, model: str, body: dict[str, Any]) -> None:
    """Refuse the body of one record as the model would; what passes here gets an answer."""
    if kind == CONVERSE:
        _converse(body, model)
        return
    family = family_of(model)
    if family == "anthropic":
        version = body.get("anthropic_version")
        _need(version == "bedrock-2023-05-31", "anthropic_version: Field required")
        _need("model" not in body, "model: Extra inputs are not permitted")
        rest = {key: value for key, value in body.items() if key != "anthropic_version"}
        message_params(rest | {"model": model}, ())
        return
    extra = body.keys() - _FAMILIES[family]
    _need(not extra, f"Malformed input request: #: extraneous key [{min(extra, default='')}] is not permitted")
    if family == "nova":
        _messages(body)
        _inference(body)
    elif family == "titan":
        text = body.get("inputText")
        _need(isinstance(text, str), "Malformed input request: #: required key [inputText] not found")
        _need(bool(text), "Malformed input request: #/inputText: expected minLength: 1, actual: 0")
        _need(body.get("dimensions", 1024) in (256, 512, 1024), "Malformed input request: #/dimensions")
    elif family == "chat":
        turns = body.get("messages")
        _need(isinstance(turns, list) and bool(turns), "Malformed input request: #: required key [messages] not found")
    else:
        text = body.get("prompt")
        _need(isinstance(text, str) and bool(text), "Malformed input request: #: required key [prompt] not found")


def _converse(body: dict[str, Any], model: str) -> None:
    _need("toolConfig" not in body, "toolConfig is not supported in batch inference jobs of type Converse")
    extra = body.keys() - _CONVERSE
    _need(
        not extra, f"The model returned the following errors: {min(extra, default='')}: Extra inputs are not permitted"
    )
    _messages(body)
    _inference(body)
    form = (body.get("outputConfig") or {}).get("textFormat")
    if form is not None:
        _need("claude" in model, "output_config.format: Extra inputs are not permitted")
        _need(form.get("type") == "json_schema", "outputConfig.textFormat.type: [json_schema] expected")
        schema = form["structure"]["jsonSchema"]["schema"]
        _need(isinstance(schema, str), "outputConfig.textFormat: schema must be a JSON string")
        problem = schema_problem(schema.encode())
        _need(problem is None, f"output_config.format.schema: {problem}")


def _messages(body: dict[str, Any]) -> None:
    turns = body.get("messages")
    _need(isinstance(turns, list) and bool(turns), "messages: must not be empty")
    for turn in turns or ():
        blocks = turn.get("content") if isinstance(turn, dict) else None
        good = isinstance(blocks, list) and bool(blocks) and all(isinstance(one, dict) for one in blocks or ())
        _need(good and turn.get("role") in ("user", "assistant"), "messages: role and content blocks expected")
        _need(all(one.get("text", "x") for one in blocks or ()), "The text field in the ContentBlock object is blank.")
    system = body.get("system", [])
    _need(
        isinstance(system, list) and all(isinstance(one, dict) for one in system), "system: a list of blocks expected"
    )


def _inference(body: dict[str, Any]) -> None:
    given = body.get("inferenceConfig", {})
    _need(isinstance(given, dict), "inferenceConfig: an object expected")
    extra = given.keys() - _INFERENCE - {"topK"}
    _need(not extra, f"inferenceConfig.{min(extra, default='')}: Extra inputs are not permitted")
    cap = given.get("maxTokens")
    _need(cap is None or (type(cap) is int and cap >= 1), "inferenceConfig.maxTokens: at least 1 expected")
