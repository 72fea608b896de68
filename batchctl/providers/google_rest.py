"""What Gemini and Vertex share of HTTP: one client that repeats and follows nothing, and what Google's errors mean.

REST and not the SDK: google-genai 2.34.0 drops `error` and `batchStats` of a Gemini batch and takes no labels for a
Vertex one. Errors are `{"error": {"code", "message", "status", "details"}}`, where `details` may hold an `ErrorInfo` with
a `reason` and a `RetryInfo` with a `retryDelay` (google.rpc, read 2026-11-21).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

import orjson

from batchctl.model.errors import BatchctlError, NotAllowed, NotFound, OutcomeUnknown, Rejected, Throttled
from batchctl.providers.http import check_address, host, is_local, json_object, no_money, not_sent, retry_after, whole
from batchctl.providers.server_time import ServerTime

if TYPE_CHECKING:
    import httpx2

ANSWER_SECONDS = 600.0
CONNECT_SECONDS = 10.0
BLOCK_BYTES = 1 << 18
LIST_PAGES = 100  # a list that never ends is an error, not a loop
BILLING_REASONS = frozenset({"BILLING_DISABLED"})
"""`ErrorInfo.reason`s that no waiting cures (google.api.ErrorReason, read 2026-11-21)."""
KEY_REASONS = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED", "ACCOUNT_STATE_INVALID", "CONSUMER_INVALID"})
"""A bad key is a 400 here."""
_DEPLETED = "prepayment credits are depleted"
"""A 429 for credit that is used up; nothing but its words is public (dyad-sh/dyad issue 3626, 2026-06-10). Taken for a
matter of waiting it would be asked again for ever."""
_DELAY = re.compile(r"(\d{1,5}(?:\.\d+)?)s")


class ApiError(Exception):
    """An answer with another status than 2xx."""

    def __init__(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.headers = headers
        try:
            self.body: Any = orjson.loads(content)
        except orjson.JSONDecodeError:
            self.body = None

    @property
    def error(self) -> dict[str, Any]:
        """The `error` object, empty where there is none."""
        found = self.body.get("error") if isinstance(self.body, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def reasons(self) -> set[str]:
        return {one["reason"] for one in self._details() if isinstance(one.get("reason"), str)}

    @property
    def wait_seconds(self) -> float | None:
        """What the vendor asks for: `retryDelay`, or a Retry-After header."""
        for one in self._details():
            match = _DELAY.fullmatch(str(one.get("retryDelay") or ""))
            if match:
                return float(match[1])
        return retry_after(self.headers)

    def _details(self) -> list[dict[str, Any]]:
        details = self.error.get("details")
        return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


class Rest:
    """Calls to one address. `headers` gives the credentials of each call and may raise `NotAllowed`."""

    def __init__(self, base_url: str, *, variable: str, headers: Callable[[], Mapping[str, str]]) -> None:
        self.base_url = base_url
        self.server = ServerTime()
        self._variable = variable
        self._headers = headers

    @cached_property
    def client(self) -> httpx2.Client:
        check_address(self.base_url, self._variable)
        import httpx2  # only the commands that talk to the provider pay for it

        return httpx2.Client(
            follow_redirects=False,  # a redirect would carry a request to an address nobody configured
            trust_env=not is_local(self.base_url),  # a proxy is for what leaves this machine
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            event_hooks=self.server.of_httpx(),
        )

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()

    def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """One call; `ApiError` for every answer that is not a success. `path` may be an address of the same origin."""
        answer = self.client.request(method, self._address(path), headers=self._with(more), **more)
        if not answer.is_success:
            raise ApiError(answer.status_code, answer.headers, answer.content)
        return answer

    @contextmanager
    def stream(self, path: str, **more: Any) -> Iterator[Iterator[bytes]]:
        """The bytes of a GET as they arrive."""
        headers = {**self._with(more), "Accept-Encoding": "identity"}
        with self.client.stream("GET", self._address(path), headers=headers, **more) as answer:
            if not answer.is_success:
                raise ApiError(answer.status_code, answer.headers, answer.read())
            yield answer.iter_bytes(BLOCK_BYTES)

    def _with(self, more: dict[str, Any]) -> dict[str, str]:
        return {**self._headers(), **more.pop("headers", {})}

    def _address(self, path: str) -> str:
        if path.startswith("/"):
            return self.base_url + path
        given, ours = urlsplit(path), urlsplit(self.base_url)
        if (given.scheme, given.netloc) != (ours.scheme, ours.netloc):
            raise OutcomeUnknown("the provider names another host to send to", where=host(path))
        return path


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """A file as the body of a request; memory holds one block."""
    while block := file.read(BLOCK_BYTES):
        yield block


def listed(rest: Rest, path: str, what: str, query: Mapping[str, str], *, name: str) -> Iterator[Any]:
    """Everything in a list, over all its pages, empty ones too; whatever is no list raises: taken for an empty one, it
    would be proof. An empty list is an empty object."""
    asked = dict(query)
    seen: set[str] = set()
    for _ in range(LIST_PAGES):
        page = json_object(rest.ask("GET", path, params=asked), f"GET {what}")
        items = page.get(what, [])
        if page.keys() - {what, "nextPageToken"} or not isinstance(items, list):
            raise OutcomeUnknown(f"{name} answered with something else than a list", where=f"GET {what}")
        yield from items
        token = page.get("nextPageToken") or ""
        if not token:
            return
        if not isinstance(token, str) or token in seen:
            raise OutcomeUnknown(f"{name} lists the same page again and again", where=f"GET {what}")
        seen.add(token)
        asked["pageToken"] = token
    raise OutcomeUnknown(f"{name} listed more than {LIST_PAGES} pages", where=f"GET {what}")


def count_of(value: Any) -> int | None:
    """A whole number, which Google writes as text; None for "-1", which means that it is not known."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 19 else whole(value)


@dataclass(frozen=True, slots=True)
class Words:
    """What errors say of a provider. `hidden` takes secrets out of a text; the rest names what a person may check."""

    name: str
    where: str
    hidden: Callable[[str], str]
    credentials: str
    absent: str = "check the model's name, and that the credentials are of the same project"


def outcome(error: BaseException, words: Words) -> BatchctlError | None:
    """What an exception of `Rest` means."""
    import httpx2

    if isinstance(error, BatchctlError):
        return error
    if isinstance(error, ApiError):
        return _of_status(error, words)
    refused = not_sent(error, words.where)
    if refused is not None:
        return refused
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL | httpx2.StreamError | ValueError):
        return OutcomeUnknown(f"no usable answer from {words.where}: {type(error).__name__}")
    return None


def _of_status(error: ApiError, words: Words) -> BatchctlError:
    where, hidden = words.where, words.hidden
    status, reasons = error.status, error.reasons
    word = str(error.error.get("status") or "")
    said = str(error.error.get("message") or "no message")
    shown = hidden(next(iter(sorted(reasons)), word))[:100]
    text = f"{words.name} answered {status}" + (f" {shown}" if shown else "") + f": {hidden(said)[:300]}"
    spent = status == 402 or reasons & BILLING_REASONS or (status == 429 and _DEPLETED in said)
    if status < 500 and spent:
        return no_money(text, where=where, cure="enable billing or top up at the provider")
    if status in (401, 403) or (status == 400 and reasons & KEY_REASONS):
        return NotAllowed(text, where=where, effect="rows stay where they are", hint=f"check {words.credentials}")
    if status == 404:
        return NotFound(text, where=where, hint=words.absent)
    if status in (400, 405, 413, 422):
        return Rejected(text, where=where, effect="nothing was billed")
    if status == 429:
        return Throttled(text, where=where, wait_seconds=error.wait_seconds)
    return OutcomeUnknown(text, where=where)
