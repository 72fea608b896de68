"""Responses in background mode: created at once, run for the emulator's latency, looked up by id, cancelled by id.

There is no list of them: a create whose answer was lost cannot be found again (the guide "background" and the API
reference at developers.openai.com, read 2026-11). A response is billed when it has run, not when it is asked for.
"""

from __future__ import annotations

import time
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator.openai_checks import RefusedError
from batchctl.emulator.openai_files import answered
from batchctl.emulator.saying import Answer
from batchctl.emulator.store import new_id
from batchctl.emulator.wire import Context


class Background:
    """The routes of single responses, and their store."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._db = context.store.db

    def routes(self, root: str) -> list[web.RouteDef]:
        return [
            web.get(root + "/responses/{id}", self.get),
            web.post(root + "/responses/{id}/cancel", self.cancel),
            web.delete(root + "/responses/{id}", self.delete),
        ]

    def create(self, digest: str, given: Answer) -> web.StreamResponse:
        """Keep the answer for later; what it will have cost goes with it."""
        body = orjson.loads(given.body) | {"id": new_id("resp_"), "background": True}
        due = time.time() + self._context.settings.takes_seconds
        tokens = (given.input_tokens, given.output_tokens, given.cached_tokens, given.reasoning_tokens)
        self._db.execute(
            "INSERT INTO background (id, digest, body, tokens, due, status) VALUES (?, ?, ?, ?, ?, 'running')",
            (body["id"], digest, orjson.dumps(body).decode(), orjson.dumps(tokens).decode(), due),
        )
        row = self._row(body["id"])
        if not self._context.settings.takes_seconds:
            self._bill(row)
        return answered(_shown(row, "queued"))

    async def get(self, request: web.Request) -> web.StreamResponse:
        row = self._settled(self._row(request.match_info["id"]))
        return answered(_shown(row, {"running": "in_progress", "done": ""}.get(row["status"], row["status"])))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        row = self._settled(self._row(request.match_info["id"]))
        if row["status"] == "running":
            self._db.execute("UPDATE background SET status = 'cancelled' WHERE id = ?", (row["id"],))
            row = self._row(row["id"])
        return answered(_shown(row, "" if row["status"] == "done" else row["status"]))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        row = self._row(request.match_info["id"])
        self._db.execute("DELETE FROM background WHERE id = ?", (row["id"],))
        return answered({"id": row["id"], "object": "response", "deleted": True})

    def _row(self, name: str) -> Any:
        row = self._db.execute("SELECT * FROM background WHERE id = ?", (name,)).fetchone()
        if row is None:
            raise RefusedError(f"Response with id '{name}' not found.", status=404)
        return row

    def _settled(self, row: Any) -> Any:
        """The response as it is now: one whose time has come has run, and is billed."""
        if row["status"] == "running" and time.time() >= row["due"]:
            self._bill(row)
            return self._row(row["id"])
        return row

    def _bill(self, row: Any) -> None:
        done = self._db.execute(
            "UPDATE background SET status = 'done' WHERE id = ? AND status = 'running'", (row["id"],)
        ).rowcount
        if done:
            taken, given, cached, thought = orjson.loads(row["tokens"])
            self._context.bill_live("/v1/responses", row["digest"], Answer(b"", taken, given, cached, thought))


def _shown(row: Any, status: str) -> dict[str, Any]:
    """The response; with a status of its own it has no output and no usage yet, or never."""
    body: dict[str, Any] = orjson.loads(row["body"])
    return body | {"status": status, "output": [], "usage": None, "incomplete_details": None} if status else body
