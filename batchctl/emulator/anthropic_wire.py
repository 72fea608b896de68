"""Anthropic's HTTP routes: Message Batches, and messages one at a time.

Sources: platform.claude.com/docs/en/build-with-claude/batch-processing and .../api/errors, and the resources of the
anthropic SDK 2.12.0, read 2026-11. A create carries its requests in its body; nothing marks a batch, and no count moves
before it has ended.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator.anthropic_batch import ERRORS, Rows, answer
from batchctl.emulator.anthropic_checks import MOST_BYTES, RefusedError, batch_create, message_params, odd
from batchctl.emulator.batches import ENDED, cancel, others_made, record
from batchctl.emulator.call import CALL
from batchctl.emulator.faults import Fates
from batchctl.emulator.process import InStore, Valid
from batchctl.emulator.settings import Settings
from batchctl.emulator.store import new_id, private_file
from batchctl.emulator.wire import Context

WIRE = "anthropic"
ENDPOINT = "/v1/messages"
BATCHES = "/v1/messages/batches"
_NEVER = 1e18
_MESSAGES = {
    400: "Invalid request.",
    401: "invalid x-api-key",
    403: "Your API key does not have permission to use the specified resource.",
    404: "Not found.",
    413: "Request exceeds the maximum size",
    429: "This request would exceed the rate limit for your organization.",
    529: "Overloaded",
}


class AnthropicBatches(InStore):
    """What the worker needs to know of this wire. Its batches are checked when they are created."""

    one_file = True

    def validate(self, path: Path, endpoint: str, settings: Settings, queued_tokens: int) -> Valid:
        raise NotImplementedError("a batch of this wire starts in progress")

    def rows(self, *, batch_id: str, endpoint: str, settings: Settings, created: int) -> Rows:  # noqa: ARG002
        return Rows(batch_id=batch_id, settings=settings)

    def gone(self, file_id: str) -> dict[str, Any]:
        raise NotImplementedError("a batch of this wire has no input file")

    def output_name(self, batch_id: str, kind: str) -> str:
        return f"{batch_id}_{kind}.jsonl"

    def new_file_id(self) -> str:
        return new_id("results-")


class AnthropicWire:
    """Everything under `/v1/messages`."""

    name = WIRE

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._origin = "http://127.0.0.1"

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(BATCHES, self.create_batch),
            web.get(BATCHES, self.list_batches),
            web.get(BATCHES + "/{id}", self.get_batch),
            web.post(BATCHES + "/{id}/cancel", self.cancel_batch),
            web.delete(BATCHES + "/{id}", self.delete_batch),
            web.get(BATCHES + "/{id}/results", self.results),
            web.post(ENDPOINT, self.live),
            web.post(ENDPOINT + "/count_tokens", self.count_tokens),
        ]

    def owns(self, path: str) -> bool:
        return path == ENDPOINT or path.startswith(ENDPOINT + "/")

    def creates(self, path: str) -> bool:
        return path == BATCHES

    def refuse_stranger(self, request: web.Request) -> None:
        """A key is needed, under either name; keys starting with `sk-bad` are wrong ones. So is the API version."""
        self._origin = f"{request.scheme}://{request.host}"  # results are at the address that was asked
        bearer = request.headers.get("Authorization", "")
        key = bearer.removeprefix("Bearer ").strip() if bearer.startswith("Bearer ") else ""
        key = key or request.headers.get("x-api-key", "").strip()
        if not key or key.startswith("sk-bad"):
            raise self.refusal(401)
        if not request.headers.get("anthropic-version"):
            raise RefusedError("anthropic-version: header is required")

    def refusal(self, status: int, message: str = "", headers: dict[str, str] | None = None) -> RefusedError:
        return RefusedError(message or _MESSAGES.get(status, "Internal server error"), status=status, headers=headers)

    def quota(self, headers: dict[str, str]) -> RefusedError:
        message = "Your organization has reached its monthly usage threshold."
        return RefusedError(message, status=429, code="enforced_spend_limit_reached", headers=headers)

    def odd(self, error: BaseException) -> RefusedError:
        return odd(error)

    def shown(self, row: Any) -> dict[str, Any]:
        """A batch as the service shows it: all requests are processing until every one of them is not."""
        ended = row["status"] in ENDED
        word = "ended" if ended else "canceling" if row["status"] == "cancelling" else "in_progress"
        rest = row["total"] - row["completed"] - row["failed"]
        cancelled = row["status"] == "cancelled"
        finished = next(
            (row[one] for one in ("completed_at", "expired_at", "cancelled_at") if row[one] is not None), None
        )
        out = {
            "id": row["id"],
            "type": "message_batch",
            "processing_status": row["held"] or word,
            "request_counts": {
                "processing": 0 if ended else row["total"],
                "succeeded": row["completed"] if ended else 0,
                "errored": row["failed"] if ended else 0,
                "canceled": rest if ended and cancelled else 0,
                "expired": rest if ended and not cancelled else 0,
            },
            "ended_at": _time(finished),
            "created_at": _time(row["created"]),
            "expires_at": _time(row["expires_at"]),
            "archived_at": None,
            "cancel_initiated_at": _time(row["cancelling_at"]),
            "results_url": f"{self._origin}{BATCHES}/{row['id']}/results" if ended else None,
        }
        return out | orjson.loads(row["patch"]) if row["patch"] else out

    def others(self) -> None:
        """A workspace's list holds more than what was asked for here."""
        for number in range(others_made(self._context, WIRE), self._context.settings.other_batches):
            self._record([], 1 + number, later=0.0, hide=0, others=True)

    # -- batches

    async def create_batch(self, request: web.Request) -> web.StreamResponse:
        if (request.content_length or 0) > MOST_BYTES:
            raise self.refusal(413)
        requests = batch_create(await _body(request))
        call = CALL.get()
        call.created = self._record(requests, len(requests), later=call.later, hide=call.hide)
        self._context.wake()
        row = self._store.db.execute("SELECT * FROM batch WHERE id = ?", (call.created,)).fetchone()
        return _answered(self.shown(row))

    def _record(self, requests: list[Any], total: int, *, later: float, hide: int, others: bool = False) -> str:
        """The requests on disk, then the batch in the books: one that is in progress has its input."""
        batch_id = new_id("msgbatch_")
        with private_file(self._store.work / f"{batch_id}.input") as out:
            for one in requests:
                out.write(orjson.dumps(one) + b"\n")
        models = sorted({str(one["params"].get("model")) for one in requests})
        record(
            self._context,
            wire=WIRE,
            batch_id=batch_id,
            later=later,
            hide=hide,
            others=others,
            endpoint=ENDPOINT,
            input_file_id="",
            in_progress_at=time.time() + later,
            total=total,
            model=models[0] if len(models) == 1 else None,
            **({"completed": total} if others else {"status": "in_progress"}),
        )
        return batch_id

    def _batch(self, batch_id: str) -> Any:
        row = self._store.batch(WIRE, batch_id)
        if row is None:
            raise RefusedError("Message batch not found.", status=404)
        return row

    async def list_batches(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        for name in query:
            if name not in ("limit", "after_id", "before_id"):
                raise RefusedError(f"{name}: Extra inputs are not permitted")
        text = query.get("limit", "20")
        limit = int(text) if text.isdigit() else 0
        if not 1 <= limit <= 1000:
            raise RefusedError("limit: Input should be between 1 and 1000")
        after, before = query.get("after_id"), query.get("before_id")
        if after and before:
            raise RefusedError("only one of after_id and before_id may be given")
        for one in filter(None, (after, before)):
            self._batch(one)
        rows = self._store.page_of_batches(WIRE, after=after, before=before, limit=limit + 1)
        page = [self.shown(row) for row in rows[:limit]]
        if before:
            page.reverse()
        first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        return _answered({"data": page, "has_more": len(rows) > limit, "first_id": first, "last_id": last})

    async def get_batch(self, request: web.Request) -> web.StreamResponse:
        return _answered(self.shown(self._batch(request.match_info["id"])))

    async def cancel_batch(self, request: web.Request) -> web.StreamResponse:
        with self._store.transaction():
            row = self._batch(request.match_info["id"])
            if row["status"] in ENDED:
                raise RefusedError("The batch has already ended.")
            cancel(self._context, row)
        self._context.wake()
        return _answered(self.shown(self._batch(row["id"])))

    async def delete_batch(self, request: web.Request) -> web.StreamResponse:
        with self._store.transaction():
            row = self._batch(request.match_info["id"])
            if row["status"] not in ENDED:
                raise RefusedError("A batch that is in progress cannot be deleted; cancel it first.")
            self._store.change_batch(row["id"], visible_at=_NEVER)
        return _answered({"id": row["id"], "type": "message_batch_deleted"})

    async def results(self, request: web.Request) -> web.StreamResponse:
        row = self._batch(request.match_info["id"])
        gone = orjson.loads(row["patch"] or "{}").get("archived_at")
        if row["status"] not in ENDED or gone:
            raise RefusedError("Batch results are not available.", status=404)
        headers = {"Content-Type": "application/x-jsonl"}
        if row["output_file_id"] is None:
            return web.Response(body=b"", headers=headers)
        return web.FileResponse(self._store.files / row["output_file_id"], chunk_size=1 << 18, headers=headers)

    # -- one at a time

    async def count_tokens(self, request: web.Request) -> web.StreamResponse:
        params = await _body(request)
        if not isinstance(params, dict):
            raise RefusedError("Input should be a valid dictionary")
        message_params({"max_tokens": 1, **params}, self._context.settings.models)
        return _answered({"input_tokens": len(orjson.dumps(params)) // 4 + 1})

    async def live(self, request: web.Request) -> web.StreamResponse:
        """One message, answered at once: the same answers and fates as in a batch, drawn without custom_id."""
        settings = self._context.settings
        params = await _body(request)
        if not isinstance(params, dict):
            raise RefusedError("Input should be a valid dictionary")
        message_params(params, settings.models)
        payload = orjson.dumps(params)
        digest = hashlib.sha256(payload)
        fate = Fates(settings).draw(digest.digest(), "", payload)
        if fate.delivery in ERRORS:
            kind, message, status = ERRORS[fate.delivery]
            raise RefusedError(message, status=status, type_=kind)
        nonce = new_id("")[:24]
        given = answer(
            params,
            payload,
            seed=settings.seed,
            quality=fate.quality,
            nonce=nonce,
            tier="standard",
            cached=settings.cached,
            thinking=settings.thinking,
        )
        self._context.bill_live(ENDPOINT, digest.hexdigest(), given)
        return web.Response(body=given.body, content_type="application/json")


def _answered(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


async def _body(request: web.Request) -> Any:
    try:
        return orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise RefusedError("The request body is not valid JSON") from error


def _time(seconds: Any) -> str | None:
    """RFC 3339 with microseconds, as the service writes times."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(float(seconds), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
