"""Mistral under `/mistral/v1`: files as OpenAI's, batch jobs under `/batch/jobs`, chat, embeddings and moderations.

A job reads one file here, each line of which names its model; inline requests, several files and a model of the job are
refused rather than half done. Whether the real service looks at the file before it accepts a job is not documented.

Sources: mistralai 3.7.0 `client/jobs.py` and `client/models`, read 2026-11. Error forms: docs.mistral.ai/api.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator import openai_batch, plain_chat
from batchctl.emulator.batches import ENDED, cancel, others_made, record
from batchctl.emulator.call import CALL
from batchctl.emulator.openai_batch import Talk
from batchctl.emulator.openai_files import OpenAIFiles, answered, body_read
from batchctl.emulator.openai_wire import OpenAIBatches, OpenAIWire, batch_object
from batchctl.emulator.wire import WireError

WIRE = "mistral"
ROOT = "/mistral/v1"
JOBS = ROOT + "/batch/jobs"
_ALL = 1_000_000
_WORDS = {
    "validating": "QUEUED",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "cancelling": "CANCELLATION_REQUESTED",
    "completed": "SUCCESS",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelled": "CANCELLED",
    "failed": "FAILED",
}
_NAMES = {
    "create": "input_files requests endpoint model agent_id metadata timeout_hours",
    "/v1/chat/completions": "model messages temperature top_p max_tokens stream stop random_seed metadata response_format"
    " tools tool_choice presence_penalty frequency_penalty min_tokens repetition_penalty top_k logprobs top_logprobs"
    " prompt_logprobs top_prompt_logprobs n prediction parallel_tool_calls reasoning_effort prompt_mode guardrails"
    " prompt_cache_key service_tier safe_prompt",
    "/v1/embeddings": "model input metadata output_dimension output_dtype encoding_format",
    "/v1/moderations": "model input metadata",
}
_TAKES = {what: frozenset(names.split()) for what, names in _NAMES.items()}


class MistralError(WireError):
    """An error in Mistral's form."""

    def __init__(
        self,
        message: Any,
        *,
        status: int = 422,
        type_: str = "invalid_request_error",
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        body = {"object": "error", "message": message, "type": type_, "param": None, "code": code}
        super().__init__(str(message), status=status, body=body, headers=headers)


def _unknown(name: str) -> MistralError:
    detail = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
    return MistralError({"detail": [detail]})


_TALK = Talk(
    plain_chat.checks(_TAKES, _unknown),
    plain_chat.answer,
    needs=("custom_id", "body"),
    most_requests=100_000,
    most_bytes=512_000_000,
)


class MistralBatches(OpenAIBatches):
    """What the worker needs to know of this wire."""

    talk = _TALK

    def gone(self, file_id: str) -> dict[str, Any]:
        return openai_batch.problem("not_found", f"File {file_id} not found.")

    def new_file_id(self) -> str:
        return str(uuid.uuid4())


class MistralFiles(OpenAIFiles):
    """Files with the fields that Mistral adds."""

    purposes = ("fine-tune", "batch", "ocr", "audio")

    def shown(self, row: Any) -> dict[str, Any]:
        made = row["purpose"] == "batch_output"
        own = {"sample_type": "batch_result" if made else "batch_request", "source": "mistral" if made else "upload"}
        keys = ("id", "object", "bytes", "created_at", "filename", "expires_at")
        return {key: value for key, value in super().shown(row).items() if key in keys} | {"purpose": "batch"} | own


class MistralWire(OpenAIWire):
    """The routes of Mistral."""

    name = WIRE
    root = ROOT
    endpoints = ("/v1/chat/completions", "/v1/embeddings", "/v1/moderations")
    talk = _TALK

    def routes(self) -> list[web.RouteDef]:
        return [
            *MistralFiles(self._context, self.name, ROOT).routes(),
            web.post(JOBS, self.create_job),
            web.get(JOBS, self.list_jobs),
            web.get(JOBS + "/{id}", self.get_batch),
            web.post(JOBS + "/{id}/cancel", self.cancel_batch),
            web.get(ROOT + "/models", self.models),
            web.get(ROOT + "/models/{id}", self.models),
            *(web.post(ROOT + endpoint.removeprefix("/v1"), self.live) for endpoint in self.endpoints),
        ]

    def creates(self, path: str) -> bool:
        return path == JOBS

    def refuse_stranger(self, request: web.Request) -> None:
        header = request.headers.get("Authorization", "")
        key = header[7:].strip() if header.startswith("Bearer ") else ""
        if not key or key.startswith("sk-bad"):
            raise MistralError("Unauthorized", status=401, type_="unauthorized")

    def refusal(self, status: int, message: str = "", headers: dict[str, str] | None = None) -> WireError:  # type: ignore[override]
        words, code = {429: ("Rate limit exceeded", "1300")}.get(status, ("The request failed.", None))
        type_ = "rate_limited" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
        return MistralError(message or words, status=status, type_=type_, code=code, headers=headers)

    def quota(self, headers: dict[str, str]) -> WireError:  # type: ignore[override]
        return MistralError("Payment required.", status=402, type_="payment_required", headers=headers)

    def others(self) -> None:
        for number in range(others_made(self._context, WIRE), self._context.settings.other_batches):
            self._recorded(f"file-of-someone-else-{number}", self.endpoints[0], {"owner": "someone else"}, others=True)

    def shown(self, row: Any) -> dict[str, Any]:
        base = batch_object(row)
        counts = base["request_counts"]
        ends = [base[name] for name in ("completed_at", "failed_at", "expired_at", "cancelled_at")]
        errors = [{"message": one["message"], "count": 1} for one in (base["errors"] or {}).get("data", ())]
        out = {
            "id": row["id"],
            "object": "batch",
            "input_files": [row["input_file_id"]],
            "endpoint": row["endpoint"],
            "model": row["model"],
            "agent_id": None,
            "metadata": base["metadata"],
            "errors": errors,
            "status": row["held"] or _WORDS[row["status"]],
            "created_at": base["created_at"],
            "started_at": base["in_progress_at"],
            "completed_at": next((one for one in ends if one is not None), None),
            "output_file": base["output_file_id"],
            "error_file": base["error_file_id"],
            "outputs": None,
            "total_requests": counts["total"],
            "completed_requests": counts["completed"] + counts["failed"],
            "succeeded_requests": counts["completed"],
            "failed_requests": counts["failed"],
        }
        return out | (orjson.loads(row["patch"]) if row["patch"] else {})

    # -- jobs

    def _recorded(self, file_id: str, endpoint: str, metadata: Any, *, others: bool = False) -> str:
        call = CALL.get(None)
        batch_id = str(uuid.uuid4())
        record(
            self._context,
            wire=WIRE,
            batch_id=batch_id,
            later=0.0 if call is None else call.later,
            hide=0 if call is None else call.hide,
            others=others,
            endpoint=endpoint,
            input_file_id=file_id,
            metadata=None if metadata is None else orjson.dumps(metadata).decode(),
        )
        return batch_id

    async def create_job(self, request: web.Request) -> web.StreamResponse:
        body = await body_read(request)
        call = CALL.get()
        call.metadata = body.get("metadata") if isinstance(body, dict) else None
        _job(body, self.endpoints)
        call.created = self._recorded(body["input_files"][0], body["endpoint"], body.get("metadata"))
        row = self._store.db.execute("SELECT * FROM batch WHERE id = ?", (call.created,)).fetchone()
        self._context.wake()
        return answered(self.shown(row))

    async def list_jobs(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        page, size = int(query.get("page", "0")), int(query.get("page_size", "100"))
        jobs = [self.shown(row) for row in self._store.page_of_batches(self.name, after=None, limit=_ALL)]
        if "created_after" in query:
            after = datetime.fromisoformat(query["created_after"]).timestamp()
            jobs = [one for one in jobs if one["created_at"] > after]
        if query.get("order_by", "-created") == "created":
            jobs.reverse()
        return answered({"object": "list", "data": jobs[page * size : (page + 1) * size], "total": len(jobs)})

    async def cancel_batch(self, request: web.Request) -> web.StreamResponse:
        with self._store.transaction():
            row = self._batch(request)
            if row["status"] in ENDED:
                raise MistralError(f"Job is already {_WORDS[row['status']]}.", status=400)
            cancel(self._context, row)
        self._context.wake()
        return answered(self.shown(self._batch(request)))


def _job(body: Any, endpoints: tuple[str, ...]) -> None:
    """Refuse a job as the service would, and what is not simulated."""
    if not isinstance(body, dict):
        raise MistralError("The body is not an object.", status=400)
    strange = body.keys() - _TAKES["create"]
    if strange:
        raise _unknown(min(strange))
    if body.get("endpoint") not in endpoints:
        raise MistralError(f"endpoint must be one of {', '.join(endpoints)} here")
    inputs, hours = body.get("input_files"), body.get("timeout_hours", 24)
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], str):
        raise MistralError("input_files must hold one file here")
    if any(body.get(key) is not None for key in ("requests", "model", "agent_id")):
        raise MistralError("requests, model and agent_id are not simulated here")
    if type(hours) is not int or hours < 1:
        raise MistralError("timeout_hours must be a whole number above 0")
    metadata = body.get("metadata")
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(one, str) for one in metadata.values())
    ):
        raise MistralError("metadata must be an object of strings")
