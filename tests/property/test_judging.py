"""No JSON value in any place makes judging raise, and the strict reader agrees with `json` where both accept."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchctl.judging.decide import Judge
from batchctl.judging.extracted import Extracted
from batchctl.judging.openai import openai_body, openai_http_error, openai_line
from batchctl.judging.schema import Schema
from batchctl.judging.strict_json import NotJson, one_line, parse
from batchctl.judging.text import printable
from batchctl.model.rows import Reason, Retry, RowState, Verdict

ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/videos",
)
WORDS = tuple(
    """completed failed incomplete cancelled in_progress message output_text refusal function_call custom_tool_call
    reasoning final_answer commentary stop length content_filter tool_calls max_output_tokens batch_expired
    batch_cancelled insufficient_quota server_error text function custom""".split()  # noqa: SIM905 - one word a line is worse
)
KEYS = tuple(
    """id custom_id response error status_code request_id body status output type content text refusal arguments input
    phase incomplete_details reason choices message finish_reason tool_calls function_call function usage input_tokens
    prompt_tokens completion_tokens input_tokens_details cached_tokens data index embedding results flagged model
    created created_at code""".split()  # noqa: SIM905 - the same
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([0, 1, 200, 400, 429, 500, 10**400, 1e308, float("nan"), float("inf")])
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(WORDS)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=25,
)
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner),
)
SCHEMA = Schema.load(
    b'{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false}',
    "s",
)
JUDGES = (Judge(), Judge(SCHEMA), Judge(SCHEMA, parse="fences", review_refused=False, explain_each=0))


def judged(extracted: Extracted) -> None:
    assert isinstance(extracted, Extracted)
    assert len(extracted.detail) <= 300
    assert extracted.detail == printable(extracted.detail)
    for judge in JUDGES:
        verdict = judge.verdict(extracted)
        assert isinstance(verdict, Verdict)
        assert (verdict.state is RowState.COMPLETED) == (verdict.reason is None) == (verdict.output is not None)
        assert len(verdict.detail) <= 300
        assert verdict.detail == printable(verdict.detail)
        if verdict.output is not None:
            assert b"\n" not in verdict.output
            assert extracted.paid
            orjson.loads(verdict.output)
        else:
            assert verdict.detail
        if verdict.usage is not None:
            assert all(count >= 0 for count in verdict.usage.as_dict().values())


@given(values, st.sampled_from(ENDPOINTS), st.sampled_from(["native", "tool"]))
@settings(deadline=None, max_examples=300)
def test_any_value_for_a_line_gets_a_verdict(line: Any, endpoint: str, mode: str) -> None:
    judged(openai_line(line, endpoint, mode))


def chaotic(template: Any) -> st.SearchStrategy[Any]:
    """The template with any part of it replaced by any value, or left out."""
    if isinstance(template, dict):
        whole = st.fixed_dictionaries({}, optional={key: chaotic(part) for key, part in template.items()})
        full = st.fixed_dictionaries({key: chaotic(part) for key, part in template.items()})
        return st.one_of(full, full, full, whole, values)
    if isinstance(template, list):
        return st.one_of(st.lists(chaotic(template[0]), max_size=3), st.tuples(chaotic(template[0])).map(list), values)
    return st.one_of(st.just(template), st.just(template), st.just(template), scalars, values)


MESSAGE = {
    "type": "message",
    "status": "completed",
    "phase": None,
    "content": [{"type": "output_text", "text": '{"a": "b"}'}],
}
BODIES = {
    "/v1/responses": {
        "status": "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"},
        "model": "m",
        "created_at": 1,
        "output": [MESSAGE],
        "usage": {"input_tokens": 1, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 0}},
    },
    "/v1/chat/completions": {
        "created": 1,
        "choices": [
            {
                "finish_reason": "stop",
                "message": {
                    "content": '{"a": "b"}',
                    "refusal": None,
                    "tool_calls": [{"type": "function", "function": {"arguments": "{}"}}],
                },
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    },
    "/v1/completions": {"choices": [{"finish_reason": "stop", "text": "x"}]},
    "/v1/embeddings": {"data": [{"index": 0, "embedding": [0.5, 1]}]},
    "/v1/moderations": {"results": [{"flagged": False}]},
}


@pytest.mark.parametrize("endpoint", BODIES)
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_any_value_in_any_place_of_an_answer_gets_a_verdict(endpoint: str, data: st.DataObject) -> None:
    body = data.draw(chaotic(BODIES[endpoint]))
    mode = data.draw(st.sampled_from(["native", "tool"]))
    judged(openai_body(body, endpoint, mode))
    judged(
        openai_line({"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None}, endpoint, mode)
    )


@given(st.integers() | st.none(), values)
@settings(deadline=None)
def test_an_http_error_is_never_success(status: int | None, body: Any) -> None:
    extracted = openai_http_error(status, body)
    assert extracted.reason is not None
    judged(extracted)


@given(st.text(alphabet="abcdefghij_", min_size=1))
@settings(deadline=None)
def test_an_unknown_word_is_never_success_and_never_sent_again(word: str) -> None:
    chat = {"choices": [{"finish_reason": word, "message": {"content": "x"}}]}
    for body, endpoint in (({"status": word, "output": [MESSAGE]}, "/v1/responses"), (chat, "/v1/chat/completions")):
        extracted = openai_body(body, endpoint)
        assert (extracted.reason, extracted.retry) == (Reason.PROVIDER, Retry.NONE)
        assert word[:60] in extracted.detail


@given(documents, st.sampled_from([None, 2]))
@settings(deadline=None)
def test_valid_documents_are_read_as_json_reads_them(document: Any, indent: int | None) -> None:
    text = json.dumps(document, indent=indent)
    assert parse(text) == json.loads(text)
    assert parse(json.dumps(document, ensure_ascii=False).encode()) == document
    line = one_line(text)
    assert b"\n" not in line
    assert parse(line) == parse(text)


@given(
    documents,
    st.text(st.characters(exclude_categories=("Cs",))),
    st.booleans(),
    st.lists(st.sampled_from(["[%s]", '{"x": %s}', '[1, {"a:b": "\\u003a"}, %s]', '{"k": ":", "y": %s}'])),
)
@settings(deadline=None)
def test_two_equal_keys_are_found_at_any_depth(document: Any, key: str, escape: bool, around: list[str]) -> None:
    name = json.dumps(key)
    again = (
        '"' + "".join(f"\\u{ord(c):04x}" for c in key) + '"' if escape and all(ord(c) < 0x10000 for c in key) else name
    )
    text = f'{{{name}: {json.dumps(document)}, "other:": 1, {again} : 2}}'
    for wrap in around:
        text = wrap.replace("%s", text)
    with pytest.raises(NotJson, match=r"twice|levels"):
        parse(text)


@given(documents, st.data())
@settings(deadline=None)
def test_a_mutated_document_is_read_or_refused_and_nothing_else(document: Any, data: st.DataObject) -> None:
    text = bytearray(json.dumps(document).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(text) - 1)))
        text[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    finding = None
    try:
        value = parse(bytes(text))
    except NotJson as caught:
        finding = caught
    if finding is not None:
        assert 0 < len(finding.detail) <= 300
    else:
        assert value == json.loads(bytes(text))
        assert b"\n" not in one_line(bytes(text))


@given(st.text(st.characters()), st.integers(5, 100))
@settings(deadline=None)
def test_shown_text_is_bounded_and_has_nothing_left_to_escape(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert printable(shown, limit) == shown
    shown.encode()
