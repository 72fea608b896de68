"""What provider modules over AWS share: sessions, clients without retries, and what botocore's errors mean.

The SDK is imported when a client is needed. Retries are off everywhere: `guard.py` is the only layer that repeats.
botocore 1.44.5 was read and measured on 2026-11-21: it repeats a lost call three times by default, corrects no clock
skew, raises `EndpointConnectionError` before a byte has left, and checks lengths but neither patterns nor enums.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from batchctl.model.errors import (
    BatchctlError,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Throttled,
    UsageError,
)
from batchctl.providers.http import check_address, host, is_local, no_money, retry_after
from batchctl.providers.server_time import ServerTime

KEY_ID, SECRET, TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
BEARER = "AWS_BEARER_TOKEN_BEDROCK"
SHORTEST_SECRET = 16  # real ones have 40 characters; a shorter one would be found in ordinary words
ANSWER_SECONDS = 60.0
LIVE_SECONDS = 600.0
CONNECT_SECONDS = 10.0
THROTTLED = frozenset(
    ("ThrottlingException", "TooManyRequestsException", "Throttling", "SlowDown", "ModelNotReadyException")
)
EXPIRED = frozenset(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"))
SKEWED = frozenset(("RequestTimeTooSkewed", "RequestInTheFuture"))
NOT_KNOWN = frozenset(
    (
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "MissingAuthenticationTokenException",
        "IncompleteSignature",
    )
)
DENIED = frozenset(("AccessDenied", "AccessDeniedException", "OptInRequired"))
PAYMENT = "INVALID_PAYMENT_INSTRUMENT"
"""In the message of an AccessDeniedException when the account cannot pay (seen in public reports, 2026)."""
REFUSED_STATUS = frozenset((400, 411, 413, 415, 422, 424))
_NO_CREDENTIALS = frozenset(
    (
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ProfileNotFound",
        "InvalidConfigError",
        "ConfigParseError",
        "TokenRetrievalError",
        "SSOTokenLoadError",
        "UnauthorizedSSOTokenError",
        "SSOError",
        "LoginError",
        "RefreshWithMFAUnsupportedError",
    )
)
_NOT_SENT = frozenset(("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"))


class Aws:
    """One set of credentials in one region: from the environment or a named profile, found when they are needed."""

    def __init__(
        self,
        provider: str,
        *,
        region: str | None,
        profile: str | None,
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        self._provider = provider
        self._region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        self._profile = profile
        self._given = (access_key, secret_key)
        self._clients: dict[str, Any] = {}
        self.server = ServerTime()

    @cached_property
    def _session(self) -> Any:
        import boto3  # half a second of CPU

        access_key, secret_key = self._given
        if not access_key and self._given != (None, None):
            raise self._no_credentials("none are given")
        return boto3.Session(
            profile_name=self._profile,
            region_name=self._region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
        )

    @property
    def region(self) -> str:
        region = self._region or self._session.region_name
        if not region:
            raise UsageError(
                f"{self._provider} needs a region",
                where="[model] region",
                effect="nothing was sent",
                hint='add region = "us-east-1" (that of the bucket) under [model]',
            )
        return str(region)

    def checked(self) -> None:
        """`NotAllowed` when there are no credentials, or they were pasted with something around them."""
        found = self._session.get_credentials()
        if found is None:
            raise self._no_credentials("none are set")
        frozen = found.get_frozen_credentials()
        for name, value in ((KEY_ID, frozen.access_key), (SECRET, frozen.secret_key), (TOKEN, frozen.token or "x")):
            if not value:
                raise self._no_credentials(f"`{name}` is empty")
            if any(character.isspace() or not character.isprintable() for character in value):
                raise NotAllowed(
                    f"the value of `{name}` holds white space or control characters",
                    effect="nothing was sent",
                    hint="set it again without quotes or line ends around it",
                )

    def _no_credentials(self, why: str) -> NotAllowed:
        return NotAllowed(
            f"no credentials for {self._provider}: {why}",
            effect="nothing was sent",
            hint=f"export {KEY_ID}=... and {SECRET}=..., name a profile under [model] profile, or use --env-file",
        )

    def client(self, service: str, address: str | None = None, *, seconds: float | None = None) -> Any:
        """A client of a service, at `address` or where the SDK finds it (`AWS_ENDPOINT_URL_<SERVICE>`). No retries."""
        if service in self._clients:
            return self._clients[service]
        self.checked()
        from botocore.config import Config

        variable = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}"
        named = address or os.environ.get(variable) or os.environ.get("AWS_ENDPOINT_URL") or ""
        local = is_local(named)
        if named:
            check_address(named, variable)
        if local and service != "s3" and os.environ.get(BEARER):
            raise NotAllowed(
                f"`{BEARER}` is set, and the SDK sends it over https only",
                where=host(named),
                effect="nothing was sent",
                hint=f"unset {BEARER} to talk to a server on this machine",
            )
        config = Config(
            region_name=self.region,
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS if seconds is None else seconds,
            proxies={} if local else None,  # a proxy is for what leaves this machine
            max_pool_connections=16,
            s3={"addressing_style": "path"} if local else None,
        )
        self._clients[service] = self._session.client(service, endpoint_url=named or None, config=config)
        self.server.of_boto(self._clients[service])
        return self._clients[service]

    def close(self) -> None:
        for one in self._clients.values():
            one.close()
        self._clients.clear()

    def hidden_in(self, text: str) -> str:
        """`text` without secrets, should the other side repeat them."""
        if "_session" not in self.__dict__:
            return text
        found = self._session.get_credentials()
        frozen = None if found is None else found.get_frozen_credentials()
        for value in () if frozen is None else (frozen.secret_key, frozen.token):
            text = text.replace(value, "[key]") if value and len(value) >= SHORTEST_SECRET else text
        return text

    # --- what an exception means ----------------------------------------------------------------------------------

    def outcome(self, error: BaseException) -> BatchctlError | None:
        """What botocore's exception means for the call that raised it; None when it is not botocore's."""
        if isinstance(error, BatchctlError):
            return error
        if not any(one.__module__.partition(".")[0] in ("botocore", "boto3") for one in type(error).__mro__):
            return None
        response = getattr(error, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return self._refused(response)
        name, text = type(error).__name__, self.hidden_in(str(error))[:300]
        if name in _NO_CREDENTIALS:
            return self._no_credentials(text)
        if name == "NoRegionError":
            return UsageError(text, where="[model] region", effect="nothing was sent", hint="add region under [model]")
        if name in ("ParamValidationError", "MissingParametersError", "UnknownParameterError"):
            return Rejected(f"the request was not sent: {text}", effect="nothing was sent")
        if name in _NOT_SENT:
            return Throttled(f"cannot reach {self._provider}: {text}", effect="nothing was sent", code="unreachable")
        if name == "SSLError" and "CERTIFICATE" in text.upper():
            return Rejected(
                f"the TLS certificate of {self._provider} was not accepted",
                where=text[:200],
                effect="nothing was sent",
                hint="check the address, the clock and the trusted certificates of this machine",
                code="tls",
            )
        return OutcomeUnknown(f"no usable answer from {self._provider}: {name}")

    def _refused(self, response: Mapping[str, Any]) -> BatchctlError:
        """An error answer: its code says more than its status."""
        code, message, status, headers = error_parts(response)
        text = f"{self._provider} answered {status} {code}: {self.hidden_in(message)[:300]}"
        if PAYMENT in message:
            return no_money(text, cure="add a valid payment method to the AWS account")
        if code in THROTTLED or (status == 429 and code not in DENIED):
            return Throttled(text, wait_seconds=retry_after(headers))
        if code == "ServiceQuotaExceededException":
            return Throttled(
                text,
                effect="no attempt was used; the rows wait",
                hint="they are sent when running jobs have ended; the quota can be raised in Service Quotas",
                code="queue_full",
            )
        if code in EXPIRED | SKEWED | NOT_KNOWN | DENIED or (status in (401, 403)):
            return NotAllowed(text, effect="rows stay where they are", hint=_hint_for(code))
        if code == "ConflictException" or status in (408, 409):
            return OutcomeUnknown(text)
        if status == 404:
            return NotFound(text, hint="check the region, the bucket, the model's id and the account")
        if status in REFUSED_STATUS:
            return Rejected(text, effect="nothing was billed")
        return OutcomeUnknown(text)


def _hint_for(code: str) -> str:
    if code in EXPIRED:
        return (
            "the credentials have expired: refresh them (for a profile: aws sso login), and run the same command again"
        )
    if code in SKEWED:
        return "set the clock of this machine: AWS refuses requests signed minutes off"
    if code in NOT_KNOWN:
        return f"check {KEY_ID} and {SECRET}, or the profile"
    return (
        "needed: bedrock:CreateModelInvocationJob, Get, List and StopModelInvocationJob, iam:PassRole on the role, "
        "s3:PutObject, GetObject and ListBucket on the bucket, and access to the model"
    )


def error_parts(response: Mapping[str, Any]) -> tuple[str, str, int, Mapping[str, str]]:
    """Code, message, HTTP status and headers of an error answer, each in its own type whatever came."""
    error, meta = response.get("Error"), response.get("ResponseMetadata")
    error, meta = error if isinstance(error, dict) else {}, meta if isinstance(meta, dict) else {}
    status, headers = meta.get("HTTPStatusCode"), meta.get("HTTPHeaders")
    return (
        str(error.get("Code") or ""),
        str(error.get("Message") or ""),
        status if type(status) is int else 0,
        headers if isinstance(headers, dict) else {},
    )


def asked(what: str, act: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """One call. An answer whose JSON or XML is of another form than the SDK expects breaks its parser: no answer."""
    try:
        answer = act(**arguments)
    except (AttributeError, TypeError, LookupError, ValueError, ArithmeticError, RuntimeError) as error:
        if type(error).__module__.startswith(("botocore", "boto3")):
            raise
        raise OutcomeUnknown(f"the answer to {what} cannot be read") from None
    if not isinstance(answer, dict):
        raise OutcomeUnknown(f"the answer to {what} is not an object")
    return answer
