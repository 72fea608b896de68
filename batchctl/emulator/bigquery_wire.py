"""The routes of BigQuery that a Vertex job's tables need: a load job, a table, its rows.

Tables are files of JSON lines beside the emulator's books. Any dataset exists whose name does not begin with `missing`.
Cells are text, in the order of the schema, as the service writes them.

Source: the bigquery v2 discovery document and google-cloud-bigquery 3.47.0 driven on loopback, read 2026-11.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator.gemini_files import answered, body_read
from batchctl.emulator.google_checks import GoogleErrors, RefusedError, need
from batchctl.emulator.store import Store, new_id, private_file
from batchctl.emulator.store_front import NoBatches
from batchctl.emulator.wire import Context

API = "/bigquery/v2/projects/{project}"
UPLOAD = "/upload/bigquery/v2/projects/{project}/jobs"
_TABLE = API + "/datasets/{dataset}/tables/{table}"
_INPUT = (("key", "STRING"), ("request", "JSON"))
_OUTPUT = (*_INPUT, ("status", "STRING"), ("response", "JSON"), ("processed_time", "TIMESTAMP"))
_MOST_ROWS = 1000


def table_path(store: Store, address: str) -> Path:
    """The file of the table `bq://project.dataset.table`."""
    name = address.removeprefix("bq://").replace("/", "_").replace(":", "_")
    return store.root / "tables" / f"{name}.jsonl"


class BigQueryWire(GoogleErrors, NoBatches):
    """Loads and tables. It has no batches of its own."""

    name = "bigquery"

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._loads: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(UPLOAD, self.start),
            web.put(UPLOAD, self.load),
            web.get(API + "/jobs/{job}", self.job),
            web.get(API + "/datasets/{dataset}", self.dataset),
            web.get(_TABLE, self.table),
            web.delete(_TABLE, self.delete),
            web.get(_TABLE + "/data", self.rows),
        ]

    def owns(self, path: str) -> bool:
        return path.startswith(("/bigquery/v2/", "/upload/bigquery/v2/"))

    def _path(self, request: web.Request) -> Path:
        place = request.match_info
        _dataset(place["dataset"])
        return table_path(self._store, f"bq://{place['project']}.{place['dataset']}.{place['table']}")

    def _table(self, request: web.Request) -> Path:
        path = self._path(request)
        if not path.exists():
            raise RefusedError("Not found: Table", status=404)
        return path

    async def start(self, request: web.Request) -> web.StreamResponse:
        """A resumable load: the job is described first, its rows follow to the address that is named."""
        need(request.query.get("uploadType") == "resumable", "Only resumable uploads are known here.")
        body = await body_read(request)
        load, job_id = body["configuration"]["load"], body["jobReference"]["jobId"]
        need(load.get("sourceFormat") == "NEWLINE_DELIMITED_JSON", "Only NEWLINE_DELIMITED_JSON is known here.")
        columns = tuple((one["name"], one["type"]) for one in load["schema"]["fields"])
        need(columns == _INPUT, "The schema must be key STRING and request JSON.")
        _dataset(load["destinationTable"]["datasetId"])
        if self._record(job_id).exists():
            raise RefusedError(f"Already Exists: Job {job_id}", status=409)
        upload_id = new_id("")
        self._loads[upload_id] = {"job": job_id, "table": load["destinationTable"]}
        address = f"{request.scheme}://{request.host}{request.path}?uploadType=resumable&upload_id={upload_id}"
        return web.Response(headers={"Location": address})

    def _record(self, job_id: str) -> Path:
        return self._store.root / "tables" / f"job-{job_id.replace('/', '_')}.json"

    async def load(self, request: web.Request) -> web.StreamResponse:
        asked = self._loads.get(request.query.get("upload_id", ""))
        if asked is None:
            raise RefusedError(status=404)
        where = asked["table"]
        target = table_path(self._store, f"bq://{where['projectId']}.{where['datasetId']}.{where['tableId']}")
        target.parent.mkdir(mode=0o700, exist_ok=True)
        part = self._store.work / f"{new_id('load-')}.part"
        with private_file(part) as out:
            async for block in request.content.iter_chunked(1 << 18):
                out.write(block)
        failure = _wrong(part)
        job: dict[str, Any] = {
            "kind": "bigquery#job",
            "jobReference": {"projectId": where["projectId"], "jobId": asked["job"], "location": "US"},
            "status": {"state": "DONE"},
        }
        if failure is not None:
            job["status"]["errorResult"] = {"reason": "invalid", "message": failure}
            part.unlink()
        else:
            part.replace(target)
        with private_file(self._record(asked["job"])) as out:
            out.write(orjson.dumps(job))
        return answered(job)

    async def job(self, request: web.Request) -> web.StreamResponse:
        path = self._record(request.match_info["job"])
        if not path.exists():
            raise RefusedError("Not found: Job", status=404)
        return answered(orjson.loads(path.read_bytes()))

    async def dataset(self, request: web.Request) -> web.StreamResponse:
        place = request.match_info
        _dataset(place["dataset"])
        reference = {"projectId": place["project"], "datasetId": place["dataset"]}
        return answered({"kind": "bigquery#dataset", "datasetReference": reference, "location": "US"})

    async def table(self, request: web.Request) -> web.StreamResponse:
        place, path = request.match_info, self._table(request)
        fields = [{"name": name, "type": kind, "mode": "NULLABLE"} for name, kind in _columns(path)]
        reference = {"projectId": place["project"], "datasetId": place["dataset"], "tableId": place["table"]}
        return answered({"kind": "bigquery#table", "tableReference": reference, "schema": {"fields": fields}})

    async def delete(self, request: web.Request) -> web.StreamResponse:
        self._table(request).unlink()
        return web.Response(status=204)

    async def rows(self, request: web.Request) -> web.StreamResponse:
        path = self._table(request)
        columns = _columns(path)
        most = min(int(request.query.get("maxResults", _MOST_ROWS)), _MOST_ROWS)
        first = int(request.query.get("pageToken", "0"))
        total, rows = 0, []
        with path.open("rb") as file:
            for line in file:
                if not line.strip():
                    continue
                if first <= total < first + most:
                    value = orjson.loads(line)
                    rows.append({"f": [{"v": _cell(value.get(name), kind)} for name, kind in columns]})
                total += 1
        page: dict[str, Any] = {"kind": "bigquery#tableDataList", "totalRows": str(total)}
        if rows:
            page["rows"] = rows
        if first + most < total:
            page["pageToken"] = str(first + most)
        return answered(page)


def _dataset(name: str) -> None:
    if name.startswith("missing"):
        raise RefusedError(f"Not found: Dataset {name}", status=404)


def _columns(path: Path) -> tuple[tuple[str, str], ...]:
    return _OUTPUT if path.stem.endswith("_out") else _INPUT


def _cell(value: Any, kind: str) -> Any:
    if value is None or (isinstance(value, str) and kind != "JSON"):
        return "1793525400826000" if kind == "TIMESTAMP" else value
    return orjson.dumps(value).decode()


def _wrong(path: Path) -> str | None:
    """Why a file cannot be loaded, as the service says it: without the row."""
    with path.open("rb") as file:
        for line in file:
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError:
                return "Error while reading data, error message: JSON parsing error"
            if not isinstance(value, dict) or value.keys() - {"key", "request"}:
                return "Error while reading data, error message: no such field"
    return None
