"""A real Cloud Storage server (gcp-storage-emulator) for tests, with the preconditions it lacks.

The emulator stores a generation with each object and answers 200 whatever `ifGenerationMatch` says (seen with 2026.7.19);
here it refuses with 412, as the service does.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from tests.support.emulated import Emulated
from tests.support.provider import Provider

_MESSAGE = "At least one of the pre-conditions you specified did not hold."


def _generation(storage: Any, bucket: str, name: str) -> int:
    found = storage.objects.get(bucket, {}).get(name, {})
    return int(found.get("generation") or 0)


def _guarded(handler: Callable[..., Any], name_of: Callable[[Any], str]) -> Callable[..., Any]:
    def wrapped(request: Any, response: Any, storage: Any, *args: Any, **kwargs: Any) -> Any:
        want, unwanted = (request.query.get(one) for one in ("ifGenerationMatch", "ifGenerationNotMatch"))
        if want or unwanted:
            now = _generation(storage, request.params["bucket_name"], name_of(request))
            if (want and int(want[0]) != now) or (unwanted and int(unwanted[0]) == now):
                response.status = HTTPStatus.PRECONDITION_FAILED
                response.json({"error": {"code": 412, "message": _MESSAGE}})
                return None
        return handler(request, response, storage, *args, **kwargs)

    return wrapped


def _named_by_insert(request: Any) -> str:
    if request.query.get("name"):
        return str(request.query["name"][0])
    data = request.data
    return str((data.get("meta") or data).get("name", "")) if isinstance(data, dict) else ""


def install() -> None:
    """Put the guard before the emulator's handlers, once."""
    from gcp_storage_emulator import server
    from gcp_storage_emulator.handlers import objects

    if getattr(server, "guarded", False):
        return
    routes = []
    for pattern, methods in server.HANDLERS:
        new = dict(methods)
        for verb, handler in methods.items():
            if handler is objects.insert:
                new[verb] = _guarded(handler, _named_by_insert)
            elif handler in (objects.download, objects.get, objects.delete, objects.patch):
                new[verb] = _guarded(handler, lambda request: request.params["object_id"])
        routes.append((pattern, new))
    server.HANDLERS = tuple(routes)
    server.guarded = True


class Gcs:
    """The server in this process. Every test takes a bucket of its own."""

    def __init__(self) -> None:
        install()
        from gcp_storage_emulator.server import create_server

        logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._server = create_server("127.0.0.1", port, in_memory=True)
        self._server.start()
        self.url = f"http://127.0.0.1:{port}"
        self._buckets = 0

    def bucket(self) -> str:
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        self.client().create_bucket(name)
        return name

    def client(self) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        return storage.Client(
            project="tests", credentials=AnonymousCredentials(), client_options={"api_endpoint": self.url}
        )

    def stop(self) -> None:
        self._server.stop()


def environment(provider: Provider) -> dict[str, str]:
    """What a command needs to find the wire, and Cloud Storage through it, so that faults can strike both."""
    return {"BATCHCTL_VERTEX_BASE_URL": provider.url, "STORAGE_EMULATOR_HOST": f"{provider.url}/gcs"}


class VertexEmulated(Emulated):
    """The emulator's Vertex wire, with Cloud Storage behind it."""

    create_path = "/v1/projects/p/locations/us-central1/batchPredictionJobs"
    calls_of: ClassVar[Mapping[str, str]] = {
        "create": "POST /v1/*/batchPredictionJobs",
        "list": "GET /v1/*/batchPredictionJobs",
        "poll": "GET /v1/*/batchPredictionJobs/*",
        "cancel": "POST /v1/*/batchPredictionJobs/*:cancel",
        "live": "POST /v1/*/models/*",
        "upload": "POST /gcs/upload/*",
        "results": "GET /gcs/*/predictions.jsonl*",
        "folder": "GET /gcs/storage/v1/b/*/o",
        "delete": "DELETE /gcs/*",
    }

    def __init__(self, provider: Provider, bucket: str) -> None:
        super().__init__(provider)
        self.bucket = bucket

    def creates(self) -> int:
        return len([one for one in self.provider.calls("POST") if one["path"].endswith("/batchPredictionJobs")])

    def show(self, batch_id: str, **fields: Any) -> None:
        if "id" in fields:
            fields["name"] = f"projects/123456789/locations/us-central1/batchPredictionJobs/{fields.pop('id')}"
        if "status" in fields and fields["status"].startswith("JOB_STATE_"):
            fields["state"] = fields.pop("status")
        super().show(batch_id, **fields)

    def mark_again(self, batch_id: str) -> str:
        jobs = self.provider.ask("GET", self.create_path)["batchPredictionJobs"]
        job = next(one for one in jobs if one["name"].endswith(f"/{batch_id}"))
        kept = ("displayName", "model", "inputConfig", "outputConfig", "labels")
        made: str = self.provider.ask("POST", self.create_path, {name: job[name] for name in kept})["name"]
        return made.rpartition("/")[2]


class BigQueryEmulated(VertexEmulated):
    """The emulator's Vertex wire, with its BigQuery beside it."""

    calls_of: ClassVar[Mapping[str, str]] = {
        **VertexEmulated.calls_of,
        "upload": "POST /upload/bigquery/*",
        "results": "GET /bigquery/*/data",
        "delete": "DELETE /bigquery/*",
    }

    def calls(self) -> int:
        """Without the looks at dataset and job that come before a load."""
        return len([one for one in self.provider.calls() if not one["path"].startswith("/bigquery/")])
