"""The provider contract, kept by the Bedrock module against the emulator and a real S3 server; and what is its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchctl.chunks.splice import cut
from batchctl.emulator.bedrock_checks import create, record_body
from batchctl.emulator.wire import WireError
from batchctl.judging.bedrock import bedrock_line
from batchctl.judging.decide import Judge
from batchctl.model.batches import Ask, BatchState, Refusal, Request
from batchctl.model.errors import (
    BatchctlError,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Throttled,
    UsageError,
)
from batchctl.model.ids import custom_id
from batchctl.model.rows import Reason, Usage
from batchctl.providers import aws
from batchctl.providers import bedrock as module
from batchctl.providers.bedrock import STATES, BedrockBatch, status_of
from batchctl.providers.bedrock_body import CONVERSE, INVOKE, Family, endpoints_of, family_of
from batchctl.providers.guard import Guarded
from tests.conformance.contract import CANARY, SCHEMA, TAG, WIDE, ProviderContract, Waits, everything
from tests.conftest import SHARED, NewProvider
from tests.support.bedrock import CLAUDE, KEYS, REGION, ROLE, S3, BedrockEmulated


class TestBedrock(ProviderContract):
    endpoints = (CONVERSE,)
    vendor_states = STATES
    model = CLAUDE
    words = {"completed": "Completed", "expired": "PartiallyCompleted", "cancelled": "Stopped"}  # noqa: RUF012
    id_field = "recordId"
    modes = ("native", "prompt")
    harvest = {"expired": 2, "cancelled": 2}  # noqa: RUF012

    def build(self, server: BedrockEmulated | str | None, *, key: str = CANARY, role: str = ROLE) -> BedrockBatch:
        url = server.url if isinstance(server, BedrockEmulated) else server or "http://127.0.0.1:1"
        return BedrockBatch(
            model=CLAUDE,
            region=REGION,
            bucket=server.bucket if isinstance(server, BedrockEmulated) else "bucket",
            role_arn=role,
            base_url=url,
            s3_url=f"{url}/s3",
            access_key="AKIDEXAMPLE" if key else "",
            secret_key=key,
        )

    def elsewhere(self, server: Any) -> BedrockBatch:
        """Keys change every hour under a role; the account and the region are who it is."""
        return self.build(server, role=ROLE.replace("123456789012", "210987654321"))

    def sdk_states(self) -> set[str]:
        import boto3

        client = boto3.client("bedrock", region_name=REGION, aws_access_key_id="a", aws_secret_access_key="b")
        return set(client.meta.service_model.shape_for("ModelInvocationJobStatus").enum)

    def shorten_timeouts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(aws, "ANSWER_SECONDS", 0.5)

    @pytest.fixture
    def server(self, new_provider: NewProvider, s3: S3) -> BedrockEmulated:
        return BedrockEmulated(new_provider(s3=s3.url, least_records=5), s3.bucket())

    @pytest.fixture
    def slow_server(self, new_provider: NewProvider, s3: S3) -> BedrockEmulated:
        return BedrockEmulated(new_provider(s3=s3.url, least_records=5, latency="1h"), s3.bucket())

    # --- what is its own -------------------------------------------------------------------------------------------

    def test_other_arguments_under_a_used_token_conflict_and_are_unknown(
        self, guarded: Guarded, server: BedrockEmulated, chunk: Path
    ) -> None:
        staged = guarded.stage(chunk, name=f"{TAG}.jsonl")
        batch_id = self.create(guarded, staged)
        other = guarded.stage(chunk, name="other.jsonl")
        with pytest.raises(OutcomeUnknown):
            self.create(guarded, other)
        assert server.batches() == [batch_id]

    def test_a_job_that_could_not_read_its_input_says_so(
        self, guarded: Guarded, slow: Guarded, slow_server: BedrockEmulated, chunk: Path
    ) -> None:
        staged = slow.stage(chunk, name=f"{TAG}.jsonl")
        batch_id = self.create(slow, staged)
        slow.delete(staged)
        slow_server.provider.force(batch_id.rpartition("/")[2], status="completed")
        slow_server.settle(batch_id)
        assert slow.poll(batch_id).refusal is Refusal.ACCESS

    def test_too_few_records_fail_in_validation(self, new_provider: NewProvider, s3: S3, chunk: Path) -> None:
        server = BedrockEmulated(new_provider(s3=s3.url), s3.bucket())
        provider = self.build(server)
        guarded = Guarded(provider, sleep=Waits())
        _, status = self.ended(guarded, server, chunk)
        assert (status.state, status.refusal) == (BatchState.REFUSED, Refusal.FILE)
        assert "below the minimum (100)" in status.errors[0].message
        assert server.rows_billed() == 0
        provider.close()

    def test_counts_and_tokens_a_job_does_not_show_are_the_manifests(
        self, guarded: Guarded, server: BedrockEmulated, chunk: Path
    ) -> None:
        batch_id, status = self.ended(guarded, server, chunk)
        names = ("totalRecordCount", "processedRecordCount", "successRecordCount", "errorRecordCount")
        assert status.counts == {"total": 5, "processed": 5, "completed": 5, "failed": 0}
        assert status.usage is not None
        server.show(batch_id, **dict.fromkeys(names))
        assert guarded.poll(batch_id).counts == status.counts

    def test_a_full_queue_is_told_from_throttling(self, slow: Guarded, chunk: Path) -> None:
        staged = slow.stage(chunk, name=f"{TAG}.jsonl")
        for number in range(20):
            self.create(slow, staged, f"bc-{number}")
        with pytest.raises(Throttled) as raised:
            self.create(slow, staged, "bc-20")
        assert (raised.value.code, raised.value.billing) == ("queue_full", False)

    def test_a_job_on_a_later_page_is_found(
        self, slow: Guarded, slow_server: BedrockEmulated, chunk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "PAGE_JOBS", 2)
        staged = slow.stage(chunk, name=f"{TAG}.jsonl")
        first = self.create(slow, staged)
        for number in range(5):
            self.create(slow, slow.stage(chunk, name=f"other-{number}.jsonl"), f"bc-{number}")
        assert [one.batch_id for one in slow.find(staged, tag=TAG, since=0)] == [first]
        assert slow.find(staged, tag=TAG, since=2**33) == []

    def test_a_bearer_token_over_http_is_explained(
        self, server: BedrockEmulated, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-x")
        provider = self.build(server)
        with pytest.raises(NotAllowed) as raised:
            Guarded(provider, sleep=Waits()).poll("arn:aws:bedrock:us-east-1:1:model-invocation-job/x")
        assert "AWS_BEARER_TOKEN_BEDROCK" in raised.value.hint
        provider.close()


# --- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("role_arn", "batchctl-role"),
        ("role_arn", None),
        ("bucket", "UPPER"),
        ("bucket", "bucket/dt=2026-11-01"),
        ("bucket", None),
        ("bucket", "bucket/with space"),
        ("model", ""),
    ],
)
def test_what_the_service_would_refuse_is_refused_before_anything_is_sent(key: str, value: str | None) -> None:
    keys = {"region": REGION, "bucket": "bucket/some/folder", "role_arn": ROLE, "model": CLAUDE}
    BedrockBatch(**keys, access_key="A", secret_key="B").account()
    with pytest.raises(UsageError) as raised:
        BedrockBatch(**keys | {key: value}, access_key="A", secret_key="B").account()
    assert raised.value.where[0] == f"[model] {'name' if key == 'model' else key}"


def test_keys_that_change_every_hour_are_not_who_it_is() -> None:
    keys = {"region": REGION, "bucket": "bucket", "role_arn": ROLE, "model": CLAUDE}
    one, two = (BedrockBatch(**keys, access_key=key, secret_key=key) for key in ("AAAA", "BBBB"))
    there = BedrockBatch(**keys | {"region": "eu-west-1"}, access_key="AAAA", secret_key="AAAA")
    assert one.account() == two.account() != there.account()


# --- the codec -----------------------------------------------------------------------------------------------------------

NOVA, LLAMA, TITAN = "us.amazon.nova-lite-v1:0", "meta.llama3-1-70b-instruct-v1:0", "amazon.titan-embed-text-v2:0"
MISTRAL, MIXTRAL = "mistral.mistral-large-2407-v1:0", "mistral.mixtral-8x7b-instruct-v0:1"
OTHER = "deepseek.v3-v1:0"
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
FAMILIES = {
    CLAUDE: Family.ANTHROPIC,
    PROFILE: Family.ANTHROPIC,
    NOVA: Family.NOVA,
    LLAMA: Family.LLAMA,
    MISTRAL: Family.MISTRAL,
    MIXTRAL: Family.MISTRAL_TEXT,
    TITAN: Family.TITAN,
    OTHER: Family.OTHER,
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcdef012345": Family.OTHER,
}
FORMS = [(model, endpoint) for model in FAMILIES for endpoint in endpoints_of(model)]


@pytest.mark.parametrize(("model", "family"), FAMILIES.items())
def test_families_are_told_by_the_model(model: str, family: Family) -> None:
    assert family_of(model) is family


def written(model: str, endpoint: str, **more: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    given = {"system": None, "params": {}, "schema": None, "mode": "native", "schema_name": "t"} | more
    return BedrockBatch(model=model).body(Ask(endpoint=endpoint, model=model, prompt=given.pop("prompt", "p"), **given))


@given(texts=st.tuples(WIDE, WIDE), form=st.sampled_from(FORMS), with_schema=st.booleans(), with_system=st.booleans())
@settings(max_examples=150, deadline=None)
def test_splicing_gives_the_bytes_of_encoding_for_every_family(
    texts: tuple[str, str], form: tuple[str, str], with_schema: bool, with_system: bool
) -> None:
    model, endpoint = form
    provider = BedrockBatch(model=model)

    def encode(name: str, told: Any) -> bytes:
        system = told[1] if with_system else None
        schema = SCHEMA if with_schema else None
        body, _ = written(model, endpoint, prompt=told[0], system=system, schema=schema)
        return provider.encode(Request(name, endpoint, body))

    holes = texts if with_system else texts[:1]
    splice = cut(encode, [lambda row, place=place: row[str(place)] for place in range(len(holes))])
    name = custom_id("0a1b2c3d", "0123456789abcdef", 7, 1, "x")
    row = {str(place): text for place, text in enumerate(holes)}
    line = splice.line(name, splice.holes(row))
    whole = encode(name, holes) + b"\n"
    for raw, escaped in ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029")):
        whole = whole.replace(raw, escaped)
    assert line == whole
    assert provider.check_line(line[:-1], endpoint, model) is None
    if all(texts):
        record_body(endpoint, model, orjson.loads(line)["modelInput"])


def test_a_schema_goes_where_the_family_takes_it() -> None:
    body, notes = written(CLAUDE, "Converse", schema=SCHEMA)
    form = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert (form["name"], orjson.loads(form["schema"]), notes) == ("t", SCHEMA, ())
    body, notes = written(CLAUDE, "InvokeModel", schema=SCHEMA)
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    body, _ = written(CLAUDE, "InvokeModel", schema=SCHEMA, mode="tool")
    assert body["tool_choice"] == {"type": "tool", "name": "t"}
    for model in (NOVA, LLAMA, MISTRAL, MIXTRAL, OTHER, "anthropic.claude-3-haiku-20240307-v1:0"):
        for endpoint in endpoints_of(model):
            body, notes = written(model, endpoint, schema=SCHEMA)
            assert '\\"enum\\"' in orjson.dumps(body).decode()
            assert any("no structured output" in note for note in notes)
            assert "enum" not in orjson.dumps(written(model, endpoint, schema=SCHEMA, mode="prompt")[0]).decode()


@pytest.mark.parametrize(
    ("model", "endpoint"), [form for form in FORMS if form[1] == "Converse"] + [(NOVA, "InvokeModel")]
)
def test_tools_are_refused_where_the_service_refuses_them(model: str, endpoint: str) -> None:
    with pytest.raises(UsageError) as raised:
        written(model, endpoint, schema=SCHEMA, mode="tool")
    assert raised.value.effect == "nothing was written"


@pytest.mark.parametrize(
    ("model", "endpoint", "params", "sent"),
    [
        (CLAUDE, "Converse", {"max_tokens": 7}, {"inferenceConfig": {"maxTokens": 7}}),
        (
            CLAUDE,
            "Converse",
            {"max_output_tokens": 7, "top_p": 0.5, "inferenceConfig": {"temperature": 0}},
            {"inferenceConfig": {"maxTokens": 7, "topP": 0.5, "temperature": 0}},
        ),
        (CLAUDE, "InvokeModel", {"max_output_tokens": 7, "temperature": 0}, {"max_tokens": 7, "temperature": 0}),
        (NOVA, "InvokeModel", {"max_tokens": 7}, {"inferenceConfig": {"maxTokens": 7}}),
        (LLAMA, "InvokeModel", {"max_tokens": 7, "reasoning": {"effort": "low"}}, {"max_gen_len": 7}),
        (LLAMA, "Converse", {"max_gen_len": 7, "reasoning_effort": "low"}, {"inferenceConfig": {"maxTokens": 7}}),
        (TITAN, "InvokeModel", {"dimensions": 256}, {"dimensions": 256}),
    ],
)
def test_settings_are_sent_in_the_words_of_the_family(
    model: str, endpoint: str, params: dict[str, Any], sent: dict[str, Any]
) -> None:
    plain, _ = written(model, endpoint)
    body, notes = written(model, endpoint, params=params)
    assert body == plain | sent
    changed = [key for key in params if key not in sent]
    assert len([note for note in notes if note.startswith("params:")]) == len(changed)


@pytest.mark.parametrize(
    ("model", "endpoint", "params"),
    [
        (TITAN, "InvokeModel", {"max_tokens": 7}),
        (CLAUDE, "Converse", {"max_tokens": 7, "inferenceConfig": {"maxTokens": 8}}),
        (CLAUDE, "Converse", {"max_tokens": 7, "inferenceConfig": 8}),
        (LLAMA, "InvokeModel", {"max_tokens": 7, "max_gen_len": 8}),
    ],
)
def test_settings_that_cannot_be_said_are_refused(model: str, endpoint: str, params: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as raised:
        written(model, endpoint, params=params)
    assert raised.value.effect == "nothing was written"


def test_a_way_a_model_cannot_be_asked_is_refused() -> None:
    for model, endpoint in ((TITAN, "Converse"), (OTHER, "InvokeModel"), (CLAUDE, "/v1/responses")):
        with pytest.raises(UsageError):
            written(model, endpoint)


# --- recorded objects and errors -----------------------------------------------------------------------------------------

FIXTURES = SHARED / "contracts" / "fixtures-bedrock"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the wire fixtures are not beside the checkout")
# Each job: our state, whether it owes results, whether its time was over, whether its word is known.
JOBS: dict[str, tuple[BatchState, bool, bool, bool]] = {
    "Completed": (BatchState.ENDED, True, False, True),
    "Completed_without_counts": (BatchState.ENDED, True, False, True),
    "Expired": (BatchState.ENDED, False, True, True),
    "Failed": (BatchState.REFUSED, False, False, True),
    "InProgress": (BatchState.RUNNING, False, False, True),
    "PartiallyCompleted": (BatchState.ENDED, True, True, True),
    "Scheduled": (BatchState.RUNNING, False, False, True),
    "Stopped": (BatchState.ENDED, True, False, True),
    "Stopping": (BatchState.RUNNING, False, False, True),
    "Submitted": (BatchState.RUNNING, False, False, True),
    "Validating": (BatchState.RUNNING, False, False, True),
    "unknown_future_status": (BatchState.RUNNING, False, False, False),
}
# Each error: what it means for a create. Only UNKNOWN may have acted.
ERRORS: dict[str, type[BatchctlError]] = {
    "AccessDeniedException": NotAllowed,
    "ConflictException": OutcomeUnknown,
    "ExpiredTokenException": NotAllowed,
    "InternalServerException": OutcomeUnknown,
    "ResourceNotFoundException": NotFound,
    "ServiceQuotaExceededException": Throttled,
    "ThrottlingException": Throttled,
    "ValidationException": Rejected,
    "ValidationException_s3_access": Rejected,
}


def load(name: str) -> Any:
    return orjson.loads((FIXTURES / f"{name}.json").read_bytes())


@needs_fixtures
def test_every_recorded_object_and_error_is_listed() -> None:
    assert {path.stem.removeprefix("get_job_") for path in FIXTURES.glob("get_job_*.json")} == set(JOBS)
    assert {path.stem.removeprefix("error_") for path in FIXTURES.glob("error_*.json")} == set(ERRORS)


@needs_fixtures
@pytest.mark.parametrize("name", JOBS)
def test_job_objects(name: str) -> None:
    status = status_of(load(f"get_job_{name}"))
    assert (status.state, status.owes_results, status.out_of_time, status.known_word) == JOBS[name]
    if name == "Failed":
        assert "below the minimum" in status.errors[0].message
        half = status_of(load("get_job_Failed"), results=["s3://bkt/out/x/input.jsonl.out"])
        assert (half.state, half.files) == (BatchState.ENDED, (("output", "s3://bkt/out/x/input.jsonl.out"),))


@needs_fixtures
def test_a_manifest_stands_in_for_counts_the_job_lacks() -> None:
    manifest = orjson.loads((FIXTURES / "outputs" / "manifest_completed.json.out").read_bytes())
    status = status_of(load("get_job_Completed_without_counts"), manifest=manifest)
    assert status.counts == {"total": 100, "processed": 100, "completed": 98, "failed": 2}
    assert status.usage == Usage(5100, 900)
    running = orjson.loads((FIXTURES / "outputs" / "manifest_in_progress.json.out").read_bytes())
    assert status_of({"status": "Completed"}, manifest=running).usage is None


@dataclass
class Answer:
    """What every call over HTTP gets, and what was asked."""

    raw: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seen: list[Any] = field(default_factory=list)

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.raw


@lru_cache(maxsize=1)
def recorded() -> tuple[BedrockBatch, Answer]:
    """A provider whose answers are written here and read by the installed SDK; its clients are costly to make."""
    from botocore.awsrequest import AWSResponse

    keys = {"access_key": "AKIDEXAMPLE", "secret_key": CANARY}
    provider = BedrockBatch(model=CLAUDE, region=REGION, bucket="bkt", role_arn=ROLE, **keys)
    said = Answer()

    def answer(request: Any, **_: Any) -> Any:
        said.seen.append(request)
        return AWSResponse(request.url, said.status, {"content-type": "application/json", **said.headers}, said)

    for service in ("bedrock", "bedrock-runtime", "s3"):
        provider._aws.client(service, "http://127.0.0.1:1").meta.events.register("before-send.*.*", answer)
    return provider, said


def answering(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> tuple[BedrockBatch, list[Any]]:
    provider, said = recorded()
    said.raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    said.status, said.headers = status, headers or {}
    said.seen.clear()
    return provider, said.seen


@needs_fixtures
@pytest.mark.parametrize("name", ERRORS)
def test_http_errors(name: str, tmp_path: Path) -> None:
    error = load(f"error_{name}")
    provider, seen = answering(error["body"], error["httpStatus"], error["headers"])
    with pytest.raises(BatchctlError) as raised:
        Guarded(provider, sleep=Waits()).create("s3://bkt/x.jsonl", endpoint=CONVERSE, tag=TAG, run="r", chunk=1)
    assert type(raised.value) is ERRORS[name]
    assert getattr(raised.value, "code", "") == ("queue_full" if "Quota" in name else raised.value.code)
    assert len(seen) == 1, "asked once"


@needs_fixtures
def test_a_store_that_wants_fewer_calls_gets_fewer(tmp_path: Path) -> None:
    body = (FIXTURES / "s3_error_SlowDown.xml").read_bytes()
    provider, _ = answering(body, 503, {"content-type": "application/xml"})
    with pytest.raises(Exception, match="SlowDown") as raised:
        list(provider.results("s3://bkt/out/x/input.jsonl.out"))
    assert type(provider.outcome(raised.value)) is Throttled


@needs_fixtures
def test_the_recorded_folder_is_read_as_its_page_says(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest has counts, not rows; media beside the requests are echoed and change nothing."""
    bucket, (folder,) = s3.bucket(), (FIXTURES / "output_tree" / "out").iterdir()
    for path in folder.iterdir():
        s3.put(bucket, f"out/{folder.name}/{path.name}", path.read_bytes())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.url)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with closing(BedrockBatch(model=CLAUDE, region=REGION, bucket=bucket, role_arn=ROLE)) as provider:
        listed = provider._objects(f"s3://{bucket}/out/{folder.name}/")
        results, manifest = listed
        assert manifest.endswith("manifest.json.out")
        counts = provider._manifest(manifest)
        lines = [one for one in b"".join(provider.results(results)).split(b"\n") if one]
        assert provider.size_of(results) == listed[results]
    assert len(lines) == counts["processedRecordCount"] == 4
    verdicts = [Judge().verdict(bedrock_line(orjson.loads(line), INVOKE)) for line in lines]
    assert sum(one.reason is Reason.PROVIDER for one in verdicts) == counts["errorRecordCount"]


@pytest.mark.parametrize("status", [302, 307, 308, 408, 409, 418, 425, 500, 502, 503, 504, 529])
def test_whatever_is_not_certainly_refused_is_unknown(status: int) -> None:
    provider, seen = answering({"message": "no"}, status)
    with pytest.raises(OutcomeUnknown):
        Guarded(provider, sleep=Waits()).create("s3://bkt/x.jsonl", endpoint=CONVERSE, tag=TAG, run="r", chunk=1)
    assert len(seen) == 1


@needs_fixtures
def test_the_create_we_send_is_the_recorded_one_in_form() -> None:
    recorded, (provider, seen) = load("create_job_converse.request"), answering(load("create_job.response"))
    arn = provider.create("s3://bkt/batchctl/t/input.jsonl", endpoint=CONVERSE, tag=TAG, run="r", chunk=1)
    assert arn == load("create_job.response")["jobArn"]
    sent = orjson.loads(seen[0].body)
    optional = {"tags"}
    assert sent.keys() == recorded.keys() - optional
    assert (sent["jobName"], sent["clientRequestToken"], sent["modelInvocationType"]) == (TAG, TAG, "Converse")
    assert sent["outputDataConfig"] == {"s3OutputDataConfig": {"s3Uri": "s3://bkt/batchctl/t/out/"}}
    create(sent, ())  # the emulator, which knows the patterns, takes it
    for name in ("create_job_converse", "create_job_invoke", "create_job_encrypted_vpc"):
        create(load(f"{name}.request"), ())


@needs_fixtures
def test_a_recorded_list_is_found_in() -> None:
    provider, _ = answering(load("list_jobs_page2"))
    (found,) = provider.find("", tag="bctl-run01-s0000-a1b2c3", since=0)
    assert (found.by, found.vendor_status, found.created_at) == ("mark", "InProgress", 1793523600)
    provider, _ = answering(load("list_jobs_empty"))
    assert provider.find("s3://bkt/x", tag=TAG, since=0) == []
    provider, seen = answering(load("list_jobs_page1"))
    with pytest.raises(OutcomeUnknown, match="again and again"):
        provider.find("", tag=TAG, since=0)
    assert len(seen) == 2


@needs_fixtures
def test_recorded_requests_pass_our_own_check_and_the_emulators() -> None:
    models = {
        "anthropic_invoke": (CLAUDE, INVOKE),
        "converse": (CLAUDE, CONVERSE),
        "llama_invoke": (LLAMA, INVOKE),
        "mistral_invoke": (MIXTRAL, INVOKE),
        "nova_invoke": (NOVA, INVOKE),
        "titan_embed_v2_invoke": (TITAN, INVOKE),
    }
    refused = {("anthropic_invoke", "ROW00000004"), ("titan_embed_v2_invoke", "ROW00000003")}
    for path in (FIXTURES / "requests").glob("*.jsonl"):
        model, endpoint = models[path.stem]
        for line in path.read_bytes().split(b"\n"):
            if not line:
                continue
            record = orjson.loads(line)
            named = MISTRAL if path.stem == "mistral_invoke" and "messages" in record["modelInput"] else model
            assert BedrockBatch(model=named).check_line(line, endpoint, named) is None, line
            if (path.stem, record["recordId"]) in refused:
                with pytest.raises(WireError):
                    record_body(endpoint, named, record["modelInput"])
            else:
                record_body(endpoint, named, record["modelInput"])


NO_LISTS: list[Any] = [{}, {"invocationJobSummaries": None}, {"invocationJobSummaries": [{}]}, [], None, b"<html>", b""]


@pytest.mark.parametrize("body", NO_LISTS, ids=repr)
def test_what_is_no_list_of_jobs_does_not_prove_that_there_is_none(body: Any) -> None:
    provider, _ = answering(body)
    with pytest.raises(BatchctlError):
        Guarded(provider, sleep=Waits()).find("s3://bkt/x", tag=TAG, since=0)


def said_by(act: Any) -> str:
    """All that a call answers, or all text of its error."""
    try:
        return repr(act())
    except BatchctlError as error:
        return everything(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
JOB = st.fixed_dictionaries(
    {"jobArn": st.just("arn:x"), "status": st.sampled_from([*STATES, "?"])},
    optional=dict.fromkeys(
        ("outputDataConfig", "inputDataConfig", "submitTime", "jobExpirationTime", "message", "totalRecordCount"), JSON
    ),
)


@given(body=JOB | JSON)
@settings(max_examples=40, deadline=None)
def test_no_answer_breaks_anything(body: Any) -> None:
    """Any JSON in any place: a status, a list, a number, or an error of ours. Never a traceback, never a guess."""
    provider, _ = answering(body)
    guarded = Guarded(provider, sleep=Waits())
    for act in (
        lambda: guarded.poll("arn:x"),
        lambda: guarded.find("s3://bkt/x", tag=TAG, since=5),
        lambda: guarded.create("s3://bkt/x.jsonl", endpoint=CONVERSE, tag=TAG, run="r", chunk=1),
        lambda: guarded.call(b'{"messages": []}', CONVERSE),
    ):
        assert CANARY not in said_by(act)
