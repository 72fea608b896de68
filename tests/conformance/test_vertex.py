"""The provider contract, kept by the Vertex module against the emulator and a Cloud Storage server; and what only this
wire can get wrong."""

from __future__ import annotations

import hashlib
import re
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import orjson
import pytest

from batchctl.emulator.google_checks import embed
from batchctl.emulator.vertex_batch import checked
from batchctl.emulator.wire import WireError
from batchctl.judging.google import google_line
from batchctl.model.batches import Ask, BatchState, BatchStatus, Refusal
from batchctl.model.errors import (
    BatchctlError,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    ProviderError,
    Rejected,
    Throttled,
    UsageError,
)
from batchctl.model.rows import Reason, Retry
from batchctl.providers import google_rest, google_storage
from batchctl.providers.google_credentials import VARIABLE
from batchctl.providers.google_rest import ApiError
from batchctl.providers.guard import Guarded
from batchctl.providers.vertex import STATES, VertexBatch, address_of, endpoint_of, label_of, status_of
from batchctl.providers.vertex_lines import fingerprint, lines_of, with_keys
from tests.conformance.contract import CANARY, SCHEMA, TAG, ProviderContract, Waits, everything
from tests.conftest import SHARED, NewProvider
from tests.support.gcs import BigQueryEmulated, Gcs, VertexEmulated
from tests.support.saying import Saying

CONTRACT = SHARED / "contracts" / "vertex.md"
FIXTURES = SHARED / "contracts" / "fixtures-vertex"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the wire fixtures are not beside the checkout")
MODEL = "gemini-2.5-flash"
ENDPOINT = f"publishers/google/models/{MODEL}:generateContent"
WHERE = {"project": "p", "location": "us-central1"}


class VertexContract(ProviderContract):
    """What holds wherever requests and results are kept."""

    emulated: ClassVar[type[VertexEmulated]] = VertexEmulated
    endpoints = (ENDPOINT,)
    vendor_states = STATES
    model = MODEL
    words: ClassVar = {
        "completed": "JOB_STATE_SUCCEEDED",
        "expired": "JOB_STATE_EXPIRED",
        "cancelled": "JOB_STATE_CANCELLED",
    }
    id_field = "key"
    harvest = {"expired": 2, "cancelled": 2}  # noqa: RUF012
    says_sizes = False

    def build(self, server: VertexEmulated | str | None, *, key: str = CANARY) -> VertexBatch:
        """Who pays is the project, not a key."""
        where = {"bucket": "bucket-x"} | WHERE
        if isinstance(server, VertexEmulated):
            where["bucket"] = server.bucket
        if key != CANARY:
            where["project"] = "p" + hashlib.sha256(key.encode()).hexdigest()[:8]
        url = server if isinstance(server, str) or server is None else server.url
        return VertexBatch(base_url=url or "http://127.0.0.1:1", model=MODEL, **where)

    def sdk_states(self) -> set[str]:
        """No SDK is used: the words are those of the wire contract's table."""
        if not CONTRACT.exists():
            pytest.skip("the wire contract is not beside the checkout")
        return set(re.findall(r"^\| (JOB_STATE_[A-Z_]+) ", CONTRACT.read_text(), re.MULTILINE))

    def shorten_timeouts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(google_rest, "ANSWER_SECONDS", 0.5)

    def bucket(self, gcs: Gcs) -> str:
        raise NotImplementedError

    @pytest.fixture
    def served(self, new_provider: NewProvider, gcs: Gcs, monkeypatch: pytest.MonkeyPatch) -> Any:
        def start(**settings: Any) -> VertexEmulated:
            server = self.emulated(new_provider(gcs=gcs.url, **settings), self.bucket(gcs))
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"{server.url}/gcs")
            return server

        return start

    @pytest.fixture
    def server(self, served: Any) -> VertexEmulated:
        started: VertexEmulated = served()
        return started

    @pytest.fixture
    def slow_server(self, served: Any) -> VertexEmulated:
        started: VertexEmulated = served(latency="1h")
        return started

    def test_no_key_is_said_so_and_a_key_never(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Credentials are found by google-auth; without any, the error says where they are looked for."""
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
        monkeypatch.delenv(VARIABLE, raising=False)
        provider = VertexBatch(bucket="bucket-x", model=MODEL, **WHERE)
        with pytest.raises(NotAllowed) as raised:
            provider.account()
        assert VARIABLE in raised.value.hint

    def test_a_broken_import_fails_the_whole_job_and_nothing_is_billed(
        self, guarded: Guarded, server: VertexEmulated, chunk: Path
    ) -> None:
        chunk.write_bytes(chunk.read_bytes() + b'{"key":"x","request":{"tools":[{"googleSearch":{}}]}}\n')
        _, status = self.ended(guarded, server, chunk)
        assert (status.state, status.refusal) == (BatchState.REFUSED, Refusal.FILE)
        assert server.rows_billed() == 0

    def test_results_can_be_deleted_like_inputs(
        self, guarded: Guarded, server: VertexEmulated, chunk: Path, tmp_path: Path
    ) -> None:
        _, status = self.ended(guarded, server, chunk)
        ((_, handle),) = status.files
        assert len(self.lines_of(guarded, status, tmp_path)) == 5
        guarded.delete(handle)
        guarded.delete(handle)  # already gone counts as deleted
        with pytest.raises(NotFound):
            self.lines_of(guarded, status, tmp_path)

    def test_another_location_has_its_own_jobs(
        self, slow: Guarded, slow_server: VertexEmulated, chunk: Path, waits: Waits
    ) -> None:
        batch_id = self.create(slow, slow.stage(chunk, name="a.jsonl"))
        other = VertexBatch(base_url=slow_server.url, project="p", location="global", bucket="bucket-x", model=MODEL)
        with pytest.raises(NotFound):
            Guarded(other, sleep=waits).poll(batch_id)
        assert other.account() != slow.account()
        other.close()

    def test_a_batch_on_a_later_page_is_found(
        self, slow: Guarded, chunk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("batchctl.providers.vertex.PAGE_JOBS", 2)
        staged = slow.stage(chunk, name="a.jsonl")
        first = self.create(slow, staged)
        for number in range(4):
            self.create(slow, staged + "x", tag=f"{TAG}{number}")
        assert [one.batch_id for one in slow.find("", tag=TAG, since=1)] == [first]
        assert slow.find("", tag=TAG, since=2**34) == []


class TestVertex(VertexContract):
    """Cloud Storage in and out."""

    def bucket(self, gcs: Gcs) -> str:
        return gcs.bucket()

    def test_two_stages_of_one_chunk_are_one_object(self, guarded: Guarded, chunk: Path, waits: Waits) -> None:
        """A lost answer makes the next try find the object there; its checksum says that it is ours."""
        assert guarded.stage(chunk, name="a.jsonl") == guarded.stage(chunk, name="a.jsonl")
        assert waits.seconds == []
        chunk.write_bytes(chunk.read_bytes() + b"\n")
        with pytest.raises(Rejected):
            guarded.stage(chunk, name="a.jsonl")

    def test_a_lost_upload_is_sent_again_and_is_the_same_object(
        self, guarded: Guarded, server: VertexEmulated, chunk: Path, waits: Waits
    ) -> None:
        server.strike("upload", "drop-after")
        guarded.stage(chunk, name="a.jsonl")
        assert len(waits.seconds) == 1

    @pytest.mark.parametrize("do", ["500", "404", "drop-before", "truncate"])
    def test_a_folder_that_cannot_be_read_is_asked_again(
        self, guarded: Guarded, server: VertexEmulated, chunk: Path, tmp_path: Path, do: str
    ) -> None:
        _, status = self.ended(guarded, server, chunk)
        server.strike("folder", do, count=2)
        assert len(self.lines_of(guarded, status, tmp_path)) == 5

    def test_a_large_chunk_travels_in_pieces(
        self, guarded: Guarded, server: VertexEmulated, gcs: Gcs, tmp_path: Path
    ) -> None:
        chunk = tmp_path / "large.jsonl"
        chunk.write_bytes(bytes(range(256)) * (google_storage.BLOCK_BYTES // 128))
        name = guarded.stage(chunk, name="large.jsonl").removeprefix(f"gs://{server.bucket}/")
        kept = gcs.client().bucket(server.bucket).blob(name).download_as_bytes()
        assert hashlib.sha256(kept).digest() == hashlib.sha256(chunk.read_bytes()).digest()
        assert len(server.provider.calls("PUT", "/gcs/upload")) == 2

    def test_a_shard_that_is_absent_is_waited_for_and_never_passed_over(
        self, guarded: Guarded, server: VertexEmulated, gcs: Gcs, chunk: Path, tmp_path: Path
    ) -> None:
        _, status = self.ended(guarded, server, chunk)
        bucket = gcs.client().bucket(server.bucket)
        (shard,) = [one for one in bucket.list_blobs() if one.name.endswith("00001-of-00002")]
        shard.delete()
        with pytest.raises(NotFound):
            self.lines_of(guarded, status, tmp_path)

    def test_lines_that_lost_their_key_get_it_back(
        self, guarded: Guarded, server: VertexEmulated, gcs: Gcs, chunk: Path, tmp_path: Path
    ) -> None:
        _, status = self.ended(guarded, server, chunk)
        whole = self.lines_of(guarded, status, tmp_path)
        for blob in list(gcs.client().bucket(server.bucket).list_blobs()):
            if "/predictions.jsonl" in blob.name:
                lines = [orjson.loads(line) for line in blob.download_as_bytes().split(b"\n") if line]
                bare = [{name: value for name, value in line.items() if name != "key"} for line in lines]
                blob.upload_from_string(b"\n".join(map(orjson.dumps, bare)))
        assert self.lines_of(guarded, status, tmp_path) == whole


@pytest.mark.slow
class TestVertexBigQuery(VertexContract):
    """BigQuery in and out."""

    emulated = BigQueryEmulated

    def bucket(self, gcs: Gcs) -> str:
        return "bq://p.batchctl"

    def free(self, guarded: Guarded, chunk: Path) -> Any:
        """Each time another table: one that is loaded is not loaded again."""
        names = count()
        return lambda: guarded.stage(chunk, name=f"{TAG}-{next(names)}.jsonl")

    def test_a_lost_load_is_not_a_second_one(
        self, guarded: Guarded, server: BigQueryEmulated, chunk: Path, waits: Waits
    ) -> None:
        server.provider.fault("PUT /upload/bigquery/*", "drop-after")
        guarded.stage(chunk, name="a.jsonl")
        assert len(waits.seconds) == 1
        assert len([one for one in server.provider.calls("PUT") if "/bigquery/" in one["path"]]) == 1

    def test_a_table_that_was_deleted_is_loaded_again(self, guarded: Guarded, chunk: Path) -> None:
        staged = guarded.stage(chunk, name="a.jsonl")
        guarded.delete(staged)
        assert guarded.stage(chunk, name="a.jsonl") == staged
        guarded.delete(staged)

    def test_a_chunk_that_cannot_be_loaded_is_told(self, guarded: Guarded, chunk: Path) -> None:
        chunk.write_bytes(b"no json\n")
        with pytest.raises(Rejected) as raised:
            guarded.stage(chunk, name="a.jsonl")
        assert "JSON parsing error" in raised.value.what


# --- the codec ---------------------------------------------------------------------------------------------------------


def provider_at(**more: Any) -> VertexBatch:
    return VertexBatch(base_url="http://127.0.0.1:1", **({"bucket": "bucket-x"} | WHERE | more))


def written(**more: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    given = {"model": MODEL, "system": None, "params": {}, "schema": None, "mode": "native", "schema_name": "t"} | more
    return provider_at().body(Ask(endpoint=endpoint_of(given["model"]), prompt="p", **given))


def test_what_is_written_passes_the_emulators_check() -> None:
    body, notes = written(system="s", params={"max_output_tokens": 9}, schema=SCHEMA)
    assert checked(body)["generationConfig"]["maxOutputTokens"] == 9
    assert notes == ()


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"params": {"tools": [{"googleSearch": {}}]}}, "#/tools/0/googleSearch"),
        (
            {"schema": {"type": "object", "properties": {"a": {}}}},
            "#/generationConfig/responseJsonSchema/properties/a",
        ),
    ],
)
def test_an_empty_object_is_refused_before_it_fails_a_job(more: dict[str, Any], pointer: str) -> None:
    with pytest.raises(UsageError) as raised:
        written(**more)
    assert raised.value.where == (pointer,)


def test_an_empty_object_in_a_row_is_text() -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "{} {}"}]}]}
    line = orjson.dumps({"key": "a", "request": body})
    assert provider_at().check_line(line, ENDPOINT, MODEL) is None
    line = orjson.dumps({"key": "a", "request": body | {"toolConfig": {}}})
    assert "empty object at #/request/toolConfig" in str(provider_at().check_line(line, ENDPOINT, MODEL))


@pytest.mark.parametrize("bucket", ["", "A", "a b", "gs://", "/x"])
def test_a_bucket_is_needed(bucket: str) -> None:
    provider = provider_at(bucket=bucket)
    with pytest.raises(UsageError) as raised:
        provider.body(
            Ask(
                endpoint=ENDPOINT,
                model=MODEL,
                prompt="p",
                system=None,
                params={},
                schema=None,
                mode="native",
                schema_name="t",
            )
        )
    assert raised.value.where == ("[model] bucket",)


@pytest.mark.parametrize(
    ("model", "endpoint"),
    [
        (MODEL, ENDPOINT),
        (f"google/{MODEL}", ENDPOINT),
        (f"publishers/google/models/{MODEL}", ENDPOINT),
        ("gemini-embedding-2", "publishers/google/models/gemini-embedding-2:embedContent"),
    ],
)
def test_a_model_is_named_in_full(model: str, endpoint: str) -> None:
    assert endpoint_of(model) == endpoint


@pytest.mark.parametrize("model", ["publishers/anthropic/models/claude-sonnet-4-5", "a/b/c", "mod el"])
def test_models_of_other_publishers_are_told(model: str) -> None:
    with pytest.raises(UsageError):
        endpoint_of(model)


@pytest.mark.parametrize(
    ("location", "address"),
    [
        ("global", "https://aiplatform.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com"),
    ],
)
def test_each_location_has_its_address(location: str, address: str) -> None:
    assert address_of(location) == address


def test_labels_are_what_the_vendor_takes() -> None:
    assert label_of(TAG) == TAG
    assert label_of("Über.Triage 0001" + "x" * 99) == "-ber-triage-0001" + "x" * 47


# --- lines without a key -------------------------------------------------------------------------------------------------


def request_of(*texts: str, **more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text} for text in texts]}], **more}


def joined(results: list[bytes], requests: list[bytes]) -> list[Any]:
    return [orjson.loads(line).get("key") for line in with_keys(results, lambda: requests)]


def test_a_line_without_a_key_is_joined_by_what_the_model_saw_and_never_by_position() -> None:
    inputs = [
        orjson.dumps({"key": f"row-{number}", "request": request_of(text, labels={"a": "b"})})
        for number, text in enumerate(("one", "two", "two", "three"))
    ]
    echoes = [
        request_of(text, generationConfig={"candidateCount": 1}) for text in ("two", "never sent", "one", "two", "two")
    ]
    results = [orjson.dumps({"status": "", "request": echo}) + b"\n" for echo in echoes]
    results.insert(0, orjson.dumps({"status": "", "key": "row-3", "request": echoes[0]}) + b"\n")
    assert joined(results, inputs) == ["row-3", "row-1", None, "row-0", "row-2", None]


def test_the_input_is_read_only_when_it_must_be() -> None:
    def never() -> list[bytes]:
        raise AssertionError("read")

    lines = [
        b'{"key":"a","request":{}}\n',
        b'{"response":{},"key":"b"}\n',
        b"not json\n",
        b'{"custom_id":"c","request":{}}\n',
    ]
    assert list(with_keys(lines, never)) == lines


def test_files_and_system_prompts_are_part_of_what_the_model_sees() -> None:
    seen = [
        request_of("a"),
        request_of("a", systemInstruction={"parts": [{"text": "b"}]}),
        request_of("a", "b"),
        {"contents": [{"parts": [{"fileData": {"fileUri": "gs://a/1"}}]}]},
        {"contents": [{"parts": [{"fileData": {"fileUri": "gs://a/2"}}]}]},
        {"contents": [{"parts": [{"inlineData": {"data": "QQ=="}}]}]},
        {"content": {"parts": [{"text": "a"}]}},
    ]
    assert len({fingerprint(one) for one in seen}) == len(seen)
    snake = {"contents": [{"parts": [{"file_data": {"file_uri": "gs://a/1", "mime_type": "image/png"}}]}]}
    assert fingerprint(snake) == fingerprint(seen[3])


def test_lines_are_parted_by_line_feeds_alone() -> None:
    blocks = [b'{"a":"\xe2\x80\xa8"}\r', b"\n{", b"}\n\n", b"last"]
    assert list(lines_of(blocks)) == [b'{"a":"\xe2\x80\xa8"}\r\n', b"{}\n", b"\n", b"last\n"]


# --- recorded objects and errors ---------------------------------------------------------------------------------------

# Each job: our state, whether it has results, why it was refused.
JOBS: dict[str, tuple[BatchState, bool, Refusal | None]] = {
    "job_cancelled": (BatchState.ENDED, True, None),
    "job_cancelling": (BatchState.RUNNING, False, None),
    "job_expired": (BatchState.ENDED, True, None),
    "job_failed": (BatchState.REFUSED, False, Refusal.FILE),
    "job_failed_with_output": (BatchState.ENDED, True, None),
    "job_partially_succeeded": (BatchState.ENDED, True, None),
    "job_paused": (BatchState.RUNNING, False, None),
    "job_pending": (BatchState.RUNNING, False, None),
    "job_queued": (BatchState.RUNNING, False, None),
    "job_running": (BatchState.RUNNING, False, None),
    "job_succeeded": (BatchState.ENDED, True, None),
    "job_succeeded_bigquery": (BatchState.ENDED, True, None),
    "job_succeeded_no_stats": (BatchState.ENDED, True, None),
    "job_unspecified": (BatchState.RUNNING, False, None),
    "job_updating": (BatchState.RUNNING, False, None),
}
# Each HTTP error: what it means for a create. Only UNKNOWN may have acted.
ERRORS: dict[str, type[BatchctlError]] = {
    "error_400_batch_labels": Rejected,
    "error_400_invalid_argument": Rejected,
    "error_401_unauthenticated": NotAllowed,
    "error_403_permission_denied": NotAllowed,
    "error_404_job": NotFound,
    "error_404_publisher_model": NotFound,
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
    assert status.known_word is (name != "job_unspecified")
    assert status.batch_id == load(name)["name"].rpartition("/")[2]


@pytest.mark.parametrize("word", ["JOB_STATE_HIBERNATING", "SUCCEEDED", "BATCH_STATE_SUCCEEDED", "", None, 7])
def test_a_word_we_do_not_know_is_never_an_end(word: Any) -> None:
    status = status_of(
        {"name": "a/batchPredictionJobs/1", "state": word, "outputInfo": {"gcsOutputDirectory": "gs://a/b"}}
    )
    assert (status.state, status.known_word, status.files) == (BatchState.RUNNING, False, ())


def failed(code: Any, **more: Any) -> BatchStatus:
    return status_of({"name": "a/batchPredictionJobs/1", "state": "JOB_STATE_FAILED", "error": {"code": code}, **more})


def test_a_failed_job_is_refused_only_when_nothing_can_have_run() -> None:
    assert [failed(code).refusal for code in (3, 5, 8)] == [Refusal.FILE, Refusal.ACCESS, Refusal.CAPACITY]
    for status in (failed(13), failed(None), failed(3, outputInfo={"gcsOutputDirectory": "gs://a/b"})):
        assert (status.state, status.refusal) == (BatchState.ENDED, None)


@needs_fixtures
@pytest.mark.parametrize("name", ERRORS)
def test_http_errors(name: str) -> None:
    error = ApiError(int(name.split("_")[1]), {}, (FIXTURES / f"{name}.json").read_bytes())
    outcome = provider_at().outcome(error)
    assert type(outcome) is ERRORS[name]
    assert not getattr(outcome, "billing", False)


@needs_fixtures
def test_a_recorded_list_is_read_to_its_last_page() -> None:
    pages = [load("list_page1"), load("list_page2")]
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(dict(request.url.params))
        return httpx2.Response(200, json=pages[len(asked) - 1])

    with recorded(answer) as provider:
        found = provider.find("gs://none", tag="batchctl-run01-a1b2c3", since=1793523600)
    assert asked[0] == {"pageSize": "100", "filter": 'create_time>"2026-11-01T09:00:00Z"'}
    assert asked[1] == asked[0] | {"pageToken": pages[0]["nextPageToken"]}
    assert [one.batch_id for one in found] == ["3814889423749775360", "3814889423749775362"]
    assert {one.by for one in found} == {"mark"}
    with recorded(lambda _: httpx2.Response(200, json=load("list_empty"))) as provider:
        assert provider.find("", tag=TAG, since=0) == []


@needs_fixtures
def test_a_create_is_as_recorded() -> None:
    sent: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append((request.url.path, orjson.loads(request.read())))
        return httpx2.Response(200, json=load("job_pending"))

    staged = "gs://bucket-x/batchctl/run01/shard-0000/input.jsonl"
    with recorded(answer) as provider:
        batch_id = provider.create(staged, endpoint=ENDPOINT, tag="batchctl-run01-a1b2c3", run="run01", chunk=0)
    assert batch_id == load("job_pending")["name"].rpartition("/")[2]
    (path, body), wanted = sent[0], load("create_gcs.request")
    assert path == "/v1/projects/p/locations/us-central1/batchPredictionJobs"
    assert body.keys() == wanted.keys()
    assert {**body, "inputConfig": 0, "outputConfig": 0, "labels": 0} == {
        **wanted,
        "inputConfig": 0,
        "outputConfig": 0,
        "labels": 0,
    }
    assert body["inputConfig"] == {"instancesFormat": "jsonl", "gcsSource": {"uris": [staged]}}
    assert body["outputConfig"]["gcsDestination"]["outputUriPrefix"].startswith("gs://bucket-x/batchctl/batchctl-run01")
    assert body["labels"].keys() == wanted["labels"].keys()


@needs_fixtures
def test_the_recorded_folder_is_read_as_its_page_says(gcs: Gcs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Final shards, not the dump beside them; the request that lost its line is in neither."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    bucket = gcs.bucket()
    (folder,) = (FIXTURES / "output_tree").iterdir()
    for path in folder.iterdir():
        gcs.client().bucket(bucket).blob(f"out/{folder.name}/{path.name}").upload_from_filename(str(path))
    job = load("job_succeeded") | {"outputInfo": {"gcsOutputDirectory": f"gs://{bucket}/out/{folder.name}"}}
    ((_, handle),) = status_of(job).files
    with closing(provider_at()) as provider:
        lines = [orjson.loads(line) for line in b"".join(provider.results(handle)).split(b"\n") if line]
        assert sorted(one["key"] for one in lines) == [f"row-00000{number}" for number in (1, 2, 3, 4)]
        for name in ("predictions.jsonl-00000-of-00002", "predictions.jsonl-00001-of-00002"):
            gcs.client().bucket(bucket).blob(f"out/{folder.name}/{name}").delete()
        with pytest.raises(NotFound):
            list(provider.results(handle))
        ((_, handle),) = status_of(job | {"state": "JOB_STATE_CANCELLED"}).files
        lines = [orjson.loads(line) for line in b"".join(provider.results(handle)).split(b"\n") if line]
        assert [one["key"] for one in lines] == ["row-000001"]


@needs_fixtures
def test_the_recorded_list_of_objects_names_the_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dump beside them does not count once both are there."""
    page = load("gcs_objects_list")
    folder = page["items"][0]["name"].rpartition("/")[0]
    server = Saying(page)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url.removesuffix("/v1"))
    try:
        with closing(provider_at()) as provider:
            shards = provider._objects.shards(f"gs://bkt/{folder}", whole=True)
    finally:
        server.stop()
    assert [blob.name for blob in shards] == [one["name"] for one in page["items"][1:]]


@needs_fixtures
def test_recorded_requests_of_embeddings_pass_our_own_check_and_the_emulators() -> None:
    model = "gemini-embedding-001"
    for line in (FIXTURES / "embed_request_lines.jsonl").read_bytes().splitlines():
        assert provider_at().check_line(line, endpoint_of(model), model) is None
        assert embed(orjson.loads(line)["request"])


@needs_fixtures
def test_the_recorded_table_is_read_as_its_page_says() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path.startswith("/bigquery/v2/projects/my-project/datasets/batchctl/tables/run01_0000_out")
        rows = request.url.path.endswith("/data")
        return httpx2.Response(200, json=load("bigquery_tabledata_list" if rows else "bigquery_output_table"))

    ((_, handle),) = status_of(load("job_succeeded_bigquery")).files
    with recorded(answer, bucket="bq://my-project.batchctl") as provider:
        lines = [orjson.loads(line) for line in b"".join(provider.results(handle)).split(b"\n") if line]
    assert [one["key"] for one in lines] == ["row-000001", "row-000004"]
    found = [google_line(one, ENDPOINT) for one in lines]
    assert found[0].text == "The printer is on fire."
    assert (found[1].reason, found[1].retry) == (Reason.PROVIDER, Retry.NEVER)


@needs_fixtures
def test_a_job_over_tables_is_as_recorded() -> None:
    sent: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(orjson.loads(request.read()))
        return httpx2.Response(200, json=load("job_pending"))

    wanted = load("create_bigquery.request")
    staged = wanted["inputConfig"]["bigquerySource"]["inputUri"]
    with recorded(answer, bucket="bq://my-project.batchctl") as provider:
        provider.create(staged, endpoint=ENDPOINT, tag="run01-0000", run="run01", chunk=0)
    assert sent[0]["inputConfig"] == wanted["inputConfig"]
    assert sent[0]["outputConfig"] == wanted["outputConfig"]


@pytest.mark.parametrize(
    "page",
    [
        {"totalRows": "2", "rows": [{"f": [{"v": "a"}, {"v": ""}]}]},
        {"totalRows": "1", "rows": [{"f": [{"v": "a"}]}]},
        {"totalRows": "1", "rows": [None]},
        {"totalRows": "1", "rows": [{"f": [{"v": "a"}, {"v": ""}]}], "pageToken": 7},
        {"totalRows": 1},
        {"rows": {}},
        {},
    ],
)
def test_a_table_that_did_not_arrive_whole_is_no_result(page: Any) -> None:
    fields = [{"name": "key", "type": "STRING"}, {"name": "status", "type": "STRING"}]

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=page if request.url.path.endswith("/data") else {"schema": {"fields": fields}})

    handle = orjson.dumps({"output": "bq://p.d.t_out", "input": "", "whole": True}).decode()
    with recorded(answer, bucket="bq://p.d") as provider, pytest.raises(OutcomeUnknown):
        list(provider.results(handle))


def test_a_load_that_takes_its_time_is_asked_for_again_and_not_started_twice(tmp_path: Path) -> None:
    chunk = tmp_path / "chunk.jsonl"
    chunk.write_bytes(b'{"key":"a","request":{}}\n')
    calls: list[str] = []
    states = iter([None, "RUNNING", "RUNNING", "DONE"])

    def answer(request: httpx2.Request) -> httpx2.Response:
        path, method = request.url.path, request.method
        calls.append(f"{method} {path.rpartition('/')[2]}")
        if method == "POST":
            return httpx2.Response(200, headers={"Location": "http://127.0.0.1:1/upload/x"})
        if method == "PUT":
            assert request.read() == chunk.read_bytes()
        if method == "PUT" or "/jobs/" in path:
            state = next(states)
            return httpx2.Response(404) if state is None else httpx2.Response(200, json={"status": {"state": state}})
        return httpx2.Response(200, json={"location": "EU"})

    waits = Waits()
    with recorded(answer, bucket="bq://p.d") as provider:
        assert Guarded(provider, sleep=waits).stage(chunk, name="bc-1.jsonl") == "bq://p.d.bc_1_in"
    assert [one for one in calls if not one.startswith("GET")] == ["POST jobs", "PUT x"]
    assert waits.seconds == [5.0, 5.0]


@needs_fixtures
def test_recorded_requests_pass_our_own_check_and_the_emulators() -> None:
    for number, line in enumerate((FIXTURES / "request_lines.jsonl").read_bytes().splitlines(), 1):
        assert provider_at().check_line(line, ENDPOINT, MODEL) is None
        if number < 4:
            assert checked(orjson.loads(line)["request"])
        else:  # a bad role, on purpose
            with pytest.raises(WireError):
                checked(orjson.loads(line)["request"])


def recorded(answer: Any, **more: Any) -> Any:
    provider = provider_at(model=MODEL, **more)
    for rest in (provider._rest, provider._warehouse):
        rest.__dict__["client"] = httpx2.Client(transport=httpx2.MockTransport(answer))
    return closing(provider)


# --- credentials ---------------------------------------------------------------------------------------------------------


class Token:
    """Credentials with a token that is renewed for each call."""

    def __init__(self) -> None:
        self.token = ""
        self.renewed = 0

    def before_request(self, _request: Any, _method: str, _url: str, headers: dict[str, str]) -> None:
        self.renewed += 1
        self.token = f"{CANARY}{self.renewed}"
        headers["authorization"] = f"Bearer {self.token}"


def test_every_call_carries_a_token_of_its_own_and_no_error_shows_it() -> None:
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["authorization"])
        return httpx2.Response(403, json={"error": {"message": f"bad {seen[-1]}", "status": "PERMISSION_DENIED"}})

    provider = VertexBatch(bucket="bucket-x", model=MODEL, **WHERE)
    provider._credentials._found = Token()
    provider._rest.__dict__["client"] = httpx2.Client(transport=httpx2.MockTransport(answer))
    guarded = Guarded(provider, sleep=Waits())
    for _ in range(2):
        with pytest.raises(NotAllowed) as raised:
            guarded.poll("1")
        assert CANARY not in everything(raised.value)
    assert seen == [f"Bearer {CANARY}1", f"Bearer {CANARY}2"]
    provider.close()


def test_a_token_that_cannot_be_had_sends_nothing() -> None:
    from google.auth.exceptions import RefreshError, TransportError

    provider = provider_at()
    assert isinstance(provider.outcome(RefreshError("invalid_grant")), NotAllowed)
    outcome = provider.outcome(TransportError("no route"))
    assert isinstance(outcome, Throttled)
    assert outcome.code == "unreachable"
    assert provider.outcome(OSError(28, "No space left on device")) is None
    assert provider.outcome(KeyError("bug")) is None


@pytest.mark.parametrize("page", [{"jobs": []}, {"batchPredictionJobs": None}, {"batchPredictionJobs": [{}]}, [], "x"])
def test_what_is_no_list_of_jobs_does_not_prove_that_there_is_none(page: Any) -> None:
    with (
        recorded(lambda _: httpx2.Response(200, json=page)) as provider,
        pytest.raises((OutcomeUnknown, ProviderError)),
    ):
        provider.find("", tag=TAG, since=0)
