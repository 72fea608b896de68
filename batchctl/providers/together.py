"""Together batches: near OpenAI's wire, yet nothing is quite the same.

A file is uploaded in three steps: a POST that answers 302 with a signed address, the bytes to that address (without our
key), and a POST that has the file processed. A create answers `{"job": ...}`, the list is a bare array of everything, and
times are RFC 3339. There is no metadata, so a batch is found again by its input file alone; and there are no counts.

Facts: together 3.1.1 (`resources/batches.py`, `lib/resources/files.py`, `types/batch_job.py`) and
docs.together.ai/docs/inference/batch, read 2026-11-21. What deleting an input does to a late create is not documented.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import orjson

from batchctl.model.addresses import is_loopback
from batchctl.model.batches import BatchState, BatchStatus, Candidate, LineError, Refusal
from batchctl.model.errors import OutcomeUnknown
from batchctl.providers import openai as wire
from batchctl.providers.http import epoch, has_id, is_local, json_object
from batchctl.providers.openai import OpenAIBatch
from batchctl.providers.profiles import TOGETHER

BLOCK_BYTES = 1 << 20


class TogetherBatch(OpenAIBatch):
    """Together's wire."""

    knows_model: Any = None  # it has no free way to ask for one model

    def __init__(
        self,
        *,
        name: str = "together",
        base_url: str | None = None,
        api_key: str | None = None,
        key_name: str | None = None,
    ) -> None:
        super().__init__(name=name, profile=TOGETHER, base_url=base_url, api_key=api_key, key_name=key_name)

    def _address(self, given: str) -> str:
        return given.rstrip("/").removesuffix("/v1") + "/v1"

    def close(self) -> None:
        super().close()
        if "_storage" in self.__dict__:
            self._storage.close()

    @cached_property
    def _storage(self) -> Any:
        """A client for signed addresses: it knows no key."""
        import httpx2

        timeout = httpx2.Timeout(wire.ANSWER_SECONDS, connect=wire.CONNECT_SECONDS)
        return httpx2.Client(follow_redirects=False, trust_env=not is_local(self._base_url), timeout=timeout)

    def stage(self, chunk: Path, *, name: str) -> str:
        with chunk.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            file_id, target = self._announced(name, digest)
            if target:
                headers = {"Content-Length": str(size)}
                put = self._storage.put(target, content=_blocks(file), headers=headers)
                if put.status_code != 200:
                    raise OutcomeUnknown(f"the storage of {self.name} answered {put.status_code} to an upload")
                self._asked("post", f"/files/{file_id}/preprocess")
        return file_id

    def _announced(self, name: str, digest: str) -> tuple[str, str]:
        """The id of a file that is about to come, and where to put it: nowhere, when its bytes are there already."""
        import openai

        form = {"purpose": self.profile.purpose, "file_name": name, "file_type": "jsonl", "checksum": digest}
        try:
            answer = self._asked("post", "/files", body=form, headers={"Content-Type": "multipart/form-data"})
        except openai.APIStatusError as error:
            answer = error.response
            if error.status_code == 409:
                return _id_in(json_object(answer, "upload").get("file_id")), ""
            if error.status_code != 302:
                raise
        target = answer.headers.get("Location", "")
        parts = urlsplit(target)
        local = is_local(self._base_url) and parts.scheme == "http" and is_loopback(parts.hostname)
        if parts.scheme != "https" and not local:
            raise OutcomeUnknown(f"{self.name} named no safe address to upload to")
        return _id_in(answer.headers.get("X-Together-File-Id")), target

    def create(self, staged: str, *, endpoint: str, tag: str, run: str, chunk: int) -> str:  # noqa: ARG002  (no metadata)
        answer = json_object(
            self._asked("post", self.batches, body={"input_file_id": staged, "endpoint": endpoint}), "create"
        )
        job = answer.get("job")
        if not isinstance(job, dict) or not has_id(job):
            raise OutcomeUnknown("the answer to create carries no id")
        return str(job["id"])

    def find(self, staged: str, *, tag: str, since: int, known: Container[str] = ()) -> list[Candidate]:  # noqa: ARG002
        """As the contract says, by the input file."""
        try:
            jobs = orjson.loads(self._asked("get", self.batches).content)
        except orjson.JSONDecodeError:
            raise OutcomeUnknown("the answer to GET /batches is not JSON") from None
        if not isinstance(jobs, list) or not all(isinstance(one, dict) and has_id(one) for one in jobs):
            raise OutcomeUnknown(f"{self.name} answered with something else than a list of batches")
        found = [
            Candidate(str(one["id"]), epoch(one.get("created_at")), str(one.get("status")), "input")
            for one in jobs
            if staged and one.get("input_file_id") == staged
        ]
        return sorted(found, key=lambda one: (one.created_at or 0, one.batch_id))

    def _read(self, batch: Mapping[str, Any]) -> BatchStatus:
        return status_of(batch)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block


def _id_in(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise OutcomeUnknown("the answer to upload carries no id")
    return value


def status_of(job: Mapping[str, Any]) -> BatchStatus:
    """One job object as `BatchStatus`. A job that failed counts as refused only when it has nothing to show."""
    word = str(job.get("status") or "").lower()
    named = [(kind, job.get(key)) for kind, key in (("output", "output_file_id"), ("errors", "error_file_id"))]
    files = tuple((kind, handle) for kind, handle in named if isinstance(handle, str) and handle)
    progress, said = job.get("progress"), job.get("error")
    begun = isinstance(progress, int | float) and progress > 0
    state = TOGETHER.states.get(word, BatchState.RUNNING)
    if state is BatchState.REFUSED and (files or begun):
        state = BatchState.ENDED
    return BatchStatus(
        state=state,
        vendor_status=str(job.get("status") or "unknown"),
        batch_id=str(job.get("id") or ""),
        files=files,
        refusal=Refusal.FILE if state is BatchState.REFUSED else None,
        errors=(LineError(code=word, message=said[:500]),) if isinstance(said, str) and said else (),
        known_word=word in TOGETHER.states,
        expires_at=epoch(job.get("job_deadline")),
        owes_results=word == TOGETHER.completed,
        out_of_time=word == TOGETHER.expired,
    )
