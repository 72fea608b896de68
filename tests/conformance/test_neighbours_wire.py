"""Objects, lists, lines and errors of OpenAI's neighbours as the wire contract's fixtures have them, and their settings."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import openai
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchctl.judging.decide import Judge
from batchctl.judging.openai import openai_line
from batchctl.judging.openai_errors import class_of
from batchctl.model.batches import Ask, BatchState, BatchStatus, Refusal
from batchctl.model.errors import BatchctlError, NotAllowed, NotFound, OutcomeUnknown, Rejected, Throttled, UsageError
from batchctl.model.rows import Reason, Retry, RowState
from batchctl.providers import KNOWN, mistral, provider_for, together
from batchctl.providers.azure import AzureBatch
from batchctl.providers.guard import Guarded
from batchctl.providers.mistral import MistralBatch
from batchctl.providers.openai import OpenAIBatch
from batchctl.providers.openai import status_of as openai_status
from batchctl.providers.params import FLAT_EFFORT, in_words_of
from batchctl.providers.profiles import AZURE, BILLING_CODES, BY_HOST, CHAT, COMPATIBLE, EMBEDDINGS, RESPONSES, Profile
from batchctl.providers.together import TogetherBatch
from batchctl.providers.vllm import VllmFiles
from tests.conformance.contract import CANARY, SCHEMA, TAG, Waits, everything
from tests.conftest import SHARED

FIXTURES = SHARED / "contracts" / "fixtures-compat"
AZURE_FIXTURES = SHARED / "contracts" / "fixtures-openai" / "azure"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the wire fixtures are not beside the checkout")
GROQ = BY_HOST["api.groq.com"]
RUNNING, ENDED, REFUSED = BatchState.RUNNING, BatchState.ENDED, BatchState.REFUSED

# Each batch object: our state, the kinds of result files it names, whether it owes results, whether its time was over.
OBJECTS: dict[str, tuple[BatchState, set[str], bool, bool]] = {
    "groq/completed": (ENDED, {"output"}, True, False),
    "groq/validating_7d": (RUNNING, set(), False, False),
    "mistral/queued": (RUNNING, set(), False, False),
    "mistral/running": (RUNNING, set(), False, False),
    "mistral/success_mixed": (ENDED, {"output", "errors"}, True, False),
    "mistral/failed": (REFUSED, set(), False, False),
    "mistral/timeout_exceeded": (ENDED, {"output"}, False, True),
    "mistral/cancellation_requested": (RUNNING, set(), False, False),
    "mistral/cancelled": (ENDED, set(), False, False),
    "together/in_progress": (RUNNING, set(), False, False),
    "together/completed": (ENDED, {"output", "errors"}, True, False),
    "together/failed": (REFUSED, set(), False, False),
    "together/expired": (ENDED, set(), False, True),
    "together/cancelled": (ENDED, set(), False, False),
}
OTHERS = {"mistral/list", "together/list", "together/create_response"}


def load(name: str) -> Any:
    return orjson.loads((FIXTURES / f"{name}.json").read_bytes())


def status_of(name: str, job: Any) -> BatchStatus:
    vendor = name.split("/")[0]
    if vendor == "groq":
        return openai_status(job, GROQ)
    return mistral.status_of(job) if vendor == "mistral" else together.status_of(job)


@needs_fixtures
def test_every_recorded_object_is_listed() -> None:
    found = {f"{path.parent.name}/{path.stem}" for path in FIXTURES.glob("*/*.json")}
    assert found == set(OBJECTS) | OTHERS


@needs_fixtures
@pytest.mark.parametrize("name", OBJECTS)
def test_recorded_objects(name: str) -> None:
    state, files, owes, late = OBJECTS[name]
    status = status_of(name, load(name))
    assert (status.state, {kind for kind, _ in status.files}) == (state, files)
    assert (status.owes_results, status.out_of_time) == (owes, late)
    assert status.known_word
    assert status.refusal is (Refusal.FILE if state is REFUSED else None)
    assert bool(status.errors) is (name in ("mistral/failed", "mistral/success_mixed", "together/failed"))


@needs_fixtures
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mistral/failed", {"output_file": "5c1f"}),
        ("mistral/failed", {"succeeded_requests": 1}),
        ("together/failed", {"output_file_id": "file-1"}),
        ("together/failed", {"progress": 12.5}),
    ],
)
def test_a_job_that_failed_half_way_is_harvested_and_not_sent_again(name: str, change: dict[str, Any]) -> None:
    status = status_of(name, load(name) | change)
    assert status.state is ENDED
    assert status.refusal is None


@needs_fixtures
@pytest.mark.parametrize("name", ["mistral/queued", "together/in_progress", "groq/completed"])
@pytest.mark.parametrize("word", ["PAUSED", "", None, 7, "succeeded"])
def test_a_word_nobody_told_us_is_waited_on(name: str, word: Any) -> None:
    status = status_of(name, load(name) | {"status": word})
    assert status.state is RUNNING
    assert not status.known_word


@needs_fixtures
def test_azure_objects_of_either_api_are_read() -> None:
    for path in AZURE_FIXTURES.glob("*.json"):
        batch = orjson.loads(path.read_bytes())
        plain = openai_status(batch, AZURE)
        dated = openai_status(batch | {"status": str(batch["status"]).capitalize()}, AZURE)
        assert plain.state is dated.state, path.name
        assert plain.known_word
        assert dated.known_word
        assert plain.expires_at == batch["expires_at"]
    text = openai_status({"id": "b", "status": "Validating", "expires_at": "2024-07-20T17:13:57.1918498+00:00"}, AZURE)
    assert text.expires_at == 1721495637


# --- lines --------------------------------------------------------------------------------------------------------------

VLLM = {
    "row-000001": (RowState.COMPLETED, None, Retry.NONE, True, ""),
    "row-000002": (RowState.PROVIDER_ERROR, Reason.PROVIDER, Retry.NEVER, False, "400, BadRequestError: max_tokens is"),
    "row-000003": (RowState.PROVIDER_ERROR, Reason.PROVIDER, Retry.NEVER, False, "400, The model does not support"),
}


@needs_fixtures
def test_lines_of_vllm_are_judged() -> None:
    lines = [orjson.loads(line) for line in (FIXTURES / "vllm/output.jsonl").read_bytes().split(b"\n") if line]
    assert [one["custom_id"] for one in lines] == list(VLLM)
    for line in lines:
        verdict = Judge().verdict(openai_line(line, CHAT))
        *expected, shows = VLLM[line["custom_id"]]
        assert [verdict.state, verdict.reason, verdict.retry, verdict.paid] == expected
        assert shows in verdict.detail


@needs_fixtures
def test_a_recorded_request_of_mistral_is_ours_without_its_model() -> None:
    provider = MistralBatch(api_key=CANARY)
    line = orjson.loads((FIXTURES / "mistral/requests.jsonl").read_bytes())
    body, _ = provider.body(
        Ask(
            endpoint=CHAT,
            model="mistral-small-latest",
            prompt="hi",
            system=None,
            params={"max_output_tokens": 100},
            schema=None,
            mode="native",
            schema_name="s",
        )
    )
    assert {key: value for key, value in body.items() if key != "model"} == line["body"]


def said(message: dict[str, Any], finish: str) -> Any:
    body = {"choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}]}
    return {"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None}


@pytest.mark.parametrize(
    ("line", "state", "detail"),
    [
        (said({"content": "yes"}, "eos"), RowState.COMPLETED, ""),
        (said({"content": "ye"}, "model_length"), RowState.INVALID_OUTPUT, "model_length"),
        (said({"content": "?"}, "error"), RowState.PROVIDER_ERROR, "finish_reason"),
        (
            said({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "yes"}]}, "stop"),
            RowState.COMPLETED,
            "",
        ),
        (
            said({"content": "", "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]}, "tool_calls"),
            RowState.COMPLETED,
            "",
        ),
        (
            {"custom_id": "a", "error": {"message": "Invalid model specified", "code": "invalid_model"}},
            RowState.PROVIDER_ERROR,
            "invalid_model: Invalid model specified",
        ),
        (
            {
                "custom_id": "a",
                "response": {"status_code": 422, "body": {"object": "error", "message": "bad", "type": "invalid"}},
                "error": None,
            },
            RowState.PROVIDER_ERROR,
            "422, invalid: bad",
        ),
        (
            {
                "custom_id": "a",
                "response": {
                    "status_code": 422,
                    "body": {
                        "object": "error",
                        "message": {"detail": [{"msg": "no"}]},
                        "type": "invalid",
                        "code": None,
                    },
                },
            },
            RowState.PROVIDER_ERROR,
            '422, invalid: [{"msg":"no"}]',
        ),
        (
            {
                "custom_id": "a",
                "response": {"status_code": 401, "body": {"message": "Unauthorized", "request_id": "1"}},
            },
            RowState.PROVIDER_ERROR,
            "401, Unauthorized",
        ),
    ],
)
def test_lines_as_neighbours_write_them(line: Any, state: RowState, detail: str) -> None:
    verdict = Judge().verdict(openai_line(line, CHAT))
    assert verdict.state is state
    assert detail in verdict.detail


# --- calls, answered from a table ---------------------------------------------------------------------------------------


def answering(provider: Any, answer: Callable[[httpx2.Request], httpx2.Response]) -> Any:
    """The provider, talking to a function."""
    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    provider.__dict__["_sdk"] = openai.OpenAI(
        api_key=CANARY, base_url=provider._base_url, max_retries=0, http_client=http
    )
    return closing(provider)


@needs_fixtures
def test_recorded_lists_are_searched() -> None:
    body = (FIXTURES / "mistral/list.json").read_bytes()
    with answering(MistralBatch(api_key=CANARY), lambda _: httpx2.Response(200, content=body)) as one:
        job = load("mistral/list")["data"][0]
        assert [found.batch_id for found in one.find(job["input_files"][0], tag="no such", since=0)] == [job["id"]]
        assert one.find("another", tag="no such", since=0) == []
    body = (FIXTURES / "together/list.json").read_bytes()
    with answering(TogetherBatch(api_key=CANARY), lambda _: httpx2.Response(200, content=body)) as two:
        job = load("together/list")[0]
        found = two.find(job["input_file_id"], tag="", since=0)
        assert [(one.batch_id, one.created_at) for one in found] == [(job["id"], 1794873600)]
        assert two.find("another", tag="", since=0) == []


@needs_fixtures
def test_a_recorded_answer_to_a_create_gives_the_id_of_the_job() -> None:
    body = (FIXTURES / "together/create_response.json").read_bytes()
    with answering(TogetherBatch(api_key=CANARY), lambda _: httpx2.Response(200, content=body)) as provider:
        made = provider.create("file-1", endpoint=CHAT, tag=TAG, run="r", chunk=1)
    assert made == load("together/create_response")["job"]["id"]


@pytest.mark.parametrize("provider", [MistralBatch, TogetherBatch, OpenAIBatch])
def test_an_id_that_a_person_typed_stays_one_part_of_the_path(provider: Any) -> None:
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.raw_path)
        return httpx2.Response(404, json={})

    with answering(provider(api_key=CANARY), answer) as one:
        for act in (one.poll, one.cancel):
            with pytest.raises(openai.NotFoundError):
                act("../files?x=1")
    assert all(b"/..%2Ffiles%3Fx%3D1" in path for path in asked), asked


def test_an_id_that_a_person_typed_stays_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_bytes(b"{}\n")
    with pytest.raises(NotFound):
        VllmFiles(folder=tmp_path / "vllm").poll("../secret")


def test_every_page_of_jobs_is_read() -> None:
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(int(request.url.params["page"]))
        jobs = [
            {"id": f"j{asked[-1]}-{n}", "input_files": [f"f{asked[-1]}-{n}"], "status": "RUNNING"} for n in range(2)
        ]
        return httpx2.Response(200, json={"object": "list", "data": jobs, "total": 6})

    with answering(MistralBatch(api_key=CANARY), answer) as provider:
        assert [one.batch_id for one in provider.find("f2-1", tag="", since=0)] == ["j2-1"]
    assert asked == [0, 1, 2]


@pytest.mark.parametrize("provider", [MistralBatch, TogetherBatch])
@pytest.mark.parametrize(
    "body", [{}, {"data": []}, {"data": None, "total": 3}, {"data": [{}], "total": 1}, [{}], [None], None, "jobs"]
)
def test_what_is_no_list_of_jobs_does_not_prove_that_there_is_none(provider: Any, body: Any) -> None:
    answer = httpx2.Response(200, json=body)
    with answering(provider(api_key=CANARY), lambda _: answer) as one, pytest.raises(OutcomeUnknown):
        one.find("file-1", tag=TAG, since=0)


def test_a_list_that_ends_too_early_is_no_list() -> None:
    answer = httpx2.Response(200, json={"object": "list", "data": [], "total": 4})
    with answering(MistralBatch(api_key=CANARY), lambda _: answer) as provider, pytest.raises(OutcomeUnknown):
        provider.find("file-1", tag=TAG, since=0)


MISTRAL_429 = {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"}
MISTRAL_TIER = {"object": "error", "message": "Service tier capacity exceeded", "type": "invalid_request_error"}
CUT_OFF = {"message": "Organization has been restricted.", "type": "invalid_request_error"}
# Each vendor's forms: status, body, what it means for a create, whether it is a matter of money. Sources: the wire
# contract; console.groq.com/docs/errors and .../spend-limits; docs.together.ai/docs/error-codes; read 2026-11-21.
FORMS: list[tuple[str, int, Any, type[BatchctlError], bool]] = [
    ("azure", 401, {"statusCode": 401, "message": "Unauthorized. Access token is missing"}, NotAllowed, False),
    ("azure", 401, {"error": {"code": "401", "message": "Access denied due to invalid key"}}, NotAllowed, False),
    ("azure", 403, {"error": {"code": "403", "message": "Access denied due to Virtual Network"}}, NotAllowed, False),
    ("azure", 404, {"error": {"code": "DeploymentNotFound", "message": "no deployment"}}, NotFound, False),
    ("azure", 404, {"error": {"code": "404", "message": "Resource not found"}}, NotFound, False),
    ("azure", 400, {"error": {"code": "invalidPayload", "message": "bad"}}, Rejected, False),
    ("azure", 429, {"error": {"code": "429", "message": "Requests have exceeded the limit"}}, Throttled, False),
    ("azure", 429, {"error": {"code": "insufficient_quota", "type": "insufficient_quota"}}, Throttled, True),
    ("azure", 500, {"error": {"code": "InternalServerError", "message": "try later"}}, OutcomeUnknown, False),
    ("azure", 503, "<html>Service Unavailable</html>", OutcomeUnknown, False),
    ("mistral", 401, {"message": "Unauthorized", "request_id": "1"}, NotAllowed, False),
    ("mistral", 401, {"detail": "Unauthorized"}, NotAllowed, False),
    ("mistral", 402, {"error": {"message": "Payment required", "type": "credit_limit"}}, Throttled, True),
    ("mistral", 422, {"object": "error", "message": {"detail": []}, "type": "invalid_request_error"}, Rejected, False),
    ("mistral", 422, {"detail": [{"loc": ["body"], "msg": "missing"}]}, Rejected, False),
    ("mistral", 429, MISTRAL_429, Throttled, False),
    ("mistral", 429, MISTRAL_TIER, Throttled, False),
    ("mistral", 529, {"error": "overloaded"}, OutcomeUnknown, False),
    ("together", 400, {"error": {"message": "bad", "type": "invalid_request_error"}}, Rejected, False),
    ("together", 401, {"error": {"message": "no", "code": "invalid_api_key"}}, NotAllowed, False),
    ("together", 402, {"error": {"message": "Credit limit exceeded", "type": "credit_limit"}}, Throttled, True),
    ("together", 402, "", Throttled, True),
    ("together", 403, {"error": {"message": "no access", "type": "invalid_request_error"}}, NotAllowed, False),
    ("together", 404, {"error": {"message": "no model", "code": "model_not_available"}}, NotFound, False),
    ("together", 429, {"error": {"message": "slow down", "type": "rate_limit"}}, Throttled, False),
    ("together", 503, {"error": {"message": "overloaded", "type": "service_unavailable"}}, OutcomeUnknown, False),
    ("together", 524, "", OutcomeUnknown, False),
    ("groq", 400, {"error": {"message": "bad", "type": "invalid_request_error"}}, Rejected, False),
    ("groq", 400, {"error": {"message": "Spend limit", "code": "blocked_api_access"}}, Throttled, True),
    ("groq", 400, {"error": {**CUT_OFF, "code": "organization_restricted"}}, NotAllowed, False),
    ("groq", 401, {"error": {"message": "Invalid API Key", "code": "invalid_api_key"}}, NotAllowed, False),
    ("groq", 403, {"error": {"message": "no", "type": "permissions_error"}}, NotAllowed, False),
    ("groq", 404, {"error": {"message": "no model", "code": "model_not_found"}}, NotFound, False),
    ("groq", 413, {"error": {"message": "too large", "code": "rate_limit_exceeded"}}, Rejected, False),
    ("groq", 422, {"error": {"message": "no", "type": "invalid_request_error"}}, Rejected, False),
    ("groq", 429, {"error": {"type": "tokens", "code": "rate_limit_exceeded"}}, Throttled, False),
    ("groq", 498, {"error": {"message": "capacity", "code": "capacity_exceeded"}}, OutcomeUnknown, False),
    ("groq", 500, {"error": {"message": "sorry", "code": "blocked_api_access"}}, OutcomeUnknown, False),
]


def neighbour(vendor: str) -> Any:
    if vendor == "azure":
        return AzureBatch(base_url="https://res.openai.azure.com", api_key=CANARY)
    if vendor == "groq":
        return OpenAIBatch(profile=GROQ, base_url="https://api.groq.com/openai/v1", api_key=CANARY)
    return {"mistral": MistralBatch, "together": TogetherBatch}[vendor](api_key=CANARY)


def answer_of(status: int, body: Any, **headers: str) -> httpx2.Response:
    given = {"content": body.encode()} if isinstance(body, str) else {"json": body}
    return httpx2.Response(status, headers=headers, **given)


@pytest.mark.parametrize(("vendor", "status", "body", "kind", "billing"), FORMS)
def test_errors_in_each_vendors_forms(
    vendor: str, status: int, body: Any, kind: type[BatchctlError], billing: bool
) -> None:
    said = answer_of(status, body, **{"retry-after": "7"})
    with answering(neighbour(vendor), lambda _: said) as provider, pytest.raises(kind) as raised:
        Guarded(provider, sleep=Waits()).create("f", endpoint=CHAT, tag=TAG, run="r", chunk=1)
    assert type(raised.value) is kind
    assert getattr(raised.value, "billing", False) is billing
    if kind is Throttled and not billing:
        assert raised.value.wait_seconds == 7
    assert CANARY not in everything(raised.value)


@pytest.mark.parametrize(("vendor", "status", "body", "kind", "billing"), FORMS)
def test_one_live_request_is_a_row_only_where_the_error_is_about_it(
    vendor: str, status: int, body: Any, kind: type[BatchctlError], billing: bool
) -> None:
    """Money and keys are everybody's: told as such by either way of asking, or the next row would only meet the same."""
    said = answer_of(status, body)
    with answering(neighbour(vendor), lambda _: said) as provider:
        error = provider.live_error(status, {}, body)
        if kind is Rejected or status == 498:
            assert error is None
            assert provider.call(b"{}", CHAT).status == status
            return
        assert (type(error), getattr(error, "billing", False)) == (kind, billing)
        with pytest.raises(openai.APIStatusError) as raised:
            provider.call(b"{}", CHAT)
        meant = provider.outcome(raised.value)
    assert (type(meant), getattr(meant, "billing", False)) == (kind, billing)


def test_the_judge_and_the_providers_know_the_same_codes_of_money() -> None:
    for code in BILLING_CODES:
        assert class_of(400, code, "") == (Reason.PROVIDER, Retry.BILLING)


@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        ("token_limit_exceeded", Refusal.CAPACITY),
        ("input_modified", Refusal.ACCESS),
        ("input_no_permissions", Refusal.ACCESS),
        ("too_many_tasks", Refusal.FILE),
        ("url_mismatch", Refusal.FILE),
        ("model_mismatch", Refusal.FILE),
        ("model_not_found", Refusal.FILE),
        ("empty_file", Refusal.FILE),
        ("duplicate_custom_id", Refusal.FILE),
        ("insufficient_quota", Refusal.BILLING),
    ],
)
def test_a_batch_that_azure_refuses_says_whether_its_file_is_wrong(code: str, refusal: Refusal) -> None:
    errors = {"object": "list", "data": [{"code": code, "message": "m", "line": None, "param": None}]}
    assert openai_status({"id": "b", "status": "failed", "errors": errors}, AZURE).refusal is refusal


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = """status input_files input_file_id metadata errors error output_file error_file output_file_id error_file_id progress
total_requests succeeded_requests failed_requests created_at job_deadline total data job"""
ODD_JOB = st.fixed_dictionaries({"id": st.just("j1")}, optional=dict.fromkeys(FIELDS.split(), JSON))


@pytest.mark.parametrize("provider", [MistralBatch, TogetherBatch])
@given(job=ODD_JOB | JSON, total=JSON)
@settings(max_examples=80, deadline=None)
def test_no_answer_breaks_anything(provider: Any, job: Any, total: Any) -> None:
    """Any JSON in any place: a status, a list, a number, or an error of ours. Never a traceback, never a guess."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET" and request.url.path.endswith("/jobs"):
            return httpx2.Response(200, json={"data": [job], "total": total})
        if request.method == "GET" and request.url.path.endswith("/batches"):
            return httpx2.Response(200, json=[job])
        return httpx2.Response(200, json=job)

    with answering(provider(api_key=CANARY), answer) as one:
        guarded = Guarded(one, sleep=Waits())
        for act in (
            lambda: guarded.poll("j1"),
            lambda: guarded.find("file-1", tag=TAG, since=5),
            lambda: guarded.size_of("file-1"),
            lambda: guarded.create("file-1", endpoint=CHAT, tag=TAG, run="r", chunk=1),
        ):
            try:
                found = act()
            except BatchctlError:
                continue
            if isinstance(found, BatchStatus):
                assert found.batch_id == "j1"
                assert found.known_word == (found.vendor_status.lower() in one.profile.states)


def upload(location: str, status: int = 302, **more: str) -> Callable[[httpx2.Request], httpx2.Response]:
    headers = {"Location": location, "X-Together-File-Id": "file-1", **more}

    def answer(request: httpx2.Request) -> httpx2.Response:
        announced = request.url.path.endswith("/files")
        return httpx2.Response(status if announced else 200, headers=headers, json={"file_id": "file-0"})

    return answer


def test_bytes_go_to_the_signed_address_without_the_key(tmp_path: Path) -> None:
    chunk = tmp_path / "1.jsonl"
    chunk.write_bytes(b"{}\n")
    seen: list[httpx2.Request] = []

    def storage(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        assert request.read() == b"{}\n"
        return httpx2.Response(200)

    with answering(TogetherBatch(api_key=CANARY), upload("https://storage.example/x?sign=1")) as provider:
        provider.__dict__["_storage"] = httpx2.Client(transport=httpx2.MockTransport(storage))
        assert provider.stage(chunk, name="1.jsonl") == "file-1"
    assert [str(one.url) for one in seen] == ["https://storage.example/x?sign=1"]
    assert CANARY not in str(seen[0].headers)
    with answering(TogetherBatch(api_key=CANARY), upload("", 409)) as provider:
        assert provider.stage(chunk, name="1.jsonl") == "file-0", "the same bytes are there already"


@pytest.mark.parametrize("location", ["http://storage.example/x", "", "ftp://storage.example", "http://127.0.0.1:1/x"])
def test_no_bytes_go_to_an_address_that_is_not_safe(location: str, tmp_path: Path) -> None:
    chunk = tmp_path / "1.jsonl"
    chunk.write_bytes(b"{}\n")
    with answering(TogetherBatch(api_key=CANARY), upload(location)) as provider, pytest.raises(OutcomeUnknown):
        provider.stage(chunk, name="1.jsonl")


def test_inputs_at_azure_expire_so_that_there_may_be_many(tmp_path: Path) -> None:
    chunk = tmp_path / "1.jsonl"
    chunk.write_bytes(b"{}\n")
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.read())
        return httpx2.Response(200, json={"id": "file-1"})

    for version in (None, "2026-04-01"):
        provider = AzureBatch(base_url="https://res.openai.azure.com", api_key=CANARY, api_version=version)
        with answering(provider, answer):
            assert provider.stage(chunk, name="1.jsonl") == "file-1"
    assert b"2592000" in seen[0]
    assert b"expires_after" not in seen[1]


# --- settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "version", "address"),
    [
        ("https://res.openai.azure.com", None, "https://res.openai.azure.com/openai/v1"),
        ("https://res.openai.azure.com/", None, "https://res.openai.azure.com/openai/v1"),
        ("https://res.openai.azure.com/openai/v1/", None, "https://res.openai.azure.com/openai/v1"),
        ("https://res.openai.azure.com/openai/v1/", "2026-04-01", "https://res.openai.azure.com/openai"),
    ],
)
def test_addresses_of_azure(given: str, version: str | None, address: str) -> None:
    assert AzureBatch(base_url=given, api_version=version)._base_url == address


@pytest.mark.parametrize("given", ["https://api.example", "https://api.example/", "https://api.example/v1"])
@pytest.mark.parametrize("provider", [MistralBatch, TogetherBatch])
def test_addresses_with_and_without_a_version_are_one(provider: Any, given: str) -> None:
    assert provider(base_url=given)._base_url == "https://api.example/v1"


def test_each_vendor_has_its_usual_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {
        "azure-openai": "AZURE_OPENAI_API_KEY",
        "mistral": "MISTRAL_API_KEY",
        "together": "TOGETHER_API_KEY",
        "openai-compatible": "OPENAI_API_KEY",
    }
    for variable in usual.values():
        monkeypatch.delenv(variable, raising=False)
    for name, variable in usual.items():
        settings = {"base_url": "https://api.example/v1"}
        with pytest.raises(NotAllowed) as raised:
            provider_for(name, settings).account()
        assert variable in raised.value.what
        monkeypatch.setenv(variable, CANARY)
        assert provider_for(name, settings).account() != provider_for(name, settings | {"api_key": "x"}).account()
    for host, variable in (("api.groq.com/openai", "GROQ_API_KEY"), ("api.doubleword.ai", "DOUBLEWORD_API_KEY")):
        one = provider_for("openai-compatible", {"base_url": f"https://{host}/v1"})
        assert one.traits.credentials == (variable,)
    own = provider_for("mistral", {"key_name": "OUR_KEY"})
    assert own.traits.credentials == ("OUR_KEY",)


def test_azure_takes_a_token_and_an_endpoint_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", CANARY)
    with pytest.raises(UsageError) as raised:
        provider_for("azure-openai", {}).account()
    assert "AZURE_OPENAI_ENDPOINT" in raised.value.hint
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://res.openai.azure.com/")
    for more in ({}, {"api_version": "2026-04-01"}):
        provider = provider_for("azure-openai", more)
        assert provider.account()
        request = provider._sdk._build_request(  # type: ignore[attr-defined]
            openai._models.FinalRequestOptions.construct(method="get", url="/batches")
        )
        assert CANARY in request.headers.get("Authorization", "") or provider._sdk._azure_ad_token == CANARY  # type: ignore[attr-defined]
        provider.close()


def test_what_is_for_openai_is_not_told_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(variable, "org-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: org-secret")
    for name in sorted(KNOWN.keys() & {"azure-openai", "mistral", "together", "openai-compatible"}):
        for more in ({}, {"api_version": "2026-04-01"}):
            provider = provider_for(name, {"base_url": "https://api.example/v1", "api_key": CANARY, **more})
            sdk = provider._sdk  # type: ignore[attr-defined]
            request = sdk._build_request(openai._models.FinalRequestOptions.construct(method="get", url="/files"))
            assert "org-secret" not in str(request.headers), name
            assert CANARY in (request.headers.get("Authorization") or "") + (request.headers.get("api-key") or "")
            assert sdk.max_retries == 0
            assert sdk._client.follow_redirects is False
            provider.close()


@pytest.mark.parametrize(
    ("profile", "endpoint", "params", "sent"),
    [
        (COMPATIBLE, CHAT, {"max_output_tokens": 9}, {"max_tokens": 9}),
        (COMPATIBLE, CHAT, {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        (GROQ, CHAT, {"max_output_tokens": 9}, {"max_completion_tokens": 9}),
        (AZURE, CHAT, {"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        (
            AZURE,
            RESPONSES,
            {"reasoning_effort": "low", "max_tokens": 9},
            {"reasoning": {"effort": "low"}, "max_output_tokens": 9},
        ),
        (AZURE, RESPONSES, {"reasoning": {"effort": "low"}}, {"reasoning": {"effort": "low"}}),
        (
            COMPATIBLE,
            CHAT,
            {"reasoning": {"effort": "low", "summary": "auto"}},
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        (COMPATIBLE, CHAT, {"top_k": 3}, {"top_k": 3}),
        (COMPATIBLE, EMBEDDINGS, {"dimensions": 3}, {"dimensions": 3}),
    ],
)
def test_settings_are_sent_in_the_words_of_the_endpoint(
    profile: Profile, endpoint: str, params: dict[str, Any], sent: dict[str, Any]
) -> None:
    provider = OpenAIBatch(profile=profile, base_url="https://api.example/v1")
    given: dict[str, Any] = {"system": None, "schema": None, "mode": "native", "schema_name": "s"}
    plain, _ = provider.body(Ask(endpoint=endpoint, model="m", prompt="p", params={}, **given))
    body, notes = provider.body(Ask(endpoint=endpoint, model="m", prompt="p", params=params, **given))
    assert body == plain | sent
    assert len(notes) == len(params.keys() - sent.keys())


def test_two_names_for_one_setting_are_one_too_many() -> None:
    with pytest.raises(UsageError):
        in_words_of({"max_tokens": 1, "max_output_tokens": 2}, caps=("max_tokens",), effort=FLAT_EFFORT)


@pytest.mark.parametrize("name", ["openai-compatible", "azure-openai", "mistral", "together"])
@pytest.mark.parametrize("mode", ["native", "tool"])
def test_one_schema_becomes_the_form_of_each(name: str, mode: str) -> None:
    provider = provider_for(name, {"base_url": "https://api.example/v1"})
    body, notes = provider.body(
        Ask(
            endpoint=CHAT,
            model="m",
            prompt="p",
            system=None,
            params={},
            schema={**SCHEMA, "properties": {"label": {"type": "string", "minLength": 2}}},
            mode=mode,
            schema_name="answer",
        )
    )
    part = body["tools"][0]["function"] if mode == "tool" else body["response_format"]["json_schema"]
    assert part["strict"] is True
    assert "minLength" not in str(part)
    assert any("minLength" in note for note in notes)


def test_a_download_is_what_was_sent() -> None:
    answer = httpx2.Response(200, content=b"a\xe2\x80\xa8b\n")
    with answering(MistralBatch(api_key=CANARY), lambda _: answer) as provider:
        out = io.BytesIO()
        assert Guarded(provider, sleep=Waits()).download("f", lambda: out) == 6
    assert out.getvalue() == b"a\xe2\x80\xa8b\n"
