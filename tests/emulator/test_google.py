"""The Google wires of the emulator are as strict as the services, and as generous: asked by plain HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.conftest import NewProvider
from tests.support.gcs import Gcs
from tests.support.provider import Provider, until

UPLOAD = "/upload/v1beta/files"
CREATE = "/v1beta/models/gemini-2.5-flash:batchGenerateContent"
JOBS = "/v1/projects/p/locations/us-central1/batchPredictionJobs"
LINE = b'{"key":"a","request":{"contents":[{"parts":[{"text":"hello"}]}]}}\n'


def asked(
    provider: Provider, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of any answer."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    url = path if path.startswith("http") else provider.url + path
    sent = {"x-goog-api-key": "k", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, sent, method=method), timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


@pytest.fixture
def served(new_provider: NewProvider) -> Provider:
    return new_provider()


def started(provider: Provider, size: int) -> str:
    command = {"X_Goog_Upload_Protocol": "resumable", "X_Goog_Upload_Command": "start"}
    length = {"X_Goog_Upload_Header_Content_Length": str(size)}
    status, headers, _ = asked(provider, "POST", UPLOAD, {"file": {"display_name": "a.jsonl"}}, **command, **length)
    assert status == 200
    return headers["X-Goog-Upload-URL"]


def sent(provider: Provider, url: str, part: bytes, offset: int, command: str) -> tuple[int, Any]:
    status, _, body = asked(
        provider, "POST", url, part, X_Goog_Upload_Offset=str(offset), X_Goog_Upload_Command=command
    )
    return status, json.loads(body or b"{}")


def uploaded(provider: Provider, content: bytes = LINE) -> str:
    _, body = sent(provider, started(provider, len(content)), content, 0, "upload, finalize")
    name: str = body["file"]["name"]
    return name


def test_a_file_may_come_in_pieces_and_only_whole(served: Provider) -> None:
    url = started(served, len(LINE))
    assert sent(served, url, LINE[:9], 0, "upload")[0] == 200
    assert sent(served, url, LINE[9:], 0, "upload, finalize")[0] == 400, "the offset is another one"
    status, body = sent(served, url, LINE[9:], 9, "upload, finalize")
    assert (status, body["file"]["sizeBytes"], body["file"]["state"]) == (200, str(len(LINE)), "ACTIVE")
    assert sent(served, started(served, 5), LINE, 0, "upload, finalize")[0] == 400, "the size was another one"
    assert sent(served, url, LINE, 0, "upload, finalize")[0] == 404, "it was finished"


def test_results_can_be_read_at_both_addresses_and_inputs_at_none(served: Provider) -> None:
    name = uploaded(served)
    for prefix in ("/v1beta/", "/download/v1beta/"):
        assert asked(served, "GET", f"{prefix}{name}:download?alt=media")[0] == 400
    batch = {"batch": {"display_name": "mine", "input_config": {"file_name": name}}}
    operation = json.loads(asked(served, "POST", CREATE, batch)[2])
    shown = until(
        lambda: (one := json.loads(asked(served, "GET", f"/v1beta/{operation['name']}")[2])).get("done") and one
    )
    results = shown["response"]["responsesFile"]
    assert shown["metadata"]["output"]["responsesFile"] == results
    bodies = {
        asked(served, "GET", f"{prefix}{results}:download?alt=media")[2] for prefix in ("/v1beta/", "/download/v1beta/")
    }
    assert [json.loads(one)["key"] for one in bodies] == ["a"]


@pytest.mark.parametrize(
    "batch",
    [
        {},
        {"batch": {}},
        {"batch": {"displayName": "a"}},
        {"batch": {"displayName": "a", "inputConfig": {"fileName": "a"}}},
        {"batch": {"displayName": "a", "inputConfig": {"fileName": "files/a"}, "batch_size": 1}},
        {"batch": {"displayName": "a", "inputConfig": {"requests": {"requests": []}}}},
        {"displayName": "a"},
    ],
)
def test_a_gemini_batch_that_is_refused(served: Provider, batch: Any) -> None:
    status, _, body = asked(served, "POST", CREATE, batch)
    assert (status, json.loads(body)["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert served.books().creates == []


def test_a_key_is_needed_and_a_wrong_one_is_no_401(served: Provider) -> None:
    assert asked(served, "GET", "/v1beta/batches", x_goog_api_key="")[0] == 403
    status, _, body = asked(served, "GET", "/v1beta/batches", x_goog_api_key="sk-bad")
    assert (status, json.loads(body)["error"]["details"][0]["reason"]) == (400, "API_KEY_INVALID")


def test_a_list_has_pages_and_other_peoples_batches(new_provider: NewProvider) -> None:
    provider = new_provider(other_batches=3)
    first = json.loads(asked(provider, "GET", "/v1beta/batches?pageSize=2")[2])
    rest = json.loads(asked(provider, "GET", f"/v1beta/batches?pageSize=2&pageToken={first['nextPageToken']}")[2])
    assert (len(first["operations"]), len(rest["operations"])) == (2, 1)
    assert "nextPageToken" not in rest


JOB = {
    "displayName": "a",
    "model": "publishers/google/models/gemini-2.5-flash",
    "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://b/in.jsonl"]}},
    "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://b/out"}},
}


@pytest.mark.parametrize(
    "job",
    [
        JOB | {"labels": {"bctl-run": "Row 1"}},
        JOB | {"labels": {"Run": "a"}},
        JOB | {"model": "gemini-2.5-flash"},
        JOB | {"displayName": ""},
        JOB | {"requestId": "a"},
        JOB | {"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["s3://b/in"]}}},
        JOB | {"outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": "bq://a.b.c"}}},
    ],
)
def test_a_vertex_job_that_is_refused(served: Provider, job: Any) -> None:
    assert asked(served, "POST", JOBS, job)[0] == 400
    assert served.books().creates == []


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"[]\n",
        b'{"key":"b","request":{"contents":[{"role":"user","parts":[{"text":"a"}]}],"toolConfig":{}}}\n',
        b'{"key":"b","row":{"a":1},"request":{"contents":[{"role":"user","parts":[{"text":"a"}]}]}}\n',
    ],
)
def test_a_vertex_import_fails_as_a_whole_and_names_no_line(new_provider: NewProvider, gcs: Gcs, line: bytes) -> None:
    provider, bucket = new_provider(gcs=gcs.url), gcs.bucket()
    good = b'{"key":"a","request":{"contents":[{"role":"user","parts":[{"text":"hello"}]}]}}\n'
    gcs.client().bucket(bucket).blob("in.jsonl").upload_from_string(good + line)
    job = JOB | {
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"gs://{bucket}/in.jsonl"]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": f"gs://{bucket}/out"}},
    }
    name = json.loads(asked(provider, "POST", JOBS, job)[2])["name"].rpartition("/")[2]
    shown = until(lambda: (one := json.loads(asked(provider, "GET", f"{JOBS}/{name}")[2])).get("endTime") and one)
    assert (shown["state"], shown["error"]["code"]) == ("JOB_STATE_FAILED", 3)
    assert "Failed to import data" in shown["error"]["message"]
    assert provider.books().rows == []
    assert [one.name for one in gcs.client().list_blobs(bucket)] == ["in.jsonl"]


def test_a_table_that_is_there_is_no_destination(served: Provider) -> None:
    where = {"projectId": "p", "datasetId": "d", "tableId": "t_out"}
    schema = {"fields": [{"name": "key", "type": "STRING"}, {"name": "request", "type": "JSON"}]}
    load = {"destinationTable": where, "sourceFormat": "NEWLINE_DELIMITED_JSON", "schema": schema}
    job = {"jobReference": {"projectId": "p", "jobId": "j"}, "configuration": {"load": load}}
    path = "/upload/bigquery/v2/projects/p/jobs?uploadType=resumable"
    _, headers, _ = asked(served, "POST", path, job)
    assert json.loads(asked(served, "PUT", headers["Location"], LINE)[2])["status"] == {"state": "DONE"}
    assert asked(served, "POST", path, job)[0] == 409, "a job's id is used once"
    tables = {
        "inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": "bq://p.d.t_in"}},
        "outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": "bq://p.d.t_out"}},
    }
    assert asked(served, "POST", JOBS, JOB | tables)[0] == 409
    assert asked(served, "GET", "/bigquery/v2/projects/p/datasets/missing-one")[0] == 404


def test_a_front_that_was_told_no_server_says_so_and_never_asks_itself(
    new_provider: NewProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    provider = new_provider()
    assert asked(provider, "GET", "/gcs/storage/v1/b/a/o")[0] == 503
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"{provider.url}/gcs")
    assert asked(provider, "GET", "/gcs/storage/v1/b/a/o")[0] == 503
    assert len(provider.calls("GET", "/gcs/")) == 2
