"""Anthropic Message Batches: one chunk is the body of one create. Nothing is uploaded before it.

A batch carries no mark, no name and no metadata, and its requests cannot be read back; only its result lines carry our
custom_ids. So a create whose answer was lost is looked for by time and size, and is ours when the first result line is:
until the batch has ended nobody can tell. There is no fence either: nothing that could be deleted keeps a late create
from running. `find` says what it knows, and the caller waits, asks a person or sends again.

The body is streamed from the chunk file, and retries are off: the SDK would send a body that was read once as an empty
one. The address of the results is made here and never taken from `results_url`, to which the SDK sends the key wherever
it points.

Facts: platform.claude.com/docs/en/build-with-claude/batch-processing, .../api/errors, and the types of anthropic 2.12.0,
read 2026-11-21.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Container, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from batchctl.model.batches import (
    Ask,
    BatchState,
    BatchStatus,
    Candidate,
    Limits,
    LiveAnswer,
    Post,
    Proof,
    Request,
    Traits,
)
from batchctl.model.errors import (
    BatchctlError,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Throttled,
    UsageError,
)
from batchctl.providers.anthropic_params import translated
from batchctl.providers.anthropic_schema import schema_part
from batchctl.providers.chunk_body import asks, joined, joined_size, lines_in, opened
from batchctl.providers.http import (
    ROW_STATUSES,
    Key,
    check_address,
    epoch,
    has_id,
    host,
    identity,
    is_local,
    json_object,
    merged,
    not_sent,
    retry_after,
    whole,
)
from batchctl.providers.server_time import ServerTime

ENDPOINT = "/v1/messages"
API_VERSION = "2023-06-01"  # what the SDK sends as `anthropic-version` (anthropic 2.12.0)
BATCHES = "/v1/messages/batches"
STATES = {
    "in_progress": BatchState.RUNNING,
    "canceling": BatchState.RUNNING,
    "ended": BatchState.ENDED,
}
BILLING_CODES = frozenset(
    {
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "linked_organization_spend_limit_reached",
    }
)
"""`error_code`s that no waiting cures (anthropic 2.12.0, `types/shared/*_error_details.py`)."""
ACCOUNT_CODES = frozenset({"organization_on_hold", "organization_type_not_supported", "parent_organization_required"})
OWN = ("model", "messages", "system", "stream")
MAX_TOKENS = 4096
"""Sent when the job names no `max_tokens`, which this vendor demands; every model takes as many."""
HEAD, TAIL = b'{"requests":[', b"]}"
LIST_PAGES = 100  # a list that never ends is an error, not a loop
PAGE_BATCHES = 100
BLOCK_BYTES = 1 << 18
FIRST_LINE_BYTES = 64_000_000
ANSWER_SECONDS = 600.0
CONNECT_SECONDS = 10.0
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class AnthropicBatch:
    """The Anthropic wire. `base_url` is without `/v1`, as the SDK has it; one that ends so is taken as meant."""

    def __init__(
        self,
        *,
        name: str = "anthropic",
        base_url: str | None = None,
        api_key: str | None = None,
        key_name: str = "ANTHROPIC_API_KEY",
    ) -> None:
        self.name = name
        address = base_url or os.environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com"
        self._base_url = address.rstrip("/").removesuffix("/v1")
        self.server = ServerTime()
        self._key = Key(name, key_name, api_key or os.environ.get(key_name) or None)
        self.traits = Traits(
            searchable=False,
            fenced=False,
            wire="anthropic",
            uploads=False,
            endpoints=(ENDPOINT,),
            retention="results 29 days after creation",
            lacks=("count rows before the batch has ended", "promise zero data retention for batches"),
            regions="none to choose; a batch belongs to one Workspace",
            credentials=(key_name,),
        )

    def limits(self, endpoint: str) -> Limits:  # noqa: ARG002  (there is one)
        return Limits(
            requests=100_000,
            file_bytes=256_000_000 - len(HEAD) - len(TAIL),
            line_bytes=32_000_000,
            source="platform.claude.com/docs/en/build-with-claude/batch-processing and .../api/errors, read 2026-11-21 "
            "(line_bytes: of one synchronous request)",
        )

    # --- codec: no SDK, no key ------------------------------------------------------------------------------------

    def body(self, ask: Ask) -> tuple[dict[str, Any], tuple[str, ...]]:
        if ask.endpoint != ENDPOINT:
            raise UsageError(
                f"endpoint `{ask.endpoint}` cannot be used in batch with {self.name}",
                where="[model] endpoint",
                effect="nothing was written",
                hint="remove it: there is one, " + ENDPOINT,
            )
        params, notes = translated(ask.params, ask.model)
        body: dict[str, Any] = {"model": ask.model, "max_tokens": MAX_TOKENS}
        if ask.system is not None:
            body["system"] = ask.system
        body["messages"] = [{"role": "user", "content": ask.prompt}]
        if "max_tokens" not in params:
            notes += (f"max_tokens: {MAX_TOKENS:,}, because [model] params sets none",)
        if ask.schema is not None and ask.mode != "prompt":
            part, told = schema_part(ask.schema, tool=ask.mode == "tool", name=ask.schema_name)
            body |= part
            notes += told
        return merged(body, params, OWN), notes

    def encode(self, request: Request) -> bytes:
        return orjson.dumps({"custom_id": request.custom_id, "params": request.body})

    def check_line(self, line: bytes, endpoint: str, model: str) -> str | None:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return f"not JSON: {error}"
        if not isinstance(value, dict) or value.keys() != {"custom_id", "params"}:
            return "not an object with exactly custom_id and params"
        if not isinstance(value["custom_id"], str) or not _CUSTOM_ID.fullmatch(value["custom_id"]):
            return "custom_id is not 1 to 64 letters, digits, _ and -"
        params = value["params"]
        if endpoint != ENDPOINT or not isinstance(params, dict):
            return f"not a request for {endpoint}"
        if params.get("model") != model:
            return f"model is {params.get('model')!r}, the batch is for {model!r}"
        if "stream" in params or "speed" in params:
            return "`stream` and `speed` cannot be used in batch"
        if not whole(params.get("max_tokens")):
            return "`max_tokens` must be a whole number above 0"
        return None

    def live_body(self, line: bytes) -> bytes:
        return orjson.dumps(orjson.loads(line)["params"])

    # --- the account ----------------------------------------------------------------------------------------------

    def account(self) -> str:
        place = "loopback" if is_local(self._base_url) else host(self._base_url)
        parts = (self.name, place, self._key.checked())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def close(self) -> None:
        if "_sdk" in self.__dict__:
            self._sdk.close()

    @cached_property
    def _sdk(self) -> Any:
        key = self._key.checked()
        check_address(self._base_url, "ANTHROPIC_BASE_URL")
        import anthropic  # seconds of CPU: only the commands that talk to the provider pay for it

        # By default the SDK repeats a lost create twice and sends no idempotency key, obeys any Retry-After however
        # long, and follows redirects.
        return anthropic.Anthropic(
            api_key=key,
            base_url=self._base_url,
            max_retries=0,
            open_telemetry=False,  # what is sent is nobody else's business
            http_client=anthropic.DefaultHttpxClient(
                base_url=self._base_url,
                follow_redirects=False,
                trust_env=not is_local(self._base_url),  # a proxy is for what leaves this machine
                timeout=anthropic.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                event_hooks=self.server.of_httpx(),
            ),
        )

    # --- the wire -------------------------------------------------------------------------------------------------

    def stage(self, chunk: Path, *, name: str) -> str:  # noqa: ARG002  (nothing is put anywhere, so nothing is named)
        return str(chunk)

    def create(self, staged: str, *, endpoint: str, tag: str, run: str, chunk: int) -> str:  # noqa: ARG002
        with opened(staged) as file:
            size = joined_size(file)
            headers = {
                "Content-Type": "application/json",
                "Content-Length": str(len(HEAD) + size + len(TAIL)),
                "Idempotency-Key": tag,  # not known to the vendor; helps where a gateway honours it
            }
            return identity(self._post(BATCHES, joined(file, HEAD, TAIL), headers), "create")

    def _post(self, path: str, content: Any, headers: Mapping[str, str]) -> Any:
        import httpx2

        return self._sdk.post(path, cast_to=httpx2.Response, content=content, options={"headers": dict(headers)})

    def _get(self, path: str, **query: Any) -> Any:
        import httpx2

        return self._sdk.get(path, cast_to=httpx2.Response, options={"params": query})

    def find(self, staged: str, *, tag: str, since: int, known: Container[str] = ()) -> list[Candidate]:  # noqa: ARG002
        """As the contract says: a batch of this chunk's size, made since then, is a candidate until its results differ."""
        size = lines_in(staged)
        found: dict[str, Candidate] = {}
        for batch in self._listed(since):
            if batch["id"] in known or batch["id"] in found:
                continue
            created = epoch(batch.get("created_at"))
            requests = _requests(batch)
            if (created is not None and created < since) or (requests is not None and requests != size):
                continue
            proof = self._proof(batch, staged)
            if proof is not None:
                by = "its results" if proof is Proof.CERTAIN else f"its time and its {size:,} requests"
                found[batch["id"]] = Candidate(batch["id"], created, str(batch.get("processing_status")), by, proof)
        return sorted(found.values(), key=lambda one: (one.created_at or 0, one.batch_id))

    def greet(self) -> None:
        """Nothing is asked before a create: one batch of the list, so that the provider's time is known."""
        self._get(BATCHES, limit=1)

    def _listed(self, since: int) -> Iterator[dict[str, Any]]:
        """Batches, newest first, to the end of the page on which all are older. Whatever is no list raises."""
        after: str | None = None
        seen: set[str] = set()
        for _ in range(LIST_PAGES):
            more = {"after_id": after} if after else {}
            page = json_object(self._get(BATCHES, limit=PAGE_BATCHES, **more), "GET " + BATCHES)
            batches = page.get("data")
            if not isinstance(batches, list) or not all(isinstance(one, dict) and has_id(one) for one in batches):
                raise OutcomeUnknown(f"{self.name} answered with something else than a list of batches")
            yield from batches
            old = all((epoch(one.get("created_at")) or since) < since for one in batches)
            if not batches or old or not page.get("has_more", len(batches) >= PAGE_BATCHES):
                return
            after = str(batches[-1]["id"])
            if after in seen:
                raise OutcomeUnknown(f"{self.name} lists the same batches again and again", where="GET " + BATCHES)
            seen.add(after)
        raise OutcomeUnknown(f"{self.name} listed more than {LIST_PAGES * PAGE_BATCHES:,} batches")

    def _proof(self, batch: Mapping[str, Any], staged: str) -> Proof | None:
        """What is known of a batch of the right size; None when its results are not of this chunk."""
        status = status_of(batch)
        if status.state is not BatchState.ENDED:
            return Proof.WHEN_ENDED
        if not status.files:
            return Proof.NEVER
        try:
            line = self._first_line(status.batch_id)
        except Exception as error:
            if isinstance(self.outcome(error), NotFound):
                return Proof.NEVER
            raise
        if not line:
            return Proof.NEVER
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise OutcomeUnknown(f"the results of batch `{status.batch_id}` cannot be read") from None
        custom_id = value.get("custom_id") if isinstance(value, dict) else None
        if not isinstance(custom_id, str):
            raise OutcomeUnknown(f"the results of batch `{status.batch_id}` carry no custom_id")
        return Proof.CERTAIN if asks(staged, custom_id) else None

    def _first_line(self, batch_id: str) -> bytes:
        """The first result line; empty when there is none. What follows it is not waited for."""
        start = b""
        for block in self.results(batch_id):
            start += block
            if b"\n" in start or len(start) > FIRST_LINE_BYTES:
                break
        return start.partition(b"\n")[0]

    def poll(self, batch_id: str) -> BatchStatus:
        batch = json_object(self._get(_path(batch_id)), "poll")
        if batch.get("id") != batch_id:
            raise OutcomeUnknown(f"{self.name} answered with another batch", where=f"batch `{batch_id}`")
        return status_of(batch)

    def results(self, handle: str) -> Iterator[bytes]:
        """The result file of the batch `handle`, raw: the SDK's iterator parses each line and stops at a broken one."""
        import httpx2

        headers = {"X-Stainless-Raw-Response": "stream", "Accept-Encoding": "identity", "Accept": "application/x-jsonl"}
        answer = self._sdk.get(_path(handle) + "/results", cast_to=httpx2.Response, options={"headers": headers})
        try:
            yield from answer.iter_bytes(BLOCK_BYTES)
        finally:
            answer.close()

    def size_of(self, handle: str) -> int | None:  # noqa: ARG002
        return None  # the vendor does not say: that it is whole is told by the custom_ids

    def cancel(self, batch_id: str) -> None:
        import anthropic

        try:
            self._sdk.messages.batches.cancel(batch_id)
        except (anthropic.BadRequestError, anthropic.ConflictError):
            if self.poll(batch_id).state is not BatchState.ENDED:
                raise

    def delete(self, staged: str) -> None:
        """Nothing was put anywhere, so nothing is there."""

    def call(self, body: bytes, endpoint: str) -> LiveAnswer:
        import anthropic

        started = time.monotonic()
        try:
            answer = self._post(endpoint, body, {"Content-Type": "application/json"})
        except anthropic.APIStatusError as error:
            if error.status_code not in ROW_STATUSES or error.status_code == 402:
                raise
            return LiveAnswer(error.status_code, self._key.kept(error.body), time.monotonic() - started)
        return LiveAnswer(200, self._key.kept(json_object(answer, "POST " + endpoint)), time.monotonic() - started)

    def knows_model(self, name: str) -> bool:
        """Whether the key may use a model: a count of the tokens of one word, which is free."""
        import anthropic

        try:
            self._sdk.messages.with_raw_response.count_tokens(
                model=name, messages=[{"role": "user", "content": "word"}]
            )
        except anthropic.NotFoundError:
            return False
        return True

    def live_post(self, endpoint: str) -> Post:
        key = self._key.checked()
        check_address(self._base_url, "ANTHROPIC_BASE_URL")
        headers = {"x-api-key": key, "anthropic-version": API_VERSION, "Content-Type": "application/json"}
        return Post(self._base_url + endpoint, headers, key)

    def live_error(self, status: int, headers: Mapping[str, str], body: Any) -> BatchctlError | None:
        if status in ROW_STATUSES and status != 402 and error_parts(body)[1] not in ACCOUNT_CODES:
            return None
        return self._meaning(status, body, headers, "no reason given", host(self._base_url))

    # --- what an exception means ----------------------------------------------------------------------------------

    def outcome(self, error: BaseException) -> BatchctlError | None:
        import anthropic
        import httpx2

        where = host(self._base_url)
        if isinstance(error, BatchctlError):
            return error
        if isinstance(error, anthropic.APIStatusError):
            return self._status_outcome(error, where)
        cause: BaseException | None = error.__cause__ if isinstance(error, anthropic.APIConnectionError) else error
        refused = not_sent(cause, where)
        if refused is not None:
            return refused
        if isinstance(error, anthropic.AnthropicError | httpx2.HTTPError | ValueError):
            return OutcomeUnknown(f"no usable answer from {where}: {type(cause).__name__}")
        return None

    def _status_outcome(self, error: Any, where: str) -> BatchctlError:
        return self._meaning(int(error.status_code), error.body, error.response.headers, str(error.message), where)

    def _meaning(self, status: int, body: Any, headers: Mapping[str, str], words: str, where: str) -> BatchctlError:
        """What an error answer means; `words` say it where its body has none."""
        kind, code, said = error_parts(body)
        said = self._key.hidden_in(said or words)[:300]
        shown = self._key.hidden_in(code or kind)[:100]
        text = f"{self.name} answered {status}" + (f" {shown}" if shown else "") + f": {said}"
        if status < 500 and (status == 402 or kind == "billing_error" or code in BILLING_CODES):
            return Throttled(
                text,
                where=where,
                billing=True,
                effect="no attempt was used; rows stay where they are",
                hint="top up or raise the limit at the provider, then run the same command again",
                code="billing",
            )
        if status in (401, 403) or (status == 400 and code in ACCOUNT_CODES):
            return NotAllowed(
                text,
                where=where,
                effect="rows stay where they are",
                hint=f"check the key in `{self._key.variable}` and the workspace it belongs to",
            )
        if status == 404:
            return NotFound(text, where=where, hint="check the address and that the key belongs to the same workspace")
        if status in (400, 413, 422):
            return Rejected(text, where=where, effect="nothing was billed")
        if status == 429:
            return Throttled(text, where=where, wait_seconds=retry_after(headers))
        return OutcomeUnknown(text, where=where)


def _path(batch_id: str) -> str:
    return f"{BATCHES}/{quote(batch_id, safe='')}"


def error_parts(body: Any) -> tuple[str, str, str]:
    """Type, `error_code` and message of an error body, each empty where there is none."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return "", "", ""
    details = error.get("details")
    parts = (error.get("type"), details.get("error_code") if isinstance(details, dict) else None, error.get("message"))
    kind, code, message = (part if isinstance(part, str) else "" for part in parts)
    return kind, code, message


def status_of(batch: Mapping[str, Any]) -> BatchStatus:
    """One batch object as `BatchStatus`. Tolerates null counts and words it does not know."""
    word = str(batch.get("processing_status") or "").lower()
    given = batch.get("request_counts")
    counts = {key: value for key, value in given.items() if whole(value) is not None} if isinstance(given, dict) else {}
    state = STATES.get(word, BatchState.RUNNING)
    batch_id = str(batch.get("id") or "")
    ended = state is BatchState.ENDED
    url = batch.get("results_url")
    there = ended and isinstance(url, str) and bool(url) and not batch.get("archived_at")
    return BatchStatus(
        state=state,
        vendor_status=str(batch.get("processing_status") or "unknown"),
        batch_id=batch_id,
        files=(("output", batch_id),) if there else (),
        counts=counts,
        known_word=word in STATES,
        expires_at=epoch(batch.get("expires_at")),
        owes_results=ended,
        out_of_time=ended and counts.get("expired", 0) > 0,
    )


def _requests(batch: Mapping[str, Any]) -> int | None:
    """How many requests a batch has: its counts always add up to that. None when they cannot be read."""
    counts = batch.get("request_counts")
    if not isinstance(counts, dict) or not counts or any(whole(one) is None for one in counts.values()):
        return None
    return sum(counts.values())
