"""Gemini's Files API: resumable uploads, files that live for 48 hours, downloads of what a batch left.

Source: ai.google.dev/gemini-api/docs/files and google-genai 2.34.0 driven against a recording server, read 2026-11. A file
that is not there, or is gone, answers 403; an uploaded one cannot be read back.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator.google_checks import RefusedError, fields, need
from batchctl.emulator.store import new_id, private_file
from batchctl.emulator.wire import Context

WIRE = "gemini"
UPLOAD, FILES = "/upload/v1beta/files", "/v1beta/files"
KEEP_SECONDS = 48 * 3600
_MOST_BYTES = 2_000_000_000
_RESULTS = "batch_output"


class GeminiFiles:
    """Routes of files."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(UPLOAD, self.upload),
            web.get(FILES, self.list_files),
            web.get(FILES + "/{id:[^/:]+}", self.get_file),
            web.delete(FILES + "/{id:[^/:]+}", self.delete_file),
            web.get(FILES + "/{id:[^/:]+}:download", self.download),
            web.get("/download" + FILES + "/{id:[^/:]+}:download", self.download),
        ]

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """Both steps of a resumable upload come to the same path: the second one names the first."""
        upload_id = request.query.get("upload_id")
        if upload_id is None:
            return await self._start(request)
        row = self._store.db.execute("SELECT * FROM upload WHERE id = ?", (upload_id,)).fetchone()
        if row is None:
            raise RefusedError(status=404)
        commands = {one.strip() for one in request.headers.get("X-Goog-Upload-Command", "").split(",")}
        need(commands <= {"upload", "finalize"} and bool(commands), "Invalid upload command.")
        part = self._store.work / f"{upload_id}.upload"
        here = part.stat().st_size if part.exists() else 0
        offset = request.headers.get("X-Goog-Upload-Offset", "")
        need(offset == str(here), f"The offset must be {here}.")
        with part.open("ab") if here else private_file(part) as out:
            async for block in request.content.iter_chunked(1 << 18):
                out.write(block)
        size = part.stat().st_size
        if "finalize" not in commands:
            return web.Response(headers={"X-Goog-Upload-Status": "active", "X-Goog-Upload-Size-Received": str(size)})
        need(size == row["bytes"], "The upload does not have the size that was announced.")
        file_id = new_id("")[:12]
        self._store.add_file(
            part,
            wire=WIRE,
            file_id=file_id,
            filename=row["filename"],
            purpose="batch",
            created=time.time(),
            keep_seconds=KEEP_SECONDS,
        )
        with self._store.transaction() as db:
            db.execute("DELETE FROM upload WHERE id = ?", (upload_id,))
        return answered({"file": self._shown(self._row(file_id))}, {"X-Goog-Upload-Status": "final"})

    async def _start(self, request: web.Request) -> web.StreamResponse:
        need(request.headers.get("X-Goog-Upload-Protocol") == "resumable", "Only resumable uploads are known here.")
        need(request.headers.get("X-Goog-Upload-Command") == "start", "Invalid upload command.")
        body = await body_read(request)
        file = fields(body.get("file", {}), frozenset(("displayName", "mimeType", "name")), "file")
        need(len(str(file.get("displayName", ""))) <= 512, "display_name is too long")
        text = request.headers.get("X-Goog-Upload-Header-Content-Length", "")
        need(text.isdecimal() and int(text) <= _MOST_BYTES, "The file is larger than 2 GB, or has no size.")
        upload_id = new_id("upload-")
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO upload (id, filename, purpose, bytes, created_at, status) VALUES (?, ?, ?, ?, ?, ?)",
                (upload_id, file.get("displayName", ""), "batch", int(text), int(time.time()), "pending"),
            )
        address = f"{request.scheme}://{request.host}{UPLOAD}?upload_id={upload_id}&upload_protocol=resumable"
        return web.Response(headers={"X-Goog-Upload-URL": address, "X-Goog-Upload-Status": "active"})

    def _row(self, file_id: str) -> Any:
        row = self._store.file(WIRE, file_id)
        if row is None:
            message = f"You do not have permission to access the File {file_id} or it may not exist."
            raise RefusedError(message, status=403)
        return row

    def _shown(self, row: Any) -> dict[str, Any]:
        return {
            "name": f"files/{row['id']}",
            "displayName": row["filename"],
            "mimeType": "application/jsonl",
            "sizeBytes": str(row["bytes"]),
            "createTime": stamp(row["created_at"]),
            "updateTime": stamp(row["created_at"]),
            "expirationTime": stamp(row["expires_at"]),
            "uri": f"https://generativelanguage.googleapis.com/v1beta/files/{row['id']}",
            "state": "ACTIVE",
            "source": "GENERATED" if row["purpose"] == _RESULTS else "UPLOADED",
        }

    async def list_files(self, request: web.Request) -> web.StreamResponse:
        size = page_size(request, most=100)
        rows = self._store.page_of_files(
            WIRE, purpose=None, newest_first=True, after=request.query.get("pageToken"), limit=size + 1
        )
        page: dict[str, Any] = {"files": [self._shown(row) for row in rows[:size]]} if rows else {}
        if len(rows) > size:
            page["nextPageToken"] = rows[size - 1]["id"]
        return answered(page)

    async def get_file(self, request: web.Request) -> web.StreamResponse:
        return answered(self._shown(self._row(request.match_info["id"])))

    async def delete_file(self, request: web.Request) -> web.StreamResponse:
        self._store.delete_file(self._row(request.match_info["id"])["id"])
        return answered({})

    async def download(self, request: web.Request) -> web.StreamResponse:
        row = self._row(request.match_info["id"])
        need(request.query.get("alt") == "media", "alt=media is needed")
        need(row["purpose"] == _RESULTS, "File is not downloadable: it was uploaded.")
        return web.FileResponse(self._store.files / row["id"], chunk_size=1 << 18)


def answered(value: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json", headers=headers)


async def body_read(request: web.Request) -> Any:
    try:
        body = orjson.loads(await request.read() or b"{}")
    except orjson.JSONDecodeError as error:
        raise RefusedError("Invalid JSON payload received.") from error
    need(isinstance(body, dict), "Invalid JSON payload received: not an object")
    return body


def page_size(request: web.Request, *, most: int) -> int:
    text = request.query.get("pageSize", "10")
    need(text.isdecimal() and int(text) > 0, "Invalid page_size")
    return min(int(text), most)


def stamp(seconds: Any) -> str | None:
    """RFC 3339 with microseconds, as the service writes times."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(float(seconds), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
