"""Which reader understands the results of which wire. `Traits.wire` of a provider names it; callers ask nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchctl.judging.anthropic import anthropic_body, anthropic_http_error, anthropic_line
from batchctl.judging.bedrock import bedrock_body, bedrock_http_error, bedrock_line
from batchctl.judging.extracted import Extracted
from batchctl.judging.google import google_body, google_http_error, google_line
from batchctl.judging.openai import openai_body, openai_http_error, openai_line


@dataclass(frozen=True, slots=True)
class Reader:
    """Three places an answer is read from: a result line, a live body with status 200, a live error.

    `id_field` is the member of a result line that says whose it is. `tells_expired`: a row that time ran out for has a
    line that says so; elsewhere it has none.
    """

    line: Callable[[Any, str, str], Extracted]
    body: Callable[[Any, str, str], Extracted]
    http_error: Callable[[int | None, Any], Extracted]
    id_field: str = "custom_id"
    tells_expired: bool = False


READERS: Mapping[str, Reader] = {
    "openai": Reader(openai_line, openai_body, openai_http_error, tells_expired=True),
    "anthropic": Reader(anthropic_line, anthropic_body, anthropic_http_error, tells_expired=True),
    "bedrock": Reader(bedrock_line, bedrock_body, bedrock_http_error, id_field="recordId"),
    "google": Reader(google_line, google_body, google_http_error, id_field="key"),
}
