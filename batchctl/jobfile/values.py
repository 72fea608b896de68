"""How shares, sizes, durations, money and addresses are written in a job file, as pydantic types.

Each type parses the written form and says in its error what was wanted. An error never repeats the value: `problems.py`
decides whether a value may be shown.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from batchctl.model.addresses import is_loopback

_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZES_BY_FOLDED_NAME = {name.casefold(): size for name, size in _SIZES.items()}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_SHARE = rf"{_DIGITS}(?:\.[0-9]+)? ?%"
_SIZE = rf"({_DIGITS}(?:\.[0-9]+)?) ?([A-Za-z]*)"
_DURATION = rf"{_DIGITS} ?[smhdw](?: ?{_DIGITS} ?[smhdw])*"
_MONEY = rf"({_DIGITS}(?:\.[0-9]{{1,6}})?) ?USD"


class Money(NamedTuple):
    """An amount and its currency; only USD is priced."""

    amount: Decimal
    currency: str


def wanted(what: str, inside: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """The error of every type here: `problems.py` puts `what` after "wanted"; `inside` leads to the wrong part."""
    return PydanticCustomError("wanted", "{what}", {"what": what, "inside": inside})


def share(value: Any) -> Fraction:
    """`"0.1%"` is 1/1000, exactly: a limit of 0.1 % of 20,000 rows is 20 rows, not 20.000000000000004."""
    if isinstance(value, str) and re.fullmatch(_SHARE, value):
        parsed = Fraction(value.rstrip("% ")) / 100
        if parsed <= 1:
            return parsed
    raise wanted('a share from "0%" to "100%", such as "0.1%"')


def byte_size(value: Any) -> int:
    """`"100MB"` is 100,000,000 (decimal, as providers count), `"1MiB"` is 1,048,576; a whole number is bytes."""
    size = Fraction(0)
    if isinstance(value, int) and not isinstance(value, bool):
        size = Fraction(value)
    elif isinstance(value, str) and (match := re.fullmatch(_SIZE, value)):
        size = Fraction(match[1]) * _SIZES_BY_FOLDED_NAME.get(match[2].casefold(), 0)
    if size < 1 or size.denominator != 1:
        raise wanted('a size of whole bytes, such as "100MB" or "64MiB"')
    return int(size)


def duration_seconds(value: Any) -> int:
    """`"7d"`, `"6h"`, `"90s"` or `"1d 12h"` in seconds. A bare number is refused: nobody can see its unit."""
    if isinstance(value, str) and re.fullmatch(_DURATION, value):
        return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(rf"({_DIGITS}) ?([smhdw])", value))
    raise wanted('a duration such as "90s", "6h" or "7d"')


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment as a job file names it. Exactly one of the three is set."""

    text: str
    instant: datetime | None = None
    seconds: int | None = None
    clock: tuple[time, ZoneInfo] | None = None

    def after(self, start: datetime) -> datetime:
        """The moment itself, in UTC: an instant as it is; a duration, or the next such time of day, counted from `start`."""
        if self.instant is not None:
            return self.instant.astimezone(UTC)
        if self.seconds is not None:
            return start.astimezone(UTC) + timedelta(seconds=self.seconds)
        assert self.clock is not None
        hour, zone = self.clock
        day = start.astimezone(zone).date()
        for further in range(3):  # the third only where the clock was put forward over this very time
            found = datetime.combine(day + timedelta(days=further), hour, zone).astimezone(UTC)
            if found > start:
                return found
        raise AssertionError("a day has passed")


def deadline(value: Any) -> Deadline:
    """`"08:00 Europe/Zurich"`, `"2026-11-22T08:00:00+01:00"` or `"5d"`."""
    problem = (
        'a time of day with its zone ("08:00 Europe/Zurich"), an instant ("2026-11-22T07:00:00Z") or a duration ("5d")'
    )
    if not isinstance(value, str):
        raise wanted(problem)
    if re.fullmatch(_DURATION, value):
        return Deadline(value, seconds=duration_seconds(value))
    clock = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d) (\S+)", value)
    try:
        if clock:
            return Deadline(value, clock=(time(int(clock[1]), int(clock[2])), ZoneInfo(clock[3])))
        instant = datetime.fromisoformat(value)
    except (ValueError, ZoneInfoNotFoundError, OSError):
        raise wanted(problem) from None
    if instant.tzinfo is None:
        raise wanted(problem)
    return Deadline(value, instant=instant)


def until_published_or_seconds(value: Any) -> str | int:
    """`"on-publish"`, or a duration in seconds."""
    if value == "on-publish":
        return "on-publish"
    try:
        return duration_seconds(value)
    except PydanticCustomError:
        raise wanted('"on-publish" or a duration such as "30d"') from None


def money(value: Any) -> Money:
    """`"5.00 USD"`, exact. A bare number is refused: nobody can see its currency."""
    if isinstance(value, str) and (match := re.fullmatch(_MONEY, value)):
        return Money(Decimal(match[1]), "USD")
    raise wanted('an amount such as "5.00 USD"')


def count(value: Any) -> int:
    """A whole number of at least 1; `20_000` and `"20_000"` read the same."""
    if isinstance(value, str) and re.fullmatch(_DIGITS, value) and len(value) <= 18:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**63:
        return value
    raise wanted("a whole number of at least 1")


def in_flight(value: Any) -> int | None:
    """`"auto"` is None: as many as the provider takes."""
    if value == "auto":
        return None
    try:
        return count(value)
    except PydanticCustomError:
        raise wanted('"auto" or a whole number of at least 1') from None


def price(value: Any) -> Decimal:
    """USD per million tokens."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return Decimal(str(value))
    raise wanted("a number of at least 0: USD per million tokens")


def text(value: Any) -> str:
    """Text that is not empty and holds no control character, so that it can be a path, a name or a label."""
    if isinstance(value, str) and value and not re.search(r"[\x00-\x1f\x7f]", value):
        return value
    raise wanted("text that is not empty, on one line")


def texts(value: Any) -> tuple[str, ...]:
    """One text or a list of them; always a tuple afterwards, without repeats."""
    values = [value] if isinstance(value, str) else value
    try:
        if isinstance(values, list) and values:
            parsed = tuple(text(each) for each in values)
            if len(set(parsed)) == len(parsed):
                return parsed
    except PydanticCustomError:
        pass  # said below, in the words of the list
    raise wanted("text or a list of texts, none empty, none twice")


def label(value: Any) -> str:
    """A version label people can read; it is stored with every row, so it stays short."""
    if isinstance(value, str) and re.fullmatch(
        r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,62}[^\s\x00-\x1f\x7f])?", value
    ):
        return value
    raise wanted('a short text of at most 64 characters, in quotes, such as "v7"')


def base_url(value: Any) -> str:
    """https anywhere, plain http on loopback only: anything else would carry the key and the rows in the clear."""
    message = 'an address such as "https://host/v1" (http only for 127.0.0.1 or localhost), without a user, query or #'
    if not isinstance(value, str) or re.search(r"[\x00-\x20\x7f?#@\\]", value):
        raise wanted(message)
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port  # .port raises for a port that is no number
    except ValueError:
        raise wanted(message) from None
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise wanted(message)
    return value


def webhook(value: Any) -> str:
    """https anywhere, plain http on loopback only. The address may be a secret itself: it comes from the environment."""
    message = 'an address such as "${SLACK_WEBHOOK_URL}": https, or http for 127.0.0.1 or localhost'
    if not isinstance(value, str) or re.search(r"[\x00-\x20\x7f\\]", value):
        raise wanted(message)
    if value.startswith("${"):  # not put in yet
        return value
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port  # .port raises for a port that is no number
    except ValueError:
        raise wanted(message) from None
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise wanted(message)
    return value


def json_table(value: Any) -> dict[str, Any]:
    """A table of what JSON can hold. TOML also has dates, nan and inf: a provider would refuse them hours later."""
    if not isinstance(value, dict):
        raise wanted("a table")
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while pending:
        path, inner = pending.pop()
        match inner:
            case dict() as table:
                pending.extend(((*path, key), each) for key, each in table.items())
            case list() as items:
                pending.extend(((*path, index), each) for index, each in enumerate(items))
            case float() as number if not math.isfinite(number):
                raise wanted("a number that JSON can hold", path)
            case bool() | float() | str():
                pass
            case int() as number if -(2**63) <= number < 2**64:
                pass
            case int():
                raise wanted("a whole number of at most 64 bits", path)
            case _:
                raise wanted("what JSON can hold", path)
    return value


def _written(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^(?:{pattern})$", "examples": [example]})


_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_DIGITS}$"}]}

Share = Annotated[Fraction, PlainValidator(share), _written(_SHARE, "0.1%")]
ByteSize = Annotated[
    int,
    PlainValidator(byte_size),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_SIZE}$"}],
            "examples": ["100MB"],
        }
    ),
]
DeadlineText = Annotated[
    Deadline, PlainValidator(deadline), WithJsonSchema({"type": "string", "examples": ["08:00 Europe/Zurich", "5d"]})
]
Seconds = Annotated[int, PlainValidator(duration_seconds), _written(_DURATION, "7d")]
UntilPublishedOrSeconds = Annotated[
    str | int,
    PlainValidator(until_published_or_seconds),
    WithJsonSchema({"anyOf": [{"const": "on-publish"}, {"type": "string", "pattern": f"^(?:{_DURATION})$"}]}),
]
Usd = Annotated[Money, PlainValidator(money), _written(_MONEY, "5.00 USD")]
Count = Annotated[int, PlainValidator(count), WithJsonSchema(_COUNT)]
InFlight = Annotated[
    int | None, PlainValidator(in_flight), WithJsonSchema({"anyOf": [{"const": "auto"}, *_COUNT["anyOf"]]})
]
Price = Annotated[Decimal, PlainValidator(price), WithJsonSchema({"type": "number", "minimum": 0})]
Text = Annotated[str, PlainValidator(text), WithJsonSchema(_TEXT)]
Texts = Annotated[
    tuple[str, ...],
    PlainValidator(texts),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "uniqueItems": True}]}),
]
Label = Annotated[str, PlainValidator(label), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 64})]
BaseUrl = Annotated[str, PlainValidator(base_url), WithJsonSchema({"type": "string", "pattern": "^https?://"})]
Webhook = Annotated[str, PlainValidator(webhook), WithJsonSchema({"type": "string"})]
JsonTable = Annotated[dict[str, Any], PlainValidator(json_table), WithJsonSchema({"type": "object"})]
