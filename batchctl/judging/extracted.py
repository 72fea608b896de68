"""What a result holds, whoever sent it, and the words in which every wire says why there is no answer.

A status of 200 does not mean that the answer can be used, so a reader asks each shape in this order: refused or filtered,
cut off, failed at the provider, known at all, empty. What is not known is never an answer and never a reason to send the
row again: it becomes `provider` with `Retry.NONE`, and the detail names the unknown word. Codes, types and fields decide,
never the text of a message. Nothing raises out of a reader, whatever JSON value arrives in whatever place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchctl.judging.text import printable
from batchctl.model.rows import Reason, Retry, Usage

EMPTY = "the answer is empty"
TOOL = "tool"
"""The `mode` in which the arguments of a tool call are the answer."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a result holds. `reason` is None exactly when there is an answer: in `text`, or in `value` for data.

    `value` is the answer of endpoints that give no text: an embedding (several: a list of them, in the order of the
    input) or a moderation result (several: a list). `paid`: the provider delivered an answer, usable or not.
    """

    custom_id: str | None = None
    text: str | None = None
    usage: Usage | None = None
    reason: Reason | None = None
    detail: str = ""
    retry: Retry = Retry.NONE
    paid: bool = False
    request_id: str = ""
    model: str = ""
    created_at: int | None = None
    value: Any = None


class Unusable(Exception):
    """An answer that cannot be used, and why."""

    def __init__(self, reason: Reason, detail: str, retry: Retry = Retry.NONE, *, paid: bool = True) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry = retry
        self.paid = paid


def refused(words: Any) -> Unusable:
    said = f": {printable(words)}" if isinstance(words, str) and words else ""
    return Unusable(Reason.REFUSED, f"the model refused{said}", Retry.CHANGE)


def filtered() -> Unusable:
    return Unusable(Reason.REFUSED, "the provider's content filter stopped the answer", Retry.CHANGE)


def cut_off(why: str) -> Unusable:
    return Unusable(Reason.TRUNCATED, f"the answer is cut off: {why}", Retry.CHANGE)


def unknown(what: str, word: Any) -> Unusable:
    return Unusable(Reason.PROVIDER, f"unknown {what} {word_of(word)}")


def name_of(value: Any) -> str:
    """A request id or model name as it is, unless it is no such thing."""
    if not isinstance(value, str):
        return ""
    return value if len(value) <= 200 and value.isprintable() else printable(value, 200)


def word_of(word: Any) -> str:
    """A value to be named in a detail: words and small numbers themselves, of anything else the kind."""
    if isinstance(word, str):
        return f'"{printable(word, 60)}"'
    return str(word) if type(word) is int and abs(word) < 2**64 else kind_of(word)


def kind_of(value: Any) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "a boolean"), (str, "a string"), (list, "a list"), (dict, "an object")):
        if isinstance(value, kind):
            return name
    return "a number"
