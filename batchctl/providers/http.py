"""What provider modules over HTTP share: addresses, keys, answers that may be anything, and what a broken call means.

Nothing here knows a vendor. The SDKs of OpenAI and Anthropic come from one generator and stand on httpx2, so that
their connection errors have the same classes and causes (openai 3.52.0, anthropic 2.12.0).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from batchctl.model.addresses import is_loopback
from batchctl.model.errors import BatchctlError, NotAllowed, OutcomeUnknown, Rejected, Throttled, UsageError

NOT_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
"""httpx2's errors after which no byte of the request has left this machine."""

ROW_STATUSES = frozenset(range(400, 500)) - {401, 403, 404, 408, 409, 429}
"""Live answers that are the provider's word on one request; every other error is about the account or the service."""


@dataclass(frozen=True, slots=True)
class Key:
    """A secret out of an environment variable, which is what errors name."""

    provider: str
    variable: str
    value: str | None = field(repr=False)

    def checked(self) -> str:
        """The key, or `NotAllowed` when there is none or it was pasted with something around it."""
        if not self.value:
            raise NotAllowed(
                f"no key for {self.provider}: the environment variable `{self.variable}` is not set",
                effect="nothing was sent",
                hint=f"export {self.variable}=..., or name a file with --env-file",
            )
        if any(character.isspace() or not character.isprintable() for character in self.value):
            raise NotAllowed(
                f"the key in `{self.variable}` holds white space or control characters",
                effect="nothing was sent",
                hint="set it again without quotes or line ends around it",
            )
        return self.value

    def hidden_in(self, text: str) -> str:
        """`text` without the key: a gateway may repeat what it was sent."""
        return text.replace(self.value, "[key]") if self.value else text

    def kept(self, answer: Any) -> Any:
        """An answer as it may be stored: without the key, should the other side repeat it."""
        text = orjson.dumps(answer).decode()
        return orjson.loads(self.hidden_in(text)) if self.value and self.value in text else answer


def host(base_url: str) -> str:
    """Host and port of an address, without the credentials that may stand before them."""
    return urlsplit(base_url).netloc.rpartition("@")[2]


def is_local(base_url: str) -> bool:
    """Whether an address is this machine's own: no proxy stands before it."""
    return is_loopback(urlsplit(base_url).hostname)


def check_address(base_url: str, variable: str = "OPENAI_BASE_URL") -> None:
    """Refuse plain http anywhere but on this machine: the key would travel in the clear. `variable`: empty for none."""
    parts = urlsplit(base_url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname)):
        return
    raise UsageError(
        "the provider's address must be https (plain http only on loopback)",
        where=f"{parts.scheme or 'no scheme'}://{parts.hostname or ''}",
        effect="nothing was sent",
        hint=f"set [model] base_url{' or ' if variable else ''}{variable} to an https address",
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a Retry-After header; dates, junk and negative values count as none."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None


def not_sent(cause: BaseException | None, where: str) -> BatchctlError | None:
    """Our error for a call of which nothing left this machine; None for every other cause."""
    if type(cause).__name__ not in NOT_SENT:
        return None
    text = str(cause)
    if "CERTIFICATE" in text.upper() or "SSL" in text.upper():
        return Rejected(
            f"the TLS certificate of {where} was not accepted",
            where=text[:200],
            effect="nothing was sent",
            hint="check the address, the clock and the trusted certificates of this machine",
            code="tls",
        )
    return Throttled(f"cannot reach {where}: {text[:200]}", effect="nothing was sent", code="unreachable")


def json_object(answer: Any, what: str) -> dict[str, Any]:
    """The JSON object of a raw answer. The SDKs check nothing: a 200 with a sign-in page is no error to them."""
    try:
        value = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        raise OutcomeUnknown(f"the answer to {what} is not JSON") from None
    if not isinstance(value, dict):
        raise OutcomeUnknown(f"the answer to {what} is not an object")
    return value


def has_id(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("id"), str) and bool(value["id"])


def identity(answer: Any, what: str) -> str:
    """The id in a raw answer; without one nobody knows what was made."""
    value = json_object(answer, what)
    if not has_id(value):
        raise OutcomeUnknown(f"the answer to {what} carries no id")
    return str(value["id"])


def whole(value: Any) -> int | None:
    """A whole number that is not negative, or None."""
    return value if type(value) is int and value >= 0 else None


def epoch(value: Any) -> int | None:
    """Unix seconds of a time that is a number, or RFC 3339 as some servers write it; None when it is neither."""
    if not isinstance(value, str):
        return whole(value)
    try:
        moment = datetime.fromisoformat(value)
        return whole(int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        return None


def no_money(text: str, *, where: str = "", cure: str = "top up or raise the limit at the provider") -> Throttled:
    """An account that cannot pay: no waiting cures it, and no row is to blame."""
    return Throttled(
        text,
        where=where,
        billing=True,
        effect="no attempt was used; rows stay where they are",
        hint=f"{cure}, then run the same command again",
        code="billing",
    )


def merged(body: dict[str, Any], params: Mapping[str, Any], own: Iterable[str]) -> dict[str, Any]:
    """`params` over `body`: tables are merged, everything else replaces. What batchctl itself sets cannot be changed."""
    taken = sorted(set(own) & params.keys())
    if taken:
        raise UsageError(
            f"`{taken[0]}` cannot be set under [model] params",
            where="[model] params",
            effect="nothing was written",
            hint="batchctl writes it itself; remove it from params",
        )
    for key, value in params.items():
        if isinstance(value, Mapping) and isinstance(body.get(key), dict):
            body[key] = {**body[key], **copy.deepcopy(dict(value))}
        else:
            body[key] = copy.deepcopy(value)
    return body
