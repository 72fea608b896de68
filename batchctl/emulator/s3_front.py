"""`/s3/...`: the S3 server behind the Bedrock wire."""

from __future__ import annotations

from xml.sax.saxutils import escape

from batchctl.emulator.bedrock_batch import s3_of
from batchctl.emulator.settings import Settings
from batchctl.emulator.store_front import StoreFront
from batchctl.emulator.wire import WireError

_CODES = {
    400: "InvalidRequest",
    401: "InvalidAccessKeyId",
    403: "AccessDenied",
    404: "NoSuchKey",
    413: "EntityTooLarge",
    429: "SlowDown",
    503: "SlowDown",
}


class S3Front(StoreFront):
    """A window on the S3 server; its errors are XML."""

    name = "s3"

    def address(self, settings: Settings) -> str:
        return s3_of(settings)

    def refusal(self, status: int, message: str = "", headers: dict[str, str] | None = None) -> WireError:
        code = _CODES.get(status, "InternalError" if status >= 500 else "InvalidRequest")
        text = f"<Error><Code>{code}</Code><Message>{escape(message or code)}</Message></Error>"
        return WireError(message or code, status=status, body=text.encode(), headers=headers)

    def quota(self, headers: dict[str, str]) -> WireError:
        return self.refusal(403, "Your account is not signed up for the S3 service.", headers)

    def odd(self, error: BaseException) -> WireError:
        return self.refusal(400, str(error))
