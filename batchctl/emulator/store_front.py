"""A window on a storage server: calls passed on to it as they are, so that faults strike them and the log has them.

Nothing of the server is made up here: every answer is its own. What a front refuses on request, it refuses in the
server's form. A front asks nobody who he is, and has no batches.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, ClassVar

from aiohttp import ClientSession, web
from yarl import URL

from batchctl.emulator.settings import Settings
from batchctl.emulator.wire import Context, WireError

_OWN = frozenset(
    ("host", "connection", "expect", "keep-alive", "transfer-encoding", "content-length", "date", "server")
)


class NoBatches:
    """The part of a `Wire` that only stores."""

    def creates(self, path: str) -> bool:  # noqa: ARG002
        return False

    def refuse_stranger(self, request: web.Request) -> None:
        """Who may come in is the server's business."""

    def shown(self, row: Any) -> dict[str, Any]:
        raise NotImplementedError("there are no batches here")

    def others(self) -> None:
        """There are no batches here."""


class StoreFront(NoBatches):
    """`/{name}/...` is the server's `/...`. A wire gives its name, its setting and the form of its errors."""

    name: str
    same_host: ClassVar[bool] = False
    """Whether the server is told the host it was asked by: it names addresses of its own."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def address(self, settings: Settings) -> str:
        """Where the server is, or "" when nobody said."""
        raise NotImplementedError

    def refusal(self, status: int, message: str = "", headers: dict[str, str] | None = None) -> WireError:
        raise NotImplementedError

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", f"/{self.name}/{{rest:.*}}", self.passed_on)]

    def owns(self, path: str) -> bool:
        return path.startswith(f"/{self.name}/")

    async def passed_on(self, request: web.Request) -> web.StreamResponse:
        address = self.address(self._context.settings)
        if not address or URL(address).path.strip("/") == self.name:  # a front is no server: it would ask itself
            raise self.refusal(503, f"the emulator was not told where its server is (`{self.name}`)")
        url = URL(address + request.raw_path.removeprefix(f"/{self.name}"), encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        if self.same_host:
            headers["Host"] = request.host
        body = await request.read()
        async with (
            ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, url, data=BytesIO(body) if body else None, headers=headers, allow_redirects=False
            ) as answer,
        ):
            given = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _OWN}
        if self.same_host and URL(kept.get("Location", "")).authority == request.host:
            kept["Location"] = f"{request.scheme}://{request.host}/{self.name}{URL(kept['Location']).raw_path_qs}"
        return web.Response(status=answer.status, body=given, headers=kept)
