"""Real or realistic targets on loopback: PostgreSQL itself, moto for S3, gcp-storage-emulator, a stand-in for BigQuery."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet as pq

Rows = list[dict[str, Any]]


class Service:
    """One target: its address, what the command needs in its environment, and its rows as its own client reads them."""

    to: str
    env: dict[str, str]
    light = True  # False: its SDK takes a second to load in every command, so CI strikes it at one point only
    more: dict[str, str] = {"key": '["id"]'}  # noqa: RUF012

    def rows(self) -> Rows:
        raise NotImplementedError

    def put_old(self) -> None:
        """Make the target hold one row, `old`, in the columns it has."""
        raise NotImplementedError

    def whole(self) -> bool:
        """Whether a marker, where the target has one, vouches for what is there."""
        return True

    def is_vouched_for_wrongly(self) -> bool:
        """Whether a marker speaks of other rows than those that are there."""
        return False


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def postgres_programs() -> Path | None:
    """Where `initdb` and `pg_ctl` are: on the path, or where Debian puts them."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def postgres_server() -> Iterator[str]:
    """A server of its own on loopback; the address of its database. It refuses root, so root starts it as `nobody`."""
    programs = postgres_programs()
    assert programs is not None
    directory = Path(tempfile.mkdtemp(prefix="batchctl-pg-"))
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(directory, "nobody", "nogroup")
        as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    port = free_port()

    def call(*argv: str) -> None:
        done = subprocess.run(
            [str(programs / argv[0]), *argv[1:]],
            cwd=directory,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdout=subprocess.PIPE if argv[0] == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if argv[0] == "initdb" else subprocess.DEVNULL,
            text=True,
            check=False,
            **as_user,
        )
        assert done.returncode == 0, done.stdout or (directory / "log").read_text()

    data = str(directory / "data")
    call("initdb", "--no-sync", "--auth=trust", "--username=batchctl", "--encoding=UTF8", "-D", data)
    options = f"-h 127.0.0.1 -p {port} -k {directory} -c fsync=off"
    call("pg_ctl", "-D", data, "-w", "-t", "60", "-l", str(directory / "log"), "-o", options, "start")
    try:
        yield f"postgresql://batchctl@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(directory, ignore_errors=True)


class Postgres(Service):
    def __init__(self, address: str, table: str = "labels") -> None:
        self.address, self.table = address, table
        self.to = f"{address}?table={table}"
        self.env = {}

    def sql(self, statement: str, *values: Any) -> list[Any]:
        import psycopg

        with psycopg.connect(self.address, autocommit=True) as connection:
            done = connection.execute(statement, values)  # type: ignore[call-overload]
            return done.fetchall() if done.description else []

    def rows(self) -> Rows:
        import psycopg
        from psycopg.rows import dict_row

        with psycopg.connect(self.address, row_factory=dict_row) as connection:
            return connection.execute(f'SELECT * FROM "{self.table}" ORDER BY id').fetchall()  # type: ignore[call-overload]

    def put_old(self) -> None:
        self.sql(f'DELETE FROM "{self.table}"')
        self.sql(f"INSERT INTO \"{self.table}\" (id) VALUES ('old')")


# --- object stores ----------------------------------------------------------------------------------------------------


class Objects(Service):
    """A Parquet object and its marker."""

    name = "tables/labels.parquet"
    light = False

    def get(self, name: str) -> bytes | None:
        raise NotImplementedError

    def put(self, name: str, content: bytes | None) -> None:
        raise NotImplementedError

    def rows(self) -> Rows:
        content = self.get(self.name)
        assert content is not None
        found: Rows = pq.read_table(io.BytesIO(content)).to_pylist()
        return found

    def put_old(self) -> None:
        import pyarrow as pa

        out = io.BytesIO()
        pq.write_table(pa.table({"id": ["old"]}), out)
        self.put(self.name, out.getvalue())
        self.put(f"{self.name}._SUCCESS", None)

    def whole(self) -> bool:
        import hashlib

        marker, content = self.get(f"{self.name}._SUCCESS"), self.get(self.name)
        assert content is not None
        return marker is not None and json.loads(marker)["sha256"] == hashlib.sha256(content).hexdigest()

    def is_vouched_for_wrongly(self) -> bool:
        return self.get(f"{self.name}._SUCCESS") is not None and not self.whole()


class S3(Objects):
    to = f"s3://bucket/{Objects.name}"

    def __init__(self, url: str) -> None:
        import boto3

        self.env = {
            "AWS_ENDPOINT_URL_S3": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
        )
        self.client.create_bucket(Bucket="bucket")

    def get(self, name: str) -> bytes | None:
        try:
            content: bytes = self.client.get_object(Bucket="bucket", Key=name)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        return content

    def put(self, name: str, content: bytes | None) -> None:
        if content is None:
            self.client.delete_object(Bucket="bucket", Key=name)
        else:
            self.client.put_object(Bucket="bucket", Key=name, Body=content)


@contextmanager
def s3_server() -> Iterator[S3]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3(f"http://{host}:{port}")
    finally:
        server.stop()


class Gcs(Objects):
    to = f"gs://bucket/{Objects.name}"

    def __init__(self, url: str) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        self.env = {"STORAGE_EMULATOR_HOST": url}
        client = storage.Client(
            project="test",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call,unused-ignore]
            client_options={"api_endpoint": url},
        )
        self.bucket = client.bucket("bucket")

    def get(self, name: str) -> bytes | None:
        from google.cloud.exceptions import NotFound

        try:
            content: bytes = self.bucket.blob(name).download_as_bytes()
        except NotFound:
            return None
        return content

    def put(self, name: str, content: bytes | None) -> None:
        blob = self.bucket.blob(name)
        if content is not None:
            blob.upload_from_string(content)
        elif blob.exists():
            blob.delete()


@contextmanager
def gcs_server() -> Iterator[Gcs]:
    from gcp_storage_emulator.server import create_server

    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        yield Gcs(f"http://127.0.0.1:{port}")
    finally:
        server.stop()


# --- BigQuery ---------------------------------------------------------------------------------------------------------


class BigQuery(Service):
    """The few routes of BigQuery's REST API that loading needs. Jobs take effect once, when they are accepted.

    A job is RUNNING at the first look and DONE at the next. `lose` drops the answer to the next call of that kind.
    """

    to = "bigquery://project/data/labels"

    def __init__(self) -> None:
        self.tables: dict[str, Rows] = {}
        self.schemas: dict[str, list[str]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.applied: list[str] = []
        self.lose = ""
        self.fail = ""
        self.lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with service.lock:
                    status, answer, more = service.answer(self.command, self.path, body)
                    if service.lose and service.lose in f"{self.command} {self.path}":
                        service.lose = ""
                        self.close_connection = True
                        return
                text = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = _do  # noqa: N815  (http.server's names)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.env = {"BIGQUERY_EMULATOR_HOST": self.url}
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        parts = urlsplit(path)
        route = parts.path.split("/projects/project/")[-1].split("/")
        if parts.path.startswith("/upload/") and method == "POST":
            wanted = json.loads(body)
            if wanted["jobReference"]["jobId"] in self.jobs:
                return 409, {}, {}
            session = f"s{len(self.uploads)}"
            self.uploads[session] = wanted
            return 200, {}, {"Location": f"{self.url}/upload/{session}"}
        if parts.path.startswith("/upload/") and method == "PUT":
            return self._accept(self.uploads[parts.path.rsplit("/", 1)[1]], body)
        if route[0] == "jobs" and method == "POST":
            return self._accept(json.loads(body), b"")
        if route[0] == "jobs":
            assert parse_qs(parts.query)["location"] == ["EU"], "a job is found only where it ran"
            job = self.jobs.get(route[1])
            if job is None:
                return 404, {}, {}
            self.looks[route[1]] = self.looks.get(route[1], 0) + 1
            shown = job if self.looks[route[1]] > 1 else {**job, "status": {"state": "RUNNING"}}
            return 200, shown, {}
        if route == ["datasets", "data"]:
            return 200, {"location": "EU"}, {}
        if method == "GET" and route[:3] == ["datasets", "data", "tables"]:
            return (200 if route[3] in self.tables else 404), {}, {}
        if method == "DELETE":
            return (204 if self.tables.pop(route[3], None) is not None else 404), {}, {}
        if method == "POST" and route[:2] == ["datasets", "data"]:
            table = json.loads(body)
            name = table["tableReference"]["tableId"]
            if name in self.tables:
                return 409, {}, {}
            self.tables[name] = []
            return 200, table, {}
        return 404, {}, {}

    def _accept(self, job: dict[str, Any], content: bytes) -> tuple[int, Any, dict[str, str]]:
        name = job["jobReference"]["jobId"]
        if name in self.jobs:
            return 409, {}, {}
        assert job["jobReference"]["location"] == "EU"
        status: dict[str, Any] = {"state": "DONE"}
        if self.fail and self.fail in name:
            self.fail = ""
            status["errorResult"] = {"reason": "invalid"}
        else:
            self._apply(job["configuration"], content)
            self.applied.append(name)
        self.jobs[name] = {**job, "status": status}
        return 200, self.jobs[name], {}

    def _apply(self, configuration: dict[str, Any], content: bytes) -> None:
        if "load" in configuration:
            load = configuration["load"]
            assert (load["writeDisposition"], load["sourceFormat"]) == ("WRITE_TRUNCATE", "NEWLINE_DELIMITED_JSON")
            rows = [json.loads(line) for line in content.split(b"\n")[:-1]]
            names = [one["name"] for one in load["schema"]["fields"]]
            assert all(list(row) == names for row in rows)
            self.tables[load["destinationTable"]["tableId"]] = rows
            return
        sql = configuration["query"]["query"]
        match = re.match(r"MERGE `project\.data\.(\w+)` AS t USING `project\.data\.(\w+)` AS s ON (.*?) WHEN ", sql)
        assert match is not None, sql
        key = re.findall(r"t\.`(\w+)` = s\.`\w+`", match[3])
        merged = {tuple(row[one] for one in key): row for row in self.tables[match[1]]}
        for row in self.tables[match[2]]:
            place = tuple(row[one] for one in key)
            merged[place] = {**merged.get(place, {}), **row}
        self.tables[match[1]] = list(merged.values())

    def rows(self) -> Rows:
        return self.tables["labels"]

    def put_old(self) -> None:
        self.tables["labels"] = [{"id": "old"}]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@contextmanager
def bigquery_server() -> Iterator[BigQuery]:
    service = BigQuery()
    try:
        yield service
    finally:
        service.close()
