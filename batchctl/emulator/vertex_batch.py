"""Vertex's batch jobs: request lines out of Cloud Storage or BigQuery, results into a folder of the job or a table.

The import is as strict as the service's: an empty line, an empty object anywhere, or a nested field beside `request`
fails the job without naming the line. Results are told by their folder: final shards, and beside them the partial dump
that the service writes during the run. What was finished is written whatever the end; the rest has no line.

Sources: docs.cloud.google.com batch pages, the aiplatform v1 discovery document of 2026-11-06, and reports of clients
(google/langextract 1.7.1, BerriAI/litellm 1.109.1), read 2026-11.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from batchctl.emulator.bigquery_wire import table_path
from batchctl.emulator.google_answers import Manner, Rows
from batchctl.emulator.google_checks import embed, generate
from batchctl.emulator.process import Valid
from batchctl.emulator.settings import Settings
from batchctl.emulator.store import Store, new_id
from batchctl.emulator.wire import WireError

WIRE = "vertex"
BROKEN = (
    "Failed to import data. Error while reading data, error message: JSON table encountered too many errors, giving up."
)
_WORDS = {
    "error500": ("Internal", 500, "INTERNAL", "Internal error encountered."),
    "error429": ("Too Many Requests", 429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later."),
    "timeout": ("Gateway Timeout", 504, "DEADLINE_EXCEEDED", "Deadline exceeded."),
    "expired": ("Service Unavailable", 503, "UNAVAILABLE", "The service is currently unavailable."),
}
_SHARDED_FROM = 4  # lines; fewer are one file


@lru_cache(maxsize=8)
def client_at(address: str) -> Any:
    """A client of the Cloud Storage server at `address`."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return storage.Client(project="emulator", credentials=credentials, client_options={"api_endpoint": address})


def gcs_of(settings: Settings) -> str:
    """Where the Cloud Storage server is that this wire reads and writes; "" when nobody said."""
    return settings.gcs or os.environ.get("STORAGE_EMULATOR_HOST", "")


def place_of(uri: str) -> tuple[str, str]:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return bucket, name


def folder_of(batch: Any) -> str:
    """The folder a job makes below its prefix: always the same one for the same job."""
    prefix = orjson.loads(batch["metadata"])["output"].rstrip("/")
    at = datetime.fromtimestamp(batch["created"], UTC)
    return f"{prefix}/prediction-model-{at:%Y-%m-%dT%H:%M:%S.%fZ}"


class _Rows(Rows):
    """Lines of a result shard: the request comes back, normalised, beside status and response."""

    def answered(self, key: Any, request: Any, response: bytes) -> bytes:
        return _line(key, request, "", orjson.Fragment(response))

    def failed(self, key: Any, request: Any, fate: str) -> bytes:
        if fate not in _WORDS:
            return _line(key, request, "It rained.", {})
        prefix, code, status, message = _WORDS[fate]
        error = orjson.dumps({"error": {"code": code, "message": message, "status": status}}).decode()
        return _line(key, request, f"{prefix}: {error}", {})

    def refused(self, key: Any, request: Any, error: WireError) -> bytes:
        return _line(key, request, f"Bad Request: {orjson.dumps(error.body).decode()}", {})


def _line(key: Any, request: Any, status: str, response: Any) -> bytes:
    echo = request
    if isinstance(request, dict) and "contents" in request and isinstance(request.get("generationConfig", {}), dict):
        echo = {**request, "generationConfig": {**request.get("generationConfig", {}), "candidateCount": 1}}
    line = {"key": key, "request": echo, "status": status, "response": response}
    line["processed_time"] = "2026-11-01T09:30:00.826+00:00"
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def checked(request: Any) -> dict[str, Any]:
    """A request of a line: here every content needs its role, and labels may be given."""
    return generate(request, role_needed=True, more=frozenset(("labels", "modelArmorConfig")))


class VertexBatches:
    """What the worker needs to know of this wire: inputs are brought from Cloud Storage, results carried there."""

    one_file = True

    def bring(self, store: Store, batch: Any) -> None:
        """The input object as a file of the store. One that is not there stays away, which fails the job."""
        from google.api_core.exceptions import GoogleAPICallError

        asked, address = orjson.loads(batch["metadata"]), gcs_of(Settings.restored(batch["settings"]))
        if store.file(WIRE, batch["input_file_id"]) is not None:
            return
        bucket, name = place_of(asked["input"])
        part = store.work / f"{batch['id']}.brought"
        part.unlink(missing_ok=True)
        try:
            if asked["input"].startswith("bq://"):
                os.link(table_path(store, asked["input"]), part)
            elif address:
                client_at(address).bucket(bucket).blob(name).download_to_filename(str(part), retry=None)
            else:
                return
        except (GoogleAPICallError, FileNotFoundError):
            part.unlink(missing_ok=True)
            return
        store.add_file(
            part,
            wire=WIRE,
            file_id=batch["input_file_id"],
            filename=name,
            purpose="batch",
            created=batch["created"],
            keep_seconds=None,
        )

    def carry(self, store: Store, batch: Any, output: Path, counts: dict[str, int]) -> str:
        """The result lines as shards into the job's folder, and the partial dump; what kept them from it."""
        from google.api_core.exceptions import GoogleAPICallError

        if not counts["processedRecordCount"]:
            return ""  # never started: the service writes nothing
        target = orjson.loads(batch["metadata"])["output"]
        if target.startswith("bq://"):
            part = store.work / f"{batch['id']}.table"
            part.write_bytes(output.read_bytes())
            part.replace(table_path(store, target))
            return ""
        bucket, name = place_of(folder_of(batch))
        store_of = client_at(gcs_of(Settings.restored(batch["settings"]))).bucket(bucket)
        lines = output.read_bytes().split(b"\n")
        half = (len(lines) + 1) // 2
        shards = {"predictions.jsonl": lines}
        if len(lines) > _SHARDED_FROM:
            shards = {
                f"predictions.jsonl-0000{place}-of-00002": part
                for place, part in enumerate((lines[:half], lines[half:]))
            }
            shards["incremental_predictions.jsonl"] = lines[:1]
        try:
            for shard, some in shards.items():
                store_of.blob(f"{name}/{shard}").upload_from_string(b"\n".join(some), retry=None)
        except GoogleAPICallError as error:
            return f"Could not write to the output folder: {type(error).__name__}"
        return ""

    def validate(self, path: Path, endpoint: str, settings: Settings, queued_tokens: int) -> Valid:
        total = tokens = 0
        with path.open("rb") as file:
            for line in file:
                total += 1
                tokens += len(line) // 4 + 1
                if not _importable(line):
                    return Valid(total, None, 0, ({"code": 3, "message": BROKEN},))
        if not total:
            return Valid(0, None, 0, ({"code": 3, "message": "The input is empty."},))
        limit = settings.enqueued_token_limit
        if limit is not None and tokens + queued_tokens > limit:
            return Valid(total, None, 0, ({"code": 8, "message": "Quota of queued tokens is reached."},))
        return Valid(total, endpoint.rpartition("/")[2].partition(":")[0], tokens, ())

    def rows(self, *, batch_id: str, endpoint: str, settings: Settings, created: int) -> Rows:  # noqa: ARG002
        model, _, method = endpoint.rpartition("/")[2].partition(":")
        manner = Manner(model, settings, more_usage=(("trafficType", "ON_DEMAND"),))
        return _Rows(batch_id=batch_id, manner=manner, check=embed if method == "embedContent" else checked)

    def gone(self, file_id: str) -> dict[str, Any]:  # noqa: ARG002
        return {"code": 5, "message": "The input could not be found."}

    def output_name(self, batch_id: str, kind: str) -> str:
        return f"{batch_id}_{kind}.jsonl"

    def new_file_id(self) -> str:
        return new_id("vertex-")


def _importable(line: bytes) -> bool:
    """Whether a line can become a row of the service's table: primitives beside `request`, no empty object in it."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("request"), dict)
        or not isinstance(value.get("key"), str)
    ):
        return False
    flat = all(not isinstance(one, dict | list) for name, one in value.items() if name != "request")
    return flat and _full(value["request"])


def _full(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(_full(one) for one in value.values())
    return all(_full(one) for one in value) if isinstance(value, list) else True
