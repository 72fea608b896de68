"""What the server and the worker need of one vendor's wire, and the error answer that every wire has a form of.

A wire is routes, the shape of its batch and of its errors. What it shares with the others: the store and its books, the
worker that runs batches, the fates of rows, the answers (`saying`), cancelling and forcing (`batches`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from batchctl.emulator.saying import Answer
from batchctl.emulator.settings import Settings
from batchctl.emulator.store import Store
from batchctl.emulator.tariff import usd
from batchctl.emulator.witness import RequestLog

ODD = (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError, OverflowError)
"""What a request of a form that no check foresaw ends in."""


class WireError(Exception):
    """An error answer: HTTP status, headers, and the body in the form of its wire: JSON, or bytes of XML."""

    def __init__(self, message: str, *, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.headers = headers or {}


@dataclass
class Context:
    """What the routes share. Used in the server's thread only, except `wake`."""

    settings: Settings
    store: Store
    log: RequestLog
    wake: Callable[[], None]

    def bill_live(self, endpoint: str, digest: str, given: Answer) -> None:
        """Put one live answer into the books. `digest` is that of the request body."""
        cost = usd(self.settings.prices, "live", given.input_tokens, given.cached_tokens, given.output_tokens)
        with self.store.transaction() as db:
            db.execute(
                "INSERT INTO live (at, endpoint, digest, input_tokens, output_tokens, usd) VALUES (?, ?, ?, ?, ?, ?)",
                (time.time(), endpoint, digest, given.input_tokens, given.output_tokens, str(cost)),
            )


class Wire(Protocol):
    """One vendor's HTTP. `name` is kept with each batch."""

    name: str

    def routes(self) -> list[web.RouteDef]: ...
    def owns(self, path: str) -> bool:
        """Whether calls to this path speak this wire; the first wire that says so gets them."""
        ...

    def creates(self, path: str) -> bool:
        """Whether a POST to this path asks for a batch."""
        ...

    def refuse_stranger(self, request: web.Request) -> None:
        """Raise for a call without a key, or with a wrong one."""
        ...

    def refusal(self, status: int, message: str = "", headers: dict[str, str] | None = None) -> WireError:
        """This wire's error for a status; without a message, in its own words."""
        ...

    def quota(self, headers: dict[str, str]) -> WireError:
        """The error of an account that has no money left."""
        ...

    def odd(self, error: BaseException) -> WireError:
        """The error for a request of a form that no check foresaw."""
        ...

    def shown(self, row: Any) -> dict[str, Any]:
        """A batch as callers see it."""
        ...

    def others(self) -> None:
        """Put the batches of someone else into the list, once."""
        ...
