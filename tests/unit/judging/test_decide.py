"""From an extracted answer to a verdict."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchctl.judging.decide import Judge
from batchctl.judging.extracted import Extracted
from batchctl.judging.schema import Schema
from batchctl.model.rows import Reason, Retry, RowState, Usage

SCHEMA = Schema.load(
    json.dumps(
        {
            "type": "object",
            "properties": {"label": {"enum": ["bug", "billing"]}, "n": {"type": "integer"}},
            "required": ["label"],
        }
    ).encode(),
    "schema.json",
)


def answer(text: str, **more: Any) -> Extracted:
    return Extracted("a", text, paid=True, **more)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ('{"label": "bug"}', b'{"label": "bug"}'),
        ('\n{\n "label": "bug",\n "n": 1.0\n}\n', b'{"label": "bug","n": 1.0}'),
        ('{"label": "bug", "x": "a\u2028b"}', '{"label": "bug", "x": "a\u2028b"}'.encode()),
    ],
)
def test_a_valid_answer_is_kept_as_it_was_written_on_one_line(text: str, output: bytes) -> None:
    verdict = Judge(SCHEMA).verdict(answer(text, usage=Usage(1, 2), model="m"))
    assert (verdict.state, verdict.output, verdict.detail) == (RowState.COMPLETED, output, "")
    assert (verdict.usage, verdict.model, verdict.paid, verdict.retry) == (Usage(1, 2), "m", True, Retry.NONE)


@pytest.mark.parametrize(
    ("text", "reason", "says"),
    [
        ("bug", Reason.INVALID_JSON, "not JSON"),
        ('{"label": "bug"} done', Reason.INVALID_JSON, "unexpected content"),
        ('```json\n{"label": "bug"}\n```', Reason.INVALID_JSON, "not JSON"),
        ('{"label": "bug", "label": "billing"}', Reason.INVALID_JSON, "appears twice"),
        ('{"label": "bug", "n": 18446744073709551616}', Reason.INVALID_JSON, "64 bits"),
        ('{"label": "urgent"}', Reason.SCHEMA, "/label"),
        ('{"n": "x"}', Reason.SCHEMA, ""),
        ("null", Reason.SCHEMA, "whole answer"),
        ("[" * 100_000, Reason.INVALID_JSON, "not JSON"),
        ('{"label": "' + "\\u001b[2J\\u202e" * 500_000 + '"}', Reason.SCHEMA, "/label"),
    ],
)
@pytest.mark.parametrize("explain_each", [0, 3])
def test_an_invalid_answer_is_paid_for_and_needs_a_change(
    text: str, reason: Reason, says: str, explain_each: int
) -> None:
    verdict = Judge(SCHEMA, explain_each=explain_each).verdict(answer(text))
    assert (verdict.state, verdict.reason, verdict.retry) == (RowState.INVALID_OUTPUT, reason, Retry.CHANGE)
    assert verdict.paid
    assert verdict.output is None
    assert says in verdict.detail
    assert len(verdict.detail) <= 300
    assert verdict.detail.isprintable()


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("plain", b'"plain"'),
        ('{"a": 1}', b'"{\\"a\\": 1}"'),
        ("two\nlines\u2028", '"two\\nlines\u2028"'.encode()),
        ("\x1b[2J", b'"\\u001b[2J"'),
    ],
)
def test_without_a_schema_the_text_is_the_output(text: str, output: bytes) -> None:
    verdict = Judge().verdict(answer(text))
    assert (verdict.state, verdict.output) == (RowState.COMPLETED, output)
    assert json.loads(output) == text


def test_free_text_of_8_mb_is_kept_and_a_lone_surrogate_refused() -> None:
    assert Judge().verdict(answer("x" * 8_000_000)).state is RowState.COMPLETED
    for judge in (Judge(), Judge(SCHEMA)):
        verdict = judge.verdict(answer("a\ud800"))
        assert (verdict.state, verdict.reason) == (RowState.INVALID_OUTPUT, Reason.INVALID_JSON)
        assert "surrogate" in verdict.detail


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"label": "bug"}\n```',
        '```\n{"label": "bug"}\n```\n',
        ' ```JSON \r\n{"label": "bug"}```',
        '```c-1\n{"label": "bug"}\n```',
    ],
)
def test_one_pair_of_fences_is_taken_off_when_asked_and_said(text: str) -> None:
    verdict = Judge(SCHEMA, parse="fences").verdict(answer(text))
    assert (verdict.state, verdict.output) == (RowState.COMPLETED, b'{"label": "bug"}')
    assert "fence" in verdict.detail


@pytest.mark.parametrize(
    "text",
    [
        'Here: ```json\n{"label": "bug"}\n```',
        '```json\n{"label": "bug"}\n``` done',
        '```json\n{"label": "bug"}\n```\n```json\n{"label": "bug"}\n```',
        '```\n```json\n{"label": "bug"}\n```\n```',
        '```two words\n{"label": "bug"}\n```',
        "``````",
        "```",
        '```json\n{"label": "bug"}',
    ],
)
def test_anything_else_around_an_answer_stays_invalid(text: str) -> None:
    assert Judge(SCHEMA, parse="fences").verdict(answer(text)).reason is Reason.INVALID_JSON


def test_an_unfenced_answer_is_read_the_same_with_fences_allowed() -> None:
    verdict = Judge(SCHEMA, parse="fences").verdict(answer('{"label": "bug"}'))
    assert (verdict.state, verdict.detail) == (RowState.COMPLETED, "")


def test_a_refusal_goes_to_review_unless_told_otherwise() -> None:
    refusal = Extracted("a", reason=Reason.REFUSED, retry=Retry.CHANGE, detail="no", paid=True)
    assert Judge().verdict(refusal).state is RowState.REVIEW_REQUIRED
    assert Judge(review_refused=False).verdict(refusal).state is RowState.INVALID_OUTPUT


def test_data_is_judged_only_by_a_schema_that_is_given() -> None:
    vector = Extracted("a", value=[0.5, 1.5], paid=True)
    assert Judge().verdict(vector).output == b"[0.5,1.5]"
    assert Judge(SCHEMA).verdict(vector).reason is Reason.SCHEMA
    three = Schema.load(b'{"type": "array", "minItems": 3}', "schema.json")
    assert Judge(three).verdict(vector).reason is Reason.SCHEMA


def test_the_first_failures_of_each_kind_are_explained_and_the_rest_worded_by_the_judge() -> None:
    judge = Judge(SCHEMA)
    details = [judge.verdict(answer('{"label": "urgent"}')).detail for _ in range(5)]
    assert (
        details
        == ["/label: 'urgent' is not one of ['bug', 'billing']"] * 3
        + ['/label: "urgent" is not one of "bug" or "billing"'] * 2
    )
    assert judge.verdict(answer("{}")).detail == "(whole answer): 'label' is a required property"
    assert [Judge(SCHEMA).verdict(answer("{}")) for _ in range(2)] == [Judge(SCHEMA).verdict(answer("{}"))] * 2
