"""Gemini's HTTP routes: batches and single requests; the files they read and leave are in `gemini_files`.

Sources: ai.google.dev/gemini-api/docs/batch-api, the v1beta discovery schema, and google-genai 2.34.0 driven against a
recording server, read 2026-11. A batch is a long-running operation with its facts in `metadata`; there is no word for
validating, finalizing or cancelling. An expired batch has no results, as the guide says; a cancelled one keeps those it
has, which is not documented either way.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator.batches import ENDED, cancel, others_made, record
from batchctl.emulator.call import CALL
from batchctl.emulator.gemini_files import FILES, UPLOAD, WIRE, GeminiFiles, answered, body_read, page_size, stamp
from batchctl.emulator.google_answers import Manner, Rows
from batchctl.emulator.google_checks import GoogleErrors, RefusedError, embed, fields, generate, need
from batchctl.emulator.google_live import one_answer
from batchctl.emulator.process import InStore, Valid, progress
from batchctl.emulator.settings import Settings
from batchctl.emulator.store import new_id
from batchctl.emulator.wire import Context, WireError

BATCHES = "/v1beta/batches"
MODELS = "/v1beta/models/"
_NEVER = 1e18
_STATES = {
    "validating": "PENDING",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "cancelling": "RUNNING",
    "completed": "SUCCEEDED",
    "failed": "FAILED",
    "expired": "EXPIRED",
    "cancelled": "CANCELLED",
}
_CREATES = {"batchGenerateContent": "generateContent", "asyncBatchEmbedContent": "embedContent"}
_METHODS = frozenset(_CREATES.values())
_ROW_ERRORS = {
    "error500": (13, "Internal error encountered."),
    "error429": (8, "Resource has been exhausted (e.g. check quota)."),
    "timeout": (4, "Deadline expired before operation could complete."),
    "expired": (4, "Deadline expired before operation could complete."),
    "unknown": (2, "Something new."),
}
_ENDS = {"expired": (4, "Batch expired: it was pending or running for more than 48 hours.")}
_ENDS["cancelled"] = (1, "Batch was cancelled by the user.")


class _Rows(Rows):
    """Lines of a result file; the order of their fields is the service's own."""

    def answered(self, key: Any, request: Any, response: bytes) -> bytes:  # noqa: ARG002
        return _line({"response": orjson.Fragment(response), "key": key})

    def failed(self, key: Any, request: Any, fate: str) -> bytes:  # noqa: ARG002
        code, message = _ROW_ERRORS[fate]
        return _line({"error": {"code": code, "message": message}, "key": key})

    def refused(self, key: Any, request: Any, error: WireError) -> bytes:  # noqa: ARG002
        return _line({"error": {"code": 3, "message": error.body["error"]["message"]}, "key": key})


def _line(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


class GeminiBatches(InStore):
    """What the worker needs to know of this wire."""

    one_file = True

    def validate(self, path: Path, endpoint: str, settings: Settings, queued_tokens: int) -> Valid:
        """The whole file before any of it runs: lines with a key of their own and a request."""
        total = tokens = 0
        keys: set[str] = set()
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                total += 1
                tokens += len(line) // 4 + 1
                wrong = _wrong(line, keys)
                if wrong is not None:
                    return Valid(total, None, 0, (_status(3, f"Line {number} of the input file: {wrong}"),))
        if not total:
            return Valid(0, None, 0, (_status(3, "The input file is empty."),))
        limit = settings.enqueued_token_limit
        if limit is not None and tokens + queued_tokens > limit:
            return Valid(total, None, 0, (_status(8, "Enqueued tokens limit of the model is reached."),))
        return Valid(total, endpoint.partition(":")[0].removeprefix("models/"), tokens, ())

    def rows(self, *, batch_id: str, endpoint: str, settings: Settings, created: int) -> Rows:  # noqa: ARG002
        model, _, method = endpoint.removeprefix("models/").partition(":")
        check = embed if method == "embedContent" else generate
        return _Rows(batch_id=batch_id, manner=Manner(model, settings), check=check)

    def gone(self, file_id: str) -> dict[str, Any]:
        return _status(9, f"Input file files/{file_id} could not be read.")

    def output_name(self, batch_id: str, kind: str) -> str:
        return f"{batch_id}_{kind}.jsonl"

    def new_file_id(self) -> str:
        return new_id("batch-")


def _wrong(line: bytes, keys: set[str]) -> str | None:
    try:
        given = orjson.loads(line)
    except orjson.JSONDecodeError:
        return "not valid JSON"
    if not isinstance(given, dict) or given.keys() != {"key", "request"}:
        return "expected key and request"
    if not isinstance(given["key"], str) or given["key"] in keys or not isinstance(given["request"], dict):
        return "the key is no string or not unique, or the request is no object"
    keys.add(given["key"])
    return None


def _status(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "message": message}


class GeminiWire(GoogleErrors):
    """Everything under `/v1beta/`, `/upload/v1beta/` and `/download/v1beta/`."""

    name = WIRE

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def routes(self) -> list[web.RouteDef]:
        return [
            *GeminiFiles(self._context).routes(),
            web.get(BATCHES, self.list_batches),
            web.get(BATCHES + "/{id:[^/:]+}", self.get_batch),
            web.post(BATCHES + "/{id:[^/:]+}:cancel", self.cancel_batch),
            web.delete(BATCHES + "/{id:[^/:]+}", self.delete_batch),
            web.post(MODELS + "{model:[^/:]+}:{method}", self.ask_model),
            web.get(MODELS + "{model:[^/:]+}", self.get_model),
        ]

    def owns(self, path: str) -> bool:
        return path.startswith(("/v1beta/", UPLOAD, "/download" + FILES))

    def creates(self, path: str) -> bool:
        return path.startswith(MODELS) and path.rpartition(":")[2] in _CREATES

    def refuse_stranger(self, request: web.Request) -> None:
        """A key is needed, as header or in the address; keys starting with `sk-bad` are wrong ones, which is a 400."""
        key = request.headers.get("x-goog-api-key", "") or request.query.get("key", "")
        if not key.strip():
            message = "Method doesn't allow unregistered callers (callers without established identity)."
            raise RefusedError(message, status=403)
        if key.startswith("sk-bad"):
            raise RefusedError("API key not valid. Please pass a valid API key.", reason="API_KEY_INVALID")

    def shown(self, row: Any) -> dict[str, Any]:
        """A batch as the service shows it."""
        status = row["status"]
        completed = row["completed"]
        if status in ("in_progress", "finalizing", "cancelling"):
            completed = progress(row, time.time()) if row["cut"] is None else min(row["cut"], row["total"])
        model, _, method = row["endpoint"].partition(":")
        kind = "EmbedContentBatch" if method == "embedContent" else "GenerateContentBatch"
        type_ = f"type.googleapis.com/google.ai.generativelanguage.v1main.{kind}"
        counts = {
            "requestCount": row["total"],
            "successfulRequestCount": completed,
            "failedRequestCount": row["failed"],
            "pendingRequestCount": row["total"] - completed - row["failed"],
        }
        name = f"batches/{row['id']}"
        metadata: dict[str, Any] = {
            "@type": type_,
            "model": model,
            "displayName": (orjson.loads(row["metadata"]) if row["metadata"] else {}).get("displayName", ""),
            "inputConfig": {"fileName": f"files/{row['input_file_id']}"},
            "createTime": stamp(row["created"]),
            "updateTime": stamp(row["in_progress_at"] or row["created"]),
            "state": row["held"] or f"BATCH_STATE_{_STATES[status]}",
            "batchStats": {key: str(value) for key, value in counts.items() if value > 0},
            "name": name,
        }
        out: dict[str, Any] = {"name": name, "metadata": metadata}
        if status in ENDED:
            times = ("completed_at", "expired_at", "cancelled_at", "failed_at")
            metadata["endTime"] = stamp(next((row[one] for one in times if row[one] is not None), None))
            out["done"] = True
            if row["output_file_id"] is not None and status != "expired":
                metadata["output"] = {"responsesFile": f"files/{row['output_file_id']}"}
                out["response"] = {"@type": type_, **metadata["output"]}
            if status == "failed":
                first = orjson.loads(row["errors"])[0]
                code = first["code"] if isinstance(first["code"], int) else 13
                out["error"] = _status(code, first["message"])
            elif status in _ENDS:
                out["error"] = _status(*_ENDS[status])
        return out | orjson.loads(row["patch"]) if row["patch"] else out

    def others(self) -> None:
        """A project's list holds more than what was asked for here."""
        for number in range(others_made(self._context, WIRE), self._context.settings.other_batches):
            self._record("models/gemini-simulated:generateContent", f"of-{number}", "someone else", others=True)

    # -- batches

    async def ask_model(self, request: web.Request) -> web.StreamResponse:
        """A batch, one request, or a count of tokens: the method stands behind the model."""
        model, method = request.match_info["model"], request.match_info["method"]
        self._known(model)
        body = await body_read(request)
        if method in _CREATES:
            return self._create(f"models/{model}:{_CREATES[method]}", body)
        if method == "countTokens":
            return answered({"totalTokens": len(orjson.dumps(body)) // 4 + 1})
        if method not in _METHODS:
            raise RefusedError(status=404)
        return self._live(model, method, body)

    def _known(self, model: str) -> None:
        models = self._context.settings.models
        if (models and model not in models) or model.startswith("nonexistent"):
            message = f"models/{model} is not found for API version v1beta, or is not supported for this method."
            raise RefusedError(message, status=404)

    async def get_model(self, request: web.Request) -> web.StreamResponse:
        self._known(request.match_info["model"])
        return answered({"name": f"models/{request.match_info['model']}", "displayName": "Simulated"})

    def _create(self, endpoint: str, body: dict[str, Any]) -> web.StreamResponse:
        batch = fields(body, frozenset(("batch",)), "batch_request").get("batch", {})
        given = fields(batch, frozenset(("displayName", "inputConfig", "priority", "model")), "batch")
        name = given.get("displayName")
        need(isinstance(name, str) and bool(name), "display_name is required")
        source = fields(given.get("inputConfig", {}), frozenset(("fileName", "requests")), "batch.input_config")
        need("requests" not in source, "inline requests are not known here")
        file_name = source.get("fileName")
        need(isinstance(file_name, str) and file_name.startswith("files/"), "Invalid value at 'file_name'")
        file_id = str(file_name).removeprefix("files/")
        call = CALL.get()
        call.metadata = {"displayName": name}
        # A create that acts late was taken while its file was there; what it then finds is the worker's to see.
        if not call.later and self._store.file(WIRE, file_id) is None:
            message = f"You do not have permission to access the File {file_id} or it may not exist."
            raise RefusedError(message, status=403)
        call.created = self._record(endpoint, file_id, str(name), later=call.later, hide=call.hide)
        self._context.wake()
        row = self._store.db.execute("SELECT * FROM batch WHERE id = ?", (call.created,)).fetchone()
        return answered(self.shown(row))

    def _record(
        self, endpoint: str, file_id: str, name: str, *, later: float = 0.0, hide: int = 0, others: bool = False
    ) -> str:
        batch_id = new_id("")
        metadata = orjson.dumps({"displayName": name}).decode()
        record(
            self._context,
            wire=WIRE,
            batch_id=batch_id,
            later=later,
            hide=hide,
            others=others,
            endpoint=endpoint,
            input_file_id=file_id,
            metadata=metadata,
        )
        return batch_id

    def _batch(self, request: web.Request) -> Any:
        row = self._store.batch(WIRE, request.match_info["id"])
        if row is None:
            raise RefusedError(status=404)
        return row

    async def list_batches(self, request: web.Request) -> web.StreamResponse:
        size = page_size(request, most=100)
        rows = self._store.page_of_batches(WIRE, after=request.query.get("pageToken"), limit=size + 1)
        page: dict[str, Any] = {"operations": [self.shown(row) for row in rows[:size]]} if rows else {}
        if len(rows) > size:
            page["nextPageToken"] = rows[size - 1]["id"]
        return answered(page)

    async def get_batch(self, request: web.Request) -> web.StreamResponse:
        return answered(self.shown(self._batch(request)))

    async def cancel_batch(self, request: web.Request) -> web.StreamResponse:
        with self._store.transaction():
            row = self._batch(request)
            need(row["status"] not in ENDED, "Batch has already ended.")
            cancel(self._context, row)
        self._context.wake()
        return answered({})

    async def delete_batch(self, request: web.Request) -> web.StreamResponse:
        """Stops and hides a batch."""
        with self._store.transaction():
            row = self._batch(request)
            if row["status"] not in ENDED:
                cancel(self._context, row)
            self._store.change_batch(row["id"], visible_at=_NEVER)
        self._context.wake()
        return answered({})

    # -- one at a time

    def _live(self, model: str, method: str, body: dict[str, Any]) -> web.StreamResponse:
        """One request, answered at once: the same answers and fates as in a batch, drawn without a key."""
        request = embed(body) if method == "embedContent" else generate(body)
        return one_answer(
            self._context, Manner(model, self._context.settings, live=True), f"models/{model}:{method}", request, body
        )
