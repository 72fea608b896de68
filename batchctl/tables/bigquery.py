"""Publishing into a BigQuery table by load jobs, over REST.

Each job has an id of our own, made from the publication's mark: when an answer is lost or the process killed, the same
job is found instead of a second one being started. A load with WRITE_TRUNCATE, and a MERGE, change the table at once for
its readers. For an upsert the rows are loaded into a table beside it, merged, and that table is deleted.

cloud.google.com/bigquery/docs/reference/rest/v2/jobs/insert and .../loading-data-cloud-storage-json, read 2026-11-21.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from batchctl.files import crash_point, open_private
from batchctl.model.errors import BatchctlError, NotAllowed, ProviderError, UsageError
from batchctl.tables.columns import Gone, Kind, Load, Loaded, fitted, json_text
from batchctl.tables.destinations import Destination

HOST = "https://bigquery.googleapis.com"
EMULATOR = "BIGQUERY_EMULATOR_HOST"
SCOPE = "https://www.googleapis.com/auth/bigquery"
TYPES = {
    Kind.TEXT: "STRING",
    Kind.INTEGER: "INTEGER",
    Kind.NUMBER: "FLOAT",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.TIME: "TIMESTAMP",
    Kind.JSON: "STRING",  # PARSE_JSON reads it
}
_COLUMN = re.compile("[A-Za-z_][A-Za-z0-9_]{0,299}")
CALL_SECONDS = 120
TRIES = 4
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.1, 15.0
UNCHANGED = "the table is what it was, or has all the new rows"


def write(place: Destination, load: Load) -> Loaded:
    """Make the table hold what `load` says."""
    for one in load.names:
        if not _COLUMN.fullmatch(one):
            raise UsageError(
                f"BigQuery takes no column called `{one[:60]}`",
                where=place.shown,
                effect="nothing was published there",
                hint="leave it out of `include`, or rename it at its source",
            )
    client = _Client(place)
    if load.partial and not client.has_table(place.table[-1]):
        raise Gone
    path = load.spool / "rows.jsonl"
    with open_private(path) as out:
        rows = 0
        for row in load.rows():
            cells = (fitted(value, column) for value, column in zip(row, load.columns, strict=True))
            out.write(json_text(dict(zip(load.names, cells, strict=True))).encode() + b"\n")
            rows += 1
    crash_point("K19b")
    schema = {"fields": [{"name": one.name, "type": TYPES[one.kind]} for one in load.columns]}
    name = f"batchctl_{load.mark}"
    project, dataset, table = place.table
    if not load.upsert:
        job = client.load(f"{name}_load", client.reference(table), schema, path)
    else:
        stage = f"{table}__batchctl_{load.mark.replace('-', '_')}"
        client.load(f"{name}_load", client.reference(stage), schema, path)
        crash_point("K19c")
        client.make_table(table, schema)
        job = client.query(f"{name}_merge", _merge(f"{project}.{dataset}", table, stage, load))
        client.drop_table(stage)
    path.unlink()
    return Loaded(rows, {"job": job})


def _merge(dataset: str, table: str, stage: str, load: Load) -> str:
    names = [f"`{one}`" for one in load.names]
    same = " AND ".join(f"t.`{one}` = s.`{one}`" for one in load.key)
    others = [one for one in names if one.strip("`") not in load.key]
    update = f" WHEN MATCHED THEN UPDATE SET {', '.join(f'{one} = s.{one}' for one in others)}" if others else ""
    return (
        f"MERGE `{dataset}.{table}` AS t USING `{dataset}.{stage}` AS s ON {same}{update}"  # noqa: S608  (names are checked)
        f" WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) VALUES ({', '.join(f's.{one}' for one in names)})"
    )


class _Client:
    """The few calls that are needed. All may be repeated: jobs by their id, the rest by nature."""

    def __init__(self, place: Destination) -> None:
        from google.auth.transport.requests import AuthorizedSession

        self.place = place
        self.project, self.dataset, _ = place.table
        emulator = os.environ.get(EMULATOR, "")
        self.host = (emulator if "://" in emulator else f"http://{emulator}") if emulator else HOST
        self.session: Any = AuthorizedSession(self._credentials(bool(emulator)))  # type: ignore[no-untyped-call,unused-ignore]
        self.session.trust_env = not emulator
        found = self._call("GET", f"/datasets/{quote(self.dataset)}", missing=True)
        if found is None:
            raise UsageError(f"there is no dataset `{self.dataset}` in project `{self.project}`", where=place.shown,
                             effect="nothing was published there", hint="create it in the region it belongs to")  # fmt: skip
        self.location = found.get("location") or "US"

    def _credentials(self, emulated: bool) -> Any:
        import google.auth
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import DefaultCredentialsError

        if emulated:
            if urlsplit(self.host).hostname not in ("127.0.0.1", "localhost", "::1"):
                raise UsageError(f"{EMULATOR} names another machine", where=self.host, effect="nothing was published",
                                 hint="unset it: rows go to an emulator on this machine only")  # fmt: skip
            return AnonymousCredentials()  # type: ignore[no-untyped-call,unused-ignore]
        try:
            return google.auth.default(scopes=[SCOPE])[0]
        except DefaultCredentialsError as error:
            raise NotAllowed("no Google credentials were found", where=self.place.shown, effect=UNCHANGED,
                             hint="`gcloud auth application-default login`, or a service account") from error  # fmt: skip

    def reference(self, table: str) -> dict[str, str]:
        return {"projectId": self.project, "datasetId": self.dataset, "tableId": table}

    # --- jobs ---

    def load(self, name: str, table: dict[str, str], schema: dict[str, Any], path: Path) -> str:
        """Replace a table by the rows of a file; the id of the job that did it."""
        configuration = {
            "load": {
                "destinationTable": table,
                "schema": schema,
                "sourceFormat": "NEWLINE_DELIMITED_JSON",
                "writeDisposition": "WRITE_TRUNCATE",
                "createDisposition": "CREATE_IF_NEEDED",
            }
        }
        return self._job(name, configuration, path)

    def query(self, name: str, sql: str) -> str:
        return self._job(name, {"query": {"query": sql, "useLegacySql": False}}, None)

    def _job(self, name: str, configuration: dict[str, Any], path: Path | None) -> str:
        """Start the job of this name, or find it; wait for its end. A failed one is followed by one of another name."""
        number = 1
        while (found := self._found(f"{name}_{number}")) is not None and self._error(found):
            number += 1
        job = f"{name}_{number}"
        if found is None:
            body = {
                "jobReference": {"projectId": self.project, "jobId": job, "location": self.location},
                "configuration": configuration,
            }
            if path is None:
                self._call("POST", "/jobs", body=body, taken=True)
            else:
                self._upload(body, path)
            crash_point("K19d-job")
        wait = FIRST_WAIT_SECONDS
        while (found := self._found(job)) is not None and found["status"]["state"] != "DONE":
            time.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)
        if found is None or self._error(found):
            reason = "the job is gone" if found is None else self._error(found)
            raise UsageError(f"BigQuery refuses the rows: {reason}", where=(self.place.shown, f"job {job}"),
                             effect="the table is what it was",
                             hint=f"`bq show -j {self.project}:{job}` says more")  # fmt: skip
        return job

    def _found(self, job: str) -> dict[str, Any] | None:
        return self._call("GET", f"/jobs/{quote(job)}?location={quote(self.location)}", missing=True)

    @staticmethod
    def _error(job: dict[str, Any]) -> str:
        status = job.get("status", {})
        error = status.get("errorResult")
        return str(error.get("reason", "unknown")) if status.get("state") == "DONE" and error else ""

    def _upload(self, body: dict[str, Any], path: Path) -> None:
        """A resumable upload in one piece; the file is streamed from disk."""
        url = f"{self.host}/upload/bigquery/v2/projects/{quote(self.project)}/jobs?uploadType=resumable"
        headers = {
            "X-Upload-Content-Type": "application/octet-stream",
            "X-Upload-Content-Length": str(path.stat().st_size),
        }
        begun = self._send("POST", url, headers=headers, json=body)
        if begun.status_code == 409:  # it was accepted although nobody told us
            return
        self._check(begun)
        with path.open("rb") as file:
            sent = self._send("PUT", begun.headers["Location"], data=file)
        if sent.status_code != 409:
            self._check(sent)

    # --- tables ---

    def has_table(self, table: str) -> bool:
        return self._call("GET", f"/datasets/{quote(self.dataset)}/tables/{quote(table)}", missing=True) is not None

    def make_table(self, table: str, schema: dict[str, Any]) -> None:
        body = {"tableReference": self.reference(table), "schema": schema}
        self._call("POST", f"/datasets/{quote(self.dataset)}/tables", body=body, taken=True)

    def drop_table(self, table: str) -> None:
        self._call("DELETE", f"/datasets/{quote(self.dataset)}/tables/{quote(table)}", missing=True)

    # --- calls ---

    def _call(
        self, method: str, path: str, *, body: Any = None, missing: bool = False, taken: bool = False
    ) -> dict[str, Any] | None:
        """One call. `missing`: 404 is an answer (None); `taken`: 409 is one, it exists already."""
        url = f"{self.host}/bigquery/v2/projects/{quote(self.project)}{path}"
        wait = FIRST_WAIT_SECONDS
        for turn in range(TRIES):
            answer = self._send(method, url, json=body)
            if answer.status_code not in (429, 500, 502, 503, 504) or turn == TRIES - 1:
                break
            time.sleep(wait)
            wait *= 4
        if (missing and answer.status_code == 404) or (taken and answer.status_code == 409):
            return None
        self._check(answer)
        try:
            value = json.loads(answer.content or b"{}")
        except ValueError as error:
            raise self._unavailable("an answer that is not JSON") from error
        return value if isinstance(value, dict) else {}

    def _send(self, method: str, url: str, **more: Any) -> Any:
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        try:
            return self.session.request(method, url, timeout=CALL_SECONDS, allow_redirects=False, **more)
        except RequestException as error:
            raise self._unavailable(type(error).__name__) from error
        except GoogleAuthError as error:
            raise NotAllowed("Google's credentials are refused", where=self.place.shown, effect=UNCHANGED,
                             hint="log in again") from error  # fmt: skip

    def _check(self, answer: Any) -> None:
        code = answer.status_code
        if code in (401, 403):
            raise NotAllowed(f"BigQuery refuses with {code}", where=self.place.shown, effect=UNCHANGED,
                             hint="the account needs BigQuery Data Editor on the dataset and BigQuery Job User")  # fmt: skip
        if 400 <= code < 500 and code != 429:
            raise UsageError(f"BigQuery refuses the request with {code}", where=self.place.shown, effect=UNCHANGED,
                             hint="column names are letters, digits and _; the project and dataset must exist")  # fmt: skip
        if not 200 <= code < 300:
            raise self._unavailable(f"status {code}")

    def _unavailable(self, why: str) -> BatchctlError:
        return ProviderError(f"BigQuery cannot be used now: {why}", where=self.place.shown, effect=UNCHANGED,
                             hint="publish again later: the same job is found, not started twice", code="target")  # fmt: skip
