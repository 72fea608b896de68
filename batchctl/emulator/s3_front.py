"""`/s3/...`: calls passed on to the S3 server behind the Bedrock wire, so that faults strike them and the log has them.

Nothing of S3 is made up here: every answer is the server's own. Only refusals on request are written here, in S3's form.
"""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from aiohttp import ClientSession, web
from yarl import URL

from batchctl.emulator.bedrock_batch import s3_of
from batchctl.emulator.wire import Context, WireError

PREFIX = "/s3"
_CODES = {
    400: "InvalidRequest",
    401: "InvalidAccessKeyId",
    403: "AccessDenied",
    404: "NoSuchKey",
    413: "EntityTooLarge",
    429: "SlowDown",
    503: "SlowDown",
}
_OWN = frozenset(
    ("host", "connection", "expect", "keep-alive", "transfer-encoding", "content-length", "date", "server")
)


class S3Front:
    """A window on the S3 server. It has no batches of its own."""

    name = "s3"

    def __init__(self, context: Context) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", PREFIX + "/{rest:.*}", self.passed_on)]

    def owns(self, path: str) -> bool:
        return path.startswith(PREFIX + "/")

    def creates(self, path: str) -> bool:  # noqa: ARG002
        return False

    def refuse_stranger(self, request: web.Request) -> None:
        """Who may come in is the S3 server's business."""

    def refusal(self, status: int, message: str = "", headers: dict[str, str] | None = None) -> WireError:
        code = _CODES.get(status, "InternalError" if status >= 500 else "InvalidRequest")
        text = f"<Error><Code>{code}</Code><Message>{escape(message or code)}</Message></Error>"
        return WireError(message or code, status=status, body=text.encode(), headers=headers)

    def quota(self, headers: dict[str, str]) -> WireError:
        return self.refusal(403, "Your account is not signed up for the S3 service.", headers)

    def odd(self, error: BaseException) -> WireError:
        return self.refusal(400, str(error))

    def shown(self, row: Any) -> dict[str, Any]:
        raise NotImplementedError("S3 has no batches")

    def others(self) -> None:
        """S3 has no batches."""

    async def passed_on(self, request: web.Request) -> web.StreamResponse:
        address = s3_of(self._context.settings)
        if not address:
            raise self.refusal(503, "the emulator was not told where its S3 server is (`s3`)")
        url = URL(address + request.raw_path.removeprefix(PREFIX), encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        body = await request.read()
        async with (
            ClientSession(auto_decompress=False) as session,
            session.request(request.method, url, data=body or None, headers=headers, allow_redirects=False) as answer,
        ):
            given = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _OWN}
        return web.Response(status=answer.status, body=given, headers=kept)
