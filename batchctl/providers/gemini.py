"""Gemini Developer API: one chunk is one file of the Files API and one batch. Requests are never sent inline.

A batch carries our mark as its display name and names its input file, so it can be found again: by reading its list to
the end, which is not in order and has no filter. Deleting the input file is a fence: a batch whose file is gone is
refused. Creating is not idempotent, and the quota belongs to the project, not to the key. An uploaded file lives for 48
hours and cannot be read back.

Facts: ai.google.dev/gemini-api/docs/batch-api, .../rate-limits and the v1beta discovery schema, read 2026-11-21.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batchctl.model.batches import (
    BatchState,
    BatchStatus,
    Candidate,
    Limits,
    LineError,
    Refusal,
    Traits,
)
from batchctl.model.errors import BatchctlError, OutcomeUnknown
from batchctl.providers import google_body
from batchctl.providers.google_batch import METHODS, GoogleBatch
from batchctl.providers.google_rest import ApiError, Rest, Words, blocks, count_of, listed, outcome
from batchctl.providers.http import Key, epoch, host, is_local, json_object

_CREATE = {google_body.GENERATE: "batchGenerateContent", google_body.EMBED: "asyncBatchEmbedContent"}
STATES = {
    "UNSPECIFIED": BatchState.RUNNING,
    "PENDING": BatchState.RUNNING,
    "RUNNING": BatchState.RUNNING,
    "SUCCEEDED": BatchState.ENDED,
    "PARTIALLY_SUCCEEDED": BatchState.ENDED,
    "FAILED": BatchState.REFUSED,
    "CANCELLED": BatchState.ENDED,
    "EXPIRED": BatchState.ENDED,
    "CANCELLING": BatchState.RUNNING,
}
"""Statuses without their prefix: the schema says `BATCH_STATE_`, the guide's samples compare with `JOB_STATE_`."""
PREFIXES = ("BATCH_STATE_", "JOB_STATE_")
REFUSALS = {3: Refusal.FILE, 5: Refusal.ACCESS, 7: Refusal.ACCESS, 8: Refusal.CAPACITY, 9: Refusal.ACCESS}
"""Codes (google.rpc.Code) of a batch that failed before anything ran; any other failure may have come later."""
BATCHES, FILES, UPLOAD = "/v1beta/batches", "/v1beta/files", "/upload/v1beta/files"
PAGE_ITEMS = 100


class GeminiBatch(GoogleBatch):
    """The Gemini wire. `model` is what the job names; it decides the endpoint, which carries it."""

    def __init__(
        self,
        *,
        name: str = "gemini",
        base_url: str | None = None,
        api_key: str | None = None,
        key_name: str = "GEMINI_API_KEY",
        model: str | None = None,
    ) -> None:
        self.name = name
        address = base_url or os.environ.get("BATCHCTL_GEMINI_BASE_URL") or "https://generativelanguage.googleapis.com"
        self._base_url = address.rstrip("/").removesuffix("/v1beta").removesuffix("/v1")
        self._key = Key(name, key_name, api_key or os.environ.get(key_name) or None)
        self._rest = Rest(
            self._base_url,
            variable="BATCHCTL_GEMINI_BASE_URL",
            headers=lambda: {"x-goog-api-key": self._key.checked()},
        )
        self.server = self._rest.server
        self.traits = Traits(
            searchable=True,
            fenced=True,
            wire="google",
            endpoints=METHODS if model is None else (endpoint_of(model),),
            retention="files 48 hours after upload; result files: not documented",
            regions="none to choose",
            lacks=("give results of a batch that expired",),
            credentials=(key_name,),
        )

    def limits(self, endpoint: str) -> Limits:  # noqa: ARG002  (the same for both methods)
        return Limits(
            requests=50_000,
            file_bytes=2_000_000_000,
            line_bytes=20_000_000,
            source="ai.google.dev/gemini-api/docs/rate-limits and .../batch-api, read 2026-11-21 (requests, line_bytes: "
            "our own bounds)",
        )

    def endpoint_of(self, model: str) -> str:
        return endpoint_of(model)

    def live_path(self, endpoint: str) -> str:
        return f"/v1beta/{endpoint}"

    def kept(self, value: Any) -> Any:
        return self._key.kept(value)

    # --- the account ------------------------------------------------------------------------------------------------

    def account(self) -> str:
        place = "loopback" if is_local(self._base_url) else host(self._base_url)
        parts = (self.name, place, self._key.checked())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def close(self) -> None:
        self._rest.close()

    # --- the wire ---------------------------------------------------------------------------------------------------

    def stage(self, chunk: Path, *, name: str) -> str:
        """Start an upload, then send the file to the address that was named, in one piece and from the disk."""
        size = chunk.stat().st_size
        mime = "application/jsonl"
        started = self._rest.ask(
            "POST",
            UPLOAD,
            json={"file": {"displayName": name, "mimeType": mime}},
            headers={
                "X-Goog-Upload-Protocol": "resumable",
                "X-Goog-Upload-Command": "start",
                "X-Goog-Upload-Header-Content-Length": str(size),
                "X-Goog-Upload-Header-Content-Type": mime,
            },
        )
        address = started.headers.get("x-goog-upload-url")
        if not address:
            raise OutcomeUnknown("the answer to an upload names no address to send the file to")
        with chunk.open("rb") as file:
            answer = self._rest.ask(
                "POST",
                address,
                content=blocks(file),
                headers={
                    "Content-Length": str(size),
                    "X-Goog-Upload-Offset": "0",
                    "X-Goog-Upload-Command": "upload, finalize",
                },
            )
        return _named(json_object(answer, "upload").get("file"), "files/", "upload")

    def create(self, staged: str, *, endpoint: str, tag: str, run: str, chunk: int) -> str:  # noqa: ARG002
        model, _, method = endpoint.rpartition(":")
        batch = {"batch": {"displayName": tag, "inputConfig": {"fileName": staged}}}
        answer = self._rest.ask("POST", f"/v1beta/{model}:{_CREATE[method]}", json=batch)
        return _named(json_object(answer, "create"), "batches/", "create").removeprefix("batches/")

    def find(self, staged: str, *, tag: str, since: int, known: Container[str] = ()) -> list[Candidate]:  # noqa: ARG002
        """As the contract says. Nothing is left out by its age: the list's order is not documented."""
        found: dict[str, Candidate] = {}
        for operation in self._listed(BATCHES, "operations", "batches/"):
            shown = _metadata(operation)
            marked = shown.get("displayName") == tag
            given = shown.get("inputConfig")
            reads = bool(staged) and isinstance(given, dict) and given.get("fileName") == staged
            if marked or reads:
                batch_id = str(operation["name"]).removeprefix("batches/")
                by = "mark and input" if marked and reads else "mark" if marked else "input"
                found[batch_id] = Candidate(batch_id, epoch(shown.get("createTime")), str(shown.get("state")), by)
        return sorted(found.values(), key=lambda one: (one.created_at or 0, one.batch_id))

    def _listed(self, path: str, what: str, prefix: str) -> Iterator[dict[str, Any]]:
        """All of a list, each with the name it must have."""
        for one in listed(self._rest, path, what, {"pageSize": str(PAGE_ITEMS)}, name=self.name):
            _named(one, prefix, f"GET {what}")
            yield one

    def poll(self, batch_id: str) -> BatchStatus:
        operation = json_object(self._rest.ask("GET", _batch(batch_id)), "poll")
        if operation.get("name") != f"batches/{batch_id}":
            raise OutcomeUnknown(f"{self.name} answered with another batch", where=f"batch `{batch_id}`")
        return status_of(operation)

    def results(self, handle: str) -> Iterator[bytes]:
        with self._rest.stream(f"/download/v1beta/{_quoted(handle)}:download", params={"alt": "media"}) as answer:
            yield from answer

    def size_of(self, handle: str) -> int | None:
        return count_of(json_object(self._rest.ask("GET", f"/v1beta/{_quoted(handle)}"), "GET /files").get("sizeBytes"))

    def cancel(self, batch_id: str) -> None:
        try:
            self._rest.ask("POST", _batch(batch_id) + ":cancel", json={})
        except ApiError as error:
            if error.status not in (400, 409) or self.poll(batch_id).state is BatchState.RUNNING:
                raise

    def delete(self, staged: str) -> None:
        """A file that is gone answers 403, as one of somebody else does; the list of files tells which it is."""
        try:
            self._rest.ask("DELETE", f"/v1beta/{_quoted(staged)}")
        except ApiError as error:
            if error.status != 403 or any(one["name"] == staged for one in self._listed(FILES, "files", "files/")):
                raise

    def knows_model(self, name: str) -> bool:
        """Whether the key may use a model: `GET /v1beta/models/{name}`, free."""
        try:
            self._rest.ask("GET", f"/v1beta/models/{quote(name.removeprefix('models/'), safe='')}")
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    # --- what an exception means ------------------------------------------------------------------------------------

    def outcome(self, error: BaseException) -> BatchctlError | None:
        words = Words(
            self.name,
            host(self._base_url),
            self._key.hidden_in,
            credentials=f"the key in `{self._key.variable}` and the project it belongs to",
        )
        return outcome(error, words)


def endpoint_of(model: str) -> str:
    """What the vendor's address ends in for this model: `models/gemini-2.5-flash:generateContent`."""
    return f"models/{quote(model.removeprefix('models/'), safe='')}:{google_body.method_of(model)}"


def _batch(batch_id: str) -> str:
    return f"{BATCHES}/{quote(batch_id, safe='')}"


def _quoted(name: str) -> str:
    """`files/...` as it stands in an address."""
    return f"files/{quote(name.removeprefix('files/'), safe='')}"


def _named(value: Any, prefix: str, what: str) -> str:
    """The name in an answer; without one nobody knows what it is about."""
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name.startswith(prefix) or name == prefix:
        raise OutcomeUnknown(f"the answer to {what} carries no name")
    return name


def _metadata(operation: Mapping[str, Any]) -> dict[str, Any]:
    found = operation.get("metadata")
    return found if isinstance(found, dict) else {}


def status_of(operation: Mapping[str, Any]) -> BatchStatus:
    """One operation as `BatchStatus`. A batch that failed counts as refused only when nothing in it can have run."""
    shown = _metadata(operation)
    word = str(shown.get("state") or "")
    bare = word.removeprefix(next((one for one in PREFIXES if word.startswith(one)), "\0"))
    known = bare != word and bare in STATES
    state = STATES[bare] if known else BatchState.RUNNING
    stats = shown.get("batchStats")
    numbers = {key: count_of(value) for key, value in stats.items()} if isinstance(stats, dict) else {}
    counts = {key: value for key, value in numbers.items() if value is not None}
    places = [one for one in (shown.get("output"), operation.get("response")) if isinstance(one, dict)]
    names = (one.get("responsesFile") for one in places)
    handle = next((one for one in names if isinstance(one, str) and one.startswith("files/")), None)
    complaints: tuple[LineError, ...] = ()
    refusal = None
    if state is BatchState.REFUSED:
        complaints, refusal = complaint_of(operation.get("error"))
        if refusal is None or handle is not None or counts.get("successfulRequestCount"):
            state, refusal = BatchState.ENDED, None
    return BatchStatus(
        state=state,
        vendor_status=word or "unknown",
        batch_id=str(operation.get("name") or "").removeprefix("batches/"),
        files=(("output", handle),) if handle is not None and state is BatchState.ENDED else (),
        counts=counts,
        refusal=refusal,
        errors=complaints,
        known_word=known and bare != "UNSPECIFIED",
        owes_results=state is BatchState.ENDED and bare in ("SUCCEEDED", "PARTIALLY_SUCCEEDED"),
        out_of_time=bare == "EXPIRED",
    )


def complaint_of(error: Any) -> tuple[tuple[LineError, ...], Refusal | None]:
    """The complaint of a failed job (google.rpc.Status), and why it was refused; None when its code does not tell."""
    if not isinstance(error, dict):
        return (), None
    code = error.get("code")
    number = code if type(code) is int else None
    complaint = LineError(code=f"code {number}", message=str(error.get("message") or "")[:500])
    return (complaint,), REFUSALS.get(number) if number is not None else None
