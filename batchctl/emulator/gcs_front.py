"""`/gcs/...`: calls passed on to the Cloud Storage server behind the Vertex wire, so that faults strike them and the log
has them.

Nothing of Cloud Storage is made up here: every answer is the server's own. Only refusals on request are written here.
"""

from __future__ import annotations

from aiohttp import ClientSession, web
from yarl import URL

from batchctl.emulator.google_checks import Storage
from batchctl.emulator.vertex_batch import gcs_of
from batchctl.emulator.wire import Context

PREFIX = "/gcs"
_OWN = frozenset(
    ("host", "connection", "expect", "keep-alive", "transfer-encoding", "content-length", "date", "server")
)


class GcsFront(Storage):
    """A window on the Cloud Storage server. It has no batches of its own."""

    name = "gcs"

    def __init__(self, context: Context) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", PREFIX + "/{rest:.*}", self.passed_on)]

    def owns(self, path: str) -> bool:
        return path.startswith(PREFIX + "/")

    async def passed_on(self, request: web.Request) -> web.StreamResponse:
        address = gcs_of(self._context.settings)
        if not address:
            raise self.refusal(503, "the emulator was not told where its Cloud Storage server is (`gcs`)")
        url = URL(address + request.raw_path.removeprefix(PREFIX), encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        headers["Host"] = request.host
        body = await request.read()
        async with (
            ClientSession(auto_decompress=False) as session,
            session.request(request.method, url, data=body or None, headers=headers, allow_redirects=False) as answer,
        ):
            given = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _OWN}
        return web.Response(status=answer.status, body=given, headers=kept)
