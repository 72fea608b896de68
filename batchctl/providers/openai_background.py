"""OpenAI Responses in background mode: created at once, then looked up and cancelled by its id. No list names them.

Facts: developers.openai.com/api/docs/guides/background and the types of openai 3.52.0, read 2026-11-21. It needs
`store=true` and costs the standard price.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from batchctl.model.batches import LiveAnswer
from batchctl.model.errors import OutcomeUnknown, UsageError
from batchctl.providers.http import Key, identity, json_object

ENDED_RESPONSES = ("completed", "incomplete", "failed", "cancelled")
"""Statuses of a background response that will change no more of the guide; any other word is waited on."""


class OpenAIBackground:
    """The part of the OpenAI wire that runs one long request by itself."""

    name: str
    _key: Key
    _sdk: Any

    def start(self, body: bytes, endpoint: str) -> str:
        if endpoint != "/v1/responses":
            raise UsageError(
                f"there is no background mode for `{endpoint}`",
                where="[model] endpoint",
                effect="nothing was sent",
                hint='use endpoint = "/v1/responses", or another lane',
            )
        import httpx2

        asked = {**orjson.loads(body), "background": True, "store": True}
        return identity(self._sdk.post("/responses", cast_to=httpx2.Response, body=asked), "create")

    def look(self, name: str) -> LiveAnswer | None:
        started = time.monotonic()
        body = json_object(self._sdk.responses.with_raw_response.retrieve(name), "GET /responses")
        if body.get("id") != name:
            raise OutcomeUnknown(f"{self.name} answered with another response", where=f"response `{name}`")
        if body.get("status") not in ENDED_RESPONSES:
            return None
        return LiveAnswer(200, self._key.kept(body), time.monotonic() - started)

    def stop(self, name: str) -> None:
        import openai

        try:
            self._sdk.responses.cancel(name)
        except (openai.ConflictError, openai.BadRequestError):  # it has ended; looking tells how
            return
