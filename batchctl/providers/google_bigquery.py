"""BigQuery as Vertex reads and writes it: one input table a chunk, one output table a job. REST, no further library.

A chunk is loaded by a load job with an id of our own, so that a lost answer is no second load; until it is done the table
is not there. Columns are `key` (text) and `request` (JSON); the service copies `key` to the output table and adds
`status`, `response` and `processed_time`. Cells come as text, in the order of the table's schema.

Facts: bigquery v2 discovery and docs.cloud.google.com/bigquery/docs/loading-data-local, read 2026-11-21.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from batchctl.model.errors import NotFound, OutcomeUnknown, Rejected, Throttled
from batchctl.providers.google_rest import ApiError, Rest, blocks
from batchctl.providers.http import json_object

API = "/bigquery/v2"
UPLOAD = "/upload/bigquery/v2"
COLUMNS = ({"name": "key", "type": "STRING"}, {"name": "request", "type": "JSON"})
LOADS = 3  # load jobs of one chunk that may fail
LOAD_WAIT_SECONDS = 5.0
PAGE_ROWS = 500
PAGES = 1_000_000  # a table that never ends is an error, not a loop


class Tables:
    """Tables named `bq://project.dataset.table`."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def load(self, path: Path, address: str, job: str) -> None:
        """The file's lines as the rows of a new table. `Throttled` while the load is under way: ask again."""
        project, dataset, table = table_of(address)
        place = json_object(self._rest.ask("GET", f"{API}/projects/{project}/datasets/{dataset}"), "GET dataset")
        where = str(place.get("location") or "US")
        for number in range(LOADS):
            job_id = f"{job}-load-{number}"
            state = self._state(project, job_id, where)
            if state is None:
                state = self._insert(path, (project, dataset, table), job_id, where)
            done, failure = state
            if not done:
                raise Throttled("the table is being loaded", where=address, wait_seconds=LOAD_WAIT_SECONDS)
            if failure is None and self._exists(project, dataset, table):
                return
        raise Rejected(
            f"BigQuery did not load the table: {failure or 'it is gone'}", where=address, effect="nothing was sent"
        )

    def _insert(self, path: Path, table: tuple[str, str, str], job_id: str, where: str) -> tuple[bool, str | None]:
        """Send the file to a new load job, in one piece and from the disk."""
        project, dataset, name = table
        load = {
            "destinationTable": {"projectId": project, "datasetId": dataset, "tableId": name},
            "sourceFormat": "NEWLINE_DELIMITED_JSON",
            "schema": {"fields": list(COLUMNS)},
            "writeDisposition": "WRITE_TRUNCATE",
        }
        reference = {"projectId": project, "jobId": job_id, "location": where}
        size = str(path.stat().st_size)
        started = self._rest.ask(
            "POST",
            f"{UPLOAD}/projects/{project}/jobs",
            params={"uploadType": "resumable"},
            json={"jobReference": reference, "configuration": {"load": load}},
            headers={"X-Upload-Content-Type": "application/octet-stream", "X-Upload-Content-Length": size},
        )
        address = started.headers.get("location")
        if not address:
            raise OutcomeUnknown("the answer to a load names no address to send the rows to")
        with path.open("rb") as file:
            answer = self._rest.ask("PUT", address, content=blocks(file), headers={"Content-Length": size})
        return _job_state(json_object(answer, "load"))

    def _state(self, project: str, job_id: str, where: str) -> tuple[bool, str | None] | None:
        """Whether a load is done, and its error; None when there is no such job."""
        try:
            answer = self._rest.ask("GET", f"{API}/projects/{project}/jobs/{job_id}", params={"location": where})
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return _job_state(json_object(answer, "GET job"))

    def _exists(self, project: str, dataset: str, table: str) -> bool:
        try:
            self._rest.ask("GET", _path(project, dataset, table))
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def delete(self, address: str) -> None:
        self._rest.ask("DELETE", _path(*table_of(address)))

    def lines(self, address: str, *, whole: bool) -> Iterator[bytes]:
        """The rows of an output table as result lines. `whole`: the job succeeded, so the table must be there."""
        path = _path(*table_of(address))
        try:
            shown = json_object(self._rest.ask("GET", path), "GET table")
        except ApiError as error:
            if error.status == 404 and not whole:
                return
            raise
        schema = shown.get("schema")
        fields = schema.get("fields") if isinstance(schema, dict) else None
        if not isinstance(fields, list):
            raise OutcomeUnknown("a table has no schema", where=address)
        names = [(one.get("name"), one.get("type")) for one in fields if isinstance(one, dict)]
        read, total = 0, 0
        for said, rows in self._pages(path, address):
            for row in rows:
                yield _line(row, names, address)
            read, total = read + len(rows), said
        if read != total:
            raise OutcomeUnknown(f"{read:,} of {total:,} rows of a table arrived", where=address)

    def _pages(self, path: str, address: str) -> Iterator[tuple[int, list[Any]]]:
        """The number of rows the table is said to have, and those of one page."""
        token = ""
        for _ in range(PAGES):
            query = {"maxResults": str(PAGE_ROWS), **({"pageToken": token} if token else {})}
            page = json_object(self._rest.ask("GET", path + "/data", params=query), "GET rows")
            rows, total = page.get("rows", []), page.get("totalRows")
            if not isinstance(rows, list) or not isinstance(total, str) or not total.isdecimal():
                raise OutcomeUnknown("the answer is no page of a table", where=address)
            yield int(total), rows
            after = page.get("pageToken")
            if not after:
                return
            if not isinstance(after, str) or after == token:
                raise OutcomeUnknown("a table shows the same page again and again", where=address)
            token = after
        raise OutcomeUnknown("a table does not end", where=address)


def table_of(address: str) -> tuple[str, str, str]:
    """Project, dataset and table out of `bq://project.dataset.table`."""
    parts = address.removeprefix("bq://").rsplit(".", 2)
    if len(parts) != 3 or not all(parts):
        raise NotFound("this is no table of BigQuery", where=address)
    project, dataset, table = parts
    return project, dataset, table


def _path(project: str, dataset: str, table: str) -> str:
    parts = (quote(one, safe="") for one in (project, dataset, table))
    return f"{API}/projects/{next(parts)}/datasets/{next(parts)}/tables/{next(parts)}"


def _job_state(job: dict[str, Any]) -> tuple[bool, str | None]:
    status = job.get("status")
    if not isinstance(status, dict):
        raise OutcomeUnknown("the answer to a load has no status")
    error = status.get("errorResult")
    failure = str(error.get("message") or "no reason given")[:300] if isinstance(error, dict) else None
    return status.get("state") == "DONE", failure


def _line(row: Any, names: list[tuple[Any, Any]], address: str) -> bytes:
    """One row as a result line; JSON columns are text on the wire."""
    cells = row.get("f") if isinstance(row, dict) else None
    if not isinstance(cells, list) or len(cells) != len(names):
        raise OutcomeUnknown("a row does not have the columns of its table", where=address)
    line: dict[str, Any] = {}
    for (name, kind), cell in zip(names, cells, strict=True):
        value = cell.get("v") if isinstance(cell, dict) else None
        line[str(name)] = orjson.loads(value) if kind == "JSON" and isinstance(value, str) else value
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
