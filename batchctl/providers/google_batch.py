"""What Gemini and Vertex share: requests and their lines, and the one synchronous call.

The two have one request and one answer, and differ in who pays, where files lie and what a batch is called.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from batchctl.model.batches import Ask, LiveAnswer, Request
from batchctl.model.errors import BatchctlError, NotAllowed, UsageError
from batchctl.providers import google_body
from batchctl.providers.google_rest import ApiError, Rest
from batchctl.providers.http import json_object

METHODS = (google_body.GENERATE, google_body.EMBED)
OF_THE_REQUEST = (400, 413, 422)
"""Statuses that are the provider's word on one request."""


class GoogleBatch:
    """The part of a provider that no difference between the two touches."""

    name: str
    _rest: Rest

    def endpoint_of(self, model: str) -> str:
        """What the vendor's address ends in for a model: the endpoint carries it."""
        raise NotImplementedError

    def live_path(self, endpoint: str) -> str:
        """Where one request is sent."""
        raise NotImplementedError

    def kept(self, value: Any) -> Any:
        """An answer without the secret it may repeat."""
        return value

    def outcome(self, error: BaseException) -> BatchctlError | None:
        raise NotImplementedError

    def body(self, ask: Ask) -> tuple[dict[str, Any], tuple[str, ...]]:
        if ask.endpoint != self.endpoint_of(ask.model):
            raise UsageError(
                f"endpoint `{ask.endpoint}` cannot be used in batch with {self.name}",
                where="[model] endpoint",
                effect="nothing was written",
                hint="remove it: the model decides",
            )
        return google_body.body(ask)

    def encode(self, request: Request) -> bytes:
        return google_body.encode(request.custom_id, request.body)

    def check_line(self, line: bytes, endpoint: str, model: str) -> str | None:
        if endpoint != self.endpoint_of(model):
            return f"endpoint is {endpoint!r}, the batch is for model {model!r}"
        return google_body.line_problem(line, google_body.method_of(model))

    def live_body(self, line: bytes) -> bytes:
        return orjson.dumps(orjson.loads(line)["request"])

    def call(self, body: bytes, endpoint: str) -> LiveAnswer:
        started = time.monotonic()
        headers = {"Content-Type": "application/json"}
        try:
            answer = self._rest.ask("POST", self.live_path(endpoint), content=body, headers=headers)
        except ApiError as error:
            if error.status not in OF_THE_REQUEST or isinstance(self.outcome(error), NotAllowed):
                raise
            return LiveAnswer(error.status, self.kept(error.body), time.monotonic() - started)
        return LiveAnswer(200, self.kept(json_object(answer, "POST " + endpoint)), time.monotonic() - started)
