"""A real S3 server (moto) and the emulator's Bedrock wire in front of it, for tests and the conformance contract."""

from __future__ import annotations

import http.client
import json
import logging
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from typing import Any, ClassVar

from tests.support.emulated import Emulated
from tests.support.provider import PATIENCE_SECONDS, Provider

ROLE = "arn:aws:iam::123456789012:role/batchctl-bedrock"
REGION = "us-east-1"
CLAUDE = "anthropic.claude-haiku-4-5-20251001-v1:0"
JOB, JOBS = "/model-invocation-job", "/model-invocation-jobs"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret-of-nobody-0123456789abcdefghijkl"}
SIGNED = f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/{REGION}/bedrock/aws4_request, Signature=none"

NAMED = {"Authorization": SIGNED.replace("/bedrock/", "/s3/")}  # moto asks who it is, and believes everybody


class S3:
    """moto's server in this process. Every test takes a bucket of its own."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self._host, self._port = self._server.get_host_and_port()
        self.url = f"http://{self._host}:{self._port}"
        self._buckets = 0

    def bucket(self) -> str:
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        self.put(name, "")
        return name

    def put(self, bucket: str, key: str, body: bytes = b"") -> None:
        self._ask("PUT", f"{bucket}/{key}".rstrip("/"), body)

    def delete(self, uri: str) -> None:
        self._ask("DELETE", uri.removeprefix("s3://"))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> None:
        with closing(http.client.HTTPConnection(self._host, self._port, timeout=PATIENCE_SECONDS)) as connection:
            connection.request(method, f"/{path}", body, NAMED)
            answer = connection.getresponse()
            answer.read()
            assert answer.status < 300, answer.status

    def stop(self) -> None:
        self._server.stop()
        assert self._server._server is not None
        self._server._server.server_close()  # moto leaves it open


def model_keys(bucket: str, name: str = CLAUDE, **more: str) -> str:
    """A `[model]` table for JobFolder."""
    keys = {"provider": "bedrock", "name": name, "region": REGION, "bucket": bucket, "role_arn": ROLE, **more}
    return "\n".join(f'{key} = "{value}"' for key, value in keys.items())


def environment(provider: Provider) -> dict[str, str]:
    """What a command needs to find the wire, and S3 through it, so that faults can strike both."""
    return {
        **KEYS,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL_BEDROCK": provider.url,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": provider.url,
        "AWS_ENDPOINT_URL_S3": f"{provider.url}/s3",
    }


class BedrockEmulated(Emulated):
    """The emulator's Bedrock wire. Jobs are known by ARN outside, and by its last part in the emulator's books."""

    create_path = JOB
    calls_of: ClassVar[Mapping[str, str]] = {
        "create": f"POST {JOB}",
        "list": f"GET {JOBS}",
        "poll": f"GET {JOB}/*",
        "cancel": f"POST {JOB}/*/stop",
        "live": "POST /model/*",
        "upload": "PUT /s3/*",
        "results": "GET /s3/*/input.jsonl.out",
        "size": "GET /s3/bucket-*",
        "delete": "DELETE /s3/*",
    }

    def __init__(self, provider: Provider, bucket: str) -> None:
        super().__init__(provider)
        self.bucket = bucket

    def strike(self, call: str, do: str, **more: Any) -> None:
        on = f"GET /s3/{self.bucket}" if call == "size" else self.calls_of[call]
        self.provider.fault(on, do, **more)

    def batches(self) -> list[str]:
        return [f"arn:aws:bedrock:{REGION}:123456789012:model-invocation-job/{one}" for one in super().batches()]

    def show(self, batch_id: str, **fields: Any) -> None:
        if "id" in fields:
            fields["jobArn"] = fields.pop("id")
        super().show(_short(batch_id), **fields)

    def end(self, batch_id: str, how: str, *, after: int) -> None:
        super().end(_short(batch_id), how, after=after)

    def settle(self, batch_id: str) -> None:
        super().settle(_short(batch_id))

    def mark_again(self, batch_id: str) -> str:
        """The same request under another token and name: a name can be used once."""
        shown = self.ask("GET", f"{JOB}/{_short(batch_id)}")
        kept = ("roleArn", "modelId", "inputDataConfig", "outputDataConfig", "modelInvocationType")
        again = {"jobName": "again", "clientRequestToken": "again", **{name: shown[name] for name in kept}}
        return str(self.ask("POST", JOB, again)["jobArn"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": SIGNED, "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.loads(answer.read())


def _short(batch_id: str) -> str:
    return batch_id.rpartition("/")[2]
