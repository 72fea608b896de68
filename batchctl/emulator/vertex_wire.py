"""Vertex's HTTP routes: batch prediction jobs and single requests. What a job reads and leaves is in `vertex_batch`.

Source: the aiplatform v1 discovery document of 2026-11-06, and google-genai 2.34.0 driven against a recording server, read
2026-11. Jobs take labels and a display name, and no idempotency key; the project in their names is a number.
"""

from __future__ import annotations

import re
import time
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator.batches import ENDED, cancel, others_made, record
from batchctl.emulator.bigquery_wire import table_path
from batchctl.emulator.call import CALL
from batchctl.emulator.gemini_files import answered, body_read, page_size, stamp
from batchctl.emulator.google_answers import Manner
from batchctl.emulator.google_checks import GoogleErrors, RefusedError, embed, fields, need
from batchctl.emulator.google_live import one_answer
from batchctl.emulator.process import progress
from batchctl.emulator.store import new_id
from batchctl.emulator.vertex_batch import WIRE, checked, folder_of
from batchctl.emulator.wire import Context

PARENT = "/v1/projects/{project}/locations/{location}"
JOBS = PARENT + "/batchPredictionJobs"
MODELS = PARENT + "/publishers/{publisher}/models/{model:[^/:]+}:{method}"
_JOB = JOBS + "/{id:[^/:]+}"
_NEVER = 1e18
_STATES = {
    "validating": "PENDING",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "cancelling": "CANCELLING",
    "completed": "SUCCEEDED",
    "failed": "FAILED",
    "expired": "EXPIRED",
    "cancelled": "CANCELLED",
}
_METHODS = frozenset(("generateContent", "embedContent"))
_CREATE = frozenset(("displayName", "model", "inputConfig", "outputConfig", "labels"))
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_MODEL = re.compile(r"publishers/google/models/[A-Za-z0-9@._-]+")
_TABLE = re.compile(r"bq://[A-Za-z0-9.:_-]+\.[A-Za-z0-9_]+\.[A-Za-z0-9_-]+")
_SINCE = re.compile(r'create_time>"([^"]+)"')


class VertexWire(GoogleErrors):
    """Everything under `/v1/projects/`."""

    name = WIRE

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(JOBS, self.create_job),
            web.get(JOBS, self.list_jobs),
            web.get(_JOB, self.get_job),
            web.post(_JOB + ":cancel", self.cancel_job),
            web.delete(_JOB, self.delete_job),
            web.post(MODELS, self.live),
        ]

    def owns(self, path: str) -> bool:
        return path.startswith("/v1/projects/")

    def creates(self, path: str) -> bool:
        return path.endswith("/batchPredictionJobs")

    def refuse_stranger(self, request: web.Request) -> None:
        """On loopback nobody has to say who he is; a token starting with `sk-bad` is one that has run out."""
        if request.headers.get("Authorization", "").startswith("Bearer sk-bad"):
            raise RefusedError(status=401, reason="ACCESS_TOKEN_EXPIRED")

    def shown(self, row: Any) -> dict[str, Any]:
        """A job as the service shows it."""
        asked, status = orjson.loads(row["metadata"]), row["status"]
        completed = row["completed"]
        if status in ("in_progress", "finalizing", "cancelling"):
            completed = progress(row, time.time()) if row["cut"] is None else min(row["cut"], row["total"])
        out: dict[str, Any] = {
            "name": f"projects/123456789/locations/{asked['location']}/batchPredictionJobs/{row['id']}",
            **asked["job"],
            "state": row["held"] or f"JOB_STATE_{_STATES[status]}",
            "createTime": stamp(row["created"]),
            "updateTime": stamp(row["in_progress_at"] or row["created"]),
            "modelVersionId": "1",
        }
        if row["in_progress_at"] is not None:
            out["startTime"] = stamp(row["in_progress_at"])
        if status not in ENDED:
            return out | orjson.loads(row["patch"]) if row["patch"] else out
        times = ("completed_at", "expired_at", "cancelled_at", "failed_at")
        out["endTime"] = stamp(next((row[one] for one in times if row[one] is not None), None))
        if completed + row["failed"]:
            out["outputInfo"] = _written(row, asked)
            rest = row["total"] - completed - row["failed"]
            counts = {"successfulCount": completed, "failedCount": row["failed"], "incompleteCount": rest}
            out["completionStats"] = {key: str(value) for key, value in counts.items() if value > 0}
        if status == "failed":
            first = orjson.loads(row["errors"])[0]
            out["error"] = {
                "code": first["code"] if isinstance(first["code"], int) else 13,
                "message": first["message"],
            }
        elif status == "cancelled":
            out["error"] = {"code": 1, "message": "CANCELED"}
        return out | orjson.loads(row["patch"]) if row["patch"] else out

    def others(self) -> None:
        """A project's list holds more than what was asked for here."""
        for number in range(others_made(self._context, WIRE), self._context.settings.other_batches):
            job = {"displayName": f"of someone else {number}", "model": "publishers/google/models/gemini-simulated"}
            asked = {"location": "global", "job": job, "input": "", "output": "gs://other/out"}
            self._record("", asked, others=True)

    # -- jobs

    async def create_job(self, request: web.Request) -> web.StreamResponse:
        job = await body_read(request)
        given = fields(job, _CREATE, "batch_prediction_job")
        name, model = given.get("displayName"), given.get("model")
        need(isinstance(name, str) and 0 < len(name) <= 128, "display_name must have 1 to 128 characters")
        need(isinstance(model, str) and bool(_MODEL.fullmatch(model)), "The model name is not valid.")
        short = str(model).rpartition("/")[2]
        models = self._context.settings.models
        if (models and short not in models) or short.startswith("nonexistent"):
            raise RefusedError(f"The PublisherModel {short} does not exist.", status=404)
        for key, value in (given.get("labels") or {}).items():
            good = _LABEL_KEY.fullmatch(key) and isinstance(value, str) and _LABEL.fullmatch(value)
            need(bool(good), f"Label value '{value}' violates the format.")
        asked = {"location": request.match_info["location"], "job": job, **_places(given)}
        if asked["output"].startswith("bq://") and table_path(self._store, asked["output"]).exists():
            raise RefusedError(f"Already Exists: Table {asked['output']}", status=409)
        call = CALL.get()
        call.metadata = given.get("labels")
        method = "embedContent" if "embedding" in short else "generateContent"
        call.created = self._record(f"{model}:{method}", asked, later=call.later, hide=call.hide)
        self._context.wake()
        row = self._store.db.execute("SELECT * FROM batch WHERE id = ?", (call.created,)).fetchone()
        return answered(self.shown(row))

    def _record(
        self, endpoint: str, asked: dict[str, Any], *, later: float = 0.0, hide: int = 0, others: bool = False
    ) -> str:
        batch_id = str(int(new_id("")[:15], 16))
        record(
            self._context,
            wire=WIRE,
            batch_id=batch_id,
            later=later,
            hide=hide,
            others=others,
            endpoint=endpoint,
            input_file_id=f"{batch_id}-input",
            metadata=orjson.dumps(asked).decode(),
        )
        return batch_id

    def _row(self, request: web.Request) -> Any:
        row = self._store.batch(WIRE, request.match_info["id"])
        if row is None or orjson.loads(row["metadata"])["location"] != request.match_info["location"]:
            raise RefusedError("The BatchPredictionJob does not exist.", status=404)
        return row

    async def list_jobs(self, request: web.Request) -> web.StreamResponse:
        size = page_size(request, most=100)
        asked = request.query.get("filter", "")
        since = _SINCE.fullmatch(asked)
        need(not asked or since is not None, "This filter is not known here.")
        rows = self._store.page_of_batches(WIRE, after=request.query.get("pageToken"), limit=size + 1)
        here = [
            row
            for row in rows[:size]
            if orjson.loads(row["metadata"])["location"] == request.match_info["location"]
            and (since is None or str(stamp(row["created"])) > since[1])
        ]
        page: dict[str, Any] = {"batchPredictionJobs": [self.shown(row) for row in here]} if here else {}
        if len(rows) > size:
            page["nextPageToken"] = rows[size - 1]["id"]
        return answered(page)

    async def get_job(self, request: web.Request) -> web.StreamResponse:
        return answered(self.shown(self._row(request)))

    async def cancel_job(self, request: web.Request) -> web.StreamResponse:
        with self._store.transaction():
            row = self._row(request)
            need(row["status"] not in ENDED, "The job has ended.")
            cancel(self._context, row)
        self._context.wake()
        return answered({})

    async def delete_job(self, request: web.Request) -> web.StreamResponse:
        with self._store.transaction():
            row = self._row(request)
            need(row["status"] in ENDED, "A job that is not finished cannot be deleted.")
            self._store.change_batch(row["id"], visible_at=_NEVER)
        return answered({"name": f"projects/123456789/operations/{row['id']}", "done": True})

    # -- one at a time

    async def live(self, request: web.Request) -> web.StreamResponse:
        """One request, answered at once: the same answers and fates as in a batch, drawn without a key."""
        model, method = request.match_info["model"], request.match_info["method"]
        settings, body = self._context.settings, await body_read(request)
        if (settings.models and model not in settings.models) or model.startswith("nonexistent"):
            raise RefusedError(f"The PublisherModel {model} does not exist.", status=404)
        if method == "countTokens":
            return answered({"totalTokens": len(orjson.dumps(body)) // 4 + 1})
        if method not in _METHODS:
            raise RefusedError(status=404)
        given = embed(body) if method == "embedContent" else checked(body)
        manner = Manner(model, settings, live=True, more_usage=(("trafficType", "ON_DEMAND"),))
        return one_answer(self._context, manner, f"publishers/google/models/{model}:{method}", given, body)


def _written(row: Any, asked: dict[str, Any]) -> dict[str, str]:
    """Where a job has written."""
    if asked["output"].startswith("bq://"):
        dataset, _, table = asked["output"].rpartition(".")
        return {"bigqueryOutputDataset": dataset, "bigqueryOutputTable": table}
    return {"gcsOutputDirectory": folder_of(row)}


def _places(given: dict[str, Any]) -> dict[str, str]:
    """Where a job reads and writes, or what the service refuses about it."""
    source = fields(
        given.get("inputConfig"), frozenset(("instancesFormat", "gcsSource", "bigquerySource")), "input_config"
    )
    target = fields(
        given.get("outputConfig"),
        frozenset(("predictionsFormat", "gcsDestination", "bigqueryDestination")),
        "output_config",
    )
    both = (source.get("instancesFormat"), target.get("predictionsFormat"))
    if both == ("bigquery", "bigquery"):
        read = fields(source.get("bigquerySource"), frozenset(("inputUri",)), "bigquery_source").get("inputUri")
        write = fields(target.get("bigqueryDestination"), frozenset(("outputUri",)), "bigquery_destination")
        places = (read, write.get("outputUri"))
        need(
            all(isinstance(one, str) and _TABLE.fullmatch(one) for one in places),
            "a table is bq://project.dataset.table",
        )
        return {"input": str(places[0]), "output": str(places[1])}
    need(both == ("jsonl", "jsonl"), "instances_format and predictions_format must be jsonl or bigquery")
    uris = fields(source.get("gcsSource"), frozenset(("uris",)), "gcs_source").get("uris")
    prefix = fields(target.get("gcsDestination"), frozenset(("outputUriPrefix",)), "gcs_destination").get(
        "outputUriPrefix"
    )
    need(
        isinstance(uris, list) and len(uris) == 1 and str(uris[0]).startswith("gs://"), "one gs:// address is expected"
    )
    need(isinstance(prefix, str) and prefix.startswith("gs://"), "output_uri_prefix must start with gs://")
    return {"input": str(uris[0] if isinstance(uris, list) else ""), "output": str(prefix)}
