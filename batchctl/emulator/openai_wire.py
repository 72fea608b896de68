"""OpenAI's HTTP routes under `/v1`: files, uploads, batches and the synchronous endpoints.

Sources: API reference and batch guide at developers.openai.com, read 2026-11; error answers recorded from the real
service by public tests (August 2025). Messages are ours; match on codes, types and parameters.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import BodyPartReader, web

from batchctl.emulator import openai_batch
from batchctl.emulator.call import CALL
from batchctl.emulator.faults import Fates
from batchctl.emulator.openai_answers import answer, snapshot
from batchctl.emulator.openai_checks import (
    ENDPOINTS,
    RefusedError,
    batch_create,
    body_of,
    expiry,
    integer_between,
    invalid_value,
    missing,
)
from batchctl.emulator.process import Valid, progress
from batchctl.emulator.settings import Settings
from batchctl.emulator.store import new_id, private_file
from batchctl.emulator.tariff import usd

if TYPE_CHECKING:
    from batchctl.emulator.server import Context

WIRE = "openai"
_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_MOST_UPLOAD = 512_000_000
_INPUT_DAYS = 30
_TIMES = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


class OpenAIBatches:
    """What the worker needs to know of this wire."""

    def validate(self, path: Path, endpoint: str, settings: Settings, queued_tokens: int) -> Valid:
        return openai_batch.validate(path, endpoint, settings, queued_tokens)

    def rows(self, *, batch_id: str, endpoint: str, settings: Settings, created: int) -> openai_batch.Rows:
        return openai_batch.Rows(batch_id=batch_id, endpoint=endpoint, settings=settings, created=created)

    def gone(self, file_id: str) -> dict[str, Any]:
        message = f"Cannot find file {file_id}, or organization org-EXAMPLE does not have access to it."
        return openai_batch.problem("invalid_request", message, "file_id")

    def output_name(self, batch_id: str, kind: str) -> str:
        return f"{batch_id}_{kind}.jsonl"

    def new_file_id(self) -> str:
        return new_id("file-")


def file_object(row: Any) -> dict[str, Any]:
    return {
        "id": row["id"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": row["created_at"],
        "expires_at": row["expires_at"],
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": "processed",
        "status_details": None,
    }


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


def listed(objects: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    page = objects[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(objects) > limit,
    }


def create_batch(context: Context, body: dict[str, Any], *, later: float, hide: int, others: bool = False) -> str:
    """Record a batch in `validating`; it appears to callers after `later` seconds."""
    settings = context.settings
    now = time.time() + later
    takes = settings.takes_seconds
    keep = body.get("output_expires_after") or {}
    batch_id = new_id("batch_")
    given = body.get("metadata")
    context.store.insert_batch(
        id=batch_id,
        wire=WIRE,
        endpoint=body["endpoint"],
        input_file_id=body["input_file_id"],
        metadata=None if given is None else orjson.dumps(given).decode(),
        output_seconds=keep.get("seconds"),
        settings=settings.stored(),
        status="completed" if others else "validating",
        created=now,
        visible_at=now if later else 0.0,
        expires_at=int(now + settings.window),
        validate_due=now + 0.1 * takes,
        finalize_due=now + 0.9 * takes,
        end_due=now + takes,
        expire_due=now + settings.window if settings.window < takes else None,
        hidden=hide,
        others=int(others),
        **({"in_progress_at": now, "completed_at": now, "model": snapshot("gpt-5.4-mini")} if others else {}),
    )
    return batch_id


def others_batches(context: Context) -> None:
    """Put the batches of someone else into the list, once: a list holds more than what was asked for here."""
    made = context.store.db.execute("SELECT count(*) FROM batch WHERE others = 1").fetchone()[0]
    for number in range(made, context.settings.other_batches):
        body = {
            "input_file_id": f"file-of-someone-else-{number}",
            "endpoint": "/v1/responses",
            "metadata": {"owner": "someone else"},
        }
        create_batch(context, body, later=0.0, hide=0, others=True)


class OpenAIWire:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def routes(self) -> list[web.RouteDef]:
        live = [web.post(endpoint, self.live) for endpoint in ENDPOINTS]
        return [
            web.post("/v1/files", self.upload_file),
            web.get("/v1/files", self.list_files),
            web.get("/v1/files/{id}", self.get_file),
            web.get("/v1/files/{id}/content", self.file_content),
            web.delete("/v1/files/{id}", self.delete_file),
            web.post("/v1/uploads", self.create_upload),
            web.post("/v1/uploads/{id}/parts", self.add_part),
            web.post("/v1/uploads/{id}/complete", self.complete_upload),
            web.post("/v1/uploads/{id}/cancel", self.cancel_upload),
            web.post("/v1/batches", self.create_batch),
            web.get("/v1/batches", self.list_batches),
            web.get("/v1/batches/{id}", self.get_batch),
            web.post("/v1/batches/{id}/cancel", self.cancel_batch),
            web.get("/v1/models", self.models),
            web.get("/v1/models/{id}", self.models),
            web.post("/v1/responses/input_tokens", self.input_tokens),
            *live,
        ]

    def refuse_stranger(self, request: web.Request) -> None:
        """A key is needed; keys starting with `sk-bad` are wrong ones."""
        header = request.headers.get("Authorization", "")
        if not header.startswith("Bearer ") or not header[7:].strip():
            message = "You didn't provide an API key. You need to provide your API key in an Authorization header."
            raise RefusedError(message, status=401)
        if header[7:].startswith("sk-bad"):
            raise RefusedError("Incorrect API key provided.", status=401, code="invalid_api_key")

    # -- files

    async def upload_file(self, request: web.Request) -> web.StreamResponse:
        if not request.content_type.startswith("multipart/"):
            raise RefusedError("Expected a multipart/form-data request.")
        fields: dict[str, str] = {}
        file_id = new_id("file-")
        part_path = self._store.work / f"{file_id}.part"
        filename: str | None = None
        try:
            reader = await request.multipart()
            async for part in reader:
                if not isinstance(part, BodyPartReader):
                    raise RefusedError("Nested multipart is not supported.")
                if part.name == "file":
                    filename = part.filename or "upload"
                    await _to_disk(part, part_path, _MOST_UPLOAD)
                elif part.name:
                    fields[part.name] = (await part.read(decode=True)).decode()
            if filename is None:
                raise missing("file")
            purpose = fields.get("purpose")
            if purpose is None:
                raise missing("purpose")
            if purpose not in _PURPOSES:
                raise invalid_value("purpose", purpose, _PURPOSES)
            keep = _form_expiry(fields)
            row = self._keep_file(
                part_path,
                file_id,
                filename,
                purpose,
                keep,
                visible_at=_visible_at(),
            )
        except ValueError as error:
            raise RefusedError(f"Could not parse multipart form: {error}") from error
        finally:
            part_path.unlink(missing_ok=True)
        return _json(file_object(row))

    def _keep_file(
        self, path: Path, file_id: str, filename: str, purpose: str, keep: int | None, visible_at: float = 0.0
    ) -> Any:
        if purpose == "batch":
            _batch_file(path, filename)
            keep = keep or _INPUT_DAYS * 86400
        with self._store.transaction() as db:
            self._store.add_file(
                path,
                wire=WIRE,
                file_id=file_id,
                filename=filename,
                purpose=purpose,
                created=time.time(),
                keep_seconds=keep,
                visible_at=visible_at,
            )
            return db.execute("SELECT * FROM file WHERE id = ?", (file_id,)).fetchone()

    async def list_files(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        limit = _limit(query.get("limit"), default=10000, most=10000)
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid_value("order", order, ("asc", "desc"))
        rows = self._store.page_of_files(
            WIRE,
            purpose=query.get("purpose"),
            newest_first=order == "desc",
            after=query.get("after"),
            limit=limit + 1,
        )
        return _json(listed([file_object(row) for row in rows], limit))

    def _file(self, request: web.Request) -> Any:
        row = self._store.file(WIRE, request.match_info["id"])
        if row is None:
            raise RefusedError(f"No such File object: {request.match_info['id']}", param="id", status=404)
        return row

    async def get_file(self, request: web.Request) -> web.StreamResponse:
        return _json(file_object(self._file(request)))

    async def file_content(self, request: web.Request) -> web.StreamResponse:
        row = self._file(request)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{row["filename"].encode("ascii", "replace").decode()}"',
        }
        return web.FileResponse(self._store.files / row["id"], chunk_size=1 << 18, headers=headers)

    async def delete_file(self, request: web.Request) -> web.StreamResponse:
        row = self._file(request)
        self._store.delete_file(row["id"])
        return _json({"id": row["id"], "object": "file", "deleted": True})

    # -- uploads in parts

    async def create_upload(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        for name in ("bytes", "filename", "mime_type", "purpose"):
            if body.get(name) is None:
                raise missing(name)
        keep = expiry(body["expires_after"], "expires_after") if body.get("expires_after") else None
        upload_id = new_id("upload_")
        size = integer_between(body["bytes"], "bytes", 0, 8 * 2**30)
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO upload VALUES (?, ?, ?, ?, ?, ?, 'pending', NULL)",
                (upload_id, body["filename"], body["purpose"], size, int(time.time()), keep),
            )
        return _json(self._upload_object(upload_id))

    def _upload_object(self, upload_id: str, *, only: str | None = None) -> dict[str, Any]:
        row = self._store.db.execute("SELECT * FROM upload WHERE id = ?", (upload_id,)).fetchone()
        if row is None:
            raise RefusedError(f"No such Upload object: {upload_id}", param="upload_id", status=404)
        if only is not None and row["status"] != only:
            raise RefusedError(f"Upload is {row['status']}.", param="upload_id")
        out = {
            "id": row["id"],
            "object": "upload",
            "bytes": row["bytes"],
            "created_at": row["created_at"],
            "filename": row["filename"],
            "purpose": row["purpose"],
            "status": row["status"],
            "expires_at": row["created_at"] + 3600,
        }
        if row["file_id"]:
            file = self._store.db.execute("SELECT * FROM file WHERE id = ?", (row["file_id"],)).fetchone()
            out["file"] = file_object(file)
        return out

    async def add_part(self, request: web.Request) -> web.StreamResponse:
        upload_id = request.match_info["id"]
        self._upload_object(upload_id, only="pending")
        part_id = new_id("part_")
        path = self._store.work / part_id
        reader = await request.multipart()
        async for part in reader:
            if isinstance(part, BodyPartReader) and part.name == "data":
                await _to_disk(part, path, 64 * 2**20)
        if not path.exists():
            raise missing("data")
        with self._store.transaction() as db:
            db.execute("INSERT INTO part VALUES (?, ?, ?)", (part_id, upload_id, path.stat().st_size))
        out = {"id": part_id, "object": "upload.part", "created_at": int(time.time()), "upload_id": upload_id}
        return _json(out)

    async def complete_upload(self, request: web.Request) -> web.StreamResponse:
        upload_id = request.match_info["id"]
        upload = self._upload_object(upload_id, only="pending")
        body = await _body(request)
        rows = self._store.db.execute("SELECT id FROM part WHERE upload_id = ?", (upload_id,)).fetchall()
        known = {row[0] for row in rows}
        digest = hashlib.md5(usedforsecurity=False)
        file_id = new_id("file-")
        path = self._store.work / f"{file_id}.part"
        with private_file(path) as out:
            for part_id in body.get("part_ids") or ():
                if part_id not in known:
                    raise RefusedError(f"No such part: {part_id}", param="part_ids")
                with (self._store.work / part_id).open("rb") as file:
                    while chunk := file.read(1 << 20):
                        digest.update(chunk)
                        out.write(chunk)
        if path.stat().st_size != upload["bytes"]:
            raise RefusedError("The bytes of the parts do not add up to the bytes of the upload.", param="bytes")
        if body.get("md5") and body["md5"] != digest.hexdigest():
            raise RefusedError("The checksum does not match.", param="md5")
        keep = self._store.db.execute("SELECT expires_after FROM upload WHERE id = ?", (upload_id,)).fetchone()[0]
        self._keep_file(path, file_id, upload["filename"], upload["purpose"], keep)
        with self._store.transaction() as db:
            db.execute("UPDATE upload SET status = 'completed', file_id = ? WHERE id = ?", (file_id, upload_id))
        for part_id in known:
            (self._store.work / part_id).unlink(missing_ok=True)
        return _json(self._upload_object(upload_id))

    async def cancel_upload(self, request: web.Request) -> web.StreamResponse:
        upload_id = request.match_info["id"]
        self._upload_object(upload_id, only="pending")
        with self._store.transaction() as db:
            db.execute("UPDATE upload SET status = 'cancelled' WHERE id = ?", (upload_id,))
        return _json(self._upload_object(upload_id))

    # -- batches

    async def create_batch(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        call = CALL.get()
        call.metadata = body.get("metadata") if isinstance(body, dict) else None
        batch_create(body)
        batch_id = create_batch(self._context, body, later=call.later, hide=call.hide)
        call.created = batch_id
        row = self._store.db.execute("SELECT * FROM batch WHERE id = ?", (batch_id,)).fetchone()
        self._context.wake()
        return _json(batch_object(row))

    def _batch(self, request: web.Request) -> Any:
        row = self._store.batch(WIRE, request.match_info["id"])
        if row is None:
            raise RefusedError(f"No batch found with id '{request.match_info['id']}'.", status=404)
        return row

    async def list_batches(self, request: web.Request) -> web.StreamResponse:
        limit = _limit(request.query.get("limit"), default=20, most=100)
        after = request.query.get("after")
        if after and self._store.batch(WIRE, after) is None:
            raise RefusedError(f"No batch found with id '{after}'.", status=404)
        rows = self._store.page_of_batches(WIRE, after=after, limit=limit + 1)
        return _json(listed([batch_object(row) for row in rows], limit))

    async def get_batch(self, request: web.Request) -> web.StreamResponse:
        return _json(batch_object(self._batch(request)))

    async def cancel_batch(self, request: web.Request) -> web.StreamResponse:
        with self._store.transaction():
            row = self._batch(request)
            if row["status"] in ("completed", "failed", "expired"):
                raise RefusedError(f"Cannot cancel a batch with status '{row['status']}'.", status=409)
            cancel(self._context, row)
        self._context.wake()
        return _json(batch_object(self._batch(request)))

    # -- the rest

    async def models(self, request: web.Request) -> web.StreamResponse:
        names = self._context.settings.models or ("gpt-5.4", "gpt-5.4-mini", "gpt-5.4-nano", "text-embedding-3-small")
        objects = [{"id": name, "object": "model", "created": 1790000000, "owned_by": "openai"} for name in names]
        wanted = request.match_info.get("id")
        if wanted is None:
            return _json({"object": "list", "data": objects})
        found = next((one for one in objects if one["id"] == wanted), None)
        if found is None:
            raise RefusedError(
                f"The model '{wanted}' does not exist", param="model", code="model_not_found", status=404
            )
        return _json(found)

    async def input_tokens(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        return _json({"object": "response.input_tokens", "input_tokens": len(orjson.dumps(body)) // 4 + 1})

    async def live(self, request: web.Request) -> web.StreamResponse:
        """One request, answered at once: the same answers and the same fates as in a batch, drawn without custom_id."""
        endpoint, settings = request.path, self._context.settings
        body = await _body(request)
        if not isinstance(body, dict):
            raise RefusedError("We could not parse the JSON body of your request.")
        body_of(endpoint, body)
        model = body.get("model")
        if model is not None and (
            (settings.models and model not in settings.models) or model.startswith("nonexistent")
        ):
            raise RefusedError(f"The model '{model}' does not exist", param="model", code="model_not_found", status=404)
        payload = orjson.dumps(body)
        digest = hashlib.sha256(payload)
        fate = Fates(settings).draw(digest.digest(), "")
        if fate.delivery in ("error500", "unknown", "timeout"):
            raise RefusedError(openai_batch.SERVER_ERROR["error"]["message"] or "", status=500, type_="server_error")
        if fate.delivery == "error429":
            raise RefusedError("Rate limit reached.", status=429, type_="requests", code="rate_limit_exceeded")
        given = answer(
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
        cost = usd(settings.prices, "live", given.input_tokens, given.cached_tokens, given.output_tokens)
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO live (at, endpoint, digest, input_tokens, output_tokens, usd) VALUES (?, ?, ?, ?, ?, ?)",
                (time.time(), endpoint, digest.hexdigest(), given.input_tokens, given.output_tokens, str(cost)),
            )
        return web.Response(body=given.body, content_type="application/json")


def cancel(context: Context, row: Any) -> None:
    """Cancel a batch that has not ended; rows that are done are kept. Call inside a transaction."""
    now = time.time()
    if row["status"] in ("cancelling", "cancelled"):
        return
    if row["status"] == "validating":
        context.store.change_batch(row["id"], status="cancelled", cancelling_at=now, cancelled_at=now, held=None)
        return
    by_clock = row["end_due"] > row["created"]
    cut: dict[str, Any] = {}
    if by_clock and row["cut"] is None:
        cut = {"cut": progress(row, now), "cut_code": "batch_cancelled"}
    context.store.change_batch(row["id"], status="cancelling", cancelling_at=now, held=None, **cut)


def force(context: Context, batch_id: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Put a batch where a test needs it.

    `status` may be an end (`completed` at once, `failed`, `expired`, `cancelled`), which takes the ordinary way there,
    or any other word, known or not, which is shown and keeps the batch from moving until `status` is null. Every other
    key replaces a field of the object that callers see.
    """
    store = context.store
    with store.transaction():
        row = store.batch(WIRE, batch_id)
        if row is None:
            raise RefusedError(f"No batch found with id '{batch_id}'.", status=404)
        shown = {key: value for key, value in wanted.items() if key not in ("status", "errors")}
        if shown:
            patch = orjson.loads(row["patch"]) if row["patch"] else {}
            store.change_batch(batch_id, patch=orjson.dumps(patch | shown).decode())
        if "status" in wanted:
            _force_status(context, row, wanted)
    context.wake()
    row = store.batch(WIRE, batch_id)
    return batch_object(row)


def _force_status(context: Context, row: Any, wanted: dict[str, Any]) -> None:
    store, status, now = context.store, wanted["status"], time.time()
    ended = row["status"] in ("completed", "failed", "expired", "cancelled")
    if status is None or ended:
        store.change_batch(row["id"], held=None if status in (None, row["status"]) else status)
    elif status == "completed":
        store.change_batch(row["id"], held=None, validate_due=now, finalize_due=now, end_due=now, expire_due=None)
    elif status == "expired":
        cut = progress(row, now)
        store.change_batch(row["id"], held=None, validate_due=now, cut=cut, cut_code="batch_expired")
    elif status in ("cancelled", "cancelling"):
        cancel(context, row)
    elif status == "failed":
        errors = wanted.get("errors") or [openai_batch.problem("server_error", "The batch could not be run.")]
        store.change_batch(
            row["id"],
            held=None,
            status="failed",
            failed_at=now,
            errors=orjson.dumps(errors).decode(),
            total=0,
            completed=0,
        )
    else:
        store.change_batch(row["id"], held=str(status))


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


async def _body(request: web.Request) -> Any:
    try:
        return orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise RefusedError("We could not parse the JSON body of your request.") from error


def _visible_at() -> float:
    later = CALL.get().later
    return time.time() + later if later else 0.0


def _limit(given: str | None, *, default: int, most: int) -> int:
    if given is None:
        return default
    try:
        return integer_between(int(given), "limit", 1, most)
    except ValueError as error:
        raise RefusedError("Invalid type for 'limit'.", param="limit", code="invalid_type") from error


def _form_expiry(fields: dict[str, str]) -> int | None:
    if "expires_after[anchor]" not in fields and "expires_after[seconds]" not in fields:
        return None
    text = fields.get("expires_after[seconds]", "")
    given = {"anchor": fields.get("expires_after[anchor]"), "seconds": int(text) if text.isdigit() else text}
    return expiry(given, "expires_after")


def _batch_file(path: Path, filename: str) -> None:
    """What an upload for a batch is checked for: the name, and that the first line is JSON; more is checked later."""
    refusal = RefusedError("Invalid file format for Batch API. Must be .jsonl")
    if not filename.endswith(".jsonl"):
        raise refusal
    with path.open("rb") as file:
        first = file.readline().removeprefix(b"\xef\xbb\xbf")
    if not first:
        return
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        raise refusal from None


async def _to_disk(part: BodyPartReader, path: Path, most: int) -> None:
    """Write a part as it arrives, so that memory does not grow with it."""
    size = 0
    with private_file(path) as out:
        while chunk := await part.read_chunk(1 << 18):
            size += len(chunk)
            if size > most:
                raise RefusedError("File is too large.", status=413)
            out.write(chunk)
