"""Every recorded result of Anthropic's batches has a stated outcome, and so has every shape that is not recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchctl.judging.anthropic import anthropic_body, anthropic_http_error, anthropic_line
from batchctl.judging.decide import Judge
from batchctl.judging.extracted import Extracted
from batchctl.judging.schema import Schema
from batchctl.judging.text import printable
from batchctl.judging.wires import READERS
from batchctl.model.rows import Reason, Retry, RowState, Usage
from batchctl.providers import KNOWN, provider_for
from tests.conftest import SHARED

FIXTURES = SHARED / "contracts" / "fixtures-anthropic"
here = pytest.mark.skipif(not FIXTURES.exists(), reason="the contract's fixtures are not beside this checkout")
MESSAGES = "/v1/messages"
TICKET = b'{"label":"billing","priority":2,"note":null}'
OK = (RowState.COMPLETED, None, Retry.NONE, True)
REFUSED = (RowState.REVIEW_REQUIRED, Reason.REFUSED, Retry.CHANGE, True)
CUT = (RowState.INVALID_OUTPUT, Reason.TRUNCATED, Retry.CHANGE, True)
EMPTY = (RowState.INVALID_OUTPUT, Reason.INVALID_JSON, Retry.CHANGE, True)


def provider(retry: Retry, *, paid: bool = False, reason: Reason = Reason.PROVIDER) -> tuple[Any, ...]:
    return (RowState.PROVIDER_ERROR, reason, retry, paid)


# custom_id: (state, reason, retry, paid), output or a part of the detail; section 3 of the wire contract
RECORDED: dict[str, tuple[tuple[Any, ...], bytes | str]] = {
    "row-000001": (OK, b'"billing"'),
    "row-000002": (OK, TICKET),
    "row-000003": (OK, TICKET),
    "row-000004": (OK, b'"billing"'),
    "row-cache-write-1h": (OK, b'"billing"'),
    "row-thinking": (OK, b'"billing"'),
    "row-stop-sequence": (OK, b'"billing"'),
    "row-max-tokens": (CUT, "max_tokens reached"),
    "row-context-window": (CUT, "more tokens do not help"),
    "row-refusal": (REFUSED, "category cyber"),
    "row-refusal-with-text": (REFUSED, "the model refused"),
    "row-pause-turn": (provider(Retry.CHANGE, paid=True), "paused"),
    "row-invalid": (provider(Retry.NEVER), "invalid_request_error: `temperature`"),
    "row-schema-too-complex": (provider(Retry.NEVER), "too complex"),
    "row-not-found": (provider(Retry.NEVER), "not_found_error"),
    "row-rate-limit": (provider(Retry.TRANSIENT), "rate_limit_error"),
    "row-api-error": (provider(Retry.TRANSIENT), "api_error"),
    "row-overloaded": (provider(Retry.TRANSIENT), "overloaded_error"),
    "row-timeout": (provider(Retry.TRANSIENT), "timeout_error"),
    "row-billing": (provider(Retry.BILLING), "billing_error"),
    "row-canceled": (provider(Retry.USER), "cancelled"),
    "row-expired": (provider(Retry.TRANSIENT, reason=Reason.EXPIRED), "expired"),
}


def lines() -> dict[str, Any]:
    text = (FIXTURES / "results" / "results.jsonl").read_text("utf-8")
    parsed = [json.loads(line) for line in text.split("\n") if line]
    return {line["custom_id"]: line for line in parsed}


def outcome(extracted: Extracted) -> tuple[Any, ...]:
    verdict = Judge().verdict(extracted)
    return verdict.state, verdict.reason, verdict.retry, verdict.paid


@here
def test_the_table_names_every_recorded_result() -> None:
    assert set(lines()) == set(RECORDED)


@here
@pytest.mark.parametrize("custom_id", RECORDED)
def test_each_recorded_result_has_its_outcome(custom_id: str) -> None:
    expected, shows = RECORDED[custom_id]
    extracted = anthropic_line(lines()[custom_id], MESSAGES, "tool" if custom_id == "row-000003" else "native")
    schema = Schema.load(b'{"type": "object", "required": ["label"]}', "schema.json") if shows == TICKET else None
    verdict = Judge(schema).verdict(extracted)
    assert (verdict.state, verdict.reason, verdict.retry, verdict.paid) == expected
    assert extracted.custom_id == custom_id
    if isinstance(shows, bytes):
        assert (verdict.output, verdict.detail) == (shows, "")
        assert verdict.model == "claude-haiku-4-5-20251001"
    else:
        assert verdict.output is None
        assert shows in verdict.detail


@here
@pytest.mark.parametrize(
    ("custom_id", "usage"),
    [
        ("row-000004", Usage(2059, 4, 2048)),
        ("row-cache-write-1h", Usage(2059, 4, 0, 2048)),
        ("row-thinking", Usage(11, 300, reasoning_tokens=280)),
        ("row-refusal", Usage(11, 36)),
    ],
)
def test_input_tokens_are_all_that_went_in(custom_id: str, usage: Usage) -> None:
    assert anthropic_line(lines()[custom_id], MESSAGES).usage == usage


def message(*content: Any, stop: Any = "end_turn", **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    return {"id": "msg_1", "type": "message", "content": list(content), "stop_reason": stop, "usage": usage, **more}


def text(words: Any) -> dict[str, Any]:
    return {"type": "text", "text": words}


def call(given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_1", "name": "t", "input": given}


@pytest.mark.parametrize(
    ("body", "mode", "expected", "says"),
    [
        (message(text("a"), text("b")), "native", OK, ""),
        (message(text("a"), {"type": "server_tool_use"}, text("b")), "native", OK, ""),
        (message(text("a"), {"type": "hologram"}), "native", provider(Retry.NONE, paid=True), "hologram"),
        (message(text("a"), stop="bored"), "native", provider(Retry.NONE, paid=True), "bored"),
        (message(text("a"), stop=None), "native", provider(Retry.NONE, paid=True), "null"),
        (message(), "native", EMPTY, "empty"),
        (message(text("  ")), "native", EMPTY, "empty"),
        (message(text(None)), "native", provider(Retry.NONE, paid=True), "null"),
        (message("a"), "native", provider(Retry.NONE, paid=True), "a string"),
        (message(call({}), stop="tool_use"), "native", OK, ""),
        (message(text("{}")), "tool", EMPTY, "called no tool"),
        (message(text("so"), call({"a": 1}), stop="tool_use"), "tool", OK, ""),
        (message(call("{}"), stop="tool_use"), "tool", provider(Retry.NONE, paid=True), "a string"),
        (
            message(call({"a": 1}), call({"a": 2}), stop="tool_use"),
            "tool",
            (RowState.REVIEW_REQUIRED, Reason.CONFLICT, Retry.CHANGE, True),
            "2 different",
        ),
        (message(call({}), stop="max_tokens"), "tool", CUT, "max_tokens"),
        ({"content": None, "stop_reason": "end_turn"}, "native", provider(Retry.NONE, paid=True), "null"),
        ({"type": "error", "error": {"type": "overloaded_error"}}, "native", provider(Retry.TRANSIENT), "overloaded"),
        ("text", "native", provider(Retry.NONE, paid=True), "a string"),
        (None, "native", provider(Retry.NONE), "null"),
    ],
)
def test_a_message_is_judged_by_its_signs(body: Any, mode: str, expected: tuple[Any, ...], says: str) -> None:
    extracted = anthropic_body(body, MESSAGES, mode)
    assert outcome(extracted) == expected
    assert says in extracted.detail


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"type": "levitated"}, provider(Retry.NONE)),
        ({"type": "levitated", "message": {}}, provider(Retry.NONE, paid=True)),
        ({"type": "errored", "error": {"error": {"type": "mystery_error"}}}, provider(Retry.NONE)),
        ({"type": "errored", "error": None}, provider(Retry.NONE)),
        ({"type": "errored"}, provider(Retry.NONE)),
        ({"type": "succeeded"}, provider(Retry.NONE)),
        (None, provider(Retry.NONE)),
        ([], provider(Retry.NONE)),
    ],
)
def test_what_is_not_known_is_no_answer_and_no_reason_to_send_again(result: Any, expected: tuple[Any, ...]) -> None:
    extracted = anthropic_line({"custom_id": "a", "result": result}, MESSAGES)
    assert extracted.custom_id == "a"
    assert outcome(extracted) == expected
    assert extracted.detail


@pytest.mark.parametrize(
    ("status", "kind", "retry"),
    [
        (529, "overloaded_error", Retry.TRANSIENT),
        (500, "", Retry.TRANSIENT),
        (0, "", Retry.TRANSIENT),
        (None, "", Retry.TRANSIENT),
        (400, "invalid_request_error", Retry.NEVER),
        (413, "", Retry.NEVER),
        (402, "", Retry.BILLING),
        (418, "", Retry.NONE),
    ],
)
def test_a_live_error_is_judged_by_type_then_status(status: int | None, kind: str, retry: Retry) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "no"}}
    assert outcome(anthropic_http_error(status, body)) == provider(retry)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BLOCK = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "tool_use", "?"])}, optional={"text": JSON, "input": JSON}
)
STOP = st.sampled_from(["end_turn", "tool_use", "max_tokens", "refusal", "pause_turn", None, 7])
ODD = st.fixed_dictionaries(
    {"content": st.lists(BLOCK | JSON, max_size=3) | JSON, "stop_reason": STOP | JSON},
    optional={"usage": JSON, "stop_details": JSON, "id": JSON, "model": JSON, "type": JSON},
)


@given(body=ODD | JSON, mode=st.sampled_from(["native", "tool", "prompt"]), kind=JSON | st.just("succeeded"))
def test_nothing_raises(body: Any, mode: str, kind: Any) -> None:
    line = {"custom_id": "a", "result": {"type": kind, "message": body, "error": body}}
    for extracted in (anthropic_body(body, MESSAGES, mode), anthropic_line(line, MESSAGES, mode)):
        detail = Judge().verdict(extracted).detail
        assert detail == printable(detail)
        assert (extracted.reason is None) == (extracted.text is not None)
    assert anthropic_http_error(400, body).reason is not None


@pytest.mark.parametrize("name", KNOWN)
def test_every_provider_names_a_reader(name: str) -> None:
    assert provider_for(name, {"base_url": "https://example.invalid"}).traits.wire in READERS
