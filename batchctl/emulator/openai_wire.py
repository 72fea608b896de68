"""OpenAI's HTTP routes under `/v1`: files, uploads, batches and the synchronous endpoints.

Sources: API reference and batch guide at developers.openai.com, read 2026-11; error answers recorded from the real
service by public tests (August 2025). Messages are ours; match on codes, types and parameters.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator import openai_batch
from batchctl.emulator.batches import cancel, others_made, record
from batchctl.emulator.call import CALL
from batchctl.emulator.faults import Fates
from batchctl.emulator.openai_answers import snapshot
from batchctl.emulator.openai_background import Background
from batchctl.emulator.openai_checks import ENDPOINTS, RefusedError, batch_create, odd
from batchctl.emulator.openai_files import WIRE, OpenAIFiles, answered, body_read, limit_of, listed
from batchctl.emulator.process import InStore, Valid, progress
from batchctl.emulator.settings import Settings
from batchctl.emulator.store import new_id
from batchctl.emulator.wire import Context

_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_WORDS = {
    400: ("Invalid request.", "invalid_request_error", "invalid_value"),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    403: ("Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"),
    404: ("Not found.", "invalid_request_error", None),
    405: ("Not allowed.", "invalid_request_error", "method_not_supported"),
    409: ("Conflict.", "invalid_request_error", None),
    413: ("File is too large.", "invalid_request_error", None),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    503: ("The server is currently overloaded.", "service_unavailable_error", "slow_down"),
}
_SERVER = ("The server had an error while processing your request. Sorry about that!", "server_error", None)
_TIMES = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


class OpenAIBatches(InStore):
    """What the worker needs to know of this wire."""

    one_file = False
    talk = openai_batch.OPENAI

    def validate(self, path: Path, endpoint: str, settings: Settings, queued_tokens: int) -> Valid:
        return openai_batch.validate(path, endpoint, settings, queued_tokens, self.talk)

    def rows(self, *, batch_id: str, endpoint: str, settings: Settings, created: int) -> openai_batch.Rows:
        return openai_batch.Rows(
            batch_id=batch_id, endpoint=endpoint, settings=settings, created=created, talk=self.talk
        )

    def gone(self, file_id: str) -> dict[str, Any]:
        message = f"Cannot find file {file_id}, or organization org-EXAMPLE does not have access to it."
        return openai_batch.problem("invalid_request", message, "file_id")

    def output_name(self, batch_id: str, kind: str) -> str:
        return f"{batch_id}_{kind}.jsonl"

    def new_file_id(self) -> str:
        return new_id("file-")


def batch_object(row: Any) -> dict[str, Any]:
    """A batch as the service shows it; rows done are told by the clock while it runs."""
    ended = row["status"] in ("completed", "expired", "cancelled") and row["in_progress_at"] is not None
    running = row["status"] in ("in_progress", "finalizing", "cancelling")
    completed = row["completed"]
    if running:
        completed = progress(row, time.time()) if row["cut"] is None else min(row["cut"], row["total"])
    taken, given = row["input_tokens"], row["output_tokens"]
    out = {
        "id": row["id"],
        "object": "batch",
        "endpoint": row["endpoint"],
        "model": row["model"],
        "errors": {"object": "list", "data": orjson.loads(row["errors"])} if row["errors"] else None,
        "input_file_id": row["input_file_id"],
        "completion_window": "24h",
        "status": row["held"] or row["status"],
        "output_file_id": row["output_file_id"],
        "error_file_id": row["error_file_id"],
        "created_at": int(row["created"]),
        "expires_at": row["expires_at"],
        **{name: None if row[name] is None else int(row[name]) for name in _TIMES},
        "request_counts": {"total": row["total"], "completed": completed, "failed": row["failed"]},
        "usage": {
            "input_tokens": taken,
            "input_tokens_details": {"cached_tokens": row["cached_tokens"]},
            "output_tokens": given,
            "output_tokens_details": {"reasoning_tokens": row["reasoning_tokens"]},
            "total_tokens": taken + given,
        }
        if ended
        else None,
        "metadata": orjson.loads(row["metadata"]) if row["metadata"] else None,
    }
    if row["patch"]:
        out.update(orjson.loads(row["patch"]))
    return out


def create_batch(
    context: Context, body: dict[str, Any], *, later: float, hide: int, others: bool = False, wire: str = WIRE
) -> str:
    """Record a batch in `validating`; it appears to callers after `later` seconds."""
    keep = body.get("output_expires_after") or {}
    batch_id = new_id("batch_")
    given = body.get("metadata")
    record(
        context,
        wire=wire,
        batch_id=batch_id,
        later=later,
        hide=hide,
        others=others,
        endpoint=body["endpoint"],
        input_file_id=body["input_file_id"],
        metadata=None if given is None else orjson.dumps(given).decode(),
        output_seconds=keep.get("seconds"),
        **({"model": snapshot("gpt-5.4-mini")} if others else {}),
    )
    return batch_id


class OpenAIWire:
    """The routes of batches and the live endpoints; every path under `/v1/` that no other wire owns."""

    name = WIRE
    root = "/v1"
    endpoints: tuple[str, ...] = ENDPOINTS
    windows: tuple[str, ...] = ("24h",)
    talk = openai_batch.OPENAI

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._background = Background(context)

    def routes(self) -> list[web.RouteDef]:
        root = self.root
        return [
            *OpenAIFiles(self._context, self.name, root).routes(),
            web.post(root + "/batches", self.create_batch),
            web.get(root + "/batches", self.list_batches),
            web.get(root + "/batches/{id}", self.get_batch),
            web.post(root + "/batches/{id}/cancel", self.cancel_batch),
            web.get(root + "/models", self.models),
            web.get(root + "/models/{id}", self.models),
            web.post(root + "/responses/input_tokens", self.input_tokens),
            *(web.post(root + endpoint.removeprefix("/v1"), self.live) for endpoint in self.endpoints),
            *self._background.routes(root),
        ]

    def owns(self, path: str) -> bool:
        return path.startswith(self.root + "/")

    def creates(self, path: str) -> bool:
        return path == self.root + "/batches"

    def asked(self, body: Any) -> Any:
        """The body of a create as OpenAI would write it."""
        return body

    def endpoint_of(self, request: web.Request) -> str:
        """Which of the endpoints a live call goes to."""
        return "/v1" + request.path.removeprefix(self.root)

    def shown(self, row: Any) -> dict[str, Any]:
        return batch_object(row)

    def odd(self, error: BaseException) -> RefusedError:
        return odd(error)

    def refusal(self, status: int, message: str = "", headers: dict[str, str] | None = None) -> RefusedError:
        words, type_, code = _WORDS.get(status, _SERVER)
        if message:
            code = None
        return RefusedError(message or words, status=status, type_=type_, code=code, headers=headers)

    def quota(self, headers: dict[str, str]) -> RefusedError:
        return RefusedError(_QUOTA, status=429, type_="insufficient_quota", code="insufficient_quota", headers=headers)

    def others(self) -> None:
        """A list holds more than what was asked for here."""
        for number in range(others_made(self._context, self.name), self._context.settings.other_batches):
            body = {
                "input_file_id": f"file-of-someone-else-{number}",
                "endpoint": self.endpoints[0],
                "metadata": {"owner": "someone else"},
            }
            create_batch(self._context, body, later=0.0, hide=0, others=True, wire=self.name)

    def refuse_stranger(self, request: web.Request) -> None:
        """A key is needed; keys starting with `sk-bad` are wrong ones."""
        header = request.headers.get("Authorization", "")
        if not header.startswith("Bearer ") or not header[7:].strip():
            message = "You didn't provide an API key. You need to provide your API key in an Authorization header."
            raise RefusedError(message, status=401)
        if header[7:].startswith("sk-bad"):
            raise RefusedError("Incorrect API key provided.", status=401, code="invalid_api_key")

    # -- batches

    async def create_batch(self, request: web.Request) -> web.StreamResponse:
        body = self.asked(await body_read(request))
        call = CALL.get()
        call.metadata = body.get("metadata") if isinstance(body, dict) else None
        batch_create(body, self.endpoints, self.windows)
        batch_id = create_batch(self._context, body, later=call.later, hide=call.hide, wire=self.name)
        call.created = batch_id
        if body["completion_window"] != "24h":
            window = orjson.dumps({"completion_window": body["completion_window"]}).decode()
            self._store.change_batch(batch_id, patch=window)
        row = self._store.db.execute("SELECT * FROM batch WHERE id = ?", (batch_id,)).fetchone()
        self._context.wake()
        return answered(self.shown(row))

    def _batch(self, request: web.Request) -> Any:
        row = self._store.batch(self.name, request.match_info["id"])
        if row is None:
            raise RefusedError(f"No batch found with id '{request.match_info['id']}'.", status=404)
        return row

    async def list_batches(self, request: web.Request) -> web.StreamResponse:
        limit = limit_of(request.query.get("limit"), default=20, most=100)
        after = request.query.get("after")
        if after and self._store.batch(self.name, after) is None:
            raise RefusedError(f"No batch found with id '{after}'.", status=404)
        rows = self._store.page_of_batches(self.name, after=after, limit=limit + 1)
        return answered(listed([self.shown(row) for row in rows], limit))

    async def get_batch(self, request: web.Request) -> web.StreamResponse:
        return answered(self.shown(self._batch(request)))

    async def cancel_batch(self, request: web.Request) -> web.StreamResponse:
        with self._store.transaction():
            row = self._batch(request)
            if row["status"] in ("completed", "failed", "expired"):
                raise RefusedError(f"Cannot cancel a batch with status '{row['status']}'.", status=409)
            cancel(self._context, row)
        self._context.wake()
        return answered(self.shown(self._batch(request)))

    # -- the rest

    async def models(self, request: web.Request) -> web.StreamResponse:
        names = self._context.settings.models or ("gpt-5.4", "gpt-5.4-mini", "gpt-5.4-nano", "text-embedding-3-small")
        objects = [{"id": name, "object": "model", "created": 1790000000, "owned_by": "openai"} for name in names]
        wanted = request.match_info.get("id")
        if wanted is None:
            return answered({"object": "list", "data": objects})
        if self._lacks(wanted):
            raise RefusedError(
                f"The model '{wanted}' does not exist", param="model", code="model_not_found", status=404
            )
        return answered({"id": wanted, "object": "model", "created": 1790000000, "owned_by": "openai"})

    def _lacks(self, model: Any) -> bool:
        """Without `models` in the settings every model exists whose name does not say otherwise."""
        named = self._context.settings.models
        return bool(named and model not in named) or str(model).startswith("nonexistent")

    async def input_tokens(self, request: web.Request) -> web.StreamResponse:
        body = await body_read(request)
        return answered({"object": "response.input_tokens", "input_tokens": len(orjson.dumps(body)) // 4 + 1})

    async def live(self, request: web.Request) -> web.StreamResponse:
        """One request, answered at once: the same answers and the same fates as in a batch, drawn without custom_id."""
        endpoint, settings = self.endpoint_of(request), self._context.settings
        body = await body_read(request)
        if not isinstance(body, dict):
            raise RefusedError("We could not parse the JSON body of your request.")
        self.talk.body_of(endpoint, body)
        model = body.get("model")
        if model is not None and self._lacks(model):
            raise RefusedError(f"The model '{model}' does not exist", param="model", code="model_not_found", status=404)
        payload = orjson.dumps(body)
        digest = hashlib.sha256(payload)
        fate = Fates(settings).draw(digest.digest(), "", payload)
        if fate.delivery in ("error500", "unknown", "timeout"):
            raise RefusedError(openai_batch.SERVER_ERROR["error"]["message"] or "", status=500, type_="server_error")
        if fate.delivery == "error429":
            raise RefusedError("Rate limit reached.", status=429, type_="requests", code="rate_limit_exceeded")
        given = self.talk.answer(
            endpoint,
            body,
            payload,
            seed=settings.seed,
            quality=fate.quality,
            created=int(time.time()),
            nonce=new_id("")[:24],
            cached=settings.cached,
            thinking=settings.thinking,
        )
        if endpoint == "/v1/responses" and body.get("background"):
            if body.get("store") is False:
                raise RefusedError("Background mode requires store=true.", param="background", code="invalid_value")
            return self._background.create(digest.hexdigest(), given)
        self._context.bill_live(endpoint, digest.hexdigest(), given)
        return web.Response(body=given.body, content_type="application/json")
