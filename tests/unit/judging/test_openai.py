"""Every recorded result has a stated outcome, and so has every shape that is not recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchctl.judging.decide import Judge
from batchctl.judging.extracted import Extracted
from batchctl.judging.openai import openai_body, openai_http_error, openai_line
from batchctl.judging.schema import Schema
from batchctl.model.rows import Reason, Retry, RowState, Usage

FIXTURES = Path(__file__).parents[4] / "shared/contracts/fixtures-openai"
here = pytest.mark.skipif(not FIXTURES.exists(), reason="the contract's fixtures are not beside this checkout")

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
TICKET = b'{"label":"billing","priority":2,"note":null}'
OK = (RowState.COMPLETED, None, Retry.NONE, True)
REFUSED = (RowState.REVIEW_REQUIRED, Reason.REFUSED, Retry.CHANGE, True)
CUT = (RowState.INVALID_OUTPUT, Reason.TRUNCATED, Retry.CHANGE, True)
EMPTY = (RowState.INVALID_OUTPUT, Reason.INVALID_JSON, Retry.CHANGE, True)
CONFLICT = (RowState.REVIEW_REQUIRED, Reason.CONFLICT, Retry.CHANGE, True)


def provider(retry: Retry, *, paid: bool = False, reason: Reason = Reason.PROVIDER) -> tuple[Any, ...]:
    return (RowState.PROVIDER_ERROR, reason, retry, paid)


# file, endpoint, custom_id: (state, reason, retry, paid), output or a part of the detail
RECORDED: list[tuple[str, str, str, tuple[Any, ...], bytes | str]] = [
    ("results/chat_completions.output.jsonl", CHAT, "row-000003", OK, TICKET),
    ("results/chat_completions.output.jsonl", CHAT, "row-000001", OK, b'"billing"'),
    ("results/chat_completions.output.jsonl", CHAT, "row-000002", OK, TICKET),
    ("results/chat_completions.output.jsonl", CHAT, "row-length", CUT, "finish_reason is length"),
    ("results/chat_completions.output.jsonl", CHAT, "row-length-all-reasoning", CUT, "finish_reason is length"),
    ("results/chat_completions.output.jsonl", CHAT, "row-refusal", REFUSED, "refused: I'm sorry"),
    ("results/chat_completions.output.jsonl", CHAT, "row-content-filter", REFUSED, "content filter"),
    ("results/chat_completions.output.jsonl", CHAT, "row-empty-string", EMPTY, "the answer is empty"),
    ("results/chat_completions.output.jsonl", CHAT, "row-n2", CONFLICT, "2 choices differ"),
    ("results/completions.output.jsonl", "/v1/completions", "row-000001", OK, b'" hi"'),
    ("results/embeddings.output.jsonl", "/v1/embeddings", "row-000001", OK, b"[0.0123,-0.0456,0.0789,-0.0012]"),
    ("results/embeddings.output.jsonl", "/v1/embeddings", "row-000002", OK, b"[[0.01,0.02],[0.03,0.04]]"),
    ("results/moderations.output.jsonl", "/v1/moderations", "row-000001", OK, b'{"flagged":false'),
    ("results/responses.output.jsonl", RESPONSES, "row-000002", OK, TICKET),
    ("results/responses.output.jsonl", RESPONSES, "row-000001", OK, b'"billing"'),
    ("results/responses.output.jsonl", RESPONSES, "row-000003", OK, TICKET),
    ("results/responses.output.jsonl", RESPONSES, "row-refusal", REFUSED, "refused: I'm sorry"),
    ("results/responses.output.jsonl", RESPONSES, "row-incomplete-max-tokens", CUT, "max_output_tokens"),
    ("results/responses.output.jsonl", RESPONSES, "row-incomplete-content-filter", REFUSED, "content filter"),
    ("results/responses.output.jsonl", RESPONSES, "row-status-failed", provider(Retry.TRANSIENT), "server_error"),
    (
        "results/images_generations.output.jsonl",
        "/v1/images/generations",
        "row-000001",
        provider(Retry.NONE, paid=True),
        "images",
    ),
    ("results/errors.jsonl", RESPONSES, "row-400", provider(Retry.NEVER), "400, invalid_value: max_completion"),
    ("results/errors.jsonl", RESPONSES, "row-400-schema", provider(Retry.NEVER), "invalid_json_schema"),
    ("results/errors.jsonl", RESPONSES, "row-400-context", provider(Retry.NEVER), "context_length_exceeded"),
    ("results/errors.jsonl", RESPONSES, "row-429", provider(Retry.TRANSIENT), "429, rate_limit_exceeded"),
    ("results/errors.jsonl", RESPONSES, "row-429-billing", provider(Retry.BILLING), "credit_balance_exhausted"),
    ("results/errors.jsonl", RESPONSES, "row-500", provider(Retry.TRANSIENT), "500, server_error"),
    ("results/errors.jsonl", RESPONSES, "row-503", provider(Retry.TRANSIENT), "503, slow_down"),
    (
        "results/errors.jsonl",
        RESPONSES,
        "row-expired",
        provider(Retry.TRANSIENT, reason=Reason.EXPIRED),
        "batch_expired",
    ),
    ("results/errors.jsonl", RESPONSES, "row-cancelled", provider(Retry.USER), "batch_cancelled"),
    ("results/errors.jsonl", RESPONSES, "row-timeout", provider(Retry.TRANSIENT), "request_timeout"),
    ("azure/output.jsonl", CHAT, "task-0", OK, b'"April 4, 1975."'),
    ("azure/output.jsonl", "/chat/completions", "task-0", OK, b'"April 4, 1975."'),
]


def lines(file: str) -> dict[str, Any]:
    parsed = [json.loads(line) for line in (FIXTURES / file).read_text("utf-8").split("\n") if line]
    return {line["custom_id"]: line for line in parsed}


def outcome(extracted: Extracted, judge: Judge | None = None) -> tuple[Any, ...]:
    verdict = (judge or Judge()).verdict(extracted)
    return verdict.state, verdict.reason, verdict.retry, verdict.paid


@here
@pytest.mark.parametrize(
    ("file", "endpoint", "custom_id", "expected", "shows"), RECORDED, ids=[f"{row[0]}-{row[2]}" for row in RECORDED]
)
def test_each_recorded_result_has_its_outcome(
    file: str, endpoint: str, custom_id: str, expected: tuple[Any, ...], shows: bytes | str
) -> None:
    extracted = openai_line(lines(file)[custom_id], endpoint)
    schema = Schema.load(b'{"type": "object", "required": ["label"]}', "schema.json") if shows == TICKET else None
    verdict = Judge(schema).verdict(extracted)
    assert (verdict.state, verdict.reason, verdict.retry, verdict.paid) == expected
    assert extracted.custom_id == custom_id
    if isinstance(shows, bytes):
        assert verdict.output is not None
        assert verdict.output.startswith(shows)
        assert verdict.detail == ""
    else:
        assert verdict.output is None
        assert shows in verdict.detail


@here
def test_the_table_names_every_recorded_result() -> None:
    for file in {row[0] for row in RECORDED}:
        assert set(lines(file)) == {row[2] for row in RECORDED if row[0] == file}
    named = {row[0] for row in RECORDED}
    assert {f"results/{path.name}" for path in (FIXTURES / "results").glob("*.jsonl")} <= named


@here
@pytest.mark.parametrize(
    ("name", "retry"),
    [
        ("any_401_bad_key", Retry.NONE),
        ("any_403_region", Retry.NONE),
        ("any_429_insufficient_quota", Retry.BILLING),
        ("any_429_rate_limit", Retry.TRANSIENT),
        ("any_429_spend_limit", Retry.BILLING),
        ("any_500", Retry.TRANSIENT),
        ("any_503_slow_down", Retry.TRANSIENT),
        ("upload_413", Retry.NEVER),
        ("retrieve_404", Retry.NEVER),
        ("create_400_invalid_endpoint", Retry.NEVER),
        ("cancel_409_completed", Retry.NONE),
    ],
)
def test_each_recorded_http_error_has_its_retry(name: str, retry: Retry) -> None:
    answer = json.loads((FIXTURES / f"http_errors/{name}.json").read_text("utf-8"))
    extracted = openai_http_error(answer["status"], answer["body"])
    assert (extracted.reason, extracted.retry, extracted.paid) == (Reason.PROVIDER, retry, False)
    assert extracted.detail.startswith(str(answer["status"]))


@here
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("queued", provider(Retry.NONE)),
        ("in_progress", provider(Retry.NONE)),
        ("completed", OK),
        ("incomplete", CUT),
        ("failed", provider(Retry.TRANSIENT)),
        ("cancelled", provider(Retry.USER)),
    ],
)
def test_each_recorded_background_response_has_its_outcome(name: str, expected: tuple[Any, ...]) -> None:
    body = json.loads((FIXTURES / f"background/{name}.json").read_text("utf-8"))
    assert outcome(openai_body(body, RESPONSES)) == expected


def chat(content: Any = "x", finish: Any = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": finish, "message": {"content": content, **message}}]}


def message(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": text}], **more}


def responses(*output: Any, **more: Any) -> dict[str, Any]:
    return {"status": "completed", "output": list(output), **more}


def call(arguments: Any) -> dict[str, Any]:
    return {"type": "function_call", "arguments": arguments}


def chat_call(arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"arguments": arguments}}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (responses(message("a"), message("b")), "ab"),
        (responses({"type": "reasoning"}, message("a")), "a"),
        (responses({"type": "web_search_call"}, message("a")), "a"),
        (responses(message("a", phase="commentary"), message("b", phase="final_answer")), "b"),
        (responses(message("a", phase="commentary"), message("b")), "b"),
        (responses(message("a", phase="commentary")), "a"),
        (responses(call("{}")), "{}"),
        (responses(message(" "), call("{}")), "{}"),
        (responses(message("a"), call("{}")), "a"),
        (responses(call("{}"), call("{}")), "{}"),
        (responses({"type": "custom_tool_call", "input": "i"}), "i"),
    ],
)
def test_the_text_of_a_response_is_that_of_its_answer(body: Any, text: str) -> None:
    assert openai_body(body, RESPONSES).text == text


@pytest.mark.parametrize(
    ("body", "expected", "says"),
    [
        (responses(), EMPTY, "empty"),
        (responses({"type": "reasoning"}), EMPTY, "empty"),
        (responses(message(" \n")), EMPTY, "empty"),
        (responses({"type": "hologram"}), provider(Retry.NONE, paid=True), "hologram"),
        (
            responses({"type": "message", "content": [{"type": "output_smell"}]}),
            provider(Retry.NONE, paid=True),
            "output_smell",
        ),
        (responses(message('{"a": 1}', status="incomplete")), CUT, "cut off"),
        (responses(call("{}"), call("[]")), CONFLICT, "2 different"),
        (responses(message("a"), status="incomplete"), provider(Retry.NONE, paid=True), "incomplete"),
        (
            responses(message("a"), status="incomplete", incomplete_details={"reason": "steered"}),
            provider(Retry.NONE, paid=True),
            "steered",
        ),
        (
            responses(message("{}"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            CUT,
            "max_output_tokens",
        ),
        (responses(message("a"), status="exploded"), provider(Retry.NONE, paid=True), "exploded"),
        ({"output": [message("a")]}, provider(Retry.NONE, paid=True), "status null"),
        (responses(status="failed", error={"code": "new_word"}), provider(Retry.NONE), "new_word"),
        (responses(status="failed", error={"code": "rate_limit_exceeded"}), provider(Retry.TRANSIENT), "rate"),
        (
            responses(status="failed", error={"code": "invalid_prompt"}),
            (RowState.REVIEW_REQUIRED, Reason.REFUSED, Retry.NEVER, False),
            "invalid_prompt",
        ),
        (
            responses(status="failed", error={"code": "server_error"}, usage={"input_tokens": 1, "output_tokens": 2}),
            provider(Retry.TRANSIENT, paid=True),
            "server_error",
        ),
        (responses(message("a"), error={"code": "x"}), provider(Retry.NONE, paid=True), "yet with an error"),
        ({"error": {"code": "server_error", "message": None}}, provider(Retry.TRANSIENT), "server_error"),
        ({"error": {"message": "boom"}}, provider(Retry.NONE), "boom"),
        ({}, provider(Retry.NONE, paid=True), "null"),
    ],
)
def test_a_response_that_is_no_answer_says_why(body: Any, expected: tuple[Any, ...], says: str) -> None:
    extracted = openai_body(body, RESPONSES)
    assert outcome(extracted) == expected
    assert says in extracted.detail


@pytest.mark.parametrize(
    ("body", "expected", "says"),
    [
        (chat("{}", "length"), CUT, "length"),
        (chat("{}", "content_filter"), REFUSED, "filter"),
        (chat("x", refusal="no"), REFUSED, "no"),
        (chat("x", "length", refusal="no"), REFUSED, "no"),
        (chat("x", refusal=""), OK, ""),
        (chat(None), EMPTY, "empty"),
        (chat("x", "because"), provider(Retry.NONE, paid=True), '"because"'),
        (chat("x", None), provider(Retry.NONE, paid=True), "finish_reason null"),
        (chat(7), provider(Retry.NONE, paid=True), "a number"),
        (chat([{"type": "text", "text": "x"}]), OK, ""),
        (chat([{"type": "noise"}]), provider(Retry.NONE, paid=True), "noise"),
        (chat(None, "tool_calls", tool_calls=[chat_call("{}")]), OK, ""),
        (chat(None, "function_call", function_call={"arguments": "{}"}), OK, ""),
        (chat(None, "tool_calls", tool_calls=[chat_call("{}"), chat_call("[]")]), CONFLICT, "2 different"),
        (chat(None, "tool_calls", tool_calls=[chat_call({"a": 1})]), provider(Retry.NONE, paid=True), "an object"),
        ({"choices": []}, provider(Retry.NONE, paid=True), "choices"),
        ({"choices": [chat()["choices"][0]] * 2}, OK, ""),
        ({"error": {"code": "insufficient_quota"}}, provider(Retry.BILLING), "insufficient_quota"),
        ({**chat(), "error": {"code": "server_error"}}, provider(Retry.NONE, paid=True), "server_error"),
        ("text", provider(Retry.NONE, paid=True), "a string"),
        (None, provider(Retry.NONE), "null"),
    ],
)
def test_a_chat_answer_is_judged_by_its_signs(body: Any, expected: tuple[Any, ...], says: str) -> None:
    extracted = openai_body(body, CHAT)
    assert outcome(extracted) == expected
    assert says in extracted.detail


def test_in_tool_mode_only_a_tool_call_is_an_answer() -> None:
    assert openai_body(chat("text", tool_calls=[chat_call("{}")]), CHAT, "tool").text == "{}"
    assert openai_body(responses(message("text"), call("{}")), RESPONSES, "tool").text == "{}"
    for body, endpoint in ((chat("{}"), CHAT), (responses(message("{}")), RESPONSES)):
        extracted = openai_body(body, endpoint, "tool")
        assert outcome(extracted) == EMPTY
        assert extracted.detail == "the model called no tool"


@pytest.mark.parametrize(
    ("line", "expected", "says"),
    [
        ({"custom_id": "a", "response": None, "error": None}, provider(Retry.NONE), "neither"),
        ({"custom_id": "a"}, provider(Retry.NONE), "neither"),
        ({"custom_id": "a", "error": {"code": "new_word"}}, provider(Retry.NONE), "new_word"),
        ({"custom_id": "a", "error": "boom"}, provider(Retry.NONE), "boom"),
        ({"custom_id": "a", "response": {"status_code": 0, "body": ""}}, provider(Retry.TRANSIENT), "no status"),
        ({"custom_id": "a", "response": {"status_code": None, "body": None}}, provider(Retry.TRANSIENT), "no status"),
        ({"custom_id": "a", "response": {}}, provider(Retry.TRANSIENT), "no status"),
        (
            {"custom_id": "a", "response": {"status_code": None, "body": {"error": {"code": "new_word"}}}},
            provider(Retry.NONE),
            "new_word",
        ),
        (
            {"custom_id": "a", "response": {"status_code": None, "body": chat()}},
            provider(Retry.NONE, paid=True),
            "null",
        ),
        (
            {"custom_id": "a", "response": {"status_code": "200", "body": chat()}},
            provider(Retry.NONE, paid=True),
            '"200"',
        ),
        ({"custom_id": "a", "response": {"status_code": True, "body": None}}, provider(Retry.NONE), "a boolean"),
        ({"custom_id": "a", "response": {"status_code": 202, "body": None}}, provider(Retry.NONE), "202"),
        ({"custom_id": "a", "response": {"status_code": 529, "body": None}}, provider(Retry.TRANSIENT), "529"),
        ({"custom_id": "a", "response": {"status_code": 599, "body": None}}, provider(Retry.NONE), "599"),
        ({"custom_id": "a", "response": {"status_code": 402, "body": None}}, provider(Retry.BILLING), "402"),
        ({"custom_id": "a", "response": []}, provider(Retry.NONE), "a list"),
        (
            {"custom_id": "a", "response": {"status_code": 200, "body": chat()}, "error": {"code": "x"}},
            provider(Retry.NONE, paid=True),
            "x",
        ),
        ({"custom_id": "a", "response": {"status_code": 200, "body": None}}, provider(Retry.NONE), "null"),
        (
            {"custom_id": "a", "response": {"status_code": 400, "body": {"error": {"code": "content_filter"}}}},
            (RowState.REVIEW_REQUIRED, Reason.REFUSED, Retry.NEVER, False),
            "content_filter",
        ),
    ],
)
def test_a_line_that_is_no_answer_says_why(line: Any, expected: tuple[Any, ...], says: str) -> None:
    extracted = openai_line(line, CHAT)
    assert extracted.custom_id == "a"
    assert outcome(extracted) == expected
    assert says in extracted.detail


@pytest.mark.parametrize("custom_id", [None, 7, [], {}, True])
def test_a_custom_id_that_is_no_string_joins_nothing(custom_id: Any) -> None:
    assert openai_line({"custom_id": custom_id, "response": None, "error": None}, CHAT).custom_id is None
    assert openai_line([custom_id], CHAT).custom_id is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "input_tokens": 5,
                "output_tokens": 3,
                "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
            },
            Usage(5, 3, 2, 1),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 2}},
            Usage(5, 3, reasoning_tokens=2),
        ),
        ({"prompt_tokens": 5, "total_tokens": 5}, Usage(5)),
        (
            {
                "prompt_tokens": 5,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            },
            Usage(5),
        ),
        (None, None),
        ({}, None),
        ([], None),
        ({"input_tokens": -1, "output_tokens": 3}, None),
        ({"input_tokens": 1.0, "output_tokens": 3}, None),
        ({"input_tokens": True, "output_tokens": 3}, None),
        ({"input_tokens": 10**13, "output_tokens": 3}, None),
        ({"input_tokens": 1, "output_tokens": "3"}, None),
        ({"input_tokens": 1, "output_tokens": 3, "input_tokens_details": []}, None),
        ({"input_tokens": 1, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": -1}}, None),
    ],
)
def test_usage_is_what_was_counted_or_unknown(usage: Any, expected: Usage | None) -> None:
    assert openai_body({**chat(), "usage": usage}, CHAT).usage == expected


@pytest.mark.parametrize(
    "data",
    [
        [],
        None,
        [{"embedding": [1.0]}],
        [{"index": 1, "embedding": [1.0]}],
        [{"index": True, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": []}],
        [{"index": 0, "embedding": [1.0, float("nan")]}],
        [{"index": 0, "embedding": [1.0, None]}],
        [{"index": 0, "embedding": [1.0, True]}],
        [{"index": 0, "embedding": [[1.0]]}],
        [{"index": 0, "embedding": [10**400]}],
        ["x"],
    ],
)
def test_a_damaged_embedding_is_no_answer(data: Any) -> None:
    assert outcome(openai_body({"data": data}, "/v1/embeddings")) == provider(Retry.NONE, paid=True)


def test_embeddings_stand_in_the_order_of_the_input() -> None:
    data = [{"index": 1, "embedding": [2, 0.5]}, {"index": 0, "embedding": [1, 0.5]}]
    verdict = Judge().verdict(openai_body({"data": data}, "/v1/embeddings"))
    assert verdict.output == b"[[1,0.5],[2,0.5]]"


def test_the_answer_carries_what_the_provider_said_of_it() -> None:
    body = {**responses(message("x")), "model": "gpt-x", "created_at": 1794874500.0}
    line = {"custom_id": "a", "response": {"status_code": 200, "request_id": "req_1", "body": body}, "error": None}
    verdict = Judge().verdict(openai_line(line, RESPONSES))
    assert (verdict.model, verdict.request_id, verdict.created_at) == ("gpt-x", "req_1", 1794874500)
    body |= {"model": "m\x1b[2J" * 100, "created_at": -1}
    extracted = openai_line(line, RESPONSES)
    assert len(extracted.model) <= 200
    assert extracted.model.isprintable()
    assert extracted.created_at is None
