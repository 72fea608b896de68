"""One extracted result to one verdict: the only place that says which state a judged row is in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from batchctl.judging.extracted import Extracted
from batchctl.judging.schema import Schema
from batchctl.judging.strict_json import NotJson, one_line, parse
from batchctl.judging.text import printable
from batchctl.model.rows import Reason, Retry, RowState, Verdict

STRICT = "strict"
FENCES = "fences"

_KINDS_KEPT = 200
_STATES = {
    Reason.INVALID_JSON: RowState.INVALID_OUTPUT,
    Reason.SCHEMA: RowState.INVALID_OUTPUT,
    Reason.RULE: RowState.INVALID_OUTPUT,
    Reason.TRUNCATED: RowState.INVALID_OUTPUT,
    Reason.REFUSED: RowState.REVIEW_REQUIRED,
    Reason.CONFLICT: RowState.REVIEW_REQUIRED,
    Reason.PROVIDER: RowState.PROVIDER_ERROR,
    Reason.EXPIRED: RowState.PROVIDER_ERROR,
    Reason.MISSING: RowState.PROVIDER_ERROR,
}
_FENCED = "read without its ``` fence"


@dataclass(frozen=True)
class Judge:
    """Judges the results of one chunk.

    `parse`: `strict` takes the answer as it is; `fences` also takes JSON in exactly one pair of ``` lines with nothing
    outside, and says so in the verdict. `explain_each`: so many failures of each kind are explained by `jsonschema`,
    the others carry the judge's own words, so that a run with many failures stays fast. The count is the judge's own:
    make one judge for each chunk, or the same results judged again would be worded differently.
    """

    schema: Schema | None = None
    parse: str = STRICT
    review_refused: bool = True
    explain_each: int = 3
    explained: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def verdict(self, extracted: Extracted) -> Verdict:
        """The verdict on one result; for any `Extracted`, without raising."""
        if extracted.reason is not None:
            return self._failed(extracted, extracted.reason, extracted.detail, extracted.retry)
        detail = ""
        try:
            if extracted.text is None:
                value = extracted.value
                output = _written(value)
            elif self.schema is None:
                value = None
                output = _written(extracted.text)
            else:
                text = extracted.text
                if self.parse == FENCES:
                    text, detail = _without_fences(text)
                value = parse(text)
                output = one_line(text)
        except NotJson as exc:
            return self._failed(extracted, Reason.INVALID_JSON, exc.detail, Retry.CHANGE)
        if self.schema is not None:
            problem = self._problem(self.schema, value)
            if problem is not None:
                return self._failed(extracted, Reason.SCHEMA, problem, Retry.CHANGE)
        return Verdict(
            RowState.COMPLETED,
            None,
            detail,
            output,
            extracted.usage,
            Retry.NONE,
            extracted.paid,
            extracted.request_id,
            extracted.model,
            extracted.created_at,
        )

    def _failed(self, extracted: Extracted, reason: Reason, detail: str, retry: Retry) -> Verdict:
        state = _STATES[reason]
        if reason is Reason.REFUSED and not self.review_refused:
            state = RowState.INVALID_OUTPUT
        return Verdict(
            state,
            reason,
            printable(detail),
            None,
            extracted.usage,
            retry,
            extracted.paid,
            extracted.request_id,
            extracted.model,
            extracted.created_at,
        )

    def _problem(self, schema: Schema, value: Any) -> str | None:
        failure = schema.failure(value)
        if failure is None:
            return None
        count = self.explained.get(failure.kind, 0)
        if count < self.explain_each and (count or len(self.explained) < _KINDS_KEPT):
            self.explained[failure.kind] = count + 1
            return schema.explain(value)
        return str(failure)


def _written(value: Any) -> bytes:
    """As JSON on one line; orjson escapes line breaks and refuses lone surrogates and integers beyond 64 bits."""
    try:
        return orjson.dumps(value)
    except TypeError as exc:
        raise NotJson(f"the answer cannot be written as JSON: {printable(str(exc), 120)}") from exc


def _without_fences(text: str) -> tuple[str, str]:
    """The text inside one pair of ``` lines, with an optional language word, and a note; anything else as it is."""
    stripped = text.strip(" \t\r\n")
    if not (stripped.startswith("```") and stripped.endswith("```") and len(stripped) > 6):
        return text, ""
    first, line_break, inner = stripped[3:-3].partition("\n")
    language = first.strip(" \t\r")
    if not line_break or not (language == "" or (language.isascii() and language.replace("-", "").isalnum())):
        return text, ""
    return (text, "") if "\n```" in inner else (inner, _FENCED)
