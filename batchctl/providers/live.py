"""Many synchronous calls under way at once. Each is one POST; nothing is repeated here.

A provider that is `OverHttp` is called with aiohttp (0.2 to 0.45 ms of CPU a call on loopback, against 3 to 5 ms through
the vendors' SDKs, measured 2026-04); any other through its own `call`, in threads. Either way what a call raises is one of
our outcomes: `Throttled`, `NotAllowed`, `NotFound` and `Rejected` were certainly not acted upon, `OutcomeUnknown` may have.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

import orjson

from batchctl.model.batches import LiveAnswer, Post, Room
from batchctl.model.errors import BatchctlError, OutcomeUnknown, Rejected, Throttled
from batchctl.providers.base import OverHttp
from batchctl.providers.guard import Guarded
from batchctl.providers.http import host, is_local

ANSWER_SECONDS = 600.0
CONNECT_SECONDS = 10.0
MOST_BYTES = 64_000_000  # a longer answer is none
BLOCK_BYTES = 1 << 16
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Caller(Protocol):
    """Asks one request; the answer, or one of our outcomes as an exception."""

    async def ask(self, body: bytes) -> LiveAnswer: ...


def caller(provider: Guarded, endpoint: str, at_once: int) -> AbstractAsyncContextManager[Caller]:
    """A way to ask `endpoint` up to `at_once` requests at the same time."""
    if isinstance(provider.provider, OverHttp) and (post := provider.provider.live_post(endpoint)) is not None:
        return _HttpCaller(provider.provider, post, at_once)
    return _ThreadCaller(provider, endpoint, at_once)


class _ThreadCaller:
    def __init__(self, provider: Guarded, endpoint: str, at_once: int) -> None:
        self._provider = provider
        self._endpoint = endpoint
        self._pool = ThreadPoolExecutor(at_once)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)  # a signal does not wait for slow answers

    async def ask(self, body: bytes) -> LiveAnswer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._provider.call, body, self._endpoint)


class _HttpCaller:
    def __init__(self, provider: OverHttp, post: Post, at_once: int) -> None:
        self._provider = provider
        self._post = post
        self._where = host(self._post.url)
        self._at_once = at_once
        self._headers = {**self._post.headers, "Accept": "application/json", "Accept-Encoding": "identity"}

    async def __aenter__(self) -> Self:
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._at_once),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
            trust_env=not is_local(self._post.url),  # a proxy is for what leaves this machine
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(self, body: bytes) -> LiveAnswer:
        import aiohttp

        started = time.monotonic()
        try:
            async with self._session.post(
                self._post.url, data=body, headers=self._headers, allow_redirects=False
            ) as answer:
                raw = await _bounded(answer)
                status, headers = answer.status, answer.headers
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _not_sent(error, self._where) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise OutcomeUnknown(f"no usable answer from {self._where}: {type(error).__name__}") from None
        secret = self._post.secret.encode()
        if secret and secret in raw:  # a gateway may repeat what it was sent
            raw = raw.replace(secret, b"[key]")
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            value = None
        if status != 200:
            meaning = self._provider.live_error(status, headers, value)
            if meaning is not None:
                raise meaning
        elif not isinstance(value, dict):
            raise OutcomeUnknown(f"{self._where} answered 200 with something else than a JSON object")
        request_id = headers.get("x-request-id") or headers.get("request-id") or ""
        seconds = time.monotonic() - started
        kept = raw if value is not None else b""
        return LiveAnswer(status, value, seconds, kept, request_id[:200], room_in(headers))


async def _bounded(answer: Any) -> bytes:
    blocks = bytearray()
    async for block in answer.content.iter_chunked(BLOCK_BYTES):
        blocks += block
        if len(blocks) > MOST_BYTES:
            raise ValueError("an answer without an end")
    return bytes(blocks)


def _not_sent(error: Exception, where: str) -> BatchctlError:
    """Nothing of the request has left this machine."""
    text = str(error)
    if "CERTIFICATE" in text.upper() or "SSL:" in text.upper():
        return Rejected(
            f"the TLS certificate of {where} was not accepted",
            where=text[:200],
            effect="nothing was sent",
            hint="check the address, the clock and the trusted certificates of this machine",
            code="tls",
        )
    return Throttled(f"cannot reach {where}: {text[:200]}", effect="nothing was sent", code="unreachable")


def room_in(headers: Mapping[str, str]) -> Room:
    """What the rate-limit headers of OpenAI and Anthropic say: requests that are left, and seconds until there are more.

    developers.openai.com/api/docs/guides/rate-limits (`x-ratelimit-reset-requests: 6m0s`) and
    platform.claude.com/docs/en/api/rate-limits (`anthropic-ratelimit-requests-reset`, RFC 3339), read 2026-11-21.
    """
    for prefix in ("x-ratelimit-{}-requests", "anthropic-ratelimit-requests-{}"):
        left = headers.get(prefix.format("remaining"), "")
        if left.isdecimal():
            return Room(int(left), _seconds(headers.get(prefix.format("reset"), "")))
    return Room()


def _seconds(text: str) -> float | None:
    """`1s`, `6m0s`, `20ms`, or an instant, as seconds from now; None for anything else."""
    if text and _SPAN.sub("", text) == "":
        return sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(text))
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
