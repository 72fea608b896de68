"""Every recorded result of Gemini and Vertex has a stated outcome, and so has every shape that is not recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchctl.judging.decide import Judge
from batchctl.judging.extracted import Extracted
from batchctl.judging.google import google_body, google_http_error, google_line
from batchctl.judging.text import printable
from batchctl.model.rows import Reason, Retry, RowState, Usage
from tests.conftest import SHARED

GEMINI = SHARED / "contracts" / "fixtures-gemini"
VERTEX = SHARED / "contracts" / "fixtures-vertex"
here = pytest.mark.skipif(not GEMINI.exists(), reason="the contract's fixtures are not beside this checkout")
ENDPOINT = "models/gemini-2.5-flash:generateContent"
OK = (RowState.COMPLETED, None, Retry.NONE, True)
REFUSED = (RowState.REVIEW_REQUIRED, Reason.REFUSED, Retry.CHANGE, True)
CUT = (RowState.INVALID_OUTPUT, Reason.TRUNCATED, Retry.CHANGE, True)
EMPTY = (RowState.INVALID_OUTPUT, Reason.INVALID_JSON, Retry.CHANGE, True)


def provider(retry: Retry, *, paid: bool = False) -> tuple[Any, ...]:
    return (RowState.PROVIDER_ERROR, Reason.PROVIDER, retry, paid)


Outcome = tuple[tuple[Any, ...], bytes | str]
TICKET = b'{"label": "billing", "confidence": 0.93, "owner": null}'
FIRE = b'"The printer is on fire."'
NEVER_ROLE = (provider(Retry.NEVER), "400, INVALID_ARGUMENT: Please use a valid role")
# file, then each line in order: key, (state, reason, retry, paid), output or a part of the detail; sections 3 of the pages
RECORDED: dict[str, list[tuple[str | None, Outcome]]] = {
    "fixtures-gemini/result_lines.jsonl": [
        ("row-000005", (OK, b'"Quantum."')),
        ("row-000001", (OK, FIRE)),
        ("row-000002", (OK, json.dumps(TICKET.decode()).encode())),
        ("row-000003", (CUT, "maxOutputTokens reached")),
        ("row-000004", (provider(Retry.NEVER), "code 3, Unable to process input image.")),
        ("row-000006", (REFUSED, "PROHIBITED_CONTENT")),
    ],
    "fixtures-gemini/result_lines_odd.jsonl": [
        ("thinking-ate-the-budget", (CUT, "maxOutputTokens")),
        ("candidate-without-content", (REFUSED, "content filter")),
        ("many-parts-skip-thoughts", (OK, b'"part one, part two"')),
        ("fenced-json", (OK, b'"```json\\n{\\"label\\":\\"bug\\"}\\n```"')),
        ("no-candidates", (provider(Retry.NONE, paid=True), "no candidate")),
        ("retryable-row-error", (provider(Retry.TRANSIENT), "code 13")),
        ("retryable-quota-row", (provider(Retry.TRANSIENT), "code 8")),
        (None, (OK, b'"no key on this line"')),
        ("row-000001", (OK, b'"duplicate of the same key"')),
        ("stranger", (OK, b'"a key we never sent"')),
    ],
    "fixtures-gemini/embed_result_lines.jsonl": [
        ("row-000001", (OK, b"[-0.034119852,0.0025719088,0.017325249,0.1]")),
        ("row-000002", (provider(Retry.NEVER), "text content is empty")),
    ],
    "fixtures-vertex/prediction_lines_single_file.jsonl": [
        ("row-000003", (OK, b'"{\\"label\\": \\"cat\\"}"')),
        ("row-000001", (OK, FIRE)),
        ("row-000004", NEVER_ROLE),
        ("row-000002", (OK, b'"{\\"label\\": \\"billing\\", \\"confidence\\": 0.9}"')),
    ],
    "fixtures-vertex/prediction_lines_odd.jsonl": [
        ("blocked-prompt", (REFUSED, "PROHIBITED_CONTENT")),
        ("safety", (REFUSED, "content filter")),
        ("max-tokens-empty", (CUT, "maxOutputTokens")),
        ("continuation", (CUT, "would have gone on")),
        ("quota-row", (provider(Retry.TRANSIENT), "429, RESOURCE_EXHAUSTED")),
        ("plain-status", (provider(Retry.TRANSIENT), "Internal error occurred.")),
        ("null-response", NEVER_ROLE),
        (None, (OK, b'"no key: correlate by label or by request fingerprint"')),
        ("row-000001", (OK, b'"duplicate"')),
    ],
    "fixtures-vertex/claude_prediction_lines.jsonl": [
        ("row-000001", (OK, b'"Hi!"')),
        ("row-000002", (provider(Retry.NEVER), "invalid_request_error: max_tokens")),
    ],
    "fixtures-vertex/embed_prediction_lines.jsonl": [
        ("row-000002", (OK, b"[-0.015,0.024,0.1,0.2]")),
        ("row-000001", (provider(Retry.NEVER), "400, INVALID_ARGUMENT")),
    ],
    "fixtures-vertex/embed_prediction_lines_legacy_text_models.jsonl": [(None, (OK, b"[0.2,-0.1]"))],
}
USAGES = {
    "fixtures-gemini/result_lines.jsonl": [
        Usage(9, 840, reasoning_tokens=829),
        Usage(8, 840, reasoning_tokens=829),
        Usage(8, 840, reasoning_tokens=829),
        Usage(260, 256),
        None,
        Usage(12, 0),
    ],
    "fixtures-gemini/embed_result_lines.jsonl": [Usage(2, 0), None],
    "fixtures-vertex/claude_prediction_lines.jsonl": [Usage(9, 4), None],
    "fixtures-vertex/embed_prediction_lines_legacy_text_models.jsonl": [Usage(8, 0)],
}


def lines(name: str) -> list[Any]:
    text = (SHARED / "contracts" / name).read_text("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def outcome(extracted: Extracted) -> tuple[Any, ...]:
    verdict = Judge().verdict(extracted)
    return verdict.state, verdict.reason, verdict.retry, verdict.paid


@here
def test_the_table_names_every_recorded_file_of_results() -> None:
    found = {path for place in (GEMINI, VERTEX) for path in place.glob("*.jsonl")}
    given = {path for path in found if "request_lines" in path.name or "truncated" in path.name}
    assert {str(path.relative_to(SHARED / "contracts")) for path in found - given} == set(RECORDED)


@here
@pytest.mark.parametrize("name", RECORDED)
def test_each_recorded_result_has_its_outcome(name: str) -> None:
    given = lines(name)
    assert len(given) == len(RECORDED[name])
    for line, (key, (expected, shows)) in zip(given, RECORDED[name], strict=True):
        extracted = google_line(line, ENDPOINT)
        verdict = Judge().verdict(extracted)
        assert extracted.custom_id == key
        assert (verdict.state, verdict.reason, verdict.retry, verdict.paid) == expected, key
        if isinstance(shows, bytes):
            assert (verdict.output, verdict.detail) == (shows, ""), key
        else:
            assert verdict.output is None
            assert shows in verdict.detail


@here
def test_a_file_that_was_cut_off_keeps_its_whole_lines() -> None:
    whole, cut = (GEMINI / "result_lines_truncated.jsonl").read_bytes().split(b"\n")
    assert outcome(google_line(json.loads(whole), ENDPOINT)) == OK
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(cut)


@here
@pytest.mark.parametrize("name", USAGES)
def test_input_tokens_are_all_that_went_in_and_thoughts_are_output(name: str) -> None:
    assert [google_line(line, ENDPOINT).usage for line in lines(name)] == USAGES[name]


@here
@pytest.mark.parametrize("name", ["job_succeeded_inline", "job_succeeded_embed_inline"])
def test_inline_answers_carry_their_key_in_metadata(name: str) -> None:
    job = json.loads((GEMINI / f"{name}.json").read_bytes())
    given = job["metadata"]["output"]["inlinedResponses"]["inlinedResponses"]
    found = [google_line(line, ENDPOINT) for line in given]
    assert [one.custom_id for one in found] == ["row-000001", "row-000002"][: len(given)]
    assert outcome(found[0]) == OK


def response(*parts: Any, finish: Any = "STOP", **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish, "index": 0}
    return {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1}, **more}


def text(words: Any, **more: Any) -> dict[str, Any]:
    return {"text": words, **more}


def call(args: Any) -> dict[str, Any]:
    return {"functionCall": {"name": "t", "args": args}}


UNKNOWN = provider(Retry.NONE, paid=True)
FAILED = provider(Retry.CHANGE, paid=True)


@pytest.mark.parametrize(
    ("body", "mode", "expected", "says"),
    [
        (response(text("a"), text("b")), "native", OK, ""),
        (response(text("thought", thought=True), text("b")), "native", OK, ""),
        (response(text("a"), {"executableCode": {}}), "native", OK, ""),
        (response(text("thought", thought=True)), "native", EMPTY, "empty"),
        (response(), "native", EMPTY, "empty"),
        (response(text(" ")), "native", EMPTY, "empty"),
        (response(text(None)), "native", UNKNOWN, "null"),
        (response("a"), "native", UNKNOWN, "a string"),
        (response(text("a"), finish="BORED"), "native", UNKNOWN, "BORED"),
        (response(text("a"), finish=None), "native", UNKNOWN, "null"),
        (response(text("a"), finish="RECITATION"), "native", REFUSED, "filter"),
        (response(text("a"), finish="MODEL_ARMOR"), "native", REFUSED, "filter"),
        (response(finish="MALFORMED_FUNCTION_CALL"), "native", EMPTY, "malformed"),
        (response(finish="OTHER"), "native", FAILED, "OTHER"),
        (response(finish="NO_IMAGE"), "native", FAILED, "NO_IMAGE"),
        (response(call({"a": 1})), "tool", OK, ""),
        (response(call({})), "native", OK, ""),
        (response(text("{}")), "tool", EMPTY, "called no tool"),
        (response(call("{}")), "tool", UNKNOWN, "a string"),
        (
            response(call({"a": 1}), call({"a": 2})),
            "tool",
            (RowState.REVIEW_REQUIRED, Reason.CONFLICT, Retry.CHANGE, True),
            "2 different",
        ),
        ({"candidates": [7]}, "native", UNKNOWN, "a number"),
        ({"candidates": [{"content": 7, "finishReason": "STOP"}]}, "native", UNKNOWN, "a number"),
        ({"embedding": {"values": ["a"]}}, "native", UNKNOWN, "no numbers"),
        ({"embedding": {"values": []}}, "native", UNKNOWN, "no numbers"),
        ({}, "native", UNKNOWN, "no candidate"),
        ("text", "native", UNKNOWN, "a string"),
        (None, "native", provider(Retry.NONE), "null"),
    ],
)
def test_a_response_is_judged_by_its_signs(body: Any, mode: str, expected: tuple[Any, ...], says: str) -> None:
    extracted = google_body(body, ENDPOINT, mode)
    assert outcome(extracted) == expected
    assert says in extracted.detail


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, Usage(0, 0)),
        (
            {
                "promptTokenCount": 100,
                "cachedContentTokenCount": 60,
                "toolUsePromptTokenCount": 5,
                "candidatesTokenCount": 7,
                "thoughtsTokenCount": 3,
            },
            Usage(105, 10, 60, 0, 3),
        ),
        ({"promptTokenCount": "100"}, None),
        ({"promptTokenCount": -1}, None),
        ({"thoughtsTokenCount": True}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    assert google_body(response(text("a"), usageMetadata=usage), ENDPOINT).usage == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ('Service Unavailable: {"error": {"code": 503}}', provider(Retry.TRANSIENT)),
        ('Whatever: {"error": {"code": 504, "message": "late"}}', provider(Retry.TRANSIENT)),
        ("Too Many Requests", provider(Retry.TRANSIENT)),
        ("internal: something broke {", provider(Retry.TRANSIENT)),
        ("Bad Request", provider(Retry.NEVER)),
        ('Forbidden: {"error": {"details": [{"reason": "BILLING_DISABLED"}]}}', provider(Retry.BILLING)),
        ("It rained", provider(Retry.NONE)),
        (7, provider(Retry.NONE)),
    ],
)
def test_a_status_is_read_leniently_and_never_taken_for_success(status: Any, expected: tuple[Any, ...]) -> None:
    extracted = google_line({"key": "a", "status": status, "response": response(text("a"))}, ENDPOINT)
    assert (extracted.custom_id, outcome(extracted)) == ("a", expected)


@pytest.mark.parametrize(
    ("status", "retry"),
    [(429, Retry.TRANSIENT), (503, Retry.TRANSIENT), (400, Retry.NEVER), (402, Retry.BILLING), (418, Retry.NONE)],
)
def test_a_live_error_is_judged_by_its_status(status: int | None, retry: Retry) -> None:
    body = {"error": {"code": status, "message": "no", "status": "WORD"}}
    assert outcome(google_http_error(status, body)) == provider(retry)
    assert "WORD: no" in google_http_error(status, body).detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PART = st.fixed_dictionaries({}, optional={"text": JSON, "thought": JSON, "functionCall": JSON})
FINISH = st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY", "OTHER", None, 7])
CANDIDATE = st.fixed_dictionaries(
    {"finishReason": FINISH | JSON},
    optional={"content": st.fixed_dictionaries({"parts": st.lists(PART) | JSON}) | JSON},
)
ODD = st.fixed_dictionaries(
    {},
    optional={
        "candidates": st.lists(CANDIDATE | JSON, max_size=2) | JSON,
        "promptFeedback": JSON,
        "usageMetadata": JSON,
        "embedding": JSON,
        "tokenCount": JSON,
        "responseId": JSON,
        "createTime": JSON,
        "type": JSON,
    },
)
LINE = st.fixed_dictionaries(
    {},
    optional={
        "key": JSON,
        "metadata": JSON,
        "status": JSON,
        "error": JSON,
        "predictions": JSON,
        "response": ODD | JSON,
    },
)


@given(body=ODD | JSON, line=LINE | JSON, mode=st.sampled_from(["native", "tool", "prompt"]))
def test_nothing_raises(body: Any, line: Any, mode: str) -> None:
    for extracted in (google_body(body, ENDPOINT, mode), google_line(line, ENDPOINT, mode)):
        detail = Judge().verdict(extracted).detail
        assert detail == printable(detail)
        assert (extracted.reason is None) == (extracted.text is not None or extracted.value is not None)
    assert google_http_error(400, body).reason is not None
