"""Batches end to end over the OpenAI wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import openai
import pytest
from openai.types import Batch

from batchctl.emulator import billed_rows, read_witness, requests_seen

from .conftest import SCHEMA, Driver, Start, jsonl, line, shaped, until

FIXTURES = Path(__file__).parents[2].parent / "shared" / "contracts" / "fixtures-openai"


def answer_of(result: Any) -> Any:
    return result["response"]["body"]["output"][0]["content"][0]


def test_every_row_comes_back_answered_from_its_own_schema(driver: Driver) -> None:
    batch = driver.run([shaped(f"row-{number}") for number in range(40)])
    good, bad = driver.results(batch)
    judge = jsonschema_rs.validator_for(SCHEMA)
    assert batch.status == "completed"
    assert batch.error_file_id is None
    assert bad == []
    assert [one["custom_id"] for one in good] == [f"row-{number}" for number in range(40)]
    assert all(judge.is_valid(json.loads(answer_of(one)["text"])) for one in good)
    assert {json.loads(answer_of(one)["text"])["label"] for one in good} == {"billing"}  # the word in the prompt
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (40, 40, 0)
    used = [one["response"]["body"]["usage"] for one in good]
    assert batch.usage.input_tokens == sum(one["input_tokens"] for one in used)
    assert batch.usage.output_tokens == sum(one["output_tokens"] for one in used)


def test_the_objects_have_the_fields_of_the_real_ones(driver: Driver) -> None:
    if not FIXTURES.exists():
        pytest.skip("no recorded objects beside this checkout")
    batch = driver.run([shaped("a"), line("b", {"model": "gpt-5.4-mini", "input": "x", "nonsense": 1})])
    shown = driver.ask("GET", f"/v1/batches/{batch.id}").status_code
    assert shown == 401  # the raw client sends no key
    recorded = json.loads((FIXTURES / "batches" / "completed_mixed.json").read_text())
    assert set(recorded) == set(batch.model_dump())
    assert set(Batch.model_fields) == set(recorded)
    good, bad = driver.results(batch)
    told = [json.loads(one) for one in (FIXTURES / "results" / "responses.output.jsonl").read_text().splitlines()]
    assert set(good[0]) == set(told[1])
    assert set(good[0]["response"]) == set(told[1]["response"])
    assert set(good[0]["response"]["body"]) == set(told[1]["response"]["body"])
    failed = [json.loads(one) for one in (FIXTURES / "results" / "errors.jsonl").read_text().splitlines()]
    assert set(bad[0]["response"]["body"]["error"]) == set(failed[0]["response"]["body"]["error"])
    file = json.loads((FIXTURES / "files" / "output_file.json").read_text())
    assert set(file) == set(driver.sdk.files.retrieve(batch.output_file_id).model_dump())


@pytest.mark.parametrize("name", ["responses", "chat_completions", "embeddings", "completions", "moderations"])
def test_the_recorded_requests_are_answered(driver: Driver, name: str) -> None:
    path = FIXTURES / "requests" / f"{name}.jsonl"
    if not path.exists():
        pytest.skip("no recorded requests beside this checkout")
    lines = path.read_bytes()
    batch = driver.run(lines, endpoint=json.loads(lines.splitlines()[0])["url"])
    good, bad = driver.results(batch)
    assert bad == []
    assert len(good) == len(lines.splitlines())


def test_chat_answers_carry_tool_calls_and_json(driver: Driver) -> None:
    body = {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "a bug"}]}
    form = {"type": "json_schema", "json_schema": {"name": "t", "strict": True, "schema": SCHEMA}}
    tool = {"type": "function", "function": {"name": "file", "strict": True, "parameters": SCHEMA}}
    choice = {"type": "function", "function": {"name": "file"}}
    url = "/v1/chat/completions"
    lines = [
        line("form", body | {"response_format": form}, url),
        line("tool", body | {"tools": [tool], "tool_choice": choice}, url),
        line("short", body | {"max_completion_tokens": 2}, url),
    ]
    good, _ = driver.results(driver.run(lines, endpoint=url))
    choices = {one["custom_id"]: one["response"]["body"]["choices"][0] for one in good}
    assert json.loads(choices["form"]["message"]["content"])["label"] == "bug"
    assert json.loads(choices["tool"]["message"]["tool_calls"][0]["function"]["arguments"])["label"] == "bug"
    assert choices["short"]["finish_reason"] == "length"


def test_rows_the_endpoint_refuses_are_in_the_error_file(driver: Driver) -> None:
    loose = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    form = {"format": {"type": "json_schema", "name": "t", "strict": True, "schema": loose}}
    lines = [
        line("unknown", {"model": "gpt-5.4-mini", "input": "x", "nonsense": 1}),
        line("small", {"model": "gpt-5.4-mini", "input": "x", "max_output_tokens": 5}),
        line("loose", {"model": "gpt-5.4-mini", "input": "x", "text": form}),
    ]
    batch = driver.run(lines)
    _, bad = driver.results(batch)
    codes = {one["custom_id"]: one["response"]["body"]["error"]["code"] for one in bad}
    assert codes == {
        "unknown": "unknown_parameter",
        "small": "integer_below_min_value",
        "loose": "invalid_json_schema",
    }
    assert batch.output_file_id is None
    assert all(one["response"]["status_code"] == 400 and one["error"] is None for one in bad)
    assert driver.billed()["rows_billed"] == 0


BAD_LINES = [
    (b'{"custom_id": \n', "invalid_json_line", None),
    (b"\xef\xbb\xbf" + jsonl([line("a")]), "invalid_json_line", None),
    (jsonl([line("a")]) + b"\n" + jsonl([line("b")]), "invalid_json_line", None),
    (jsonl([{"method": "POST", "url": "/v1/responses", "body": {}}]), "missing_required_parameter", "custom_id"),
    (jsonl([line("a", url="/v1/embeddings")]), "invalid_url", "url"),
    (jsonl([line("a"), line("a")]), "duplicate_custom_id", "custom_id"),
    (jsonl([line("a"), line("b", {"model": "other", "input": "x"})]), "mismatched_model", "body.model"),
    (jsonl([line("a", {"input": "x"})]), "invalid_request", "body.model"),
    (jsonl([line("a", {"model": "m", "input": "x", "stream": True})]), "streaming_unsupported", "body.stream"),
    (jsonl([line("a", {"model": "nonexistent-model", "input": "x"})]), "model_not_found", "body.model"),
    (b"", "empty_file", None),
]


@pytest.mark.parametrize(("data", "code", "param"), BAD_LINES, ids=[f"{case[1]}-{case[2]}" for case in BAD_LINES])
def test_a_bad_input_file_fails_the_batch_and_bills_nothing(
    driver: Driver, data: bytes, code: str, param: str | None
) -> None:
    if data.startswith(b'{"custom_id": \n'):
        data = jsonl([line("first")]) + data
    batch = driver.run(data)
    assert batch.status == "failed"
    assert [(one.code, one.param) for one in batch.errors.data] == [(code, param)]
    assert batch.output_file_id is None
    assert driver.billed()["rows_billed"] == 0


def test_a_body_nobody_foresaw_is_refused_and_the_others_are_answered(driver: Driver) -> None:
    odd = {"format": {"type": "json_schema", "name": "t", "schema": {"type": "string", "minLength": "three"}}}
    bodies = [{"text": odd}, {"tools": "none", "tool_choice": "required"}, {"tools": [3], "tool_choice": {"name": 3}}]
    lines = [line(f"r{place}", {"model": "m", "input": "x"} | body) for place, body in enumerate(bodies)]
    good, bad = driver.results(driver.run([*lines, line("fine", {"model": "m", "input": "x"})]))
    assert [one["custom_id"] for one in good] == ["fine"]
    assert [one["response"]["status_code"] for one in bad] == [400, 400, 400]


def test_a_missing_input_file_fails_the_batch(driver: Driver) -> None:
    batch = driver.sdk.batches.create(input_file_id="file-no", endpoint="/v1/responses", completion_window="24h")
    ended = driver.wait(batch.id)
    assert [(one.code, one.param, one.line) for one in ended.errors.data] == [("invalid_request", "file_id", None)]


def test_an_input_deleted_while_validating_fails_and_bills_nothing(start: Start) -> None:
    driver = start(latency=600)
    batch = driver.create([line("a")])
    driver.sdk.files.delete(batch.input_file_id)
    driver.force(batch.id, status="completed")
    ended = driver.wait(batch.id)
    assert ended.status == "failed"
    assert ended.errors.data[0].param == "file_id"
    assert driver.billed()["rows_billed"] == 0


def test_the_token_queue_has_a_limit(start: Start) -> None:
    driver = start(latency=3, enqueued_token_limit=60)
    first = driver.create([line("a")])
    driver.wait(first.id, "in_progress")
    second = driver.run([line("b")])
    assert second.errors.data[0].code == "token_limit_exceeded"
    assert driver.wait(first.id).status == "completed"
    assert driver.run([line("b")]).status == "completed"


def test_the_clock_moves_a_batch_through_its_states(start: Start) -> None:
    driver = start(latency=2.0)
    batch = driver.create([line(f"r{number}") for number in range(10)])
    assert batch.status == "validating"
    running = driver.wait(batch.id, "in_progress")
    assert running.model == "gpt-5.4-mini-2026-03-17"
    assert running.output_file_id is None
    ended = driver.wait(batch.id)
    assert ended.status == "completed"
    assert ended.created_at <= ended.in_progress_at <= ended.finalizing_at <= ended.completed_at
    assert ended.completed_at - ended.created_at >= 1


def test_cancel_keeps_what_is_done_and_bills_only_that(start: Start) -> None:
    driver = start(latency=4.0)
    batch = driver.create([line(f"r{number}") for number in range(200)])

    def some_done() -> Any:
        shown = driver.sdk.batches.retrieve(batch.id)
        return shown if shown.status == "in_progress" and shown.request_counts.completed > 5 else None

    until(some_done)
    assert driver.sdk.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    ended = driver.wait(batch.id)
    good, bad = driver.results(ended)
    assert ended.status == "cancelled"
    assert 5 < len(good) < 200
    assert len(good) + len(bad) == 200
    assert {one["error"]["code"] for one in bad} == {"batch_cancelled"}
    assert ended.request_counts.completed == len(good) == driver.billed()["rows_billed"]
    assert driver.sdk.batches.cancel(batch.id).status == "cancelled"


def test_a_batch_cancelled_before_its_start_has_no_files(start: Start) -> None:
    driver = start(latency=600)
    batch = driver.create([line("a")])
    ended = driver.sdk.batches.cancel(batch.id)
    assert (ended.status, ended.output_file_id, ended.error_file_id) == ("cancelled", None, None)
    assert ended.request_counts.total == 0


def test_an_ended_batch_cannot_be_cancelled(driver: Driver) -> None:
    batch = driver.run([line("a")])
    with pytest.raises(openai.ConflictError):
        driver.sdk.batches.cancel(batch.id)


def test_a_window_shorter_than_the_work_expires_the_rest(start: Start) -> None:
    driver = start(latency=3.0, window=1.2)
    ended = driver.run([line(f"r{number}") for number in range(60)])
    good, bad = driver.results(ended)
    assert ended.status == "expired"
    assert 0 < len(good) < 60
    assert {one["error"]["code"] for one in bad} == {"batch_expired"}
    assert driver.billed()["rows_billed"] == len(good)


def test_create_refuses_what_the_service_refuses(driver: Driver) -> None:
    file_id = driver.upload(jsonl([line("a")]))
    good: dict[str, Any] = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "24h"}
    cases = [
        ({"endpoint": "/v1/invalid/endpoint"}, "invalid_value", "endpoint"),
        ({"completion_window": "48h"}, "invalid_value", "completion_window"),
        ({"metadata": {"tags": ["a"]}}, "invalid_type", "metadata.tags"),
        ({"metadata": {str(n): "a" for n in range(17)}}, "object_above_max_properties", "metadata"),
        ({"metadata": {"a": "b" * 513}}, "string_above_max_length", "metadata.a"),
        ({"metadata": {"k" * 65: "b"}}, "string_above_max_length", "metadata"),
    ]
    for change, code, param in cases:
        with pytest.raises(openai.BadRequestError) as caught:
            driver.sdk.batches.create(**(good | change))
        assert (caught.value.code, caught.value.param) == (code, param)
    assert driver.billed()["batches"] == 0


def test_lists_are_paged_newest_first(driver: Driver) -> None:
    file_id = driver.upload(jsonl([line("a")]))
    made = [
        driver.sdk.batches.create(input_file_id=file_id, endpoint="/v1/responses", completion_window="24h").id
        for _ in range(7)
    ]
    first = driver.sdk.batches.list(limit=3)
    assert first.has_more
    assert [one.id for one in driver.sdk.batches.list(limit=3)] == made[::-1]
    assert len(driver.sdk.batches.list().data) == 7
    with pytest.raises(openai.BadRequestError):
        driver.sdk.batches.list(limit=101)
    with pytest.raises(openai.NotFoundError):
        driver.sdk.batches.retrieve("batch-nonexistent-xyz")


def test_other_peoples_batches_are_listed_but_not_ours(start: Start) -> None:
    driver = start(other_batches=5)
    batch = driver.create([line("a")])
    assert next(iter(driver.sdk.batches.list())).id == batch.id
    assert len(list(driver.sdk.batches.list())) == 6
    assert driver.billed()["batches"] == 1


def test_a_forced_word_is_shown_until_it_is_released(start: Start) -> None:
    driver = start()
    batch = driver.create([line("a")])
    driver.wait(batch.id)
    assert driver.force(batch.id, status="meditating", request_counts=None)["status"] == "meditating"
    shown = driver.sdk.batches.retrieve(batch.id)
    assert (shown.status, shown.request_counts) == ("meditating", None)
    assert driver.force(batch.id, status=None)["status"] == "completed"


def test_a_batch_can_be_forced_to_expire_or_fail(start: Start) -> None:
    driver = start(latency=600)
    expire, fail = driver.create([line("a")]), driver.create([line("b")])
    driver.force(expire.id, status="expired")
    driver.force(fail.id, status="failed")
    assert driver.wait(expire.id).status == "expired"
    assert driver.wait(fail.id).status == "failed"


def test_the_books_agree_with_the_result_files(driver: Driver) -> None:
    batch = driver.run([shaped(f"r{number}") for number in range(5)])
    good, _ = driver.results(batch)
    summary = driver.billed()
    assert summary == read_witness(driver.state_dir)
    assert summary["batches"] == 1
    assert summary["rows_billed"] == 5
    assert summary["creates"][0]["metadata"] == {"tag": "t1"}
    rows = list(billed_rows(driver.state_dir))
    streamed = driver.ask("GET", "/emulator/billed/rows").text.splitlines()
    assert [json.loads(one) for one in streamed] == rows
    assert {one["custom_id"] for one in rows} == {one["custom_id"] for one in good}
    seen = requests_seen(driver.state_dir)
    assert [one["seq"] for one in seen] == list(range(1, len(seen) + 1))
    creates = [one for one in seen if (one["method"], one["path"]) == ("POST", "/v1/batches")]
    assert [(one["metadata"], one["created"]) for one in creates] == [({"tag": "t1"}, batch.id)]
    assert "sk-test" not in (driver.state_dir / "requests.jsonl").read_text()


def test_state_is_readable_by_its_owner_only(driver: Driver) -> None:
    driver.run([line("a")])
    assert driver.state_dir.stat().st_mode & 0o077 == 0
    for path in driver.state_dir.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
