"""The contract every provider module keeps, in words and as a Protocol.

A provider module is pure translation between our types and one vendor: no state, no retries, no printing, no sleeping.
`limits`, `traits`, `body` and `encode` need no SDK and no key, so that `prepare` runs offline. Every other call may
raise any of the vendor SDK's exceptions; `outcome` says what such an exception means, and `guard.py` is the only
caller that acts on it.

Adding a provider is adding, under one name, what knows its *wire*:

1. a module here, and its entry in `KNOWN` (`providers/__init__.py`). What modules over HTTP share is in `http.py`, what
   reduces a JSON Schema to a vendor's dialect in `dialect.py`, what settings are called elsewhere in `params.py`, what is
   known of single models in `capabilities.py`, what both of Google's wires do in `google_batch.py`. Where
   a vendor has the model in its address and not in its requests, the endpoint carries it (`google_body.py`). A server
   that differs from OpenAI in data alone is a `Profile` (`profiles.py`) and needs no module;
2. a reader in `judging/wires.py`: from a result line to `Extracted`. `Traits.wire` names it; several providers may speak
   one wire;
3. a wire in `batchctl/emulator` (its `Wire` says what is needed), entered in `emulator/wires.py`;
4. `tests/conformance/test_<provider>.py`, which inherits the contract tests, and the recorded fixtures of its results.

The questions that decide its `Traits`: can a batch of ours be found again by a mark we chose? does deleting the staged
input keep a late create from running? is a create that is asked again with the same tag the same batch, and for how long?
is anything uploaded before `create`? whose shapes do its results have, and what may an id hold?
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from batchctl.model.batches import Ask, BatchStatus, Candidate, Limits, LiveAnswer, Post, Request, Traits
from batchctl.model.errors import BatchctlError
from batchctl.providers.server_time import ServerTime


class Provider(Protocol):
    """One vendor, one set of settings."""

    name: str
    traits: Traits
    server: ServerTime

    def limits(self, endpoint: str) -> Limits:
        """Hard limits of one batch for `endpoint`."""
        ...

    def body(self, ask: Ask) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The request body for one row, and notes on what the vendor cannot enforce of the schema (pointer: keyword).

        Called once per run, with placeholders where row text goes: no value may depend on the text of the prompt.
        """
        ...

    def encode(self, request: Request) -> bytes:
        """One input line without its newline."""
        ...

    def check_line(self, line: bytes, endpoint: str, model: str) -> str | None:
        """A strict second look at a line as written: None, or what the vendor would refuse about it."""
        ...

    def live_body(self, line: bytes) -> bytes:
        """The body of one synchronous request (for `call`), out of an input line."""
        ...

    def account(self) -> str:
        """Which account this is, as text that reveals no key: stored with each batch and compared later."""
        ...

    def stage(self, chunk: Path, *, name: str) -> str:
        """Put a chunk where the vendor reads it; the handle for `create`. Repeatable, costs no tokens.

        Where `traits.uploads` is false nothing is put anywhere: the handle is the chunk's own path, and it is asked for
        anew before each use, because a state directory may be moved.
        """
        ...

    def create(self, staged: str, *, endpoint: str, tag: str, run: str, chunk: int) -> str:
        """Create the batch: the one call that spends. Exactly one POST. The vendor's batch id, never empty.

        Where `traits.token_seconds` says that a repeated create is the same batch, every argument of the vendor's call
        follows from these and the settings, so that the repetition is the same to the byte.
        """
        ...

    def find(self, staged: str, *, tag: str, since: int, known: Container[str] = ()) -> list[Candidate]:
        """All batches that carry `tag` or read `staged`, over every page newer than `since` (Unix seconds).

        A vendor that keeps neither names every batch that may be ours, with what would prove it. `known` are batches of
        other submissions: they need not be looked into.
        """
        ...

    def poll(self, batch_id: str) -> BatchStatus: ...

    def results(self, handle: str) -> Iterator[bytes]:
        """Raw bytes of one result file, in blocks. Ends early only by raising."""
        ...

    def size_of(self, handle: str) -> int | None:
        """Bytes the vendor says a result file has, or None when it does not say."""
        ...

    def cancel(self, batch_id: str) -> None: ...

    def delete(self, staged: str) -> None:
        """Delete a staged input; one that is already gone counts as deleted."""
        ...

    def call(self, body: bytes, endpoint: str) -> LiveAnswer:
        """One synchronous request, paid at live price. Exactly one POST."""
        ...

    # A provider may also have `knows_model(name: str) -> bool`, one free call: `providers check` asks it; and `greet()`,
    # one free call whose answer tells the provider's time, where none comes before the first create. One of files
    # has `command(batch_id: str, model: str) -> str`: what a person runs once a batch was created.

    def close(self) -> None:
        """Let go of connections; nothing is called afterwards."""
        ...

    def outcome(self, error: BaseException) -> BatchctlError | None:
        """What an exception means for the call that raised it: one of our outcomes; None when it is not the vendor's."""
        ...


@runtime_checkable
class OverHttp(Protocol):
    """A provider whose synchronous request is one plain POST: many can then be under way at a tenth of an SDK's CPU.

    One that is not is asked through `call`, in threads.
    """

    def live_post(self, endpoint: str) -> Post | None:
        """How `call` is made, but for the body; None: only the vendor's SDK knows."""
        ...

    def live_error(self, status: int, headers: Mapping[str, str], body: Any) -> BatchctlError | None:
        """What an answer of another status than 200 means; None when it is the provider's word on that one request."""
        ...


@runtime_checkable
class InBackground(Protocol):
    """A provider that runs one long request by itself and keeps the answer: created, looked up and cancelled by its id.

    Nothing lists such requests: a create whose answer was lost cannot be found again.
    """

    def start(self, body: bytes, endpoint: str) -> str:
        """Begin one request: the call that spends. Exactly one POST. Its id, never empty."""
        ...

    def look(self, name: str) -> LiveAnswer | None:
        """The answer of a request that has ended, well or badly; None while it runs."""
        ...

    def stop(self, name: str) -> None:
        """Ask it to end; one that has ended already is left as it is."""
        ...
