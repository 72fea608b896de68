"""OpenAI's batch files: validating an input file, and turning each of its lines into a result line.

A failed batch lists what is wrong by line; nothing of it is run or billed. Every other line becomes exactly one line of
the output file (HTTP 200) or the error file (any other outcome). Batch guide, read 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from batchctl.emulator.faults import Fates
from batchctl.emulator.openai_answers import answer, snapshot
from batchctl.emulator.openai_checks import RefusedError, body_of, odd
from batchctl.emulator.process import Made, Valid
from batchctl.emulator.rows import answered
from batchctl.emulator.saying import Answer
from batchctl.emulator.settings import Settings
from batchctl.emulator.wire import ODD

MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
_MOST_ERRORS = 100
_SORRY = "The server had an error while processing your request. Sorry about that!"
_MESSAGES = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "The batch was cancelled before this request executed.",
    "request_timeout": "The underlying call to the model timed out.",
}
SERVER_ERROR = {"error": {"message": _SORRY, "type": "server_error", "param": None, "code": None}}
RATE_LIMITED = {
    "error": {
        "message": "Rate limit reached.",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
}


@dataclass(frozen=True, slots=True)
class Talk:
    """What a server of this wire takes in a line of a batch file, and how it answers."""

    body_of: Callable[[str, dict[str, Any]], None]
    answer: Callable[..., Answer]
    needs: tuple[str, ...] = ("custom_id", "method", "url", "body")
    most_requests: int = MOST_REQUESTS
    most_bytes: int = MOST_BYTES
    too_many: str = "invalid_request"  # the code for too many requests


OPENAI = Talk(body_of, answer)


def problem(code: str, message: str, param: str | None = None, line: int | None = None) -> dict[str, Any]:
    return {"code": code, "line": line, "message": message, "param": param}


def lines_of(path: Path) -> Iterator[bytes]:
    """Lines as the service counts them: parted by LF only, the last one with or without it."""
    with path.open("rb", buffering=1 << 20) as file:
        for line in file:
            yield line[:-1] if line.endswith(b"\n") else line


class _Scan:
    """What has to be known of all lines before any is run."""

    def __init__(self, endpoint: str, settings: Settings, talk: Talk) -> None:
        self._endpoint = endpoint
        self._talk = talk
        self._models = frozenset(settings.models)
        self._ids: set[str] = set()
        self.model: str | None = None
        self.errors: list[dict[str, Any]] = []
        self.total = 0
        self.tokens = 0
        self.inputs = 0

    def line(self, number: int, line: bytes) -> None:
        self.total += 1
        found = self._wrong(line)
        if found is not None:
            self.errors.append({**found, "line": number})

    def _wrong(self, line: bytes) -> dict[str, Any] | None:
        try:
            request = orjson.loads(line)
        except orjson.JSONDecodeError:
            return problem("invalid_json_line", "This line is not parseable as valid JSON.")
        if not isinstance(request, dict):
            return problem("invalid_json_line", "This line is not a JSON object.")
        for name in self._talk.needs:
            if request.get(name) is None:
                return problem("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
        custom_id, body = request["custom_id"], request["body"]
        if not isinstance(custom_id, str):
            return problem("invalid_request", "The custom_id must be a string.", "custom_id")
        if custom_id in self._ids:
            message = "The custom_id for this request is a duplicate of another request. It must be unique in a batch."
            return problem("duplicate_custom_id", message, "custom_id")
        self._ids.add(custom_id)
        if request.get("method", "POST") != "POST":
            return problem("invalid_request", "The method of a batch request must be 'POST'.", "method")
        if request.get("url", self._endpoint) != self._endpoint:
            message = "The URL provided for this request does not match the batch endpoint."
            return problem("invalid_url", message, "url")
        if not isinstance(body, dict):
            return problem("invalid_request", "The body of a batch request must be an object.", "body")
        return self._wrong_body(body, len(line))

    def _wrong_body(self, body: dict[str, Any], size: int) -> dict[str, Any] | None:
        if body.get("stream"):
            return problem("streaming_unsupported", "Streaming is not supported in the Batch API.", "body.stream")
        model = body.get("model")
        if not isinstance(model, str) or not model:
            if self._endpoint != "/v1/moderations":
                return problem("invalid_request", "Model parameter is required.", "body.model")
            model = "omni-moderation-latest"
        if self.model is None:
            if (self._models and model not in self._models) or model.startswith("nonexistent"):
                message = f"The provided model '{model}' is not supported by the Batch API."
                return problem("model_not_found", message, "body.model")
            self.model = model
        elif model != self.model:
            message = "The provided model does not match the model of the other requests in this batch."
            return problem("mismatched_model", message, "body.model")
        if self._endpoint == "/v1/chat/completions" and "messages" not in body:
            return problem("invalid_request", "Messages parameter is required.", "body.messages")
        self.tokens += size // 4
        if self._endpoint == "/v1/embeddings":
            given = body.get("input")
            self.inputs += len(given) if isinstance(given, list) else 1
        return None


def validate(path: Path, endpoint: str, settings: Settings, queued_tokens: int, talk: Talk = OPENAI) -> Valid:
    """Read the whole file once; memory holds its custom_ids and nothing else of it.

    `queued_tokens` is what batches of the same model already wait with.
    """
    scan = _Scan(endpoint, settings, talk)
    size = path.stat().st_size
    if size == 0:
        return Valid(0, None, 0, (problem("empty_file", "The batch input file is empty."),))
    if size > talk.most_bytes:
        message = f"The batch input file is larger than the {talk.most_bytes:,} bytes that a batch may have."
        return Valid(0, None, 0, (problem("invalid_request", message),))
    for number, line in enumerate(lines_of(path), 1):
        if number > talk.most_requests:
            message = f"The batch input file has more than the {talk.most_requests:,} requests that a batch may have."
            return Valid(0, None, 0, (problem(talk.too_many, message),))
        scan.line(number, line)
        if len(scan.errors) >= _MOST_ERRORS:
            break
    if scan.errors:
        return Valid(0, None, 0, tuple(scan.errors))
    if scan.inputs > MOST_REQUESTS:
        message = f"Embedding batches are restricted to {MOST_REQUESTS:,} inputs across all requests."
        return Valid(0, None, 0, (problem("invalid_request", message),))
    limit = settings.enqueued_token_limit
    model = scan.model or "omni-moderation-latest"
    if limit is not None and queued_tokens + scan.tokens > limit:
        message = (
            f"Enqueued token limit reached for {model} in organization org-EXAMPLE. Limit: {limit:,} enqueued tokens."
            " Please try again once some in_progress batches have been completed."
        )
        return Valid(0, None, 0, (problem("token_limit_exceeded", message),))
    return Valid(scan.total, snapshot(model), scan.tokens, ())


class Rows:
    """Turns input lines of one batch into result lines. The same line of the same batch always gives the same bytes."""

    def __init__(self, *, batch_id: str, endpoint: str, settings: Settings, created: int, talk: Talk = OPENAI) -> None:
        self._talk = talk
        self._mark = sha256(batch_id.encode()).hexdigest()[:18]
        self._endpoint = endpoint
        self._settings = settings
        self._created = created
        self._fates = Fates(settings)
        self._u2028 = "u2028" in settings.results

    def make(self, line: bytes, index: int, cut_code: str | None) -> Made:
        """`cut_code` tells why the row is no longer run (`batch_expired`, `batch_cancelled`)."""
        request = orjson.loads(line)
        custom_id, body = request["custom_id"], request["body"]
        nonce = f"{self._mark}{index:06x}"
        if cut_code is not None:
            return Made(self._undone(nonce, custom_id, cut_code), False, custom_id, not_run=True)
        payload = orjson.dumps(body)
        digest = sha256(payload)
        fate = self._fates.draw(digest.digest(), custom_id, payload)
        delivery = fate.delivery
        if delivery == "missing":
            return Made(b"", False, custom_id, not_run=True)
        if delivery == "expired":
            return Made(self._undone(nonce, custom_id, "batch_expired"), False, custom_id, expired=True, not_run=True)
        if delivery == "timeout":
            return Made(self._undone(nonce, custom_id, "request_timeout"), False, custom_id)
        if delivery == "error500":
            return Made(self._done(nonce, custom_id, 500, orjson.dumps(SERVER_ERROR)), False, custom_id)
        if delivery == "error429":
            return Made(self._done(nonce, custom_id, 429, orjson.dumps(RATE_LIMITED)), False, custom_id)
        if delivery == "unknown":  # seen in the wild: no status and an empty body (tidyverse/ellmer issue 830)
            return Made(self._done(nonce, custom_id, 0, b'""'), False, custom_id)
        try:
            self._talk.body_of(self._endpoint, body)
            return answered(
                custom_id,
                fate,
                digest.hexdigest(),
                nonce,
                self._settings.seed,
                answer=lambda quality, name, seed: self._answer(body, payload, quality, name, seed),
                line=lambda name, given: self._done(name, custom_id, 200, given),
            )
        except (RefusedError, *ODD) as error:
            refusal = error if isinstance(error, RefusedError) else odd(error)
            return Made(self._done(nonce, custom_id, refusal.status, orjson.dumps(refusal.body)), False, custom_id)

    def _answer(self, body: dict[str, Any], payload: bytes, quality: str, nonce: str, seed: int) -> Any:
        return self._talk.answer(
            self._endpoint,
            body,
            payload,
            seed=seed,
            quality=quality,
            created=self._created,
            nonce=nonce,
            u2028=self._u2028,
            cached=self._settings.cached,
            thinking=self._settings.thinking,
        )

    def undone(self, custom_id: Any, code: str) -> bytes:
        return self._undone("0" * 24, custom_id, code)

    def stranger(self, custom_id: Any) -> bytes:
        body = {
            "model": "simulated",
            "input": "not one of yours",
            "messages": [{"role": "user", "content": "not one of yours"}],
        }
        given = self._talk.answer(
            self._endpoint if self._endpoint == "/v1/chat/completions" else "/v1/responses",
            body,
            orjson.dumps(body),
            seed=0,
            quality="",
            created=self._created,
            nonce=self._mark + "ffffff",
        )
        return self._done(self._mark + "ffffff", custom_id, 200, given.body)

    @staticmethod
    def _done(nonce: str, custom_id: Any, status: int, body: bytes) -> bytes:
        mark = nonce.encode()
        return (
            b'{"id":"batch_req_%b","custom_id":%b,"response":{"status_code":%d,"request_id":"req_%b","body":%b},"error":null}\n'
            % (mark, orjson.dumps(custom_id), status, mark, body)
        )

    @staticmethod
    def _undone(nonce: str, custom_id: Any, code: str) -> bytes:
        return b'{"id":"batch_req_%b","custom_id":%b,"response":null,"error":{"code":"%b","message":%b}}\n' % (
            nonce.encode(),
            orjson.dumps(custom_id),
            code.encode(),
            orjson.dumps(_MESSAGES[code]),
        )
