"""OpenAI's files and uploads: what a batch reads and what it leaves behind.

Sources: API reference, files and uploads, at developers.openai.com, read 2026-11.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from aiohttp import BodyPartReader, web

from batchctl.emulator.call import CALL
from batchctl.emulator.openai_checks import RefusedError, expiry, integer_between, invalid_value, missing
from batchctl.emulator.store import new_id, private_file
from batchctl.emulator.wire import Context

WIRE = "openai"
_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_MOST_UPLOAD = 512_000_000
_INPUT_DAYS = 30


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


def listed(objects: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    page = objects[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(objects) > limit,
    }


class OpenAIFiles:
    """Routes of files and uploads. `wire` is whose files they are, `root` the path that they are under."""

    purposes: tuple[str, ...] = _PURPOSES

    def __init__(self, context: Context, wire: str = WIRE, root: str = "/v1") -> None:
        self._context = context
        self._store = context.store
        self._wire = wire
        self._root = root

    def routes(self) -> list[web.RouteDef]:
        root = self._root
        return [
            web.post(root + "/files", self.upload_file),
            web.get(root + "/files", self.list_files),
            web.get(root + "/files/{id}", self.get_file),
            web.get(root + "/files/{id}/content", self.file_content),
            web.delete(root + "/files/{id}", self.delete_file),
            web.post(root + "/uploads", self.create_upload),
            web.post(root + "/uploads/{id}/parts", self.add_part),
            web.post(root + "/uploads/{id}/complete", self.complete_upload),
            web.post(root + "/uploads/{id}/cancel", self.cancel_upload),
        ]

    def shown(self, row: Any) -> dict[str, Any]:
        """A file as callers see it."""
        return file_object(row)

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
                    await to_disk(partial(part.read_chunk, 1 << 18), part_path, _MOST_UPLOAD)
                elif part.name:
                    fields[part.name] = (await part.read(decode=True)).decode()
            if filename is None:
                raise missing("file")
            purpose = fields.get("purpose")
            if purpose is None:
                raise missing("purpose")
            if purpose not in self.purposes:
                raise invalid_value("purpose", purpose, self.purposes)
            keep = _form_expiry(fields)
            row = self._keep_file(
                part_path,
                file_id,
                filename,
                purpose,
                keep,
                visible_at=visible_at(),
            )
        except ValueError as error:
            raise RefusedError(f"Could not parse multipart form: {error}") from error
        finally:
            part_path.unlink(missing_ok=True)
        return answered(self.shown(row))

    def _keep_file(
        self, path: Path, file_id: str, filename: str, purpose: str, keep: int | None, visible_at: float = 0.0
    ) -> Any:
        if purpose == "batch":
            _batch_file(path, filename)
            keep = keep or _INPUT_DAYS * 86400
        with self._store.transaction() as db:
            self._store.add_file(
                path,
                wire=self._wire,
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
        limit = limit_of(query.get("limit"), default=10000, most=10000)
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid_value("order", order, ("asc", "desc"))
        rows = self._store.page_of_files(
            self._wire,
            purpose=query.get("purpose"),
            newest_first=order == "desc",
            after=query.get("after"),
            limit=limit + 1,
        )
        return answered(listed([self.shown(row) for row in rows], limit))

    def _file(self, request: web.Request) -> Any:
        row = self._store.file(self._wire, request.match_info["id"])
        if row is None:
            raise RefusedError(f"No such File object: {request.match_info['id']}", param="id", status=404)
        return row

    async def get_file(self, request: web.Request) -> web.StreamResponse:
        return answered(self.shown(self._file(request)))

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
        return answered({"id": row["id"], "object": "file", "deleted": True})

    # -- uploads in parts

    async def create_upload(self, request: web.Request) -> web.StreamResponse:
        body = await body_read(request)
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
        return answered(self._upload_object(upload_id))

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
                await to_disk(partial(part.read_chunk, 1 << 18), path, 64 * 2**20)
        if not path.exists():
            raise missing("data")
        with self._store.transaction() as db:
            db.execute("INSERT INTO part VALUES (?, ?, ?)", (part_id, upload_id, path.stat().st_size))
        out = {"id": part_id, "object": "upload.part", "created_at": int(time.time()), "upload_id": upload_id}
        return answered(out)

    async def complete_upload(self, request: web.Request) -> web.StreamResponse:
        upload_id = request.match_info["id"]
        upload = self._upload_object(upload_id, only="pending")
        body = await body_read(request)
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
        return answered(self._upload_object(upload_id))

    async def cancel_upload(self, request: web.Request) -> web.StreamResponse:
        upload_id = request.match_info["id"]
        self._upload_object(upload_id, only="pending")
        with self._store.transaction() as db:
            db.execute("UPDATE upload SET status = 'cancelled' WHERE id = ?", (upload_id,))
        return answered(self._upload_object(upload_id))


def answered(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


async def body_read(request: web.Request) -> Any:
    try:
        return orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise RefusedError("We could not parse the JSON body of your request.") from error


def visible_at() -> float:
    later = CALL.get().later
    return time.time() + later if later else 0.0


def limit_of(given: str | None, *, default: int, most: int) -> int:
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


async def to_disk(read: Callable[[], Awaitable[bytes]], path: Path, most: int) -> None:
    """Write what arrives as it arrives, so that memory does not grow with it."""
    size = 0
    with private_file(path) as out:
        while chunk := await read():
            size += len(chunk)
            if size > most:
                raise RefusedError("File is too large.", status=413)
            out.write(chunk)
