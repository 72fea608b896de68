"""Amazon Bedrock batch inference: one chunk is one object in S3 and one model invocation job.

A create carries our own `clientRequestToken`, so that the same create asked twice is one job: one whose answer was lost
is asked again, with the same token and the very same arguments. How long the service remembers a token is not documented;
after `TOKEN_SECONDS` a lost create is looked for and fenced like any other. Jobs are also found by listing: summaries
carry token, name and input.

The job's results are an object in our bucket beside a manifest; rows that the job did not come to have no line.
`modelId` belongs to the job and must not stand in a record. A record's id has letters and digits only.

Facts: docs.aws.amazon.com/bedrock/latest/userguide (batch-inference*, monitoring), the service model of botocore 1.44.5
and measurements on loopback, 2026-11-21.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
from collections.abc import Container, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from batchctl.model.batches import (
    Ask,
    BatchState,
    BatchStatus,
    Candidate,
    Limits,
    LineError,
    LiveAnswer,
    Refusal,
    Request,
    Traits,
)
from batchctl.model.errors import BatchctlError, NotFound, OutcomeUnknown, Rejected, UsageError
from batchctl.model.rows import Usage
from batchctl.model.usage import counted
from batchctl.providers import aws
from batchctl.providers.bedrock_body import CONVERSE, INVOKE, body_of, endpoints_of, problem_of
from batchctl.providers.http import host, is_local, whole

STATES = {
    "Submitted": BatchState.RUNNING,
    "Validating": BatchState.RUNNING,
    "Scheduled": BatchState.RUNNING,
    "InProgress": BatchState.RUNNING,
    "Stopping": BatchState.RUNNING,
    "Completed": BatchState.ENDED,
    "PartiallyCompleted": BatchState.ENDED,
    "Stopped": BatchState.ENDED,
    "Expired": BatchState.ENDED,
    "Failed": BatchState.REFUSED,  # ended instead when it has results: it may fail half way
}
TOKEN_SECONDS = 8 * 3600
"""Other AWS services remember a token for eight hours; Bedrock does not say."""
LEAST_RECORDS = 100
TIMEOUT_HOURS = 72  # 24 to 168; what has not run by then comes back without a result
FOLDER = "batchctl"
MANIFEST = "manifest.json.out"
MANIFEST_BYTES = 1 << 20
LIST_PAGES = 100  # a list that never ends is an error, not a loop
PAGE_JOBS = 1000
BLOCK_BYTES = 1 << 18
_RECORD_ID = re.compile(r"[a-zA-Z0-9]{1,64}")
_TAG = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62}")
_ROLE = re.compile(r"arn:aws(?:-[^:]+)?:iam::(\d{12}):role/.+")
_URI = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+)*/?")
_COUNTS = {
    "total": "totalRecordCount",
    "processed": "processedRecordCount",
    "completed": "successRecordCount",
    "failed": "errorRecordCount",
}


class BedrockBatch:
    """Bedrock in one region. `bucket` may go on with a prefix: `name` or `name/some/folder`."""

    def __init__(
        self,
        *,
        name: str = "bedrock",
        model: str = "",
        region: str | None = None,
        bucket: str | None = None,
        role_arn: str | None = None,
        profile: str | None = None,
        base_url: str | None = None,
        s3_url: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._bucket, _, prefix = (bucket or "").removeprefix("s3://").strip("/").partition("/")
        self._prefix = f"{prefix}/{FOLDER}" if prefix else FOLDER
        self._role = role_arn or ""
        self._base_url = base_url
        self._s3_url = s3_url
        self._aws = aws.Aws(name, region=region, profile=profile, access_key=access_key, secret_key=secret_key)
        self.server = self._aws.server
        self.traits = Traits(
            searchable=True,
            fenced=True,
            token_seconds=TOKEN_SECONDS,
            id_separator="x",
            wire="bedrock",
            endpoints=endpoints_of(model),
            retention="results in your bucket, until you delete them",
            lacks=(
                f"take fewer than {LEAST_RECORDS} requests in a batch",
                "call tools in Converse jobs",
                "hold models other than Claude to a schema: it is put into words and judged here",
            ),
            regions="[model] region, that of the bucket; a model may be asked across regions by its profile (us., eu.)",
            credentials=(aws.KEY_ID, aws.SECRET),
        )

    def limits(self, endpoint: str) -> Limits:  # noqa: ARG002  (the same for both)
        return Limits(
            requests=50_000,
            file_bytes=1_000_000_000,
            line_bytes=25_000_000,
            least_requests=LEAST_RECORDS,
            source="AWS General Reference, Bedrock quotas (defaults, a copy of mid 2025; they differ by model and account); "
            "botocore 1.44.5 (line_bytes: of one synchronous request); read 2026-11-21",
        )

    # --- codec: no SDK, no key ------------------------------------------------------------------------------------

    def body(self, ask: Ask) -> tuple[dict[str, Any], tuple[str, ...]]:
        return body_of(ask)

    def encode(self, request: Request) -> bytes:
        return orjson.dumps({"recordId": request.custom_id, "modelInput": request.body})

    def check_line(self, line: bytes, endpoint: str, model: str) -> str | None:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return f"not JSON: {error}"
        if not isinstance(value, dict) or value.keys() != {"recordId", "modelInput"}:
            return "not an object with exactly recordId and modelInput"
        if not isinstance(value["recordId"], str) or not _RECORD_ID.fullmatch(value["recordId"]):
            return "recordId is not 1 to 64 letters and digits"
        if model != self._model:
            return f"the job asks {self._model!r}, the batch is for {model!r}"
        return problem_of(endpoint, model, value["modelInput"])

    def live_body(self, line: bytes) -> bytes:
        return orjson.dumps(orjson.loads(line)["modelInput"])

    # --- the account ----------------------------------------------------------------------------------------------

    def account(self) -> str:
        """The account of the role and the region; not the keys, which change every hour under a role or SSO."""
        role = self._checked()
        self._aws.checked()
        named = self._base_url or os.environ.get("AWS_ENDPOINT_URL_BEDROCK") or ""
        place = "loopback" if is_local(named) else host(named)
        parts = (self.name, place, self._aws.region, role)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _checked(self) -> str:
        """The account id out of the role, once everything a job needs is named in the form the service wants."""
        role = _ROLE.fullmatch(self._role)
        if role is None:
            raise _unfit(
                "role_arn",
                "the ARN of the role that Bedrock assumes to read and write the bucket",
                "arn:aws:iam::123456789012:role/batchctl-bedrock",
            )
        if not _URI.fullmatch(f"s3://{self._bucket}/{self._prefix}"):
            raise _unfit("bucket", "a bucket in the job's region, as NAME or NAME/FOLDER", "my-batches/batchctl")
        if not self._model:
            raise _unfit("name", "a model or an inference profile", "us.anthropic.claude-haiku-4-5-20251001-v1:0")
        return role[1]

    def close(self) -> None:
        self._aws.close()

    @property
    def _jobs(self) -> Any:
        return self._aws.client("bedrock", self._base_url)

    @property
    def _runtime(self) -> Any:
        return self._aws.client("bedrock-runtime", self._base_url, seconds=aws.LIVE_SECONDS)

    @property
    def _s3(self) -> Any:
        return self._aws.client("s3", self._s3_url)

    # --- the wire -------------------------------------------------------------------------------------------------

    def stage(self, chunk: Path, *, name: str) -> str:
        self._checked()
        key = f"{self._prefix}/{name.removesuffix('.jsonl')}/input.jsonl"
        with chunk.open("rb") as file:  # an open handle is streamed
            answer = aws.asked("upload", self._s3.put_object, Bucket=self._bucket, Key=key, Body=file)
        if not answer.get("ETag"):
            raise OutcomeUnknown("the answer to the upload names no object")
        return f"s3://{self._bucket}/{key}"

    def create(self, staged: str, *, endpoint: str, tag: str, run: str, chunk: int) -> str:  # noqa: ARG002
        """One POST, of which every argument follows from tag, input and job: asked again, it is the same."""
        self._checked()
        if not _TAG.fullmatch(tag):
            raise Rejected(f"`{tag}` is no name for a job", effect="nothing was sent")
        folder = staged.rpartition("/")[0]
        answer = aws.asked(
            "create",
            self._jobs.create_model_invocation_job,
            jobName=tag,
            clientRequestToken=tag,
            roleArn=self._role,
            modelId=self._model,
            modelInvocationType=endpoint,
            inputDataConfig={"s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": staged}},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"{folder}/out/"}},
            timeoutDurationInHours=TIMEOUT_HOURS,
        )
        arn = answer.get("jobArn")
        if not isinstance(arn, str) or not arn:
            raise OutcomeUnknown("the answer to create carries no jobArn")
        return arn

    def find(self, staged: str, *, tag: str, since: int, known: Container[str] = ()) -> list[Candidate]:  # noqa: ARG002
        found: dict[str, Candidate] = {}
        for job in self._listed(since):
            marked = tag in (job.get("clientRequestToken"), job.get("jobName"))
            reads = bool(staged) and _input_of(job) == staged
            if marked or reads:
                by = "mark and input" if marked and reads else "mark" if marked else "input"
                arn = job["jobArn"]
                found[arn] = Candidate(arn, _epoch(job.get("submitTime")), str(job.get("status")), by)
        return sorted(found.values(), key=lambda one: (one.created_at or 0, one.batch_id))

    def _listed(self, since: int) -> Iterator[dict[str, Any]]:
        """Jobs submitted since then, over every page. Whatever is no list raises: taken for an empty one, it is proof."""
        after: str | None = None
        seen: set[str] = set()
        where = "GET /model-invocation-jobs"
        for _ in range(LIST_PAGES):
            more = {"nextToken": after} if after else {}
            page = aws.asked(
                "list",
                self._jobs.list_model_invocation_jobs,
                maxResults=PAGE_JOBS,
                sortBy="CreationTime",
                sortOrder="Descending",
                submitTimeAfter=datetime.fromtimestamp(since, UTC),
                **more,
            )
            jobs = page.get("invocationJobSummaries")
            if not isinstance(jobs, list) or not all(isinstance(one, dict) and _has_arn(one) for one in jobs):
                raise OutcomeUnknown(f"{self.name} answered with something else than a list of jobs", where=where)
            yield from jobs
            after = page.get("nextToken")
            if not after:
                return
            if after in seen:
                raise OutcomeUnknown(f"{self.name} lists the same jobs again and again", where=where)
            seen.add(after)
        raise OutcomeUnknown(f"{self.name} listed more than {LIST_PAGES * PAGE_JOBS:,} jobs", where=where)

    def poll(self, batch_id: str) -> BatchStatus:
        job = aws.asked("poll", self._jobs.get_model_invocation_job, jobIdentifier=batch_id)
        if job.get("jobArn") != batch_id:
            raise OutcomeUnknown(f"{self.name} answered with another job", where=f"job `{batch_id}`")
        state = STATES.get(str(job.get("status")), BatchState.RUNNING)
        if state is BatchState.RUNNING:
            return status_of(job)
        objects = self._outputs(job)
        manifest = next((self._manifest(uri) for uri in objects if uri.endswith("/" + MANIFEST)), {})
        results = [uri for uri in objects if uri.endswith(".jsonl.out")]
        there = True
        if state is BatchState.REFUSED and not results:
            there = self._size(_input_of(job)) is not None
        return status_of(job, results=results, manifest=manifest, input_there=there)

    def _outputs(self, job: Mapping[str, Any]) -> dict[str, int]:
        """Objects the job has written, with their sizes: listed, never predicted."""
        config = job.get("outputDataConfig")
        place = config.get("s3OutputDataConfig") if isinstance(config, dict) else None
        uri = place.get("s3Uri") if isinstance(place, dict) else None
        if not isinstance(uri, str) or not uri.startswith("s3://"):
            raise OutcomeUnknown("the job does not say where its results are", where=f"job `{job.get('jobArn')}`")
        return self._objects(f"{uri.rstrip('/')}/{str(job['jobArn']).rpartition('/')[2]}/")

    def _objects(self, prefix: str) -> dict[str, int]:
        bucket, key = _place(prefix)
        found: dict[str, int] = {}
        more: dict[str, str] = {}
        for _ in range(LIST_PAGES):
            page = aws.asked("list", self._s3.list_objects_v2, Bucket=bucket, Prefix=key, **more)
            listed = page.get("Contents", [])
            if "KeyCount" not in page or not isinstance(listed, list):
                raise OutcomeUnknown("the answer is no list of objects", where=f"s3://{bucket}")
            found |= {f"s3://{bucket}/{one['Key']}": int(one.get("Size") or 0) for one in listed if "Key" in one}
            after = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not after:
                return dict(sorted(found.items()))
            more = {"ContinuationToken": str(after)}
        raise OutcomeUnknown("the list of objects does not end", where=prefix)

    def _size(self, uri: str) -> int | None:
        return self._objects(uri).get(uri) if uri else None

    def _manifest(self, uri: str) -> dict[str, Any]:
        """The counts a job leaves beside its results; nothing where it cannot be read: it decides nothing alone."""
        bucket, key = _place(uri)
        body = aws.asked("results", self._s3.get_object, Bucket=bucket, Key=key)["Body"]
        try:
            value = orjson.loads(body.read(MANIFEST_BYTES))
        except orjson.JSONDecodeError:
            return {}
        finally:
            body.close()
        return value if isinstance(value, dict) else {}

    def results(self, handle: str) -> Iterator[bytes]:
        bucket, key = _place(handle)
        body = aws.asked("results", self._s3.get_object, Bucket=bucket, Key=key)["Body"]
        try:
            yield from body.iter_chunks(BLOCK_BYTES)
        finally:
            body.close()

    def size_of(self, handle: str) -> int | None:
        return self._size(handle)

    def cancel(self, batch_id: str) -> None:
        """Stop a job; what it has done is kept, and charged."""
        try:
            aws.asked("cancel", self._jobs.stop_model_invocation_job, jobIdentifier=batch_id)
        except Exception as error:
            known = self._aws.outcome(error)
            refused = isinstance(known, Rejected) or "ConflictException" in getattr(known, "what", "")
            if not refused or self.poll(batch_id).state is BatchState.RUNNING:
                raise

    def delete(self, staged: str) -> None:
        """S3 says the same of an object that is gone already."""
        bucket, key = _place(staged)
        aws.asked("delete", self._s3.delete_object, Bucket=bucket, Key=key)

    def call(self, body: bytes, endpoint: str) -> LiveAnswer:
        started = time.monotonic()
        try:
            if endpoint == CONVERSE:
                answer = aws.asked("Converse", self._runtime.converse, modelId=self._model, **orjson.loads(body))
                answer.pop("ResponseMetadata", None)
            else:
                answer = self._invoked(body)
        except Exception as error:
            response = getattr(error, "response", None)
            if isinstance(self._aws.outcome(error), Rejected) and isinstance(response, dict):
                code, message, status, _ = aws.error_parts(response)
                kept = {"code": code, "message": self._aws.hidden_in(message)}
                return LiveAnswer(status, kept, time.monotonic() - started)
            raise
        text = self._aws.hidden_in(orjson.dumps(answer, default=_as_text).decode())
        return LiveAnswer(200, orjson.loads(text), time.monotonic() - started)

    def _invoked(self, body: bytes) -> dict[str, Any]:
        form = "application/json"
        answer = aws.asked(
            INVOKE, self._runtime.invoke_model, modelId=self._model, body=body, contentType=form, accept=form
        )
        try:
            value = orjson.loads(answer["body"].read())
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            raise OutcomeUnknown(f"the answer to {INVOKE} is not an object")
        return value

    def outcome(self, error: BaseException) -> BatchctlError | None:
        return self._aws.outcome(error)


def _unfit(key: str, what: str, example: str) -> UsageError:
    return UsageError(
        f"bedrock needs {what}",
        where=f"[model] {key}",
        effect="nothing was sent",
        hint=f'add {key} = "{example}" under [model]',
    )


def _place(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` address."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise NotFound("this names no object in S3", where=uri[:200])
    return bucket, key


def _has_arn(job: Mapping[str, Any]) -> bool:
    return isinstance(job.get("jobArn"), str) and bool(job["jobArn"])


def _input_of(job: Mapping[str, Any]) -> str:
    """Where a job reads its records; "" where it does not say."""
    config = job.get("inputDataConfig")
    place = config.get("s3InputDataConfig") if isinstance(config, dict) else None
    uri = place.get("s3Uri") if isinstance(place, dict) else None
    return uri if isinstance(uri, str) else ""


def status_of(
    job: Mapping[str, Any],
    *,
    results: list[str] | None = None,
    manifest: Mapping[str, Any] | None = None,
    input_there: bool = True,
) -> BatchStatus:
    """One job as `BatchStatus`, with what it has left in the bucket. Counts the job lacks are the manifest's."""
    word = str(job.get("status") or "unknown")
    state = STATES.get(word, BatchState.RUNNING)
    manifest = manifest or {}
    given = {ours: whole(job.get(theirs, manifest.get(theirs))) for ours, theirs in _COUNTS.items()}
    counts = {name: count for name, count in given.items() if count is not None}
    if state is BatchState.REFUSED and (results or counts.get("processed")):
        state = BatchState.ENDED  # it failed half way: what it did is paid for
    kinds = ["output", *(f"output-{number}" for number in range(2, 1 + len(results or ())))]
    refused = state is BatchState.REFUSED
    message = job.get("message")
    said = message[:500] if isinstance(message, str) and message else "the job gives no reason"
    return BatchStatus(
        state=state,
        vendor_status=word,
        batch_id=str(job.get("jobArn") or ""),
        files=tuple(zip(kinds, results or (), strict=False)),
        counts=counts,
        refusal=(Refusal.FILE if input_there else Refusal.ACCESS) if refused else None,
        errors=(LineError("Failed", said),) if refused else (),
        known_word=word in STATES,
        expires_at=None if state is not BatchState.RUNNING else _epoch(job.get("jobExpirationTime")),
        owes_results=word == "Completed" or (state is BatchState.ENDED and counts.get("processed", 0) > 0),
        out_of_time=word in ("PartiallyCompleted", "Expired"),
        usage=_usage(manifest),
    )


def _usage(manifest: Mapping[str, Any]) -> Usage | None:
    if "inputTokenCount" not in manifest:
        return None
    return counted(manifest["inputTokenCount"], manifest.get("outputTokenCount", 0))


def _epoch(value: Any) -> int | None:
    """Unix seconds of a time as botocore reads it, or of its text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    except (OverflowError, OSError, ValueError):
        return None


def _as_text(value: Any) -> str:
    """Bytes in a parsed answer, as JSON carries them."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} in an answer")
