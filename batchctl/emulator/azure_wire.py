"""Azure OpenAI under `/azure/openai`: OpenAI's routes with Azure's habits.

The v1 API is under `/azure/openai/v1`; without `/v1` and with `?api-version=` it is the dated one, which writes statuses
with a capital, times as RFC 3339, and has live calls under `/deployments/NAME`. Counts are null while a file is checked,
and a job without failures still names an error file, of no bytes. Codes of refused files are Azure's own.

Sources: MicrosoftDocs/azure-ai-docs, articles/foundry/openai/includes/batch (2026-08), read 2026-11.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from batchctl.emulator import openai_batch
from batchctl.emulator.batches import ENDED
from batchctl.emulator.openai_checks import RefusedError
from batchctl.emulator.openai_files import OpenAIFiles
from batchctl.emulator.openai_wire import OpenAIBatches, OpenAIWire
from batchctl.emulator.process import Valid
from batchctl.emulator.settings import Settings
from batchctl.emulator.store import private_file

WIRE = "azure-openai"
ROOT = "/azure/openai"
_CODES = {"mismatched_model": "model_mismatch", "invalid_url": "url_mismatch"}
_TIMES = (
    "created_at",
    "expires_at",
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
_EMPTY = "file-00000000000000000000000000000000"
_NEVER_EXPIRES = None
_DATED: ContextVar[bool] = ContextVar("dated", default=False)
_TALK = replace(openai_batch.OPENAI, most_requests=100_000, too_many="too_many_tasks")


class AzureBatches(OpenAIBatches):
    """What the worker needs to know of this wire."""

    talk = _TALK

    def validate(self, path: Path, endpoint: str, settings: Settings, queued_tokens: int) -> Valid:
        found = super().validate(path, endpoint, settings, queued_tokens)
        errors = tuple({**one, "code": _CODES.get(one["code"], one["code"])} for one in found.errors)
        return replace(found, errors=errors)


class AzureWire(OpenAIWire):
    """Both forms of the API."""

    name = WIRE
    root = ROOT + "/v1"
    endpoints = ("/v1/responses", "/v1/chat/completions")
    talk = _TALK

    def routes(self) -> list[web.RouteDef]:
        dated = [
            *OpenAIFiles(self._context, self.name, ROOT).routes(),
            web.post(ROOT + "/batches", self.create_batch),
            web.get(ROOT + "/batches", self.list_batches),
            web.get(ROOT + "/batches/{id}", self.get_batch),
            web.post(ROOT + "/batches/{id}/cancel", self.cancel_batch),
            web.post(ROOT + "/responses", self.live),
            web.post(ROOT + "/deployments/{deployment}/chat/completions", self.live),
        ]
        return [*super().routes(), *dated]

    def owns(self, path: str) -> bool:
        return path.startswith(ROOT + "/")

    def creates(self, path: str) -> bool:
        return path in (ROOT + "/v1/batches", ROOT + "/batches")

    def refuse_stranger(self, request: web.Request) -> None:
        """A key in `api-key`, or a bearer token; the dated API wants its date."""
        dated = not request.path.startswith(self.root + "/")
        _DATED.set(dated)
        bearer = request.headers.get("Authorization", "")
        token = bearer[7:].strip() if bearer.startswith("Bearer ") else ""
        key = request.headers.get("api-key", "").strip() or token
        if not key or key.startswith("sk-bad"):
            message = "Access denied due to invalid subscription key or wrong API endpoint."
            raise RefusedError(message, status=401, code="401")
        if dated and not request.query.get("api-version"):
            raise RefusedError("Resource not found", status=404, code="404")

    def endpoint_of(self, request: web.Request) -> str:
        deployment = request.match_info.get("deployment")
        tail = request.path.removeprefix(self.root).removeprefix(ROOT)
        return "/v1" + tail.removeprefix(f"/deployments/{deployment}")

    def asked(self, body: Any) -> Any:
        """`endpoint` may leave out the `/v1`."""
        endpoint = body.get("endpoint") if isinstance(body, dict) else None
        if isinstance(endpoint, str) and not endpoint.startswith("/v1/"):
            return {**body, "endpoint": "/v1" + endpoint}
        return body

    def shown(self, row: Any) -> dict[str, Any]:
        out = super().shown(row)
        if row["status"] == "validating":
            out["request_counts"] = dict.fromkeys(("total", "completed", "failed"))
        if row["status"] in ENDED and out["output_file_id"] and not out["error_file_id"]:
            out["error_file_id"] = _EMPTY
        if _DATED.get():
            out["status"] = str(out["status"]).capitalize()
            for name in _TIMES:
                if isinstance(out.get(name), int):
                    out[name] = datetime.fromtimestamp(out[name], UTC).isoformat()
        return out

    def others(self) -> None:
        super().others()
        if self._store.file(self.name, _EMPTY) is None:
            path = self._store.work / f"{_EMPTY}.part"
            private_file(path).close()
            self._store.add_file(
                path,
                wire=self.name,
                file_id=_EMPTY,
                filename="errors.jsonl",
                purpose="batch_output",
                created=time.time(),
                keep_seconds=_NEVER_EXPIRES,
            )
