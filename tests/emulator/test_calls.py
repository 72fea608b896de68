"""Files, keys, live calls, and scripted faults on calls."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import types
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import openai
import pytest

from batchctl.emulator import requests_seen

from .conftest import SCHEMA, Driver, Start, jsonl, line, shaped, until

CREATE = "POST /v1/batches"


def attempt(driver: Driver) -> Any:
    file_id = driver.upload(jsonl([line("a")]))
    return driver.sdk.batches.create(input_file_id=file_id, endpoint="/v1/responses", completion_window="24h")


def test_files_are_kept_listed_and_deleted(driver: Driver) -> None:
    data = jsonl([line("a"), line("b")])
    made = driver.sdk.files.create(
        file=("x.jsonl", io.BytesIO(data)), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.bytes == len(data)
    assert made.expires_at == made.created_at + 3600
    other = driver.upload(data, "y.jsonl")
    assert [one.id for one in driver.sdk.files.list(purpose="batch", order="desc", limit=1)] == [other, made.id]
    assert [one.id for one in driver.sdk.files.list(order="asc").data] == [made.id, other]
    assert driver.raw(made.id) == data
    with driver.sdk.files.with_streaming_response.content(made.id) as body:
        assert body.headers["content-length"] == str(len(data))
    assert driver.sdk.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        driver.sdk.files.retrieve(made.id)


def test_an_upload_that_is_not_jsonl_is_refused(driver: Driver) -> None:
    for name, data in (("rows.csv", b"{}\n"), ("rows.jsonl", b"id,text\n")):
        with pytest.raises(openai.BadRequestError, match="jsonl"):
            driver.upload(data, name)


def test_a_file_can_come_in_parts(driver: Driver, tmp_path: Path) -> None:
    data = jsonl([line(f"r{number}") for number in range(50)])
    path = tmp_path / "parts.jsonl"
    path.write_bytes(data)
    upload = driver.sdk.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="batch", part_size=1000
    )
    assert upload.status == "completed"
    assert driver.raw(upload.file.id) == data
    pending = driver.sdk.uploads.create(bytes=5, filename="a.jsonl", mime_type="application/jsonl", purpose="batch")
    assert driver.sdk.uploads.cancel(pending.id).status == "cancelled"


def test_a_key_is_needed_and_wrong_ones_are_refused(driver: Driver) -> None:
    assert driver.ask("GET", "/v1/batches").status_code == 401
    wrong = Driver(driver.emulator, driver.state_dir, key="sk-bad-1")
    with pytest.raises(openai.AuthenticationError) as caught:
        wrong.sdk.batches.list()
    wrong.sdk.close()
    assert caught.value.code == "invalid_api_key"
    assert driver.ask("GET", "/batches").status_code == 404


def test_live_calls_answer_as_batches_do(driver: Driver) -> None:
    body = shaped("r1")["body"]
    one = driver.sdk.responses.create(**body)
    assert jsonschema_rs.validator_for(SCHEMA).is_valid(json.loads(one.output_text))
    good, _ = driver.results(driver.run([line("r1", body)]))
    assert one.output_text == good[0]["response"]["body"]["output"][0]["content"][0]["text"]
    chat = driver.sdk.chat.completions.create(model="gpt-5.4-mini", messages=[{"role": "user", "content": "hello"}])
    assert chat.choices[0].message.content.startswith("[simulated]")
    vectors = driver.sdk.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=8)
    assert [len(one.embedding) for one in vectors.data] == [8, 8]
    assert sum(part**2 for part in vectors.data[0].embedding) == pytest.approx(1, abs=1e-5)
    again = driver.sdk.embeddings.create(model="text-embedding-3-small", input="a", dimensions=8)
    assert again.data[0].embedding == pytest.approx(vectors.data[0].embedding)
    assert len(driver.sdk.moderations.create(input=["a", "b"]).results) == 2
    assert driver.billed()["live_calls"] == 5
    assert driver.sdk.models.list().data
    with pytest.raises(openai.BadRequestError, match="nonsense"):
        driver.sdk.responses.create(model="m", input="x", extra_body={"nonsense": 1})


def test_a_live_error_share_is_an_http_error(start: Start) -> None:
    driver = start(**{"500": 1.0})
    with pytest.raises(openai.InternalServerError):
        driver.sdk.responses.create(model="m", input="x")
    assert driver.billed()["live_calls"] == 0


LOST = ["drop-after", "500-after", "truncate", "truncate-clean", "garbage", "no-id", "empty"]


@pytest.mark.parametrize("do", LOST)
def test_faults_after_the_act_leave_exactly_one_batch(driver: Driver, do: str) -> None:
    driver.fault(CREATE, do)
    try:
        shown = attempt(driver)
        assert getattr(shown, "id", None) is None
    except (openai.APIError, json.JSONDecodeError):
        pass
    assert driver.billed()["batches"] == 1
    assert len(driver.sdk.batches.list().data) == 1
    creates = [one for one in requests_seen(driver.state_dir) if one["path"] == "/v1/batches"]
    assert creates[0]["fault"] == do
    assert attempt(driver).id


REFUSED = {
    "drop-before": openai.APIConnectionError,
    "429": openai.RateLimitError,
    "500": openai.InternalServerError,
    "503": openai.InternalServerError,
    "529": openai.InternalServerError,
    "404": openai.NotFoundError,
    "401": openai.AuthenticationError,
    "400": openai.BadRequestError,
    "insufficient_quota": openai.RateLimitError,
}


@pytest.mark.parametrize("do", list(REFUSED))
def test_faults_before_the_act_leave_nothing(driver: Driver, do: str) -> None:
    driver.fault(CREATE, do)
    with pytest.raises(REFUSED[do]) as caught:
        attempt(driver)
    assert driver.billed()["batches"] == 0
    if do == "insufficient_quota":
        assert caught.value.code == "insufficient_quota"
    assert attempt(driver).id


def test_a_redirect_is_not_acted_upon(driver: Driver) -> None:
    driver.fault(CREATE, "redirect")
    with pytest.raises(openai.APIError):
        attempt(driver)
    assert driver.billed()["batches"] == 0


def test_a_throttled_call_says_how_long_to_wait(start: Start) -> None:
    driver = start(calls=[{"on": CREATE, "do": "429", "retry_after": 20}])
    with pytest.raises(openai.RateLimitError) as caught:
        attempt(driver)
    assert caught.value.response.headers["retry-after"] == "20"
    assert caught.value.code == "rate_limit_exceeded"


def test_a_hidden_batch_is_out_of_the_next_lists(driver: Driver) -> None:
    driver.fault(CREATE, "drop-after", hide=2)
    with pytest.raises(openai.APIConnectionError):
        attempt(driver)
    assert [len(driver.sdk.batches.list().data) for _ in range(4)] == [0, 0, 1, 1]


def test_a_late_create_appears_afterwards(driver: Driver) -> None:
    driver.fault(CREATE, "late", seconds=0.4)
    with pytest.raises(openai.APIConnectionError):
        attempt(driver)
    assert driver.sdk.batches.list().data == []
    until(lambda: driver.sdk.batches.list().data)
    assert driver.billed()["batches"] == 1


def test_a_hanging_answer_has_been_acted_upon(driver: Driver) -> None:
    driver.fault(CREATE, "hang", seconds=60)
    file_id = driver.upload(jsonl([line("a")]))
    with pytest.raises(openai.APITimeoutError):
        driver.sdk.with_options(timeout=0.3).batches.create(
            input_file_id=file_id, endpoint="/v1/responses", completion_window="24h"
        )
    assert driver.billed()["batches"] == 1


def test_a_cut_download_does_not_pass_for_whole(driver: Driver) -> None:
    batch = driver.run([line(f"r{number}") for number in range(300)])
    whole = driver.raw(batch.output_file_id)
    driver.fault("GET /v1/files/*/content", "truncate")
    with pytest.raises(Exception, match=r"incomplete|closed|peer"):
        driver.raw(batch.output_file_id)
    driver.fault("GET /v1/files/*/content", "truncate-clean")
    assert driver.raw(batch.output_file_id) == whole[: len(whole) // 2]
    assert driver.raw(batch.output_file_id) == whole


def test_faults_count_calls_across_restarts(start: Start) -> None:
    calls = [{"on": CREATE, "do": "500", "nth": 2, "count": 2}]
    outcomes = []
    for _ in range(4):
        driver = start(calls=calls)
        try:
            attempt(driver)
            outcomes.append("made")
        except openai.InternalServerError:
            outcomes.append("500")
        driver.emulator.stop()
    assert outcomes == ["made", "500", "500", "made"]


def test_every_call_can_be_struck(start: Start) -> None:
    driver = start(calls=[{"on": "GET /v1/models", "do": "503", "nth": "every"}])
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            driver.sdk.models.list()


def test_answers_carry_a_request_id_and_a_date(driver: Driver) -> None:
    answer = driver.ask("GET", "/v1/models")
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["date"].endswith("GMT")


def test_an_upload_survives_a_race_for_the_warning_filters(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp silences a warning of its own with `catch_warnings`, which is of no use when another thread undoes it."""
    undone = types.SimpleNamespace(catch_warnings=contextlib.nullcontext, filterwarnings=lambda *_args, **_more: None)
    monkeypatch.setattr("aiohttp.multipart.warnings", undone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert start().upload(jsonl([line("a")])).startswith("file-")


def test_a_caller_that_goes_away_in_the_middle_is_no_failure(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    address = urlsplit(driver.url)
    head = "POST /v1/responses HTTP/1.1", "Host: x", "Authorization: Bearer sk-test", "Expect: 100-continue"
    with socket.create_connection((address.hostname, address.port)) as caller:
        caller.sendall("\r\n".join([*head, "Content-Length: 100", "", "{"]).encode())
        assert b"100 Continue" in caller.recv(100)  # the body is being read
    driver.ask("GET", "/v1/models")
    assert caplog.records == []
