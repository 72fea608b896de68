"""OpenAI's batch objects, errors and lists as the wire contract's fixtures have them, and as the installed SDK names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Batch

from batchctl.chunks.splice import cut, escape
from batchctl.model.batches import Ask, BatchState, Refusal, Request
from batchctl.model.errors import BatchctlError, NotAllowed, NotFound, OutcomeUnknown, Rejected, Throttled, UsageError
from batchctl.providers.http import check_address, retry_after
from batchctl.providers.openai import ENDPOINTS, OpenAIBatch, status_of
from batchctl.providers.profiles import STATES
from tests.conftest import SHARED

FIXTURES = SHARED / "contracts" / "fixtures-openai"
KEY = "sk-canary-7Hq2"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the wire fixtures are not beside the checkout")

# Each batch object: our state, the kinds of result files it names, and why it was refused.
BATCHES: dict[str, tuple[BatchState, set[str], Refusal | None]] = {
    "validating": (BatchState.RUNNING, set(), None),
    "in_progress_0": (BatchState.RUNNING, set(), None),
    "in_progress_mid": (BatchState.RUNNING, set(), None),
    "finalizing": (BatchState.RUNNING, set(), None),
    "cancelling": (BatchState.RUNNING, set(), None),
    "completed_all_ok": (BatchState.ENDED, {"output"}, None),
    "completed_mixed": (BatchState.ENDED, {"output", "errors"}, None),
    "completed_all_failed_no_output_file": (BatchState.ENDED, {"errors"}, None),
    "expired_partial": (BatchState.ENDED, {"output", "errors"}, None),
    "expired_none_done": (BatchState.ENDED, {"errors"}, None),
    "cancelled_partial": (BatchState.ENDED, {"output", "errors"}, None),
    "cancelled_before_start": (BatchState.ENDED, set(), None),
    "failed_line_errors": (BatchState.REFUSED, set(), Refusal.FILE),
    "failed_duplicate_custom_id": (BatchState.REFUSED, set(), Refusal.FILE),
    "failed_mismatched_model": (BatchState.REFUSED, set(), Refusal.FILE),
    "failed_model_not_found": (BatchState.REFUSED, set(), Refusal.FILE),
    "failed_token_limit_exceeded": (BatchState.REFUSED, set(), Refusal.CAPACITY),
    "failed_file_access_transient": (BatchState.REFUSED, set(), Refusal.ACCESS),
}

# Each HTTP error: what it means for a create. Only UNKNOWN may have acted.
ERRORS: dict[str, type[BatchctlError]] = {
    "any_401_bad_key": NotAllowed,
    "any_403_region": NotAllowed,
    "any_429_insufficient_quota": Throttled,
    "any_429_rate_limit": Throttled,
    "any_429_spend_limit": Throttled,
    "any_500": OutcomeUnknown,
    "any_503_slow_down": OutcomeUnknown,
    "cancel_409_completed": OutcomeUnknown,
    "create_400_invalid_endpoint": Rejected,
    "create_400_metadata_type": Rejected,
    "retrieve_404": NotFound,
    "upload_400_not_jsonl": Rejected,
    "upload_413": Rejected,
}
BILLING = {"any_429_insufficient_quota", "any_429_spend_limit"}


def provider() -> OpenAIBatch:
    return OpenAIBatch(base_url="http://127.0.0.1:9/v1", api_key=KEY)


def load(path: Path) -> Any:
    return json.loads(path.read_bytes())


def raised(status: int, headers: dict[str, str], body: Any) -> Exception:
    """The exception the installed SDK raises for such an answer."""
    with openai.OpenAI(api_key=KEY, base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
        request = httpx2.Request("POST", "http://127.0.0.1:9/v1/batches")
        response = httpx2.Response(status, headers=headers, json=body, request=request)
        return client._make_status_error_from_response(response)


def test_every_status_word_of_the_sdk_is_mapped() -> None:
    assert set(STATES) == set(get_args(Batch.model_fields["status"].annotation))


@pytest.mark.parametrize("word", ["queued", "archived", "", None, 7])
def test_a_word_we_do_not_know_is_never_an_end(word: Any) -> None:
    status = status_of({"id": "batch_1", "status": word, "output_file_id": "file-1"})
    assert status.state is BatchState.RUNNING
    assert not status.known_word


@needs_fixtures
def test_every_batch_object_is_listed() -> None:
    assert {path.stem for path in (FIXTURES / "batches").glob("*.json")} == set(BATCHES)


@needs_fixtures
@pytest.mark.parametrize("name", BATCHES)
def test_batch_objects(name: str) -> None:
    state, files, refusal = BATCHES[name]
    status = status_of(load(FIXTURES / "batches" / f"{name}.json"))
    assert status.state is state
    assert {kind for kind, _ in status.files} == files
    assert status.refusal is refusal
    assert status.known_word


@needs_fixtures
def test_line_errors_keep_their_line() -> None:
    status = status_of(load(FIXTURES / "batches" / "failed_line_errors.json"))
    assert [one.line for one in status.errors] == [1, 2, 3, 4, 5]
    assert status.errors[1].code == "invalid_json_line"


@needs_fixtures
@pytest.mark.parametrize("path", sorted((FIXTURES / "azure").glob("*batch*.json")), ids=lambda path: path.stem)
def test_azure_batch_objects_are_read_without_a_word(path: Path) -> None:
    value = load(path)
    for one in value if isinstance(value, list) else [value]:
        status = status_of(one)
        assert all(isinstance(handle, str) and handle for _, handle in status.files)
        assert all(isinstance(count, int) for count in status.counts.values())


@needs_fixtures
def test_every_http_error_is_listed() -> None:
    assert {path.stem for path in (FIXTURES / "http_errors").glob("*.json")} == set(ERRORS)


@needs_fixtures
@pytest.mark.parametrize("name", ERRORS)
def test_http_errors(name: str) -> None:
    fixture = load(FIXTURES / "http_errors" / f"{name}.json")
    outcome = provider().outcome(raised(fixture["status"], fixture["headers"], fixture["body"]))
    assert type(outcome) is ERRORS[name]
    assert getattr(outcome, "billing", False) is (name in BILLING)
    if name == "any_429_rate_limit":
        assert isinstance(outcome, Throttled)
        assert outcome.wait_seconds == 20
    assert KEY not in f"{outcome.what} {outcome.where} {outcome.hint} {outcome.effect}"


@pytest.mark.parametrize("status", [302, 307, 308, 408, 409, 418, 425, 500, 502, 503, 504, 520, 529])
def test_whatever_is_not_certainly_refused_is_unknown(status: int) -> None:
    assert type(provider().outcome(raised(status, {}, {}))) is OutcomeUnknown


def test_errors_that_are_not_the_providers_are_left_alone() -> None:
    assert provider().outcome(OSError(28, "No space left on device")) is None
    assert provider().outcome(KeyError("bug")) is None


def test_the_sdk_repeats_nothing_and_follows_nothing() -> None:
    client = provider()._sdk
    assert client.max_retries == 0
    assert client._client.follow_redirects is False
    client.close()


@pytest.mark.parametrize("text", ["soon", "", "-1", "86400", "nan", "inf", "Sat, 21 Nov 2026 06:00:00 GMT"])
def test_a_strange_retry_after_is_none(text: str) -> None:
    assert retry_after({"retry-after": text}) is None


@pytest.mark.parametrize("address", ["http://example.com/v1", "ftp://127.0.0.1", "http://127.0.0.1.example.com", "v1"])
def test_plain_http_only_to_this_machine(address: str) -> None:
    with pytest.raises(UsageError):
        check_address(address)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@given(prompt=st.text(), system=st.text())
def test_a_spliced_line_is_the_encoded_line(endpoint: str, prompt: str, system: str) -> None:
    one = provider()

    def encode(custom_id: str, texts: Any) -> bytes:
        body, _ = one.body(
            Ask(
                endpoint=endpoint,
                model="m",
                prompt=texts[0],
                system=texts[1],
                params={"temperature": 0},
                schema={"type": "object", "properties": {}, "required": []},
                mode="native",
                schema_name="s",
            )
        )
        return one.encode(Request(custom_id, endpoint, body))

    try:
        holes = [escape(prompt), escape(system)]
    except TypeError:
        return  # a lone surrogate: such a row is rejected before it is a line
    renders = [lambda _row: prompt, lambda _row: system]
    splice = cut(encode, renders)
    ordered = [escape(render({})) for render in splice.renders]
    assert sorted(ordered) == sorted(holes)
    line = splice.line("id-1", ordered)
    assert json.loads(line) == json.loads(encode("id-1", [prompt, system]))
    if "\u2028" not in prompt + system and "\u2029" not in prompt + system:
        assert line == encode("id-1", [prompt, system]) + b"\n"
    assert one.check_line(line, endpoint, "m") is None
