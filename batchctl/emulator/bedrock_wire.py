"""Bedrock's HTTP routes: model invocation jobs, and one record at a time through InvokeModel and Converse.

Sources: the service models `bedrock` and `bedrock-runtime` of botocore 1.44.5 and docs.aws.amazon.com/bedrock, read
2026-11. A create with a token that is known is the first one again; with other arguments it conflicts.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator.batches import ENDED, cancel, others_made, record
from batchctl.emulator.bedrock_batch import ERRORS, WIRE, answer
from batchctl.emulator.bedrock_checks import CONVERSE, INVOKE, RefusedError, create, odd, record_body
from batchctl.emulator.call import CALL
from batchctl.emulator.faults import Fates
from batchctl.emulator.process import progress
from batchctl.emulator.store import new_id
from batchctl.emulator.wire import Context, WireError

JOB, JOBS = "/model-invocation-job", "/model-invocation-jobs"
MOST_AT_ONCE = 20
_WORDS = {
    "validating": "Validating",
    "in_progress": "InProgress",
    "finalizing": "InProgress",
    "cancelling": "Stopping",
    "cancelled": "Stopped",
    "completed": "Completed",
    "failed": "Failed",
}
_MESSAGES = {
    401: "The security token included in the request is invalid.",
    403: "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: bedrock:CreateModelInvocationJob",
    404: "The requested job could not be found.",
    409: "The request conflicts with another one.",
    429: "Too many requests, please wait before trying again.",
    503: "Bedrock is unable to process your request.",
}
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/,\s]+)/\d{8}/([a-z0-9-]+)/bedrock/aws4_request")
_NO_MONEY = (
    "Model access is denied due to INVALID_PAYMENT_INSTRUMENT:A valid payment instrument must be provided. Your AWS "
    "Marketplace subscription for this model cannot be completed at this time."
)
_FILTERS = frozenset(
    (
        "maxResults",
        "nextToken",
        "nameContains",
        "statusEquals",
        "submitTimeAfter",
        "submitTimeBefore",
        "sortBy",
        "sortOrder",
    )
)


class BedrockWire:
    """The control plane under `/model-invocation-job`, and the runtime under `/model/`."""

    name = WIRE

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._region = "us-east-1"

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(JOB, self.create_job),
            web.get(JOBS, self.list_jobs),
            web.get(JOB + "/{id}", self.get_job),
            web.post(JOB + "/{id}/stop", self.stop_job),
            web.post("/model/{model}/invoke", self.invoke),
            web.post("/model/{model}/converse", self.converse),
            web.post("/model/{model}/count-tokens", self.count_tokens),
        ]

    def owns(self, path: str) -> bool:
        return path in (JOB, JOBS) or path.startswith((JOB + "/", "/model/"))

    def creates(self, path: str) -> bool:
        return path == JOB

    def refuse_stranger(self, request: web.Request) -> None:
        """A signature is needed, not checked; keys starting with `AKIABAD` are wrong ones."""
        given = request.headers.get("Authorization", "")
        signed = _SCOPE.match(given)
        if signed is None and not given.startswith("Bearer "):
            raise RefusedError("Missing Authentication Token", status=403, type_="MissingAuthenticationTokenException")
        if signed is not None:
            self._region = signed[2]
            if signed[1].startswith("AKIABAD"):
                raise self.refusal(401)

    def refusal(self, status: int, message: str = "", headers: dict[str, str] | None = None) -> RefusedError:
        return RefusedError(message or _MESSAGES.get(status, "Internal error"), status=status, headers=headers)

    def quota(self, headers: dict[str, str]) -> RefusedError:
        return RefusedError(_NO_MONEY, status=403, headers=headers)

    def odd(self, error: BaseException) -> RefusedError:
        return odd(error)

    def shown(self, row: Any) -> dict[str, Any]:
        """A job as the service shows it. Counts appear once it is scheduled."""
        asked = orjson.loads(row["metadata"])
        done, failed = row["completed"], row["failed"]
        if row["status"] in ("in_progress", "finalizing"):
            done, failed = progress(row, datetime.now(UTC).timestamp()), 0
        expired = "PartiallyCompleted" if done + failed else "Expired"
        out: dict[str, Any] = {
            "jobArn": self._arn(row["id"], asked),
            **{name: asked[name] for name in ("jobName", "modelId", "clientRequestToken", "roleArn") if name in asked},
            "status": row["held"] or _WORDS.get(row["status"], expired),
            "submitTime": _time(row["created"]),
            "lastModifiedTime": _time(row["in_progress_at"] or row["created"]),
            **{name: asked[name] for name in ("inputDataConfig", "outputDataConfig", "modelInvocationType")},
            "timeoutDurationInHours": asked.get("timeoutDurationInHours", 24),
            "jobExpirationTime": _time(row["expires_at"]),
        }
        if row["total"]:
            out |= {
                "totalRecordCount": row["total"],
                "processedRecordCount": done + failed,
                "successRecordCount": done,
                "errorRecordCount": failed,
            }
        if row["status"] in ENDED:
            ends = ("completed_at", "expired_at", "cancelled_at", "failed_at")
            out["endTime"] = _time(next((row[one] for one in ends if row[one] is not None), row["created"]))
        if row["errors"]:
            out["message"] = orjson.loads(row["errors"])[0]["message"]
        return out | orjson.loads(row["patch"]) if row["patch"] else out

    def _arn(self, batch_id: str, asked: dict[str, Any]) -> str:
        account = asked["roleArn"].split(":")[4] or "123456789012"
        return f"arn:aws:bedrock:{asked['region']}:{account}:model-invocation-job/{batch_id}"

    def others(self) -> None:
        """An account's list holds more than what was asked for here."""
        for number in range(others_made(self._context, WIRE), self._context.settings.other_batches):
            place = f"s3://somebody/else-{number}"
            asked = {
                "jobName": f"else-{number}",
                "roleArn": "arn:aws:iam::123456789012:role/else",
                "modelId": "amazon.nova-lite-v1:0",
                "modelInvocationType": INVOKE,
                "inputDataConfig": {"s3InputDataConfig": {"s3Uri": f"{place}/input.jsonl"}},
                "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"{place}/out/"}},
                "region": self._region,
            }
            self._record(asked, later=0.0, hide=0, others=True)

    # -- jobs

    async def create_job(self, request: web.Request) -> web.StreamResponse:
        asked = create(await _body(request), self._context.settings.models) | {"region": self._region}
        call = CALL.get()
        call.metadata = {"clientRequestToken": asked.get("clientRequestToken"), "jobName": asked["jobName"]}
        with self._store.transaction():
            found = self._again(asked)
            if found is None:
                self._room(asked)
                found = self._record(asked, later=call.later, hide=call.hide)
        call.created = found
        self._context.wake()
        return _answered({"jobArn": self._arn(found, asked)})

    def _again(self, asked: dict[str, Any]) -> str | None:
        """The job that this very create has made already. A used token or name under another request conflicts."""
        for row in self._store.db.execute("SELECT * FROM batch WHERE wire = ? AND others = 0", (WIRE,)).fetchall():
            before = orjson.loads(row["metadata"])
            token = asked.get("clientRequestToken")
            if token is not None and before.get("clientRequestToken") == token:
                if before != asked:
                    raise RefusedError(
                        "A job was made with this token and other parameters.", type_="ConflictException"
                    )
                self._store.change_batch(row["id"], visible_at=0.0)
                return str(row["id"])
            if before["jobName"] == asked["jobName"]:
                raise RefusedError(f"A job with the name {asked['jobName']} already exists.", type_="ConflictException")
        return None

    def _room(self, asked: dict[str, Any]) -> None:
        running = [
            one
            for one in self._store.open_batches()
            if one["wire"] == WIRE and orjson.loads(one["metadata"])["modelId"] == asked["modelId"]
        ]
        if len(running) >= MOST_AT_ONCE:
            raise RefusedError(
                "You have reached the maximum number of in-progress and submitted batch inference jobs for this model.",
                type_="ServiceQuotaExceededException",
            )

    def _record(self, asked: dict[str, Any], *, later: float, hide: int, others: bool = False) -> str:
        batch_id = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))
        record(
            self._context,
            wire=WIRE,
            batch_id=batch_id,
            later=later,
            hide=hide,
            others=others,
            endpoint=f"{asked['modelInvocationType']} {asked['modelId']}",
            input_file_id=f"input-{batch_id}",
            metadata=orjson.dumps(asked).decode(),
        )
        return batch_id

    def _job(self, request: web.Request) -> Any:
        row = self._store.batch(WIRE, request.match_info["id"].rpartition("/")[2])
        if row is None:
            raise self.refusal(404)
        return row

    async def list_jobs(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        for name in query:
            if name not in _FILTERS:
                raise RefusedError(f"{name}: unknown parameter")
        text = query.get("maxResults", "1000")
        most = int(text) if text.isdigit() else 0
        if not 1 <= most <= 1000:
            raise RefusedError("maxResults: between 1 and 1000 expected")
        rows = self._store.page_of_batches(WIRE, after=query.get("nextToken"), before=None, limit=most + 1)
        page = [self.shown(row) for row in rows[:most]]
        kept = [one for one in page if _wanted(one, query)]
        out: dict[str, Any] = {"invocationJobSummaries": kept}
        if len(rows) > most:
            out["nextToken"] = rows[most - 1]["id"]
        return _answered(out)

    async def get_job(self, request: web.Request) -> web.StreamResponse:
        return _answered(self.shown(self._job(request)))

    async def stop_job(self, request: web.Request) -> web.StreamResponse:
        with self._store.transaction():
            row = self._job(request)
            if row["status"] in ENDED:
                raise RefusedError("The job has ended and cannot be stopped.", type_="ConflictException")
            cancel(self._context, row)
        self._context.wake()
        return _answered({})

    # -- one at a time

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        return await self._live(request, INVOKE)

    async def converse(self, request: web.Request) -> web.StreamResponse:
        return await self._live(request, CONVERSE)

    async def count_tokens(self, request: web.Request) -> web.StreamResponse:
        return _answered({"inputTokens": len(orjson.dumps(await _body(request))) // 4 + 1})

    async def _live(self, request: web.Request, kind: str) -> web.StreamResponse:
        """One record, answered at once: the same answers and fates as in a job, drawn without a recordId."""
        settings, model = self._context.settings, request.match_info["model"]
        body = await _body(request)
        if not isinstance(body, dict):
            raise RefusedError("Malformed input request: not an object")
        if (settings.models and model not in settings.models) or "nonexistent" in model:
            raise RefusedError("The provided model identifier is invalid.")
        try:
            record_body(kind, model, body)
        except RefusedError:
            raise
        except WireError as error:
            raise RefusedError(str(error), status=error.status) from error
        payload = orjson.dumps(body)
        digest = hashlib.sha256(payload)
        fate = Fates(settings).draw(digest.digest(), "", payload)
        if fate.delivery in ERRORS:
            status, message = ERRORS[fate.delivery]
            raise RefusedError(message, status=status or 500)
        nonce = new_id("")[:24]
        given = answer(
            kind,
            model,
            body,
            payload,
            settings=settings,
            seed=settings.seed,
            quality=fate.quality,
            nonce=nonce,
        )
        self._context.bill_live(kind, digest.hexdigest(), given)
        return web.Response(body=given.body, content_type="application/json")


def _wanted(job: dict[str, Any], query: Any) -> bool:
    """Whether a job passes the filters of a list."""
    if query.get("nameContains", "") not in job["jobName"]:
        return False
    if "statusEquals" in query and job["status"] != query["statusEquals"]:
        return False
    at = datetime.fromisoformat(job["submitTime"])
    after, before = (query.get(name) for name in ("submitTimeAfter", "submitTimeBefore"))
    if after and at <= datetime.fromisoformat(after):
        return False
    return not before or at < datetime.fromisoformat(before)


def _answered(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


async def _body(request: web.Request) -> Any:
    try:
        return orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise RefusedError("The request body is not valid JSON") from error


def _time(seconds: Any) -> str:
    """RFC 3339 with microseconds, as the service writes times."""
    return datetime.fromtimestamp(float(seconds), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
