"""Groq under `/groq/openai/v1`: OpenAI's batches for chat alone, with a window of one to seven days and a list in one piece.

Source: groq 1.7.0, `resources/batches.py` and `types/batch_create_params.py`, read 2026-11.
"""

from __future__ import annotations

from aiohttp import web

from batchctl.emulator.openai_files import answered
from batchctl.emulator.openai_wire import OpenAIBatches, OpenAIWire

WIRE = "groq"
_ALL = 1_000_000


class GroqBatches(OpenAIBatches):
    """What the worker needs to know of this wire."""


class GroqWire(OpenAIWire):
    """The routes of Groq."""

    name = WIRE
    root = "/groq/openai/v1"
    endpoints = ("/v1/chat/completions",)
    windows = (*(f"{hours}h" for hours in range(24, 169)), *(f"{days}d" for days in range(1, 8)))

    async def list_batches(self, request: web.Request) -> web.StreamResponse:  # noqa: ARG002  (it has no pages)
        rows = self._store.page_of_batches(self.name, after=None, limit=_ALL)
        return answered({"object": "list", "data": [self.shown(row) for row in rows]})
