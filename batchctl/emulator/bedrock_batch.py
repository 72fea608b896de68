"""Bedrock's batch jobs: records out of S3, answers in the shape of each model family, results and manifest into S3.

Rows that were not processed have no line; a record that failed has `error` in place of `modelOutput`. The records are
echoed, as the service does (docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-results, read 2026-11).
"""

from __future__ import annotations

import math
import os
from contextlib import closing
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from batchctl.emulator.anthropic_batch import answer as message
from batchctl.emulator.bedrock_checks import (
    CONVERSE,
    family_of,
    input_problem,
    odd,
    record_body,
)
from batchctl.emulator.faults import Fates
from batchctl.emulator.process import Made, Valid
from batchctl.emulator.rows import answered
from batchctl.emulator.saying import Answer, Asked, Said, as_read, say, used_of, words
from batchctl.emulator.settings import Settings
from batchctl.emulator.store import Store, new_id, private_file
from batchctl.emulator.wire import ODD, WireError

WIRE = "bedrock"
NO_ACCESS = "Could not access the S3 input bucket or prefix with the given role."
ERRORS = {
    "error500": (500, "The system encountered an unexpected error during processing. Try your request again."),
    "error429": (429, "Too many requests, please wait before trying again."),
    "timeout": (408, "Model has timed out in processing the request. Try your request again."),
    "unknown": (0, ""),
}
_STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "refusal": "guardrail_intervened",
    "content_filter": "content_filtered",
}
_KIND_OF_SCHEMA = "JSON Schema"


@lru_cache(maxsize=1)
def _session() -> Any:
    """Reading the SDK's own descriptions of S3 is what costs, so that is done once."""
    import boto3

    keys = {"aws_access_key_id": "emulator", "aws_secret_access_key": "emulator"}
    return boto3.session.Session(region_name="us-east-1", **keys)


def s3_at(address: str) -> Any:
    """A client of the S3 server at `address`. Close it."""
    from botocore.config import Config

    config = Config(proxies={}, s3={"addressing_style": "path"}, retries={"total_max_attempts": 3, "mode": "standard"})
    return _session().client("s3", endpoint_url=address, config=config)


def s3_of(settings: Settings) -> str:
    """Where the S3 server is that this wire reads and writes; "" when nobody said."""
    return settings.s3 or os.environ.get("AWS_ENDPOINT_URL_S3", "")


def place_of(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class BedrockBatches:
    """What the worker needs to know of this wire. Inputs are brought from S3 when they are validated."""

    one_file = True

    def bring(self, store: Store, batch: Any) -> None:
        """The input object as a file of the store. One that is not there stays away, which fails the job."""
        from botocore.exceptions import BotoCoreError, ClientError

        name = batch["input_file_id"]
        asked = orjson.loads(batch["metadata"])
        address = s3_of(Settings.restored(batch["settings"]))
        if not address or store.file(WIRE, name) is not None:
            return
        bucket, key = place_of(asked["input"])
        part = store.work / f"{batch['id']}.brought"
        try:
            with closing(s3_at(address)) as client, private_file(part) as out:
                for block in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20):
                    out.write(block)
        except (BotoCoreError, ClientError):
            part.unlink(missing_ok=True)
            return
        store.add_file(
            part, wire=WIRE, file_id=name, filename=key, purpose="batch", created=batch["created"], keep_seconds=None
        )

    def carry(self, store: Store, batch: Any, output: Path, counts: dict[str, int]) -> str:  # noqa: ARG002
        """Results and manifest into the output prefix of the job; what kept them from it."""
        from botocore.exceptions import BotoCoreError, ClientError

        if not counts["processedRecordCount"] and counts["totalRecordCount"]:
            return ""  # never started: the service writes nothing
        asked = orjson.loads(batch["metadata"])
        bucket, key = place_of(asked["output"].rstrip("/") + f"/{batch['id']}/")
        name = f"{key}{asked['input'].rpartition('/')[2]}.out"
        try:
            with closing(s3_at(s3_of(Settings.restored(batch["settings"])))) as client, output.open("rb") as results:
                client.put_object(Bucket=bucket, Key=name, Body=results)
                client.put_object(Bucket=bucket, Key=f"{key}manifest.json.out", Body=orjson.dumps(counts))
        except (BotoCoreError, ClientError) as error:
            return f"Could not write to the S3 output prefix: {type(error).__name__}"
        return ""

    def validate(self, path: Path, endpoint: str, settings: Settings, queued_tokens: int) -> Valid:  # noqa: ARG002
        total, problem = input_problem(path, settings.least_records)
        if problem:
            return Valid(0, None, 0, ({"code": "Failed", "message": problem},))
        return Valid(total, endpoint.partition(" ")[2], path.stat().st_size // 4, ())

    def rows(self, *, batch_id: str, endpoint: str, settings: Settings, created: int) -> Rows:  # noqa: ARG002
        return Rows(batch_id=batch_id, endpoint=endpoint, settings=settings)

    def gone(self, file_id: str) -> dict[str, Any]:  # noqa: ARG002
        return {"code": "Failed", "message": NO_ACCESS}

    def output_name(self, batch_id: str, kind: str) -> str:
        return f"{batch_id}_{kind}.jsonl.out"

    def new_file_id(self) -> str:
        return new_id("object-")


class _Record(Asked):
    """What the body of a record asks for, in whichever form it was written."""

    def __init__(self, kind: str, body: dict[str, Any]) -> None:
        self.cap = body.get("max_tokens", body.get("max_gen_len"))
        if "inferenceConfig" in body:
            self.cap = body["inferenceConfig"].get("maxTokens")
        self.prompt = words(body["messages"]) if "messages" in body else str(body.get("prompt", ""))
        told = self.prompt
        for one in body.get("system") or ():
            told += one.get("text", "")
        for turn in body.get("messages") or ():
            told += turn["content"] if isinstance(turn.get("content"), str) else ""
        form = (body.get("outputConfig") or {}).get("textFormat")
        text = form["structure"]["jsonSchema"]["schema"] if form and kind == CONVERSE else schema_in(told)
        self.schema = as_read(text.encode()) if text else None


def schema_in(text: str) -> str:
    """The JSON Schema that instructions tell in words: a model reads it there."""
    import json

    start = text.find("{", text.find(_KIND_OF_SCHEMA)) if _KIND_OF_SCHEMA in text else -1
    if start < 0:
        return ""
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except ValueError:
        return ""
    return json.dumps(value)


def answer(
    kind: str,
    model: str,
    body: dict[str, Any],
    payload: bytes,
    *,
    settings: Settings,
    seed: int,
    quality: str,
    nonce: str,
    u2028: bool = False,
) -> Answer:
    """One answer in the shape of its family. The words depend on seed and body alone."""
    family = family_of(model)
    if kind != CONVERSE and family == "anthropic":
        params = {**body, "model": model.rpartition(".")[2]}
        told = schema_in(f"{body.get('system') or ''} {words(body['messages'])}")
        if told and not body.get("output_config") and not body.get("tools"):
            params["output_config"] = {"format": {"type": "json_schema", "schema": orjson.loads(told)}}
        return message(
            params,
            payload,
            seed=seed,
            quality=quality,
            nonce=f"bdrk_{nonce}",
            tier="standard",
            u2028=u2028,
            cached=settings.cached,
            thinking=settings.thinking,
        )
    dice = sha256(b"%d " % seed + payload).digest()
    if family == "titan":
        tokens = len(payload) // 4 + 1
        vector = _vector(dice, body.get("dimensions", 1024))
        given = {"embedding": vector, "embeddingsByType": {"float": vector}, "inputTextTokenCount": tokens}
        return Answer(orjson.dumps(given), tokens, 0)
    asked = _Record(kind, body)
    said = say(asked, dice, quality, u2028)
    used = used_of(said, asked.cap, len(payload) // 4 + 1, settings.cached, settings.thinking)
    taken, given_tokens, from_cache, _ = used
    if kind == CONVERSE or family == "nova":
        shape = _spoken(said, taken, given_tokens, from_cache)
        if kind == CONVERSE:
            shape["metrics"] = {"latencyMs": 1}
        return Answer(orjson.dumps(shape), *used)
    stop = "length" if said.finish == "length" else "stop"
    if family == "prompt/llama":
        shape = {
            "generation": said.text,
            "prompt_token_count": taken,
            "generation_token_count": given_tokens,
            "stop_reason": stop,
        }
    elif family == "prompt/mistral":
        shape = {"outputs": [{"text": said.text, "stop_reason": stop}]}
    else:
        turn = {"role": "assistant", "content": said.text}
        shape = {"choices": [{"index": 0, "message": turn, "stop_reason": stop}]}
    return Answer(orjson.dumps(shape), taken, given_tokens)


def _spoken(said: Said, taken: int, given: int, from_cache: int) -> dict[str, Any]:
    """An answer in Converse's shape."""
    usage = {"inputTokens": taken - from_cache, "outputTokens": given, "totalTokens": taken + given}
    if from_cache:
        usage |= {"cacheReadInputTokens": from_cache, "cacheWriteInputTokens": 0}
    content = [{"text": said.text}] if said.text else []
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": _STOPS[said.finish],
        "usage": usage,
    }


def _vector(dice: bytes, size: int) -> list[float]:
    """A unit vector that follows from the text."""
    raw = b"".join(sha256(dice + bytes([part])).digest() for part in range(-(-size // 16)))
    numbers = [int.from_bytes(raw[place : place + 2], "big") - 32767.5 for place in range(0, 2 * size, 2)]
    length = math.sqrt(sum(one * one for one in numbers))
    return [round(one / length, 6) for one in numbers]


class Rows:
    """Turns records of one job into result lines. The same line of the same job always gives the same bytes."""

    def __init__(self, *, batch_id: str, endpoint: str, settings: Settings) -> None:
        self._kind, _, self._model = endpoint.partition(" ")
        self._mark = sha256(batch_id.encode()).hexdigest()[:18]
        self._settings = settings
        self._fates = Fates(settings)

    def make(self, line: bytes, index: int, cut_code: str | None) -> Made:
        if not line.strip():
            return Made(b"", False, "", not_run=True)
        record = orjson.loads(line)
        nonce = f"{self._mark}{index:06x}"
        record_id = record.get("recordId") or nonce[-11:].upper()
        if cut_code is not None:
            return Made(b"", False, record_id, not_run=True)
        body = record["modelInput"]
        payload = orjson.dumps(body)
        digest = sha256(payload)
        fate = self._fates.draw(digest.digest(), record_id, payload)
        if fate.delivery == "missing":
            return Made(b"", False, record_id)
        if fate.delivery == "expired":
            return Made(b"", False, record_id, expired=True, not_run=True)
        if fate.delivery in ERRORS:
            return Made(_errored(record_id, body, *ERRORS[fate.delivery]), False, record_id)
        try:
            record_body(self._kind, self._model, body)
            return answered(
                record_id,
                fate,
                digest.hexdigest(),
                nonce,
                self._settings.seed,
                answer=lambda quality, name, seed: self._answer(body, payload, quality, name, seed),
                line=lambda _, given: _answered(record_id, body, given),
            )
        except (WireError, *ODD) as error:
            refusal = error if isinstance(error, WireError) else odd(error)
            return Made(_errored(record_id, body, refusal.status, str(refusal)), False, record_id)

    def _answer(self, body: dict[str, Any], payload: bytes, quality: str, nonce: str, seed: int) -> Answer:
        return answer(
            self._kind,
            self._model,
            body,
            payload,
            settings=self._settings,
            seed=seed,
            quality=quality,
            nonce=nonce,
            u2028="u2028" in self._settings.results,
        )

    def undone(self, custom_id: Any, code: str) -> bytes:
        return _errored(custom_id, {}, 408, code)

    def stranger(self, custom_id: Any) -> bytes:
        body = {"messages": [{"role": "user", "content": [{"text": "not yours"}]}]}
        said = {
            "output": {"message": {"role": "assistant", "content": [{"text": "not yours"}]}},
            "stopReason": "end_turn",
        }
        return _answered(custom_id, body, orjson.dumps(said))


def _answered(record_id: Any, body: Any, given: bytes) -> bytes:
    line = {"recordId": record_id, "modelInput": body, "modelOutput": orjson.Fragment(given)}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _errored(record_id: Any, body: Any, code: int, text: str) -> bytes:
    error = {"errorCode": code, "errorMessage": text}
    return orjson.dumps({"recordId": record_id, "modelInput": body, "error": error}, option=orjson.OPT_APPEND_NEWLINE)
