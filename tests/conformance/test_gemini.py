"""The provider contract, kept by the Gemini module against the emulator; and what only this wire can get wrong."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchctl.emulator.google_checks import embed, generate
from batchctl.emulator.wire import WireError
from batchctl.model.batches import Ask, BatchState, BatchStatus, Refusal
from batchctl.model.errors import (
    BatchctlError,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Throttled,
    UsageError,
)
from batchctl.providers import google_rest
from batchctl.providers.gemini import STATES, GeminiBatch, endpoint_of, status_of
from batchctl.providers.google_rest import ApiError
from batchctl.providers.guard import Guarded
from tests.conformance.contract import CANARY, SCHEMA, TAG, ProviderContract, Waits, everything
from tests.conftest import SHARED, NewProvider
from tests.support.emulated import Emulated
from tests.support.saying import Saying

CONTRACT = SHARED / "contracts" / "gemini.md"
FIXTURES = SHARED / "contracts" / "fixtures-gemini"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the wire fixtures are not beside the checkout")
MODEL = "gemini-2.5-flash"
ENDPOINT = f"models/{MODEL}:generateContent"
CREATE = f"/v1beta/models/{MODEL}:batchGenerateContent"


class GeminiEmulated(Emulated):
    """The emulator's Gemini wire."""

    calls_of: ClassVar = {
        "create": f"POST {CREATE}",
        "upload": "POST /upload/v1beta/files",
        "list": "GET /v1beta/batches",
        "poll": "GET /v1beta/batches/*",
        "cancel": "POST /v1beta/batches/*:cancel",
        "results": "GET /download/v1beta/files/*",
        "size": "GET /v1beta/files/*",
        "delete": "DELETE /v1beta/files/*",
        "live": f"POST /v1beta/{ENDPOINT}",
    }
    create_path = CREATE

    def show(self, batch_id: str, **fields: Any) -> None:
        if "id" in fields:
            fields["name"] = f"batches/{fields.pop('id')}"
        super().show(batch_id, **fields)

    def mark_again(self, batch_id: str) -> str:
        (name,) = [
            one["metadata"]
            for one in self.provider.ask("GET", "/v1beta/batches?key=k")["operations"]
            if one["name"] == f"batches/{batch_id}"
        ]
        body = {"batch": {"displayName": name["displayName"], "inputConfig": name["inputConfig"]}}
        made: str = self.provider.ask("POST", CREATE + "?key=k", body)["name"]
        return made.removeprefix("batches/")


class TestGemini(ProviderContract):
    endpoints = (ENDPOINT,)
    vendor_states = STATES
    model = MODEL
    words: ClassVar = {
        "completed": "BATCH_STATE_SUCCEEDED",
        "expired": "BATCH_STATE_EXPIRED",
        "cancelled": "BATCH_STATE_CANCELLED",
    }
    id_field = "key"
    harvest = {"expired": 2, "cancelled": 2}  # noqa: RUF012

    def build(self, server: GeminiEmulated | str | None, *, key: str = CANARY) -> GeminiBatch:
        url = server if isinstance(server, str) or server is None else server.url
        return GeminiBatch(base_url=url or "http://127.0.0.1:1", api_key=key, model=MODEL)

    def sdk_states(self) -> set[str]:
        """No SDK is used: the words are those of the wire contract's table."""
        if not CONTRACT.exists():
            pytest.skip("the wire contract is not beside the checkout")
        rows = re.findall(r"^\| `(?:BATCH|JOB)_STATE_([A-Z_]+)`", CONTRACT.read_text(), re.MULTILINE)
        return set(rows)

    def shorten_timeouts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(google_rest, "ANSWER_SECONDS", 0.5)

    @pytest.fixture
    def server(self, new_provider: NewProvider) -> GeminiEmulated:
        return GeminiEmulated(new_provider())

    @pytest.fixture
    def slow_server(self, new_provider: NewProvider) -> GeminiEmulated:
        return GeminiEmulated(new_provider(latency="1h"))

    @pytest.mark.parametrize("end", ["cancelled"])
    def test_what_was_done_before_the_end_is_harvested(
        self, slow: Guarded, slow_server: Any, chunk: Path, tmp_path: Path, end: str
    ) -> None:
        super().test_what_was_done_before_the_end_is_harvested(slow, slow_server, chunk, tmp_path, end)

    def test_an_expired_batch_has_no_results(
        self, slow: Guarded, slow_server: GeminiEmulated, chunk: Path, tmp_path: Path
    ) -> None:
        """The guide says so, and says no more: its rows are missing."""
        batch_id = self.create(slow, slow.stage(chunk, name=f"{TAG}.jsonl"))
        slow_server.end(batch_id, "expired", after=2)
        slow_server.settle(batch_id)
        status = slow.poll(batch_id)
        assert (status.state, status.out_of_time, status.owes_results) == (BatchState.ENDED, True, False)
        assert self.lines_of(slow, status, tmp_path) == []

    # --- what only this wire has -----------------------------------------------------------------------------------

    def test_a_batch_on_a_later_page_is_found(
        self, guarded: Guarded, server: GeminiEmulated, chunk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("batchctl.providers.gemini.PAGE_ITEMS", 2)
        staged = guarded.stage(chunk, name="a.jsonl")
        first = self.create(guarded, staged)
        for number in range(4):
            self.create(guarded, guarded.stage(chunk, name="b.jsonl"), tag=f"{TAG}{number}")
        assert [one.batch_id for one in guarded.find("", tag=TAG, since=2**40)] == [first]

    def test_somebody_elses_file_is_not_deleted_by_being_forbidden(
        self, guarded: Guarded, server: GeminiEmulated, chunk: Path
    ) -> None:
        """A file that is gone answers 403 as well: only one that is not in the list is gone."""
        staged = guarded.stage(chunk, name="a.jsonl")
        server.strike("delete", "403")
        with pytest.raises(NotAllowed):
            guarded.delete(staged)
        guarded.delete(staged)
        guarded.delete(staged)

    def test_a_broken_line_fails_the_whole_batch_and_nothing_is_billed(
        self, guarded: Guarded, server: GeminiEmulated, chunk: Path
    ) -> None:
        chunk.write_bytes(chunk.read_bytes() + b"{}\n")
        _, status = self.ended(guarded, server, chunk)
        assert (status.state, status.refusal) == (BatchState.REFUSED, Refusal.FILE)
        assert server.rows_billed() == 0

    def test_cancelling_what_cannot_be_cancelled_is_said(
        self, slow: Guarded, slow_server: GeminiEmulated, chunk: Path
    ) -> None:
        batch_id = self.create(slow, slow.stage(chunk, name="a.jsonl"))
        slow_server.strike("cancel", "400")
        with pytest.raises(Rejected):
            slow.cancel(batch_id)

    def test_embeddings_have_a_method_of_their_own(self, server: GeminiEmulated, tmp_path: Path, waits: Waits) -> None:
        provider = GeminiBatch(base_url=server.url, api_key=CANARY, model="gemini-embedding-001")
        (endpoint,) = provider.traits.endpoints
        assert endpoint == "models/gemini-embedding-001:embedContent"
        body, _ = written(model="gemini-embedding-001", params={"output_dimensionality": 4})
        assert body == {"content": {"parts": [{"text": "p"}]}, "outputDimensionality": 4}
        line = orjson.dumps({"key": "row-1", "request": body})
        assert provider.check_line(line, endpoint, "gemini-embedding-001") is None
        (tmp_path / "chunk.jsonl").write_bytes(line + b"\n")
        guarded = Guarded(provider, sleep=waits)
        staged = guarded.stage(tmp_path / "chunk.jsonl", name="a.jsonl")
        batch_id = guarded.create(staged, endpoint=endpoint, tag=TAG, run="r", chunk=1)
        server.settle(batch_id)
        (found,) = self.lines_of(guarded, guarded.poll(batch_id), tmp_path)
        assert len(found["response"]["embedding"]["values"]) == 4
        provider.close()


# --- the codec ---------------------------------------------------------------------------------------------------------


def written(**more: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    given = {"model": MODEL, "system": None, "params": {}, "schema": None, "mode": "native", "schema_name": "t"} | more
    provider = GeminiBatch(base_url="http://127.0.0.1:1", api_key=CANARY)
    return provider.body(Ask(endpoint=endpoint_of(given["model"]), prompt="p", **given))


def test_settings_go_where_the_vendor_wants_them() -> None:
    params = {"max_output_tokens": 9, "topP": 0.5, "safetySettings": [], "generation_config": {"seed": 3}}
    body, notes = written(system="s", params=params, schema=SCHEMA)
    assert body == {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [{"role": "user", "parts": [{"text": "p"}]}],
        "generationConfig": {
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
            "maxOutputTokens": 9,
            "topP": 0.5,
            "seed": 3,
        },
        "safetySettings": [],
    }
    assert notes == ()
    assert generate(body)


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("gemini-2.5-flash", "low", {"thinkingBudget": 1024}),
        ("models/gemini-2.5-pro", "high", {"thinkingBudget": 24576}),
        ("gemini-3.5-flash", "low", {"thinkingLevel": "LOW"}),
        ("gemini-4-hydrogen", "none", {"thinkingLevel": "MINIMAL"}),
    ],
)
def test_an_effort_is_said_in_the_vendors_words_and_told(model: str, effort: str, sent: dict[str, Any]) -> None:
    body, notes = written(model=model, params={"reasoning": {"effort": effort}})
    assert body["generationConfig"] == {"thinkingConfig": sent}
    assert notes[0].startswith("reasoning: sent as thinking")


@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": 7, "max_output_tokens": 8},
        {"maxOutputTokens": 7, "max_output_tokens": 8},
        {"reasoning": {"effort": "low"}, "thinkingConfig": {"thinkingBudget": 0}},
        {"reasoning": {"effort": "huge"}},
        {"reasoning": {"effort": "low", "summary": "auto"}},
        {"generationConfig": "hot"},
        {"candidateCount": 2},
        {"system_instruction": "other"},
        {"model": "other"},
    ],
)
def test_what_every_row_would_be_refused_for_is_refused_at_once(params: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        written(params=params)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_another_vendors_name_for_the_cap_is_translated_and_told(name: str) -> None:
    body, notes = written(params={name: 7, "reasoning_effort": "low"})
    assert body["generationConfig"] == {"maxOutputTokens": 7, "thinkingConfig": {"thinkingBudget": 1024}}
    assert notes[0] == f"params: `{name}` is sent as `max_output_tokens`"


def test_a_schema_is_sent_as_tool() -> None:
    body, _ = written(schema=SCHEMA, mode="tool")
    assert body["tools"] == [{"functionDeclarations": [{"name": "t", "parametersJsonSchema": SCHEMA}]}]
    assert generate(body)
    assert written(schema=SCHEMA, mode="prompt")[0].keys() == {"contents"}


def test_what_a_schema_cannot_say_is_told_with_its_pointer() -> None:
    schema = {
        "type": "object",
        "$defs": {"name": {"type": "string"}},
        "properties": {
            "a": {"type": "string", "maxLength": 9, "format": "email"},
            "b": {"oneOf": [{"type": "integer", "exclusiveMinimum": 0}, {"const": "x"}, {"const": True}]},
            "c": {"$ref": "#/$defs/name", "minLength": 2},
            "d": {"type": "object", "additionalProperties": {"type": "string", "pattern": "^a"}},
        },
    }
    body, notes = written(schema=schema)
    sent = body["generationConfig"]["responseJsonSchema"]
    assert sent["properties"] == {
        "a": {"type": "string", "description": "{maxLength: 9, format: email}"},
        "b": {
            "anyOf": [
                {"type": "integer", "description": "{exclusiveMinimum: 0}"},
                {"enum": ["x"]},
                {},
            ]
        },
        "c": {"$ref": "#/$defs/name"},
        "d": {
            "type": "object",
            "additionalProperties": {"type": "string", "description": "{pattern: ^a}"},
        },
    }
    pointers = [one.partition(":")[0] for one in notes]
    assert pointers == [
        "#/properties/a/maxLength",
        "#/properties/a/format",
        "#/properties/b/oneOf/0/exclusiveMinimum",
        "#/properties/b/oneOf/2/const",
        "#/properties/c/minLength",
        "#/properties/d/additionalProperties/pattern",
    ]
    assert generate(body)


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "object", "allOf": [{"required": ["a"]}]}, "#/allOf"),
        ({"type": "object", "patternProperties": {"^a": {}}}, "#/patternProperties"),
        ({"type": "object", "properties": {"a": True}}, "#/properties/a"),
        ({"type": "object", "properties": {"a": {"$ref": "http://x/y"}}}, "#/properties/a/$ref"),
        ({"type": "object", "properties": {"a": {"enum": [[1]]}}}, "#/properties/a/enum"),
    ],
)
def test_a_schema_that_cannot_be_said_is_refused_with_its_pointer(schema: dict[str, Any], pointer: str) -> None:
    with pytest.raises(UsageError) as raised:
        written(schema=schema)
    assert [one.partition(":")[0] for one in raised.value.where] == [pointer]


# --- recorded objects and errors ---------------------------------------------------------------------------------------

# Each job: our state, whether it has results, why it was refused.
JOBS: dict[str, tuple[BatchState, bool, Refusal | None]] = {
    "job_cancelled": (BatchState.ENDED, False, None),
    "job_expired": (BatchState.ENDED, False, None),
    "job_failed": (BatchState.REFUSED, False, Refusal.ACCESS),
    "job_pending": (BatchState.RUNNING, False, None),
    "job_running": (BatchState.RUNNING, False, None),
    "job_state_unknown_future": (BatchState.RUNNING, False, None),
    "job_succeeded_embed_inline": (BatchState.ENDED, False, None),
    "job_succeeded_file": (BatchState.ENDED, True, None),
    "job_succeeded_inline": (BatchState.ENDED, False, None),
    "job_succeeded_job_state_prefix": (BatchState.ENDED, True, None),
}
# Each HTTP error: what it means for a create. Only UNKNOWN may have acted.
ERRORS: dict[str, type[BatchctlError]] = {
    "error_400_api_key_invalid": NotAllowed,
    "error_400_invalid_argument": Rejected,
    "error_403_permission_denied": NotAllowed,
    "error_404_not_found": NotFound,
    "error_429_resource_exhausted": Throttled,
    "error_500_internal": OutcomeUnknown,
    "error_503_unavailable": OutcomeUnknown,
}


def load(name: str) -> Any:
    return orjson.loads((FIXTURES / f"{name}.json").read_bytes())


@needs_fixtures
def test_every_recorded_job_and_error_is_listed() -> None:
    assert {path.stem for path in FIXTURES.glob("job_*.json")} == set(JOBS)
    assert {path.stem for path in FIXTURES.glob("error_*.json")} == set(ERRORS)


@needs_fixtures
@pytest.mark.parametrize("name", JOBS)
def test_jobs(name: str) -> None:
    status = status_of(load(name))
    assert (status.state, bool(status.files), status.refusal) == JOBS[name]
    assert status.owes_results is ("succeeded" in name)
    assert status.out_of_time is (name == "job_expired")
    assert status.known_word
    assert sum(status.counts.values()) == 2 * status.counts["requestCount"]


@pytest.mark.parametrize("word", ["BATCH_STATE_HIBERNATING", "SUCCEEDED", "STATE_SUCCEEDED", "", None, 7])
def test_a_word_we_do_not_know_is_never_an_end(word: Any) -> None:
    status = status_of({"name": "batches/1", "metadata": {"state": word, "output": {"responsesFile": "files/1"}}})
    assert (status.state, status.known_word, status.files) == (BatchState.RUNNING, False, ())


def failed(code: Any, **more: Any) -> BatchStatus:
    metadata = {"state": "BATCH_STATE_FAILED", "batchStats": more.pop("stats", {})}
    return status_of({"name": "batches/1", "metadata": metadata, "error": {"code": code, "message": "m"}, **more})


def test_a_failed_job_is_refused_only_when_nothing_can_have_run() -> None:
    refusals = {code: failed(code).refusal for code in (3, 5, 7, 8, 9)}
    assert refusals == {
        3: Refusal.FILE,
        5: Refusal.ACCESS,
        7: Refusal.ACCESS,
        8: Refusal.CAPACITY,
        9: Refusal.ACCESS,
    }
    for status in (
        failed(13),
        failed(None),
        failed("3"),
        failed(3, stats={"successfulRequestCount": "1"}),
        failed(3, response={"responsesFile": "files/1"}),
    ):
        assert (status.state, status.refusal) == (BatchState.ENDED, None)
    assert failed(3, response={"responsesFile": "files/1"}).files == (("output", "files/1"),)


@needs_fixtures
@pytest.mark.parametrize("name", ERRORS)
def test_http_errors(name: str) -> None:
    outcome = outcome_of(int(name.split("_")[1]), {}, load(name))
    assert type(outcome) is ERRORS[name]
    assert not getattr(outcome, "billing", False)
    assert getattr(outcome, "wait_seconds", None) == (13 if "429" in name else None)


def outcome_of(status: int, headers: dict[str, str], body: Any) -> BatchctlError | None:
    provider = GeminiBatch(base_url="http://127.0.0.1:1", api_key=CANARY)
    return provider.outcome(ApiError(status, httpx2.Headers(headers), orjson.dumps(body)))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (402, {}),
        (403, {"details": [{"reason": "BILLING_DISABLED"}]}),
        (429, {"message": "Your prepayment credits are depleted. Please go to AI Studio"}),
    ],
)
def test_no_credit_is_not_a_matter_of_waiting(status: int, error: dict[str, Any]) -> None:
    outcome = outcome_of(status, {}, {"error": error})
    assert isinstance(outcome, Throttled)
    assert outcome.billing


@pytest.mark.parametrize("status", [302, 307, 308, 408, 409, 418, 425, 499, 500, 502, 503, 504, 520])
def test_whatever_is_not_certainly_refused_is_unknown(status: int) -> None:
    assert type(outcome_of(status, {}, {})) is OutcomeUnknown


def test_errors_that_are_not_the_providers_are_left_alone() -> None:
    provider = GeminiBatch(base_url="http://127.0.0.1:1", api_key=CANARY)
    assert provider.outcome(OSError(28, "No space left on device")) is None
    assert provider.outcome(KeyError("bug")) is None


@needs_fixtures
def test_a_recorded_list_is_read_to_its_last_page() -> None:
    pages = {None: "list_page1", "Cg0KC3Bvczox": "list_page2"}
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.params.get("pageToken"))
        return httpx2.Response(200, json=load(pages[asked[-1]]))

    with recorded(answer) as provider:
        (found,) = provider.find("files/none", tag="batchctl-run01-a1b2c3", since=0)
    assert asked == [None, "Cg0KC3Bvczox"]
    assert f"batches/{found.batch_id}" == load("list_page2")["operations"][0]["name"]
    assert found.created_at == 1793523600
    with recorded(lambda _: httpx2.Response(200, json=load("list_empty"))) as provider:
        assert provider.find("files/none", tag=TAG, since=0) == []


@needs_fixtures
def test_a_recorded_upload_is_read_and_a_create_is_as_recorded(tmp_path: Path) -> None:
    chunk = tmp_path / "chunk.jsonl"
    chunk.write_bytes(b'{"key":"a","request":{}}\n')
    sent: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.read())
        if request.headers.get("X-Goog-Upload-Command") == "start":
            return httpx2.Response(200, headers={"X-Goog-Upload-URL": "http://127.0.0.1:1/upload?upload_id=1"})
        if "upload" in request.url.path:
            assert request.headers["X-Goog-Upload-Command"] == "upload, finalize"
            return httpx2.Response(200, json=load("file_uploaded"))
        return httpx2.Response(200, json=load("job_pending"))

    with recorded(answer) as provider:
        staged = provider.stage(chunk, name="batchctl-run01-a1b2c3.jsonl")
        assert staged == "files/p1mds9fl15bs"
        assert sent[1] == chunk.read_bytes()
        batch_id = provider.create(staged, endpoint=ENDPOINT, tag="batchctl-run01-a1b2c3", run="r", chunk=1)
    assert batch_id == "o08hk76gv328ihxcssjsgwt3g6omtfysxi46"
    assert orjson.loads(sent[2]) == load("create_file.request")


@needs_fixtures
def test_a_create_of_embeddings_is_as_recorded() -> None:
    """The page has the file's name in snake_case, which the service takes as well."""
    wanted, sent = load("create_embed_file.request"), []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append((request.url.path, orjson.loads(request.read())))
        return httpx2.Response(200, json=load("job_pending"))

    batch, model = wanted["batch"], "gemini-embedding-001"
    with recorded(answer) as provider:
        staged = batch["inputConfig"]["file_name"]
        provider.create(staged, endpoint=endpoint_of(model), tag=batch["displayName"], run="r", chunk=1)
    given = {"batch": batch | {"inputConfig": {"fileName": staged}}}
    assert sent == [(f"/v1beta/models/{model}:asyncBatchEmbedContent", given)]


@needs_fixtures
def test_recorded_requests_pass_our_own_check_and_the_emulators() -> None:
    provider = GeminiBatch(base_url="http://127.0.0.1:1", api_key=CANARY)
    embedding = "gemini-embedding-001"
    for name, model, check in (("request_lines", MODEL, generate), ("embed_request_lines", embedding, embed)):
        for line in (FIXTURES / f"{name}.jsonl").read_bytes().splitlines():
            assert provider.check_line(line, endpoint_of(model), model) is None
            assert check(orjson.loads(line)["request"])


@pytest.mark.parametrize(
    "request_",
    [
        {"contents": []},
        {"contents": [{"role": "assistant", "parts": [{"text": "a"}]}]},
        {"contents": [{"parts": [{"text": "a"}]}], "config": {}},
        {"contents": [{"parts": [{"text": "a"}]}], "systemInstruction": "be brief"},
        {"contents": [{"parts": [{"text": "a"}]}], "generationConfig": {"responseJsonSchema": {"type": "object"}}},
    ],
)
def test_the_emulator_is_as_strict_as_the_service(request_: Any) -> None:
    with pytest.raises(WireError):
        generate(request_)


# --- a server that says anything -----------------------------------------------------------------------------------------


def recorded(answer: Callable[[httpx2.Request], httpx2.Response]) -> Any:
    provider = GeminiBatch(base_url="http://127.0.0.1:1", api_key=CANARY, model=MODEL)
    provider._rest.__dict__["client"] = httpx2.Client(transport=httpx2.MockTransport(answer))
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
    made: list[GeminiBatch] = []
    chunk = tmp_path / "chunk.jsonl"
    chunk.write_bytes(b'{"key":"a","request":{}}\n')

    def start(url: str) -> dict[str, Callable[[], Any]]:
        made.append(GeminiBatch(base_url=url, api_key=CANARY, model=MODEL))
        guarded = Guarded(made[-1], sleep=Waits())
        return {
            "stage": lambda: guarded.stage(chunk, name="a.jsonl"),
            "create": lambda: guarded.create("files/a", endpoint=ENDPOINT, tag=TAG, run="r", chunk=1),
            "list": lambda: guarded.find("files/a", tag=TAG, since=0),
            "poll": lambda: guarded.poll("1"),
            "results": lambda: guarded.download("files/a", io.BytesIO),
            "size": lambda: guarded.size_of("files/a"),
            "cancel": lambda: guarded.cancel("1"),
            "delete": lambda: guarded.delete("files/a"),
            "live": lambda: guarded.call(b"{}", ENDPOINT),
        }

    yield start
    for one in made:
        one.close()


NO_LISTS: list[Any] = [
    {"operations": None},
    {"operations": {}},
    {"operations": [None]},
    {"operations": [{"done": True}]},
    {"operations": [{"name": "files/1"}]},
    {"error": {"message": "try again"}},
    {"batches": []},
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
    server = saying({"operations": [{"name": "batches/1"}], "nextPageToken": "again"})
    with pytest.raises(BatchctlError):
        asking(server.url)["list"]()
    assert len(server.seen) < 20


def test_an_upload_goes_nowhere_but_to_the_provider(saying: Any, asking: Any) -> None:
    elsewhere = saying({"file": {"name": "files/1"}})
    server = saying({}, X_Goog_Upload_URL=f"{elsewhere.url}/upload")
    with pytest.raises(BatchctlError):
        asking(server.url)["stage"]()
    assert elsewhere.seen == []


def test_no_redirect_is_followed_and_no_key_leaves(saying: Any, asking: Any) -> None:
    elsewhere = saying({"name": "batches/9"})
    server = saying(b"", 307, Location=elsewhere.url)
    for call in asking(server.url).values():
        with pytest.raises(BatchctlError):
            call()
    assert elsewhere.seen == []


@pytest.mark.parametrize("name", ["create", "live"])
def test_what_spends_is_asked_once_whatever_the_answer(saying: Any, asking: Any, name: str) -> None:
    for status in (200, 307, 400, 401, 404, 408, 409, 413, 429, 500, 503, 504):
        server = saying({"error": {"message": "no"}}, status, retry_after="0")
        with suppress(BatchctlError):
            asking(server.url)[name]()
        assert len(server.seen) == 1, status


def test_a_gateway_that_repeats_the_key_does_not_get_it_into_an_error(saying: Any, asking: Any) -> None:
    error = {"message": f"bad header: {CANARY}", "status": CANARY, "details": [{"reason": CANARY}]}
    for status in (400, 401, 429, 500):
        server = saying({"error": error}, status)
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
METADATA = st.fixed_dictionaries(
    {"state": st.sampled_from([*(f"BATCH_STATE_{one}" for one in STATES), "?"])},
    optional=dict.fromkeys(("displayName", "inputConfig", "createTime", "batchStats", "output"), JSON),
)
ODD_BATCH = st.fixed_dictionaries(
    {"name": st.just("batches/1"), "metadata": METADATA | JSON}, optional=dict.fromkeys(("response", "error"), JSON)
)


@given(batch=ODD_BATCH | JSON, token=JSON)
@settings(max_examples=100, deadline=None)
def test_no_answer_breaks_anything(batch: Any, token: Any) -> None:
    """Any JSON in any place: a status, a list, a number, or an error of ours. Never a traceback, never a guess."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        page = {"operations": [batch], "nextPageToken": token}
        listed = request.url.path.endswith("/batches") and request.method == "GET"
        return httpx2.Response(200, json=page if listed else batch)

    with recorded(answer) as provider:
        guarded = Guarded(provider, sleep=Waits())
        for act in (
            lambda: guarded.poll("1"),
            lambda: guarded.find("files/a", tag=TAG, since=5),
            lambda: guarded.size_of("files/a"),
            lambda: guarded.create("files/a", endpoint=ENDPOINT, tag=TAG, run="r", chunk=1),
        ):
            try:
                found = act()
            except BatchctlError:
                continue
            if isinstance(found, BatchStatus):
                assert found.batch_id == "1"
