"""OpenAI Batch: one chunk is one uploaded file and one batch. Also any server that speaks the same wire.

Results come in any order, in two files (output and error); `custom_id` joins them. A batch carries our mark in its
metadata and in the name of its input file, so it can be found again; deleting the input file is a fence, because a
batch whose file is gone fails validation before anything runs.

Facts: developers.openai.com/api/docs/guides/batch and the types of openai 3.52.0, read 2026-11-21.
"""

from __future__ import annotations

import hashlib
import os
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
    LineError,
    LiveAnswer,
    Post,
    Request,
    Traits,
)
from batchctl.model.errors import (
    BatchctlError,
    OutcomeUnknown,
    UsageError,
)
from batchctl.model.usage import openai_usage
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
    whole,
)
from batchctl.providers.openai_background import OpenAIBackground
from batchctl.providers.openai_errors import facts_of, meaning_of, of_account, refusal_of
from batchctl.providers.params import FLAT_EFFORT, NESTED_EFFORT, in_words_of
from batchctl.providers.profiles import CHAT, EMBEDDINGS, MODERATIONS, OPENAI, RESPONSES, Profile, expiry
from batchctl.providers.server_time import ServerTime
from batchctl.providers.strict_schema import openai_part, strict_form

ENDPOINTS = OPENAI.endpoints
OWN = ("model", "input", "messages", "instructions", "stream", "background")
"""What batchctl writes into a body itself."""
NEEDED = {RESPONSES: "input", CHAT: "messages", EMBEDDINGS: "input", MODERATIONS: "input"}
LIST_PAGES = 100  # a list that never ends is an error, not a loop
PAGE_BATCHES = 100
ANSWER_SECONDS = 600.0
CONNECT_SECONDS = 10.0


class OpenAIBatch(OpenAIBackground):
    """The OpenAI wire, at OpenAI or at a server that `profile` describes."""

    batches = "/batches"

    def __init__(
        self,
        *,
        name: str = "openai",
        profile: Profile = OPENAI,
        base_url: str | None = None,
        api_key: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        key_name: str | None = None,
        keep_seconds: float | None = None,
    ) -> None:
        self.name = name
        self.profile = profile
        self._expiry = expiry(keep_seconds)
        self.server = ServerTime()
        found = os.environ.get(profile.address_variable) if profile.address_variable else None
        self._base_url = self._address(base_url or found or profile.address)
        variable = key_name or profile.key_variable
        self._key = Key(name, variable, api_key or os.environ.get(variable) or None)
        theirs = profile is OPENAI  # nobody else is told of an organization at OpenAI
        self._organization = organization or (os.environ.get("OPENAI_ORG_ID") if theirs else None) or None
        self._project = project or (os.environ.get("OPENAI_PROJECT_ID") if theirs else None) or None
        self.traits = Traits(
            searchable=True,
            fenced=profile.fenced,
            endpoints=profile.endpoints,
            retention=profile.retention,
            regions=profile.regions,
            lacks=profile.lacks,
            credentials=(variable,),
        )

    def _address(self, given: str) -> str:
        """The address that paths are put after, out of what a person wrote."""
        return given

    def limits(self, endpoint: str) -> Limits:  # noqa: ARG002  (the same for every endpoint: one input a row)
        return self.profile.limits

    # --- codec: no SDK, no key ------------------------------------------------------------------------------------

    def body(self, ask: Ask) -> tuple[dict[str, Any], tuple[str, ...]]:
        if ask.endpoint not in self.profile.endpoints:
            raise UsageError(
                f"endpoint `{ask.endpoint}` cannot be used in batch with {self.name}",
                where="[model] endpoint",
                effect="nothing was written",
                hint="use one of " + ", ".join(self.profile.endpoints),
            )
        body: dict[str, Any] = {"model": ask.model}
        if ask.endpoint in (EMBEDDINGS, MODERATIONS):
            body["input"] = ask.prompt if ask.system is None else f"{ask.system}\n\n{ask.prompt}"
            return merged(body, ask.params, OWN), ()
        chat = ask.endpoint == CHAT
        caps = self.profile.caps if chat else ("max_output_tokens",)
        params, told = in_words_of(ask.params, caps=caps, effort=FLAT_EFFORT if chat else NESTED_EFFORT)
        if chat:
            messages = [] if ask.system is None else [{"role": "system", "content": ask.system}]
            body["messages"] = [*messages, {"role": "user", "content": ask.prompt}]
        else:
            if ask.system is not None:
                body["instructions"] = ask.system
            body["input"] = [{"role": "user", "content": ask.prompt}]
        notes: tuple[str, ...] = ()
        if ask.schema is not None and ask.mode != "prompt":
            sent, strict, notes = strict_form(ask.schema)
            body |= openai_part(sent, strict=strict, chat=chat, tool=ask.mode == "tool", name=ask.schema_name)
        return merged(body, params, OWN), notes + told

    def encode(self, request: Request) -> bytes:
        way = {"method": "POST", "url": request.endpoint} if self.profile.methods else {}
        return orjson.dumps({"custom_id": request.custom_id, **way, "body": request.body})

    def check_line(self, line: bytes, endpoint: str, model: str) -> str | None:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return f"not JSON: {error}"
        keys = ("custom_id", "method", "url", "body") if self.profile.methods else ("custom_id", "body")
        if not isinstance(value, dict) or value.keys() != set(keys):
            return f"not an object with exactly {', '.join(keys)}"
        body = value["body"]
        if (
            value.get("method", "POST") != "POST"
            or value.get("url", endpoint) != endpoint
            or not isinstance(body, dict)
        ):
            return f"not a POST to {endpoint}"
        if NEEDED[endpoint] not in body:
            return f"a body for {endpoint} has `{NEEDED[endpoint]}`"
        if body.get("model") != model:
            return f"model is {body.get('model')!r}, the batch is for {model!r}"
        if "stream" in body or "background" in body:
            return "`stream` and `background` cannot be used in batch"
        return None

    def live_body(self, line: bytes) -> bytes:
        return orjson.dumps(orjson.loads(line)["body"])

    # --- the account ----------------------------------------------------------------------------------------------

    def account(self) -> str:
        self._placed()
        place = "loopback" if is_local(self._base_url) else host(self._base_url)
        parts = (self.name, place, self._organization or "", self._project or "", self._key.checked())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def close(self) -> None:
        if "_sdk" in self.__dict__:
            self._sdk.close()

    @cached_property
    def _sdk(self) -> Any:
        key = self._key.checked()
        self._placed()
        return self._client(key)

    def _placed(self) -> None:
        if self._base_url:
            check_address(self._base_url, self.profile.address_variable)
            return
        raise UsageError(
            f"provider `{self.name}` needs an address",
            where="[model] base_url",
            effect="nothing was sent",
            hint=f'set {self.profile.address_variable}, or add base_url = "https://..." under [model]',
        )

    def _client(self, key: str) -> Any:
        import openai  # about 1.5 s of CPU: only the commands that talk to the provider pay for it

        # By default the SDK repeats a lost `create` twice and sends no idempotency key: three bills.
        client = openai.OpenAI(
            api_key=key,
            organization=self._organization,
            project=self._project,
            max_retries=0,
            **self._manners(),
        )
        return client if self.profile is OPENAI else self._stripped(client)

    def _stripped(self, client: Any) -> Any:
        """The client without what the SDK has read from variables that are for OpenAI's own servers."""
        client.organization, client.project = self._organization, self._project
        client._custom_headers = {}
        return client

    def _manners(self) -> dict[str, Any]:
        """How every client of this SDK is set: where, and how long. The SDK would follow redirects, which would carry a
        request to an address nobody configured."""
        import openai

        return {
            "base_url": self._base_url,
            "http_client": openai.DefaultHttpxClient(
                base_url=self._base_url,
                follow_redirects=False,
                trust_env=not is_local(self._base_url),  # a proxy is for what leaves this machine
                timeout=openai.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                event_hooks=self.server.of_httpx(),
            ),
        }

    def _asked(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The raw answer to a call that the SDK has no name for."""
        import httpx2

        options: dict[str, Any] = {"headers": dict(headers or {}), "params": dict(query or {})}
        more = {} if body is None else {"body": body}
        return getattr(self._sdk, method)(path, cast_to=httpx2.Response, options=options, **more)

    # --- the wire -------------------------------------------------------------------------------------------------

    def stage(self, chunk: Path, *, name: str) -> str:
        with chunk.open("rb") as file:  # an open handle is streamed; a path would be read whole
            given = {"purpose": self.profile.purpose, **self._kept_for()}
            answer = self._sdk.files.with_raw_response.create(file=(name, file), **given)
        return identity(answer, "upload")

    def _kept_for(self) -> dict[str, Any]:
        """How long an input file is to be kept, where saying so is worth something."""
        return {"expires_after": self._expiry} if self._expiry else {}

    def create(self, staged: str, *, endpoint: str, tag: str, run: str, chunk: int) -> str:
        kept = {"output_expires_after": self._expiry} if self._expiry else {}
        answer = self._sdk.batches.with_raw_response.create(
            **kept,
            input_file_id=staged,
            endpoint=endpoint,
            completion_window="24h",
            metadata={"batchctl_intent": tag, "batchctl_run": run, "batchctl_chunk": str(chunk)},
            extra_headers={"Idempotency-Key": tag},  # undocumented for batches; helps where a gateway honours it
        )
        return identity(answer, "create")

    def find(self, staged: str, *, tag: str, since: int, known: Container[str] = ()) -> list[Candidate]:  # noqa: ARG002
        """As the contract says. An answer that is no list of batches raises: taken for an empty one, it would be proof."""
        found: dict[str, Candidate] = {}
        after: str | None = None
        seen: set[str] = set()
        for _ in range(LIST_PAGES):
            more = {"after": after} if after else {}
            page = json_object(self._sdk.batches.with_raw_response.list(limit=PAGE_BATCHES, **more), "GET /batches")
            batches = page.get("data")
            if not isinstance(batches, list) or not all(isinstance(one, dict) and has_id(one) for one in batches):
                raise OutcomeUnknown(f"{self.name} answered with something else than a list of batches")
            for batch in batches:
                metadata = batch.get("metadata")
                marked = isinstance(metadata, dict) and metadata.get("batchctl_intent") == tag
                reads = bool(staged) and batch.get("input_file_id") == staged
                if marked or reads:
                    by = "mark and input" if marked and reads else "mark" if marked else "input"
                    word = str(batch.get("status"))
                    found[batch["id"]] = Candidate(batch["id"], epoch(batch.get("created_at")), word, by)
            # The order of the list is not documented: one old item proves nothing, a whole old page does.
            old = all((epoch(batch.get("created_at")) or since) < since for batch in batches)
            full = self.profile.paged and len(batches) >= PAGE_BATCHES
            if not batches or old or not page.get("has_more", full):
                break
            after = str(batches[-1]["id"])
            if after in seen:
                raise OutcomeUnknown(f"{self.name} lists the same batches again and again", where="GET /batches")
            seen.add(after)
        else:
            raise OutcomeUnknown(
                f"{self.name} listed more than {LIST_PAGES * PAGE_BATCHES:,} batches", where="GET /batches"
            )
        return sorted(found.values(), key=lambda one: (one.created_at or 0, one.batch_id))

    def poll(self, batch_id: str) -> BatchStatus:
        batch = json_object(self._asked("get", self._place(batch_id)), "poll")
        if batch.get("id") != batch_id:
            raise OutcomeUnknown(f"{self.name} answered with another batch", where=f"batch `{batch_id}`")
        return self._read(batch)

    def _place(self, batch_id: str) -> str:
        return f"{self.batches}/{quote(batch_id, safe='')}"

    def _read(self, batch: Mapping[str, Any]) -> BatchStatus:
        """One batch object in our words."""
        return status_of(batch, self.profile)

    def results(self, handle: str) -> Iterator[bytes]:
        with self._sdk.files.with_streaming_response.content(
            handle, extra_headers={"Accept-Encoding": "identity"}
        ) as answer:
            yield from answer.iter_bytes(1 << 18)  # bytes, never lines: the SDK's line iterator splits at U+2028

    def size_of(self, handle: str) -> int | None:
        return whole(json_object(self._sdk.files.with_raw_response.retrieve(handle), "GET /files").get("bytes")) or None

    def cancel(self, batch_id: str) -> None:
        import openai

        try:
            self._asked("post", f"{self._place(batch_id)}/cancel")
        except openai.ConflictError:  # "Cannot cancel a batch with status ...": it has ended; poll tells how
            return
        except (openai.BadRequestError, openai.UnprocessableEntityError):  # others say the same so
            if self.poll(batch_id).state is BatchState.RUNNING:
                raise

    def delete(self, staged: str) -> None:
        self._sdk.files.delete(staged)

    def call(self, body: bytes, endpoint: str) -> LiveAnswer:
        import openai

        started = time.monotonic()
        try:
            answer = self._sdk.post(endpoint.removeprefix("/v1"), cast_to=object, body=orjson.loads(body))
        except openai.APIStatusError as error:
            if error.status_code not in ROW_STATUSES or of_account(error.status_code, facts_of(error)):
                raise
            return LiveAnswer(error.status_code, self._key.kept({"error": error.body}), time.monotonic() - started)
        return LiveAnswer(200, self._key.kept(answer), time.monotonic() - started)

    def knows_model(self, name: str) -> bool:
        """Whether the key may use a model: `GET /models/{name}`, free."""
        import openai

        try:
            self._asked("get", f"/models/{quote(name, safe='')}")
        except openai.NotFoundError:
            return False
        return True

    def live_post(self, endpoint: str) -> Post | None:
        key = self._key.checked()
        self._placed()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        named = {"OpenAI-Organization": self._organization, "OpenAI-Project": self._project}
        headers |= {name: value for name, value in named.items() if value}
        return Post(self._base_url.rstrip("/") + endpoint.removeprefix("/v1"), headers, key)

    def live_error(self, status: int, headers: Mapping[str, str], body: Any) -> BatchctlError | None:
        error = body.get("error", body) if isinstance(body, dict) else None  # Mistral's body is the error itself
        facts = error if isinstance(error, dict) else {}
        if status in ROW_STATUSES and not of_account(status, facts):
            return None
        return meaning_of(
            status, facts, headers, "no reason given", name=self.name, key=self._key, where=host(self._base_url)
        )

    # --- what an exception means ----------------------------------------------------------------------------------

    def outcome(self, error: BaseException) -> BatchctlError | None:
        import httpx2
        import openai

        where = host(self._base_url)
        if isinstance(error, openai.APIStatusError):
            return self._status_outcome(error, where)
        cause: BaseException | None = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
        refused = not_sent(cause, where)
        if refused is not None:
            return refused
        if isinstance(error, openai.OpenAIError | httpx2.HTTPError | ValueError):
            return OutcomeUnknown(f"no usable answer from {where}: {type(cause).__name__}")
        return None

    def _status_outcome(self, error: Any, where: str) -> BatchctlError:
        return meaning_of(
            int(error.status_code),
            facts_of(error),
            error.response.headers,
            str(error.message),
            name=self.name,
            key=self._key,
            where=where,
        )


def status_of(batch: Mapping[str, Any], profile: Profile = OPENAI) -> BatchStatus:
    """One batch object as `BatchStatus`. Tolerates null counts, empty file ids and words it does not know."""
    word = str(batch.get("status") or "").lower()
    files = [(kind, batch.get(key)) for kind, key in (("output", "output_file_id"), ("errors", "error_file_id"))]
    counts = batch.get("request_counts")
    errors = (batch.get("errors") or {}).get("data") if isinstance(batch.get("errors"), dict) else None
    complaints = tuple(_line_error(one) for one in (errors or []) if isinstance(one, dict))
    state = profile.states.get(word, BatchState.RUNNING)
    return BatchStatus(
        state=state,
        vendor_status=str(batch.get("status") or "unknown"),
        batch_id=str(batch.get("id") or ""),
        files=tuple((kind, handle) for kind, handle in files if isinstance(handle, str) and handle),
        counts={k: v for k, v in counts.items() if isinstance(v, int)} if isinstance(counts, dict) else {},
        refusal=refusal_of(complaints) if state is BatchState.REFUSED else None,
        errors=complaints,
        known_word=word in profile.states,
        expires_at=epoch(batch.get("expires_at")),
        owes_results=word == profile.completed,
        out_of_time=word == profile.expired,
        usage=openai_usage(batch.get("usage")),
    )


def _line_error(one: Mapping[str, Any]) -> LineError:
    line = one.get("line")
    return LineError(
        code=str(one.get("code") or "unknown"),
        message=str(one.get("message") or "")[:500],
        line=line if isinstance(line, int) and line > 0 else None,
        param=str(one.get("param") or ""),
    )
