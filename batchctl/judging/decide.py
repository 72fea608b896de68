"""One extracted result to one verdict: the only place that says which state a judged row is in."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import orjson

from batchctl.judging.extracted import Extracted
from batchctl.judging.rules import REVIEW, Rules
from batchctl.judging.schema import Schema
from batchctl.judging.strict_json import NotJson, one_line, parse
from batchctl.judging.text import printable
from batchctl.model.rows import Action, Decision, Reason, Retry, RowState, Verdict

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
_ACCEPTABLE = frozenset(("", Reason.RULE, Reason.SAMPLE, Reason.CONFLICT))
"""Reasons of rows that had an answer, or several, when somebody accepted it."""
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
    rules: Rules | None = None
    explained: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def verdict(self, extracted: Extracted, row: bytes | None = None, *, drawn: bool = False) -> Verdict:
        """The verdict on one result; for any `Extracted`, without raising.

        `row` is the source row as JSON, for rules that look at it. `drawn`: the row is in the sample of good rows that
        a person sees.
        """
        if extracted.reason is not None:
            return self._failed(extracted, extracted.reason, extracted.detail, extracted.retry)
        detail = ""
        try:
            if extracted.text is None:
                value = extracted.value
                output = _written(value)
            elif self.schema is None:
                value = extracted.text
                output = _written(value)
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
        state, reason, retry = RowState.COMPLETED, None, Retry.NONE
        shares: tuple[int, ...] = ()
        if self.rules is not None:
            found = self.rules.find(value, row)
            detail = "; ".join(one for one in (detail, found.detail, found.warning) if one)
            shares = found.shares
            if found.consequence:
                state, reason, retry = RowState.INVALID_OUTPUT, Reason.RULE, Retry.CHANGE
                if found.consequence == REVIEW:
                    state = RowState.REVIEW_REQUIRED
        if drawn and state is RowState.COMPLETED:
            state, reason = RowState.REVIEW_REQUIRED, Reason.SAMPLE
        return Verdict(
            state,
            reason,
            detail,
            output,
            extracted.usage,
            retry,
            extracted.paid,
            extracted.request_id,
            extracted.model,
            extracted.created_at,
            shares,
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


def drawn(key: str, share: Fraction) -> bool:
    """Whether a row is in a sample, by the hexadecimal digits of its record key: the same rows whenever it is asked."""
    return bool(share) and int(key, 16) < share * 16 ** len(key)


@dataclass(frozen=True, slots=True)
class Settled:
    """A verdict with what a person decided: what the row is, and the answer that counts."""

    state: str
    reason: str
    detail: str
    output: bytes | None


def settled(state: str, reason: str, detail: str, output: bytes | None, decision: Decision) -> Settled:
    """The only place that says what a decision makes of a row. Accepting needs an answer; without one nothing changes."""
    which = "" if decision.answer is None else f"answer {decision.answer} "
    said = f"by {decision.by}, {decision.at}" + (f": {printable(decision.note)}" if decision.note else "")
    if decision.action is Action.EDIT:
        return Settled(RowState.COMPLETED, "", f"edited {said}", decision.output)
    if decision.action is Action.REJECT:
        kept = Reason.RULE if reason in ("", Reason.SAMPLE) else reason
        return Settled(RowState.INVALID_OUTPUT, kept, f"rejected {said}", output)
    answer = output if decision.output is None else decision.output
    if answer is None and not (decision.purged and reason in _ACCEPTABLE):
        return Settled(state, reason, detail, output)
    return Settled(RowState.COMPLETED, "", f"accepted {which}{said}", answer)


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
