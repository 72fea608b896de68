"""Together under `/together/v1`: uploads by a signed address, jobs in a wrapper, a list without one, words in capitals.

The signed address is under `/together-storage`, which takes bytes from anyone who knows it and refuses a key, as storage
does. A file counts once it was processed. Every failed request is a line `{"custom_id", "error"}`.

Sources: together 3.1.1 `resources/batches.py`, `lib/resources/files.py`, `types/batch_job.py`, and
docs.together.ai/docs/inference/batch, read 2026-11.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator import openai_batch, plain_chat
from batchctl.emulator.batches import ENDED, cancel
from batchctl.emulator.call import CALL
from batchctl.emulator.openai_batch import Talk
from batchctl.emulator.openai_checks import RefusedError
from batchctl.emulator.openai_files import OpenAIFiles, answered, body_read, to_disk, visible_at
from batchctl.emulator.openai_wire import OpenAIBatches, OpenAIWire, batch_object, create_batch
from batchctl.emulator.settings import Settings
from batchctl.emulator.store import new_id
from batchctl.emulator.wire import Context

WIRE = "together"
ROOT = "/together/v1"
STORAGE = "/together-storage"
_CHAT = "/v1/chat/completions"
_MOST_BYTES = 100_000_000
_ALL = 1_000_000
_NAMES = {
    "create": "endpoint input_file_id completion_window model_id priority",
    _CHAT: "messages model chat_template_kwargs compliance context_length_exceeded_behavior echo frequency_penalty"
    " function_call logit_bias logprobs max_tokens min_p n presence_penalty reasoning reasoning_effort"
    " repetition_penalty response_format safety_model seed stop temperature tool_choice tools top_k top_p stream",
}
_TAKES = {what: frozenset(names.split()) for what, names in _NAMES.items()}


def _unknown(name: str) -> RefusedError:
    return RefusedError(f"Unknown parameter: {name}", param=name)


_TALK = Talk(
    plain_chat.checks(_TAKES, _unknown),
    plain_chat.answer,
    needs=("custom_id", "body"),
    most_bytes=_MOST_BYTES,
)


class Rows(openai_batch.Rows):
    """Result lines; those of requests that failed hold an error and no response."""

    @staticmethod
    def _done(nonce: str, custom_id: Any, status: int, body: bytes) -> bytes:
        if status == 200:
            return openai_batch.Rows._done(nonce, custom_id, status, body)
        error = orjson.loads(body)
        said = error.get("error", error) if isinstance(error, dict) else {}
        code = said.get("code") or said.get("type") or f"http_{status}"
        return _error_line(custom_id, str(code), str(said.get("message", "")))

    @staticmethod
    def _undone(nonce: str, custom_id: Any, code: str) -> bytes:  # noqa: ARG004
        return _error_line(custom_id, code, "The request was not processed.")


def _error_line(custom_id: Any, code: str, message: str) -> bytes:
    line = {"custom_id": custom_id, "error": {"message": message, "code": code}}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


class TogetherBatches(OpenAIBatches):
    """What the worker needs to know of this wire."""

    talk = _TALK

    def rows(self, *, batch_id: str, endpoint: str, settings: Settings, created: int) -> Rows:
        return Rows(batch_id=batch_id, endpoint=endpoint, settings=settings, created=created, talk=self.talk)


class TogetherFiles(OpenAIFiles):
    """Files in three steps. What is announced is a part in the working folder until it is processed."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(ROOT + "/files", self.announce),
            web.put(STORAGE + "/{id}", self.put),
            web.post(ROOT + "/files/{id}/preprocess", self.process),
            web.get(ROOT + "/files/{id}", self.get_file),
            web.get(ROOT + "/files/{id}/content", self.file_content),
            web.delete(ROOT + "/files/{id}", self.delete_file),
        ]

    def shown(self, row: Any) -> dict[str, Any]:
        keys = ("id", "object", "bytes", "created_at", "filename")
        base = {key: value for key, value in super().shown(row).items() if key in keys}
        return {**base, "purpose": "batch-api", "FileType": "jsonl", "processing_status": "COMPLETED"}

    async def announce(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        wanted = ("purpose", "file_name", "file_type", "checksum")
        lacking = next((name for name in wanted if not form.get(name)), None)
        if lacking:
            raise RefusedError(f"Missing required parameter: {lacking}", param=lacking)
        if form["purpose"] != "batch-api" or form["file_type"] != "jsonl":
            raise RefusedError("purpose must be batch-api and file_type jsonl here", param="purpose")
        file_id = new_id("file-")
        about = {"name": str(form["file_name"]), "checksum": str(form["checksum"])}
        (self._store.work / f"{file_id}.json").write_bytes(orjson.dumps(about))
        target = f"{request.scheme}://{request.host}{STORAGE}/{file_id}?signature={new_id('')}"
        return web.Response(status=302, headers={"Location": target, "X-Together-File-Id": file_id})

    async def put(self, request: web.Request) -> web.StreamResponse:
        about = self._store.work / f"{request.match_info['id']}.json"
        if "Authorization" in request.headers or not about.exists() or "signature" not in request.query:
            return web.Response(status=403, text="SignatureDoesNotMatch")
        await to_disk(request.content.readany, about.with_suffix(".part"), _MOST_BYTES)
        return web.Response(status=200)

    async def process(self, request: web.Request) -> web.StreamResponse:
        file_id = request.match_info["id"]
        row = self._store.file(self._wire, file_id)
        if row is not None:
            return answered(self.shown(row))
        about, part = self._store.work / f"{file_id}.json", self._store.work / f"{file_id}.part"
        if not about.exists() or not part.exists():
            raise RefusedError("Not found.", status=404)
        told = orjson.loads(about.read_bytes())
        with part.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != told["checksum"]:
                raise RefusedError("The checksum does not match.", param="checksum")
        row = self._keep_file(part, file_id, told["name"], "batch-api", None, visible_at=visible_at())
        about.unlink()
        return answered(self.shown(row))


class TogetherWire(OpenAIWire):
    """The routes of Together."""

    name = WIRE
    root = ROOT
    endpoints = (_CHAT,)
    talk = _TALK

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._files = TogetherFiles(context, WIRE, ROOT)

    def routes(self) -> list[web.RouteDef]:
        return [
            *self._files.routes(),
            web.post(ROOT + "/batches", self.create_batch),
            web.get(ROOT + "/batches", self.list_batches),
            web.get(ROOT + "/batches/{id}", self.get_batch),
            web.post(ROOT + "/batches/{id}/cancel", self.cancel_batch),
            web.get(ROOT + "/models", self.models),
            web.post(ROOT + "/chat/completions", self.live),
        ]

    def quota(self, headers: dict[str, str]) -> RefusedError:
        message = "Payment required: the account has reached its spending limit."
        return RefusedError(message, status=402, type_="credit_limit", headers=headers)

    def shown(self, row: Any) -> dict[str, Any]:
        base = batch_object(row)
        counts = base["request_counts"]
        done = counts["completed"] + counts["failed"]
        errors = (base["errors"] or {}).get("data") or ()
        word = {"finalizing": "in_progress", "cancelling": "in_progress"}.get(row["status"], row["status"])
        out = {
            "id": row["id"],
            "user_id": "user-simulated",
            "input_file_id": row["input_file_id"],
            "file_size_bytes": None,
            "status": row["held"] or word.upper(),
            "job_deadline": _time(row["expires_at"]),
            "created_at": _time(row["created"]),
            "endpoint": row["endpoint"],
            "progress": 100.0 * done / counts["total"] if counts["total"] else 0.0,
            "model_id": row["model"],
            "output_file_id": base["output_file_id"],
            "error_file_id": base["error_file_id"],
            "error": errors[0]["message"] if errors else None,
            "completed_at": _time(row["completed_at"]),
        }
        return out | (orjson.loads(row["patch"]) if row["patch"] else {})

    # -- batches

    async def create_batch(self, request: web.Request) -> web.StreamResponse:
        body = await body_read(request)
        call = CALL.get()
        if not isinstance(body, dict) or body.keys() - _TAKES["create"]:
            raise RefusedError("Invalid request format")
        if body.get("endpoint") not in self.endpoints:
            raise RefusedError("endpoint must be /v1/chat/completions here", param="endpoint")
        if not isinstance(body.get("input_file_id"), str):
            raise RefusedError("Missing required parameter: input_file_id", param="input_file_id")
        call.created = create_batch(self._context, body, later=call.later, hide=call.hide, wire=WIRE)
        row = self._store.db.execute("SELECT * FROM batch WHERE id = ?", (call.created,)).fetchone()
        self._context.wake()
        return answered({"job": self.shown(row), "warning": None})

    async def list_batches(self, request: web.Request) -> web.StreamResponse:  # noqa: ARG002  (it has no pages)
        return answered([self.shown(row) for row in self._store.page_of_batches(WIRE, after=None, limit=_ALL)])

    async def cancel_batch(self, request: web.Request) -> web.StreamResponse:
        with self._store.transaction():
            row = self._batch(request)
            if row["status"] in ENDED:
                raise RefusedError(f"Batch is already {row['status'].upper()}.")
            cancel(self._context, row)
        self._context.wake()
        return answered(self.shown(self._batch(request)))


def _time(seconds: Any) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(float(seconds), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
