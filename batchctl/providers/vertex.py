"""Vertex AI batch prediction: one chunk is one object in Cloud Storage (or one table in BigQuery) and one job.

A job carries our mark as its display name and as a label, and names its input, so it can be found again; creating has no
idempotency key. Deleting the input is a fence: a job whose input is gone fails before anything runs. Results lie in a
folder below a prefix of our own, new for each create; what a job had finished when it ended is there, however it ended.

REST with tokens of google-auth: google-genai takes no labels, google-cloud-aiplatform costs seconds to load (see
`google_rest`). The service says of a bad line only that the import failed, so every line is checked here.

Facts: aiplatform v1 discovery of 2026-11-06 and the batch pages of docs.cloud.google.com, read 2026-11-21.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from batchctl.model.batches import (
    Ask,
    BatchState,
    BatchStatus,
    Candidate,
    Limits,
    LineError,
    Refusal,
    Traits,
)
from batchctl.model.errors import BatchctlError, OutcomeUnknown, UsageError
from batchctl.providers import google_body
from batchctl.providers.google_batch import METHODS, GoogleBatch
from batchctl.providers.google_bigquery import Tables
from batchctl.providers.google_credentials import VARIABLE, Credentials, auth_outcome
from batchctl.providers.google_rest import ApiError, Rest, Words, count_of, listed, outcome
from batchctl.providers.google_storage import Objects
from batchctl.providers.http import epoch, host, is_local, json_object
from batchctl.providers.vertex_places import Bucket, Dataset, Place, inputs_of, output_of

STATES = {
    "JOB_STATE_UNSPECIFIED": BatchState.RUNNING,
    "JOB_STATE_QUEUED": BatchState.RUNNING,
    "JOB_STATE_PENDING": BatchState.RUNNING,
    "JOB_STATE_RUNNING": BatchState.RUNNING,
    "JOB_STATE_UPDATING": BatchState.RUNNING,
    "JOB_STATE_PAUSED": BatchState.RUNNING,
    "JOB_STATE_CANCELLING": BatchState.RUNNING,
    "JOB_STATE_SUCCEEDED": BatchState.ENDED,
    "JOB_STATE_PARTIALLY_SUCCEEDED": BatchState.ENDED,
    "JOB_STATE_FAILED": BatchState.REFUSED,
    "JOB_STATE_CANCELLED": BatchState.ENDED,
    "JOB_STATE_EXPIRED": BatchState.ENDED,
}
REFUSALS = {3: Refusal.FILE, 5: Refusal.ACCESS, 7: Refusal.ACCESS, 8: Refusal.CAPACITY, 9: Refusal.FILE}
"""Codes (google.rpc.Code) of a job that failed and left no output; with any other code something may have run."""
BIGQUERY = "https://bigquery.googleapis.com"
PAGE_JOBS = 100
_LABEL = re.compile(r"[^a-z0-9_-]")
_PUBLISHED = re.compile(r"publishers/[a-z0-9-]+/models/[A-Za-z0-9@._-]+")


class VertexBatch(GoogleBatch):
    """The Vertex wire. `bucket` says where requests and results are kept, see `vertex_places`."""

    def __init__(
        self,
        *,
        name: str = "vertex",
        base_url: str | None = None,
        project: str | None = None,
        location: str | None = None,
        bucket: str | None = None,
        model: str | None = None,
    ) -> None:
        self.name = name
        self._location = location or os.environ.get("GOOGLE_CLOUD_LOCATION") or "global"
        address = base_url or os.environ.get("BATCHCTL_VERTEX_BASE_URL") or address_of(self._location)
        self._base_url = address.rstrip("/").removesuffix("/v1")
        self._given_project = project or os.environ.get("GOOGLE_CLOUD_PROJECT")
        local = is_local(self._base_url)
        if local and not self._given_project:
            self._given_project = "loopback"  # what listens on this machine has no projects to tell apart
        self._credentials = Credentials(local=local)
        self._rest = Rest(self._base_url, variable="BATCHCTL_VERTEX_BASE_URL", headers=self._credentials.headers)
        self.server = self._rest.server
        self._objects = Objects(self._storage_client)
        warehouse = os.environ.get("BIGQUERY_EMULATOR_HOST") or (self._base_url if local else BIGQUERY)
        self._warehouse = Rest(
            warehouse.rstrip("/"), variable="BIGQUERY_EMULATOR_HOST", headers=self._credentials.headers
        )
        self._place: Place = Bucket(bucket or "", self._objects)
        if bucket and bucket.startswith("bq://"):
            self._place = Dataset(bucket, Tables(self._warehouse), self._project)
        self.traits = Traits(
            searchable=True,
            fenced=True,
            wire="google",
            endpoints=METHODS if model is None else (endpoint_of(model),),
            retention="results stay in your bucket; job records: not documented",
            lacks=("take empty JSON objects in a request", "ask models of other publishers (batchctl does not)"),
            regions="[model] location, that of bucket and dataset; Gemini 3 and later: global",
            credentials=(VARIABLE,),
        )

    def limits(self, endpoint: str) -> Limits:  # noqa: ARG002  (embeddings take more rows; one number is enough)
        return Limits(
            requests=200_000,
            file_bytes=1_000_000_000,
            line_bytes=10_000_000,
            source="docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, read "
            "2026-11-21 (line_bytes: our own bound)",
        )

    # --- codec: no key, no network ----------------------------------------------------------------------------------

    def endpoint_of(self, model: str) -> str:
        return endpoint_of(model)

    def body(self, ask: Ask) -> tuple[dict[str, Any], tuple[str, ...]]:
        request, notes = super().body(ask)
        self._place.check()
        empty = google_body.empty_object(request)
        if empty is not None:
            raise UsageError(
                f"an empty object in a request makes {self.name} refuse the whole file",
                where=empty,
                effect="nothing was written",
                hint="give it a field, or remove it; an empty schema can be written as a list of all types",
            )
        return request, notes

    def check_line(self, line: bytes, endpoint: str, model: str) -> str | None:
        problem = super().check_line(line, endpoint, model)
        if problem is None and b"{}" in line:
            empty = google_body.empty_object(orjson.loads(line))
            problem = None if empty is None else f"an empty object at {empty}"
        return problem

    # --- the account ------------------------------------------------------------------------------------------------

    def account(self) -> str:
        place = "loopback" if is_local(self._base_url) else host(self._base_url)
        parts = (self.name, place, self._project(), self._location)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _project(self) -> str:
        self._credentials.get()
        project = self._given_project or self._credentials.project
        if not project:
            raise UsageError(
                f"provider `{self.name}` needs a project",
                where="[model] project",
                effect="nothing was sent",
                hint='add project = "..." under [model], or set GOOGLE_CLOUD_PROJECT',
            )
        return project

    def _parent(self) -> str:
        return f"/v1/projects/{quote(self._project(), safe='')}/locations/{quote(self._location, safe='')}"

    def _storage_client(self) -> Any:
        from google.auth.transport.requests import AuthorizedSession
        from google.cloud import storage

        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        if not emulator:
            return storage.Client(project=self._project(), credentials=self._credentials.get())
        nobody = Credentials(local=True).get()
        session: Any = AuthorizedSession(nobody)  # type: ignore[no-untyped-call]
        session.trust_env = not is_local(emulator)  # a proxy is for what leaves this machine
        return storage.Client(project=self._project(), credentials=nobody, _http=session)

    def close(self) -> None:
        self._rest.close()
        self._warehouse.close()
        self._objects.close()

    # --- the wire ---------------------------------------------------------------------------------------------------

    def stage(self, chunk: Path, *, name: str) -> str:
        return self._place.put(chunk, name.removesuffix(".jsonl"))

    def create(self, staged: str, *, endpoint: str, tag: str, run: str, chunk: int) -> str:
        model, _, _ = endpoint.rpartition(":")
        job = {
            "displayName": tag,
            "model": model,
            **self._place.configs(staged, tag),
            "labels": {"bctl-run": label_of(run), "bctl-shard": f"{chunk:04d}", "bctl-attempt": label_of(tag)},
        }
        answer = self._rest.ask("POST", f"{self._parent()}/batchPredictionJobs", json=job)
        return _id(json_object(answer, "create"), "create")

    def find(self, staged: str, *, tag: str, since: int, known: Container[str] = ()) -> list[Candidate]:  # noqa: ARG002
        found: dict[str, Candidate] = {}
        for job in self._listed(since):
            labels = job.get("labels")
            marked = job.get("displayName") == tag or (
                isinstance(labels, dict) and labels.get("bctl-attempt") == label_of(tag)
            )
            reads = bool(staged) and staged in inputs_of(job)
            if marked or reads:
                batch_id = _id(job, "list")
                by = "mark and input" if marked and reads else "mark" if marked else "input"
                found[batch_id] = Candidate(batch_id, epoch(job.get("createTime")), str(job.get("state")), by)
        return sorted(found.values(), key=lambda one: (one.created_at or 0, one.batch_id))

    def _listed(self, since: int) -> Iterator[dict[str, Any]]:
        """Jobs made since then, each with a name."""
        query = {"pageSize": str(PAGE_JOBS)}
        if 0 < since < 2**35:
            query["filter"] = f'create_time>"{datetime.fromtimestamp(since, UTC):%Y-%m-%dT%H:%M:%SZ}"'
        what = "batchPredictionJobs"
        for job in listed(self._rest, f"{self._parent()}/{what}", what, query, name=self.name):
            _id(job, "GET " + what)
            yield job

    def greet(self) -> None:
        """The upload goes to another service: this one is asked for a job, so that its time is known."""
        self._rest.ask("GET", f"{self._parent()}/batchPredictionJobs", params={"pageSize": "1"})

    def _job(self, batch_id: str) -> str:
        return f"{self._parent()}/batchPredictionJobs/{quote(batch_id, safe='')}"

    def poll(self, batch_id: str) -> BatchStatus:
        job = json_object(self._rest.ask("GET", self._job(batch_id)), "poll")
        if _id(job, "poll") != batch_id:
            raise OutcomeUnknown(f"{self.name} answered with another job", where=f"batch `{batch_id}`")
        return status_of(job)

    def results(self, handle: str) -> Iterator[bytes]:
        """All that a job has written, as lines."""
        yield from self._place.lines(orjson.loads(handle))

    def size_of(self, handle: str) -> int | None:  # noqa: ARG002
        return None  # several objects; the checksum of each is compared while it is read

    def cancel(self, batch_id: str) -> None:
        try:
            self._rest.ask("POST", self._job(batch_id) + ":cancel", json={})
        except ApiError as error:
            if error.status not in (400, 409) or self.poll(batch_id).state is BatchState.RUNNING:
                raise

    def delete(self, staged: str) -> None:
        """An input, or all results of a job: `staged` is an address, or a handle of `poll`."""
        if staged.startswith("{"):
            self._place.forget(orjson.loads(staged)["output"])
        else:
            self._place.delete(staged)

    def live_path(self, endpoint: str) -> str:
        return f"{self._parent()}/{endpoint}"

    # --- what an exception means ------------------------------------------------------------------------------------

    def outcome(self, error: BaseException) -> BatchctlError | None:
        known = auth_outcome(error) or storage_error(error)
        project = self._given_project or "of the credentials"
        words = Words(
            self.name,
            host(self._base_url),
            self._credentials.hidden_in,
            credentials=f"the account's roles in project `{project}`, and its access to the bucket",
            absent="check the model's name and [model] location: some models are served from `global` only",
        )
        return outcome(known or error, words)


def storage_error(error: BaseException) -> BaseException | None:
    """An exception of google-cloud-storage as one of `google_rest`, or as ours."""
    import sys

    if "google.cloud.storage" not in sys.modules:
        return None
    from google.api_core.exceptions import GoogleAPICallError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests import RequestException

    if isinstance(error, GoogleAPICallError | InvalidResponse):
        answer = error.response
        if answer is not None and hasattr(answer, "content"):
            return ApiError(answer.status_code, answer.headers, answer.content)
        return ApiError(int(getattr(error, "code", 0) or 500), {}, b"")
    if isinstance(error, RequestException | DataCorruption):
        return OutcomeUnknown(f"no usable answer from Cloud Storage: {type(error).__name__}")
    return None


def address_of(location: str) -> str:
    """Where jobs of a location are asked for."""
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def endpoint_of(model: str) -> str:
    """What the vendor's address ends in for this model: `publishers/google/models/gemini-2.5-flash:generateContent`."""
    path = model if model.startswith("publishers/") else f"publishers/google/models/{model.removeprefix('google/')}"
    if not _PUBLISHED.fullmatch(path) or not path.startswith("publishers/google/"):
        raise UsageError(
            f"model `{model}` cannot be used in batch with vertex",
            where="[model] name",
            effect="nothing was sent",
            hint="name a model of Google, such as gemini-2.5-flash; other publishers are not built",
        )
    return f"{path}:{google_body.method_of(path)}"


def label_of(text: str) -> str:
    """A label's value: at most 63 lower-case letters, digits, `_` and `-`."""
    return _LABEL.sub("-", text.lower())[:63]


def _id(job: Any, what: str) -> str:
    """The last part of a job's name, whose project may be a number; without one nobody knows what it is about."""
    name = job.get("name") if isinstance(job, dict) else None
    head, _, batch_id = name.rpartition("/") if isinstance(name, str) else ("", "", "")
    if not batch_id or not head.endswith("/batchPredictionJobs"):
        raise OutcomeUnknown(f"the answer to {what} carries no job name")
    return batch_id


def status_of(job: Mapping[str, Any]) -> BatchStatus:
    """One job as `BatchStatus`. One that failed counts as refused only when it left no output and its code says so."""
    word = str(job.get("state") or "")
    known = word in STATES
    state = STATES.get(word, BatchState.RUNNING)
    stats = job.get("completionStats")
    numbers = {key: count_of(value) for key, value in stats.items()} if isinstance(stats, dict) else {}
    output = output_of(job)
    complaints: tuple[LineError, ...] = ()
    refusal = None
    if state is BatchState.REFUSED:
        error = job.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        message = str(error.get("message") or "")[:500] if isinstance(error, dict) else ""
        complaints = (LineError(code=f"code {code}", message=message),)
        refusal = REFUSALS.get(code) if type(code) is int and output is None else None
        state = BatchState.REFUSED if refusal is not None else BatchState.ENDED
    files: tuple[tuple[str, str], ...] = ()
    if state is BatchState.ENDED and output is not None:
        whole = word == "JOB_STATE_SUCCEEDED"
        handle = {"output": output, "input": next(iter(inputs_of(job)), ""), "whole": whole}
        files = (("output", orjson.dumps(handle).decode()),)
    return BatchStatus(
        state=state,
        vendor_status=word or "unknown",
        batch_id=str(job.get("name") or "").rpartition("/")[2],
        files=files,
        counts={key: value for key, value in numbers.items() if value is not None},
        refusal=refusal,
        errors=complaints,
        known_word=known and word != "JOB_STATE_UNSPECIFIED",
        owes_results=word in ("JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED"),
        out_of_time=word == "JOB_STATE_EXPIRED",
    )
