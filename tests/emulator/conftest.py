"""An emulator per test, driven with the real SDK with retries off."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from batchctl.emulator import Emulator, Settings

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["billing", "bug", "other"]},
        "priority": {"type": "integer", "minimum": 1, "maximum": 5},
        "note": {"type": ["string", "null"]},
    },
    "required": ["label", "priority", "note"],
    "additionalProperties": False,
}
ENDED = ("completed", "failed", "expired", "cancelled")


def line(custom_id: str, body: dict[str, Any] | None = None, url: str = "/v1/responses", **more: Any) -> dict[str, Any]:
    body = (
        {"model": "gpt-5.4-mini", "input": f"{custom_id} was charged twice, a billing case"} if body is None else body
    )
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body} | more


def shaped(custom_id: str, **more: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "name": "ticket", "strict": True, "schema": SCHEMA}
    body = {"model": "gpt-5.4-mini", "input": f"{custom_id}: charged twice, billing", "text": {"format": form}}
    return line(custom_id, body | more)


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Ask again until there is an answer; the pause grows, the end is certain."""
    end, pause = time.monotonic() + seconds, 0.002
    while True:
        found = condition()
        if found or time.monotonic() > end:
            assert found, "waited in vain"
            return found
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


class Driver:
    """A client of one emulator with the few steps every test takes."""

    def __init__(self, emulator: Emulator, state_dir: Path, key: str = "sk-test") -> None:
        self.emulator = emulator
        self.state_dir = state_dir
        self.url = emulator.url
        self.sdk = openai.OpenAI(api_key=key, base_url=f"{emulator.url}/v1", max_retries=0, timeout=20)

    def upload(self, data: bytes, name: str = "rows.jsonl") -> str:
        return self.sdk.files.create(file=(name, io.BytesIO(data)), purpose="batch").id

    def create(self, lines: list[dict[str, Any]] | bytes, endpoint: str = "/v1/responses", **more: Any) -> Any:
        data = lines if isinstance(lines, bytes) else jsonl(lines)
        file_id = self.upload(data)
        return self.sdk.batches.create(
            input_file_id=file_id, endpoint=endpoint, completion_window="24h", **({"metadata": {"tag": "t1"}} | more)
        )

    def wait(self, batch_id: str, *statuses: str) -> Any:
        wanted = statuses or ENDED

        def look() -> Any:
            batch = self.sdk.batches.retrieve(batch_id)
            return batch if batch.status in wanted else None

        return until(look)

    def run(self, lines: list[dict[str, Any]] | bytes, endpoint: str = "/v1/responses", **more: Any) -> Any:
        return self.wait(self.create(lines, endpoint, **more).id)

    def raw(self, file_id: str | None) -> bytes:
        if file_id is None:
            return b""
        with self.sdk.files.with_streaming_response.content(file_id) as body:
            return b"".join(body.iter_bytes())

    def results(self, batch: Any) -> tuple[list[Any], list[Any]]:
        parts = [self.raw(file_id).split(b"\n") for file_id in (batch.output_file_id, batch.error_file_id)]
        return tuple([json.loads(one) for one in part if one] for part in parts)  # type: ignore[return-value]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return self.sdk._client.request(method, f"{self.url}{path}", json=body)

    def force(self, batch_id: str, **fields: Any) -> Any:
        return self.ask("POST", f"/emulator/batches/{batch_id}", fields).json()

    def fault(self, on: str, do: str, **more: Any) -> None:
        assert self.ask("POST", "/emulator/faults", {"on": on, "do": do} | more).status_code == 200

    def billed(self) -> Any:
        return self.ask("GET", "/emulator/billed").json()


Start = Callable[..., Driver]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an emulator with settings as a job file has them; all are stopped at the end."""
    drivers: list[Driver] = []

    def begin(state: str = "state", **settings: Any) -> Driver:
        emulator = Emulator(tmp_path / state, Settings.from_mapping(settings))
        emulator.start()
        drivers.append(Driver(emulator, tmp_path / state))
        return drivers[-1]

    yield begin
    for driver in drivers:
        driver.sdk.close()
        driver.emulator.stop()


@pytest.fixture
def driver(start: Start) -> Driver:
    return start()
