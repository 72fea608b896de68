"""What the model would have said, before a wire puts it into its own shape. The same for every vendor.

The words depend on seed and request alone; a drawn quality breaks them: not JSON, not the schema, cut off, refused. They
can also be given (`says`): the same row then has the same answer, whatever its request looks like on each wire.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from batchctl.emulator.answers import compiled, sentence

_BOUNDS = re.compile(r"\{[^{}]*\}$")
_BOUND = re.compile(
    r"\b(minimum|maximum|exclusiveMinimum|exclusiveMaximum|multipleOf|minLength|maxLength|minItems|maxItems)"
    r": (-?[0-9]+(?:\.[0-9]+)?)"
)
REFUSAL = "I'm sorry, I can't help with that."


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0  # part of the input
    reasoning_tokens: int = 0  # part of the output


@dataclass(frozen=True, slots=True)
class Said:
    """What the model would have said, before it is put into an endpoint's shape."""

    text: str
    tool: str = ""
    finish: str = "stop"  # stop, length, content_filter, refusal
    tokens: int = 0


class Asked:
    """What a request asks for, whatever its endpoint calls it."""

    form: dict[str, Any] | None = None
    schema: Any = None
    tool: str = ""
    cap: int | None = None
    any_json = False
    prompt = ""


@lru_cache(maxsize=64)
def as_read(schema: bytes) -> Any:
    """The schema with the bounds that stand in descriptions, as `{minimum: 1, maximum: 4}`: a model reads those too."""

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return [read(one) for one in value]
        if not isinstance(value, dict):
            return value
        out = {key: read(one) for key, one in value.items()}
        found = _BOUNDS.search(value["description"]) if isinstance(value.get("description"), str) else None
        for key, number in _BOUND.findall(found[0]) if found else ():
            out.setdefault(key, orjson.loads(number))
        return out

    return read(orjson.loads(schema))


Used = tuple[int, int, int, int]
"""Input, output, cached and reasoning tokens; the last two are parts of the first two."""


def used_of(said: Said, cap: int | None, taken: int, cached: float, thinking: int) -> Used:
    """What an answer is billed for: `cached` is the share of the input read from a cache, `thinking` tokens come on top."""
    thought = thinking if cap is None else max(0, min(thinking, cap - said.tokens))
    return taken, said.tokens + thought, int(taken * cached), thought


def words(given: Any) -> str:
    """The text of the last message of the user: where the row is; instructions would name every enum word."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        return ""
    for item in reversed(given):
        if isinstance(item, str):
            return item
        if isinstance(item, dict) and item.get("role", "user") == "user":
            content = item.get("content")
            if isinstance(content, str):
                return content
            if isinstance(content, list):
                return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def say(asked: Asked, dice: bytes, quality: str, u2028: bool) -> Said:
    prompt = asked.prompt.lower()
    if quality.startswith("="):
        return Said(quality[1:], asked.tool, tokens=len(quality) // 4 + 1)
    if quality == "refused":
        return Said(REFUSAL, finish="refusal", tokens=9)
    if quality == "filtered":
        return Said("", finish="content_filter", tokens=1)
    shaped = asked.schema is not None or asked.any_json
    if asked.schema is not None:
        maker = compiled(orjson.dumps(asked.schema))
        value = maker.make(dice, prompt)
        if quality == "schema":
            value = maker.broken(value, dice)
        text = orjson.dumps(value).decode()
    elif asked.any_json:
        text = orjson.dumps({"simulated": True, "text": sentence(dice, asked.prompt)}).decode()
    else:
        text = sentence(dice, asked.prompt)
    if u2028:
        text = text.replace(" ", "\u2028", 1)
    if quality == "invalid_json" and shaped:
        cuts = (
            f"Here is the answer: {text}",
            f"```json\n{text[:-1]}\n```",
            text[:-1] + ",",
            text.replace('"', "'") + ";",
        )
        text = cuts[dice[16] & 3]
    tokens = len(text) // 4 + 1
    finish = "stop"
    if quality == "truncated":
        text = text[: max(1, len(text) // 2)]
        tokens, finish = asked.cap or len(text) // 4 + 1, "length"
    elif asked.cap is not None and tokens > asked.cap:
        text, tokens, finish = text[: asked.cap * 4], asked.cap, "length"
    return Said(text, asked.tool, finish, tokens)
