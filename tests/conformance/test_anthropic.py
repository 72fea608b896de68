"""The provider contract, kept by the Anthropic module against the emulator; and what only this wire can get wrong."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar, get_args

import anthropic
import httpx2
import orjson
import pytest
from anthropic.types.messages import MessageBatch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchctl.emulator.anthropic_checks import batch_create, message_params
from batchctl.model.batches import Ask, BatchState, BatchStatus, Proof
from batchctl.model.errors import (
    BatchctlError,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    Rejected,
    StorageFailed,
    Throttled,
    UsageError,
)
from batchctl.providers import anthropic as module
from batchctl.providers.anthropic import ENDPOINT, STATES, AnthropicBatch, status_of
from batchctl.providers.guard import Guarded
from tests.conformance.contract import CANARY, SCHEMA, TAG, ProviderContract, Waits, everything
from tests.conftest import SHARED, NewProvider
from tests.support.emulated import Emulated
from tests.support.saying import Saying

FIXTURES = SHARED / "contracts" / "fixtures-anthropic"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the wire fixtures are not beside the checkout")
BATCHES = "/v1/messages/batches"


class AnthropicEmulated(Emulated):
    """The emulator's Anthropic wire."""

    calls_of: ClassVar = {
        "create": f"POST {BATCHES}",
        "list": f"GET {BATCHES}",
        "poll": f"GET {BATCHES}/*",
        "cancel": f"POST {BATCHES}/*/cancel",
        "results": f"GET {BATCHES}/*/results",
        "live": "POST /v1/messages",
    }
    create_path = BATCHES


class TestAnthropic(ProviderContract):
    endpoints = (ENDPOINT,)
    vendor_states = STATES
    model = "claude-haiku-4-5"
    words = dict.fromkeys(("completed", "expired", "cancelled"), "ended")
    says_sizes = False
    settable = frozenset({"max_tokens"})

    def build(self, server: AnthropicEmulated | str | None, *, key: str = CANARY) -> AnthropicBatch:
        url = server if isinstance(server, str) or server is None else server.url
        return AnthropicBatch(base_url=url or "http://127.0.0.1:1", api_key=key)

    def sdk_states(self) -> set[str]:
        return set(get_args(MessageBatch.model_fields["processing_status"].annotation))

    def shorten_timeouts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)

    @pytest.fixture
    def server(self, new_provider: NewProvider) -> AnthropicEmulated:
        return AnthropicEmulated(new_provider())

    @pytest.fixture
    def slow_server(self, new_provider: NewProvider) -> AnthropicEmulated:
        return AnthropicEmulated(new_provider(latency="1h"))

    # --- proof by results ------------------------------------------------------------------------------------------

    def test_a_running_batch_of_our_size_is_unproven_until_it_ends(
        self, slow: Guarded, slow_server: AnthropicEmulated, chunk: Path
    ) -> None:
        batch_id = self.create(slow, str(chunk))
        (found,) = slow.find(str(chunk), tag=TAG, since=0)
        assert (found.batch_id, found.proof) == (batch_id, Proof.WHEN_ENDED)
        slow_server.provider.force(batch_id, status="completed")
        slow_server.settle(batch_id)
        (found,) = slow.find(str(chunk), tag=TAG, since=0)
        assert (found.proof, found.by) == (Proof.CERTAIN, "its results")

    def test_a_strangers_batch_of_our_size_is_ruled_out_by_its_results(
        self, guarded: Guarded, server: AnthropicEmulated, chunk: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.jsonl"
        other.write_bytes(chunk.read_bytes().replace(b'"custom_id":"0a', b'"custom_id":"0b'))
        server.settle(self.create(guarded, str(other)))
        assert guarded.find(str(chunk), tag=TAG, since=0) == []
        assert len(guarded.find(str(other), tag=TAG, since=0)) == 1

    def test_a_batch_of_another_size_or_time_is_no_candidate(self, slow: Guarded, chunk: Path, tmp_path: Path) -> None:
        self.create(slow, str(chunk))
        smaller = tmp_path / "smaller.jsonl"
        smaller.write_bytes(b"".join(chunk.read_bytes().splitlines(keepends=True)[:4]))
        assert slow.find(str(smaller), tag=TAG, since=0) == []
        assert slow.find(str(chunk), tag=TAG, since=2**40) == []

    def test_a_batch_whose_results_are_gone_proves_nothing(
        self, guarded: Guarded, server: AnthropicEmulated, chunk: Path
    ) -> None:
        batch_id = self.create(guarded, str(chunk))
        server.settle(batch_id)
        server.show(batch_id, archived_at="2026-12-16T00:00:00Z")
        assert [one.proof for one in guarded.find(str(chunk), tag=TAG, since=0)] == [Proof.NEVER]
        status = guarded.poll(batch_id)
        assert (status.files, status.owes_results) == ((), True)

    @pytest.mark.parametrize("do", ["garbage", "500", "drop-before", "429"])
    def test_results_that_cannot_be_read_do_not_rule_a_batch_out(
        self, guarded: Guarded, server: AnthropicEmulated, chunk: Path, do: str
    ) -> None:
        server.settle(self.create(guarded, str(chunk)))
        server.strike("results", do, nth="every")
        with pytest.raises(BatchctlError):
            guarded.find(str(chunk), tag=TAG, since=0)

    def test_a_batch_on_a_later_page_is_found(
        self, guarded: Guarded, server: AnthropicEmulated, chunk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "PAGE_BATCHES", 2)
        first = self.create(guarded, str(chunk))
        for _ in range(4):
            self.create(guarded, str(chunk))
        for one in server.batches():
            server.settle(one)
        assert first in [one.batch_id for one in guarded.find(str(chunk), tag=TAG, since=0)]

    # --- the body of a create --------------------------------------------------------------------------------------

    def test_the_chunk_is_sent_as_it_is(self, chunk: Path) -> None:
        lines = [orjson.loads(line) for line in chunk.read_bytes().split(b"\n") if line]
        seen: list[bytes] = []

        def answer(request: httpx2.Request) -> httpx2.Response:
            blocks = list(request.stream)
            assert int(request.headers["Content-Length"]) == sum(map(len, blocks))
            seen.append(b"".join(blocks))
            return httpx2.Response(200, json={"id": "msgbatch_1"})

        with recorded(answer) as provider:
            assert self.create(Guarded(provider, sleep=Waits()), str(chunk)) == "msgbatch_1"
        assert [orjson.loads(body) for body in seen] == [{"requests": lines}]

    def test_a_chunk_that_is_gone_sends_nothing(
        self, guarded: Guarded, server: AnthropicEmulated, tmp_path: Path
    ) -> None:
        with pytest.raises(StorageFailed):
            self.create(guarded, str(tmp_path / "gone.jsonl"))
        assert server.creates() == 0

    def test_the_address_may_end_in_v1(self, server: AnthropicEmulated, chunk: Path) -> None:
        provider = self.build(f"{server.url}/v1/")
        assert self.create(Guarded(provider, sleep=Waits()), str(chunk)) in server.batches()
        provider.close()

    def test_cancelling_what_cannot_be_cancelled_is_said(
        self, slow: Guarded, slow_server: AnthropicEmulated, chunk: Path
    ) -> None:
        batch_id = self.create(slow, str(chunk))
        slow_server.strike("cancel", "400")
        with pytest.raises(Rejected):
            slow.cancel(batch_id)


# --- the codec ---------------------------------------------------------------------------------------------------------


def written(**more: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    given = {"system": None, "params": {}, "schema": None, "mode": "native", "schema_name": "t"} | more
    provider = AnthropicBatch(base_url="http://127.0.0.1:1", api_key=CANARY)
    return provider.body(Ask(**{"endpoint": ENDPOINT, "model": "claude-haiku-4-5", "prompt": "p", **given}))


def test_what_the_vendor_needs_is_filled_in_and_told() -> None:
    body, notes = written(system="s")
    assert (body["max_tokens"], body["system"]) == (4096, "s")
    assert notes[0].startswith("max_tokens: 4,096")
    body, notes = written(params={"max_tokens": 9, "output_config": {"effort": "low"}}, schema=SCHEMA)
    assert body["max_tokens"] == 9
    assert body["output_config"].keys() == {"effort", "format"}
    assert notes == ()


@pytest.mark.parametrize(
    ("model", "params", "sent"),
    [
        ("claude-haiku-4-5", {"max_output_tokens": 7}, {"max_tokens": 7}),
        ("claude-haiku-4-5", {"max_completion_tokens": 7, "reasoning_effort": "low"}, {"max_tokens": 7}),
        ("claude-sonnet-4-5-20250929", {"max_tokens": 7, "reasoning": {"effort": "low"}}, {"max_tokens": 7}),
        ("claude-sonnet-4-6", {"reasoning": {"effort": "low"}}, {"output_config": {"effort": "low"}}),
        ("claude-haiku-5-5", {"reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}),
        (
            "claude-opus-4-5-20251101",
            {"reasoning_effort": "high", "output_config": {"task_budget": 3}},
            {"output_config": {"effort": "high", "task_budget": 3}},
        ),
    ],
)
def test_settings_under_other_vendors_names_are_sent_in_this_ones_words(
    model: str, params: dict[str, Any], sent: dict[str, Any]
) -> None:
    plain, _ = written(model=model)
    body, notes = written(model=model, params=params)
    assert body == plain | sent
    assert [note for note in notes if note.startswith("params:")] or params == sent


@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": 1, "max_output_tokens": 2},
        {"reasoning_effort": "low", "output_config": {"effort": "low"}},
        {"reasoning": {"effort": "low", "summary": "auto"}},
        {"reasoning_effort": "huge"},
        {"reasoning_effort": "low", "output_config": "low"},
    ],
)
def test_settings_that_cannot_be_said_are_refused_before_every_row_fails(params: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        written(model="claude-sonnet-4-6", params=params)


def test_a_schema_is_sent_as_format_or_as_tool() -> None:
    body, _ = written(schema=SCHEMA)
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    body, _ = written(schema=SCHEMA, mode="tool")
    assert body["tools"] == [{"name": "t", "strict": True, "input_schema": SCHEMA}]
    assert body["tool_choice"] == {"type": "tool", "name": "t"}
    assert written(schema=SCHEMA, mode="prompt")[0].keys() == {"model", "max_tokens", "messages"}


def test_a_schema_that_cannot_be_said_is_refused_with_its_pointers() -> None:
    schema = {"type": "object", "properties": {"map": {"type": "object", "additionalProperties": {"type": "string"}}}}
    with pytest.raises(UsageError) as raised:
        written(schema=schema)
    assert any("#/properties/map/additionalProperties" in one for one in raised.value.where)
    body, notes = written(schema=schema, mode="tool")
    assert body["tools"] == [{"name": "t", "input_schema": schema}]
    assert "sent without strict" in notes[1]


# --- recorded objects and errors -----------------------------------------------------------------------------------------

# Each batch object: our state, whether it has results, whether its time was over.
OBJECTS: dict[str, tuple[BatchState, bool, bool]] = {
    "archived_results_gone": (BatchState.ENDED, False, False),
    "canceling": (BatchState.RUNNING, False, False),
    "ended_all_errored": (BatchState.ENDED, True, False),
    "ended_all_expired": (BatchState.ENDED, True, True),
    "ended_all_succeeded": (BatchState.ENDED, True, False),
    "ended_canceled_partial": (BatchState.ENDED, True, False),
    "ended_expired_partial": (BatchState.ENDED, True, True),
    "ended_mixed": (BatchState.ENDED, True, False),
    "in_progress": (BatchState.RUNNING, False, False),
}
# Each HTTP error: what it means for a create. Only UNKNOWN may have acted.
ERRORS: dict[str, type[BatchctlError]] = {
    "any_400_organization_on_hold": NotAllowed,
    "any_401": NotAllowed,
    "any_403": NotAllowed,
    "any_429_rate_limit": Throttled,
    "any_500": OutcomeUnknown,
    "any_504": OutcomeUnknown,
    "any_529": OutcomeUnknown,
    "create_400_custom_id_pattern": Rejected,
    "create_400_custom_id_too_long": Rejected,
    "create_400_duplicate_custom_id": Rejected,
    "create_400_own_spend_limit": Rejected,  # nothing but its words tells it from other refusals; it stops all the same
    "create_402_billing": Throttled,
    "create_413_cloudflare": Rejected,
    "create_429_ramp_limit": Throttled,
    "create_429_spend_cap_no_retry_after": Throttled,
    "results_404_archived": NotFound,
    "retrieve_404": NotFound,
}
BILLING = {"create_402_billing", "create_429_spend_cap_no_retry_after"}
WAITS = {"any_429_rate_limit": 12, "create_429_ramp_limit": 60}


def load(kind: str, name: str) -> Any:
    return orjson.loads((FIXTURES / kind / f"{name}.json").read_bytes())


@needs_fixtures
def test_every_recorded_object_and_error_is_listed() -> None:
    assert {path.stem for path in (FIXTURES / "batches").glob("*.json")} == {*OBJECTS, "deleted"}
    assert {path.stem for path in (FIXTURES / "http_errors").glob("*.json")} == set(ERRORS)


@needs_fixtures
@pytest.mark.parametrize("name", OBJECTS)
def test_batch_objects(name: str) -> None:
    status = status_of(load("batches", name))
    assert (status.state, bool(status.files), status.out_of_time) == OBJECTS[name]
    assert status.owes_results is (status.state is BatchState.ENDED)
    assert status.known_word
    assert sum(status.counts.values()) == 100


@needs_fixtures
@pytest.mark.parametrize("name", ERRORS)
def test_http_errors(name: str) -> None:
    fixture = load("http_errors", name)
    outcome = outcome_of(fixture["status"], fixture["headers"], fixture["body"])
    assert type(outcome) is ERRORS[name]
    assert getattr(outcome, "billing", False) is (name in BILLING)
    assert getattr(outcome, "wait_seconds", None) == WAITS.get(name)


def outcome_of(status: int, headers: dict[str, str], body: Any) -> BatchctlError | None:
    """What the exception that the installed SDK raises for such an answer means."""
    with recorded(lambda _: httpx2.Response(status)) as provider:
        request = httpx2.Request("POST", "http://127.0.0.1:1" + BATCHES)
        response = httpx2.Response(status, headers=headers, json=body, request=request)
        found: BatchctlError | None = provider.outcome(provider._sdk._make_status_error_from_response(response))
        return found


@pytest.mark.parametrize("status", [302, 307, 308, 408, 409, 418, 425, 500, 502, 503, 504, 520, 529])
def test_whatever_is_not_certainly_refused_is_unknown(status: int) -> None:
    assert type(outcome_of(status, {}, {})) is OutcomeUnknown


def test_the_sdk_repeats_nothing_and_follows_nothing() -> None:
    provider = AnthropicBatch(base_url="http://127.0.0.1:1", api_key=CANARY)
    assert provider._sdk.max_retries == 0
    assert provider._sdk._client.follow_redirects is False
    provider.close()


def test_errors_that_are_not_the_providers_are_left_alone() -> None:
    provider = AnthropicBatch(base_url="http://127.0.0.1:1", api_key=CANARY)
    assert provider.outcome(OSError(28, "No space left on device")) is None
    assert provider.outcome(KeyError("bug")) is None


@needs_fixtures
def test_a_recorded_list_is_read_to_its_last_page(tmp_path: Path) -> None:
    chunk = tmp_path / "chunk.jsonl"
    chunk.write_bytes(b"".join(b'{"custom_id":"row-%d","params":{}}\n' % number for number in range(100)))
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/results"):
            return httpx2.Response(200, content=b'{"custom_id":"row-7","result":{"type":"expired"}}\n')
        asked.append(request.url.params.get("after_id"))
        return httpx2.Response(200, json=load("lists", "page2" if asked[-1] else "page1"))

    with recorded(answer) as provider:
        found = {one.batch_id: one.proof for one in provider.find(str(chunk), tag=TAG, since=0)}
    assert asked == [None, load("lists", "page1")["last_id"]]
    last = load("lists", "page2")["data"][0]["id"]
    assert found.pop(last) is Proof.CERTAIN
    assert set(found.values()) == {Proof.WHEN_ENDED}
    with recorded(lambda _: httpx2.Response(200, json=load("lists", "empty"))) as provider:
        assert provider.find(str(chunk), tag=TAG, since=0) == []


@needs_fixtures
def test_recorded_requests_pass_our_own_check_and_the_emulators() -> None:
    provider = AnthropicBatch(base_url="http://127.0.0.1:1", api_key=CANARY)
    for line in (FIXTURES / "requests" / "requests.jsonl").read_bytes().split(b"\n"):
        if line:
            params = orjson.loads(line)["params"]
            assert provider.check_line(line, ENDPOINT, params["model"]) is None
            message_params(params, ())
    assert batch_create(load("requests", "create_body"))


# --- a server that says anything -----------------------------------------------------------------------------------------


def recorded(answer: Callable[[httpx2.Request], httpx2.Response]) -> Any:
    provider = AnthropicBatch(base_url="http://127.0.0.1:1", api_key=CANARY)
    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    provider.__dict__["_sdk"] = anthropic.Anthropic(
        api_key=CANARY, base_url="http://127.0.0.1:1", max_retries=0, http_client=http
    )
    return closing(provider)


@pytest.fixture
def saying() -> Iterator[Callable[..., Saying]]:
    started: list[Saying] = []

    def start(body: Any = b"", status: int = 200, **headers: str) -> Saying:
        started.append(Saying(body, status, {name.replace("_", "-"): value for name, value in headers.items()}))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Callable[[str], dict[str, Callable[[], Any]]]]:
    """Every call of the provider that leaves this machine, by name, at an address."""
    made: list[AnthropicBatch] = []
    chunk = tmp_path / "chunk.jsonl"
    chunk.write_bytes(b'{"custom_id":"a","params":{}}\n')

    def start(url: str) -> dict[str, Callable[[], Any]]:
        made.append(AnthropicBatch(base_url=url, api_key=CANARY))
        guarded = Guarded(made[-1], sleep=Waits())
        return {
            "create": lambda: guarded.create(str(chunk), endpoint=ENDPOINT, tag=TAG, run="r", chunk=1),
            "list": lambda: guarded.find(str(chunk), tag=TAG, since=0),
            "poll": lambda: guarded.poll("msgbatch_1"),
            "results": lambda: guarded.download("msgbatch_1", io.BytesIO),
            "cancel": lambda: guarded.cancel("msgbatch_1"),
            "live": lambda: guarded.call(b'{"model":"m"}', ENDPOINT),
        }

    yield start
    for one in made:
        one.close()


NO_LISTS: list[Any] = [
    {},
    {"data": None, "has_more": False},
    {"data": {}, "has_more": False},
    {"data": [None], "has_more": False},
    {"data": [{"type": "message_batch"}], "has_more": False},
    {"type": "error", "error": {"message": "try again"}},
    [],
    None,
    b"<html>sign in</html>",
    b"",
]


@pytest.mark.parametrize("body", NO_LISTS, ids=repr)
def test_what_is_no_list_of_batches_does_not_prove_that_there_is_none(saying: Any, asking: Any, body: Any) -> None:
    with pytest.raises(BatchctlError):
        asking(saying(body).url)["list"]()


def test_a_list_that_never_ends_is_an_error_and_not_a_loop(saying: Any, asking: Any) -> None:
    server = saying({"data": [{"id": "msgbatch_1", "request_counts": {"processing": 9}}], "has_more": True})
    with pytest.raises(BatchctlError):
        asking(server.url)["list"]()
    assert len(server.seen) < 20


def test_results_are_asked_for_where_the_provider_is_and_nowhere_else(saying: Any) -> None:
    """The SDK would follow `results_url` wherever it points, with the key."""
    elsewhere = saying(b"")
    batch = {"id": "msgbatch_1", "processing_status": "ended", "results_url": f"{elsewhere.url}/stolen"}
    server = saying(batch)
    provider = AnthropicBatch(base_url=server.url, api_key=CANARY)
    ((_, handle),) = provider.poll("msgbatch_1").files
    assert b"".join(provider.results(handle)) == orjson.dumps(batch)
    assert server.seen[-1][1] == f"{BATCHES}/msgbatch_1/results"
    assert elsewhere.seen == []
    provider.close()


def test_no_redirect_is_followed_and_no_key_leaves(saying: Any, asking: Any) -> None:
    elsewhere = saying({"id": "msgbatch_9"})
    server = saying(b"", 307, Location=elsewhere.url)
    for call in asking(server.url).values():
        with pytest.raises(BatchctlError):
            call()
    assert elsewhere.seen == []


@pytest.mark.parametrize("name", ["create", "live"])
def test_what_spends_is_asked_once_whatever_the_answer(saying: Any, asking: Any, name: str) -> None:
    for status in (200, 307, 400, 401, 402, 404, 408, 409, 413, 429, 500, 503, 504, 529):
        server = saying({"error": {"message": "no"}}, status, x_should_retry="true", retry_after="0")
        with suppress(BatchctlError):
            asking(server.url)[name]()
        assert len(server.seen) == 1, status


def test_a_gateway_that_repeats_the_key_does_not_get_it_into_an_error(saying: Any, asking: Any) -> None:
    error = {"message": f"bad header: Bearer {CANARY}", "type": CANARY, "details": {"error_code": CANARY}}
    for status in (400, 401, 429, 500):
        server = saying({"type": "error", "error": error}, status)
        for name, call in asking(server.url).items():
            assert CANARY not in said_by(call), (name, status)


def said_by(call: Callable[[], Any]) -> str:
    """All that a call answers, or all text of its error."""
    try:
        return repr(call())
    except BatchctlError as error:
        return everything(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("results_url", "request_counts", "created_at", "expires_at", "archived_at")
ODD_BATCH = st.fixed_dictionaries(
    {"id": st.just("msgbatch_1"), "processing_status": st.sampled_from([*STATES, "?"])},
    optional=dict.fromkeys(FIELDS, JSON),
)


@given(batch=ODD_BATCH | JSON, has_more=JSON)
@settings(max_examples=100, deadline=None)
def test_no_answer_breaks_anything(tmp_path_factory: pytest.TempPathFactory, batch: Any, has_more: Any) -> None:
    """Any JSON in any place: a status, a list, a number, or an error of ours. Never a traceback, never a guess."""
    chunk = tmp_path_factory.mktemp("odd") / "chunk.jsonl"
    chunk.write_bytes(b'{"custom_id":"a","params":{}}\n')

    def answer(request: httpx2.Request) -> httpx2.Response:
        page = {"data": [batch], "has_more": has_more}
        return httpx2.Response(200, json=page if request.url.path == BATCHES and request.method == "GET" else batch)

    with recorded(answer) as provider:
        guarded = Guarded(provider, sleep=Waits())
        for act in (
            lambda: guarded.poll("msgbatch_1"),
            lambda: guarded.find(str(chunk), tag=TAG, since=5),
            lambda: guarded.create(str(chunk), endpoint=ENDPOINT, tag=TAG, run="r", chunk=1),
        ):
            try:
                found = act()
            except BatchctlError:
                continue
            if isinstance(found, BatchStatus):
                assert found.known_word == (found.vendor_status.lower() in STATES)
