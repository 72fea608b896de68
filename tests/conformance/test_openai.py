"""The provider contract, kept by the OpenAI module against the emulator; and what only this wire can get wrong."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, get_args

import httpx2
import openai
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Batch

from batchctl.model.batches import BatchStatus
from batchctl.model.errors import BatchctlError
from batchctl.providers import openai as module
from batchctl.providers.guard import Guarded
from batchctl.providers.openai import ENDPOINTS, OpenAIBatch
from batchctl.providers.profiles import STATES
from tests.conformance.contract import CANARY, TAG, ProviderContract, Waits, everything
from tests.conftest import SHARED, NewProvider
from tests.support.emulated import Emulated
from tests.support.provider import Provider

FIXTURES = SHARED / "contracts" / "fixtures-openai"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the wire fixtures are not beside the checkout")
CALLS = {
    "create": "POST /v1/batches",
    "list": "GET /v1/batches",
    "poll": "GET /v1/batches/*",
    "cancel": "POST /v1/batches/*/cancel",
    "upload": "POST /v1/files",
    "size": "GET /v1/files/*",
    "results": "GET /v1/files/*/content",
    "delete": "DELETE /v1/files/*",
    "live": "POST /v1/responses",
}


class OpenAIEmulated(Emulated):
    """The emulator's OpenAI wire."""

    calls_of = CALLS
    create_path = "/v1/batches"

    def __init__(self, provider: Provider) -> None:
        super().__init__(provider)
        self.url = provider.base_url

    def mark_again(self, batch_id: str) -> str:
        first = self.provider.ask("GET", f"/v1/batches/{batch_id}")
        body = {name: first[name] for name in ("input_file_id", "endpoint", "metadata", "completion_window")}
        return str(self.provider.ask("POST", "/v1/batches", body)["id"])


class TestOpenAI(ProviderContract):
    endpoints = ENDPOINTS
    vendor_states = STATES
    model = "gpt-5.4-mini"

    def build(self, server: OpenAIEmulated | str | None, *, key: str = CANARY) -> OpenAIBatch:
        url = server if isinstance(server, str) or server is None else server.url
        return OpenAIBatch(base_url=url or "http://127.0.0.1:1/v1", api_key=key)

    def sdk_states(self) -> set[str]:
        return set(get_args(Batch.model_fields["status"].annotation))

    def shorten_timeouts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)

    @pytest.fixture
    def server(self, new_provider: NewProvider) -> OpenAIEmulated:
        return OpenAIEmulated(new_provider())

    @pytest.fixture
    def slow_server(self, new_provider: NewProvider) -> OpenAIEmulated:
        return OpenAIEmulated(new_provider(latency="1h"))


# --- a server that says anything ----------------------------------------------------------------------------------------


class Saying:
    """A loopback server that answers every call with the same status, headers and body, and keeps what it was sent."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        seen: list[tuple[str, str, dict[str, str]]] = []
        self.seen = seen

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                seen.append((self.command, self.path, dict(self.headers)))
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def saying() -> Iterator[Any]:
    started: list[Saying] = []

    def start(body: Any = b"", status: int = 200, **headers: str) -> Saying:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        started.append(Saying(status, raw, {name.replace("_", "-"): value for name, value in headers.items()}))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Any]:
    """Every call of the provider, by name, at an address."""
    made: list[OpenAIBatch] = []
    chunk = tmp_path / "chunk.jsonl"
    chunk.write_bytes(b"{}\n")

    def start(url: str, *, key: str = CANARY) -> dict[str, Any]:
        made.append(OpenAIBatch(base_url=url, api_key=key))
        guarded = Guarded(made[-1], sleep=Waits())
        return {
            "upload": lambda: guarded.stage(chunk, name="chunk.jsonl"),
            "create": lambda: guarded.create("file-1", endpoint="/v1/responses", tag=TAG, run="r", chunk=1),
            "list": lambda: guarded.find("file-1", tag=TAG, since=0),
            "poll": lambda: guarded.poll("batch_1"),
            "size": lambda: guarded.size_of("file-1"),
            "results": lambda: guarded.download("file-1", io.BytesIO),
            "cancel": lambda: guarded.cancel("batch_1"),
            "delete": lambda: guarded.delete("file-1"),
            "live": lambda: guarded.call(b'{"model":"m"}', "/v1/responses"),
        }

    yield start
    for one in made:
        one.close()


NO_LISTS: list[Any] = [
    {},
    {"object": "list"},
    {"object": "list", "data": None, "has_more": False},
    {"object": "list", "data": {}, "has_more": False},
    {"object": "list", "data": [None], "has_more": False},
    {"object": "list", "data": [{"object": "batch"}], "has_more": False},
    {"object": "list", "data": [{"id": None}], "has_more": False},
    {"error": {"message": "try again"}},
    [],
    None,
    "batches",
    b"<html>sign in</html>",
    b"",
]


@pytest.mark.parametrize("body", NO_LISTS, ids=repr)
def test_what_is_no_list_of_batches_does_not_prove_that_there_is_none(saying: Any, asking: Any, body: Any) -> None:
    """Taken for an empty list, it would be proof of absence, and the batch would be paid for twice."""
    with pytest.raises(BatchctlError):
        asking(saying(body).url)["list"]()


def test_an_empty_list_is_one(saying: Any, asking: Any) -> None:
    assert asking(saying({"object": "list", "data": [], "has_more": False}).url)["list"]() == []


def test_a_list_that_never_ends_is_an_error_and_not_a_loop(saying: Any, asking: Any) -> None:
    server = saying({"object": "list", "data": [{"id": "batch_1", "created_at": 1}], "has_more": True})
    with pytest.raises(BatchctlError):
        asking(server.url)["list"]()
    assert len(server.seen) < 20


@pytest.mark.parametrize("location", ["elsewhere", "/v1/somewhere"])
def test_no_redirect_is_followed_and_no_key_leaves(saying: Any, asking: Any, location: str) -> None:
    """The SDK would carry the request, with its body, to an address that nobody configured."""
    elsewhere = saying({"id": "batch_9"})
    target = elsewhere.url if location == "elsewhere" else location
    server = saying(b"", 307, Location=target)
    for name, call in asking(server.url).items():
        with pytest.raises(BatchctlError):
            call()
        assert {path for _, path, _ in server.seen if "somewhere" in path} == set(), name
    assert elsewhere.seen == []


@pytest.mark.parametrize("name", ["create", "live"])
def test_what_spends_is_asked_once_whatever_the_answer(saying: Any, asking: Any, name: str) -> None:
    for status in (200, 307, 400, 401, 404, 408, 409, 413, 429, 500, 502, 503, 504, 529):
        server = saying({"error": {"message": "no"}}, status, x_should_retry="true", retry_after="0")
        calls = asking(server.url)
        with suppress(BatchctlError):
            calls[name]()
        assert len(server.seen) == 1, status


def refused(call: Callable[[], Any]) -> BatchctlError | None:
    try:
        call()
    except BatchctlError as error:
        return error
    return None


def test_a_gateway_that_repeats_the_key_does_not_get_it_into_an_error(saying: Any, asking: Any) -> None:
    for status in (400, 401, 404, 429, 500):
        server = saying({"error": {"message": f"bad header: Bearer {CANARY}", "code": CANARY, "type": CANARY}}, status)
        for name, call in asking(server.url).items():
            error = refused(call)
            assert error is None or CANARY not in everything(error), (name, status)


def test_credentials_in_an_address_are_not_shown(asking: Any) -> None:
    calls = asking("http://someone:hunter2-secret@127.0.0.1:1/v1")
    for name, call in calls.items():
        error = refused(call)
        assert error is not None
        assert "hunter2-secret" not in everything(error), name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "id",
    "status",
    "output_file_id",
    "error_file_id",
    "request_counts",
    "errors",
    "metadata",
    "created_at",
    "expires_at",
)
ODD_BATCH = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=9) | st.fixed_dictionaries(
    {"id": st.just("batch_1"), "status": st.sampled_from([*STATES, "?"])}, optional=dict.fromkeys(FIELDS[2:], JSON)
)


@given(batch=ODD_BATCH | JSON, has_more=JSON)
@settings(max_examples=150, deadline=None)
def test_no_answer_breaks_anything(batch: Any, has_more: Any) -> None:
    """Any JSON in any place: a status, a list, a number, or an error of ours. Never a traceback, never a guess."""
    provider = OpenAIBatch(base_url="http://127.0.0.1:1/v1", api_key=CANARY)
    answers: dict[str, Any] = {"/v1/batches": {"data": [batch], "has_more": has_more}}

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=answers.get(request.url.path, batch))

    client = openai.OpenAI(
        api_key=CANARY,
        base_url="http://127.0.0.1:1/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    )
    provider.__dict__["_sdk"] = client
    guarded = Guarded(provider, sleep=Waits())
    for act in (
        lambda: guarded.poll("batch_1"),
        lambda: guarded.find("file-1", tag=TAG, since=5),
        lambda: guarded.size_of("file-1"),
        lambda: guarded.create("file-1", endpoint="/v1/responses", tag=TAG, run="r", chunk=1),
    ):
        try:
            found = act()
        except BatchctlError:
            continue
        if isinstance(found, BatchStatus):
            assert found.batch_id == "batch_1"
            assert found.known_word == (found.vendor_status.lower() in STATES)
    client.close()


# --- the recorded lists and files ----------------------------------------------------------------------------------------


@needs_fixtures
def test_a_batch_is_found_on_the_second_page() -> None:
    pages = {None: "batches_page1", "batch_691a3f2c819081900000000000000002": "batches_page2"}
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.params.get("after"))
        return httpx2.Response(200, content=(FIXTURES / "lists" / f"{pages[asked[-1]]}.json").read_bytes())

    second = orjson.loads((FIXTURES / "lists" / "batches_page2.json").read_bytes())["data"]
    with recorded(answer) as provider:
        for wanted in second:
            found = provider.find(wanted["input_file_id"], tag="no such mark", since=0)
            assert wanted["id"] in [one.batch_id for one in found]
    assert asked[:2] == list(pages)
    empty = (FIXTURES / "lists" / "batches_empty.json").read_bytes()
    with recorded(lambda _: httpx2.Response(200, content=empty)) as provider:
        assert provider.find("file-1", tag="no such mark", since=0) == []


@needs_fixtures
def test_a_create_is_as_recorded_and_a_delete_is_believed() -> None:
    wanted = orjson.loads((FIXTURES / "requests" / "batch_create_body.json").read_bytes())
    gone = orjson.loads((FIXTURES / "files" / "deleted.json").read_bytes())
    sent: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append((request.method, request.url.path, orjson.loads(request.content or b"null")))
        return httpx2.Response(200, json=gone if request.method == "DELETE" else {"id": "batch_1"})

    with recorded(answer) as provider:
        assert (
            provider.create(wanted["input_file_id"], endpoint=wanted["endpoint"], tag="t", run="r", chunk=3)
            == "batch_1"
        )
        provider.delete(gone["id"])
    (_, _, body), deleted = sent
    assert body.keys() == wanted.keys() - {"output_expires_after"}
    assert {name: body[name] for name in body if name != "metadata"} == {
        name: wanted[name] for name in body if name != "metadata"
    }
    assert deleted == ("DELETE", f"/v1/files/{gone['id']}", None)


@needs_fixtures
@pytest.mark.parametrize("name", ["input_file", "output_file"])
def test_recorded_files_have_a_size(name: str) -> None:
    body = (FIXTURES / "files" / f"{name}.json").read_bytes()
    with recorded(lambda _: httpx2.Response(200, content=body)) as provider:
        assert provider.size_of("file-1") == orjson.loads(body)["bytes"]


@needs_fixtures
def test_recorded_requests_pass_our_own_check() -> None:
    provider = OpenAIBatch(base_url="http://127.0.0.1:1/v1", api_key=CANARY)
    for path in sorted((FIXTURES / "requests").glob("*.jsonl")):
        for line in path.read_bytes().split(b"\n")[:-1]:
            value = orjson.loads(line)
            if value["url"] in ENDPOINTS:
                assert provider.check_line(line, value["url"], value["body"]["model"]) is None, path.name


def recorded(answer: Any) -> Any:
    provider = OpenAIBatch(base_url="http://127.0.0.1:1/v1", api_key=CANARY)
    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    provider.__dict__["_sdk"] = openai.OpenAI(
        api_key=CANARY, base_url="http://127.0.0.1:1/v1", max_retries=0, http_client=http
    )
    return closing(provider)
