"""The one wrapper around every provider: vendor exceptions become ours, and only free calls are repeated.

`create` and `call` go through once, whatever happens: a lost answer may be a paid one, and asking again is the job of
the reconcile procedure, not of a retry. Everything else costs no tokens and is repeated with full jitter up to
`CALLS` times. This is the only retry layer; SDKs and HTTP adapters under it repeat nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from batchctl.model.batches import BatchStatus, Candidate, LiveAnswer
from batchctl.model.errors import (
    BatchctlError,
    NotFound,
    OutcomeUnknown,
    ProviderError,
    Rejected,
    Throttled,
    UsageError,
)
from batchctl.providers.base import InBackground, Provider

T = TypeVar("T")

CALLS = 6
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0


def translated(provider: Provider, error: BaseException) -> BatchctlError | None:
    """Our error for what a vendor call raised, or None for errors that are not the call's (signals, our own bugs)."""
    if isinstance(error, BatchctlError):
        return error
    if not isinstance(error, Exception):
        return None
    return provider.outcome(error)


class Guarded:
    """A provider as the workflow sees it. `sleep` is injected so that tests need no clock."""

    def __init__(self, provider: Provider, *, sleep: Callable[[float], None] = time.sleep, waits: float = 1.0) -> None:
        self.provider = provider
        self.name = provider.name
        self.traits = provider.traits
        self._sleep = sleep
        self.waits = waits

    def _once(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except BaseException as error:
            ours = translated(self.provider, error)
            if ours is None or ours is error:
                raise
            raise ours from None  # a vendor's exception may quote the request or its key; ours says what matters

    def _repeated(self, act: Callable[[], T]) -> T:
        for turn in range(CALLS):
            try:
                return self._once(act)
            except (Throttled, OutcomeUnknown, ProviderError) as error:
                final = turn == CALLS - 1 or not self._may_repeat(error)
                if final:
                    raise self._unavailable(error) from error
                asked = error.wait_seconds if isinstance(error, Throttled) else None
                self._sleep(self._wait(turn, asked))
        raise AssertionError("unreachable")

    @staticmethod
    def _may_repeat(error: BatchctlError) -> bool:
        if isinstance(error, Throttled):
            return not error.billing
        return isinstance(error, OutcomeUnknown)

    @staticmethod
    def _unavailable(error: BatchctlError) -> BatchctlError:
        """A free call that stayed without an answer: the provider is unavailable; nothing is unknown about money."""
        if not isinstance(error, OutcomeUnknown):
            return error
        return ProviderError(
            error.what,
            where=error.where,
            effect="nothing was sent that costs money",
            code="unavailable",
            hint="the state is safe; run the same command again later",
        )

    def _wait(self, turn: int, asked: float | None) -> float:
        limit = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**turn)
        wait = random.uniform(0, limit) if asked is None else min(asked, LONGEST_WAIT_SECONDS)
        return wait * self.waits

    def close(self) -> None:
        self.provider.close()

    def server_time(self) -> int:
        """The provider's clock in Unix seconds, whatever ours says; 0 while it is not known. Nothing that goes wrong in
        asking for it matters: what is then done with 0 is slower, and as right."""
        greet = getattr(self.provider, "greet", None)
        if self.server_now() is None and greet is not None:
            with suppress(BatchctlError):
                self._once(greet)
        return self.server_now() or 0

    def server_now(self) -> int | None:
        """The same as far as it was heard, without a call; None while it is not known."""
        return self.provider.server.now()

    def account(self) -> str:
        return self._once(self.provider.account)

    def create(self, staged: str, *, endpoint: str, tag: str, run: str, chunk: int) -> str:
        return self._once(lambda: self.provider.create(staged, endpoint=endpoint, tag=tag, run=run, chunk=chunk))

    def call(self, body: bytes, endpoint: str) -> LiveAnswer:
        return self._once(lambda: self.provider.call(body, endpoint))

    def start(self, body: bytes, endpoint: str) -> str:
        return self._once(lambda: self._in_background().start(body, endpoint))

    def look(self, name: str) -> LiveAnswer | None:
        return self._repeated(lambda: self._in_background().look(name))

    def stop(self, name: str) -> None:
        self._repeated(lambda: self._in_background().stop(name))

    def _in_background(self) -> InBackground:
        if isinstance(self.provider, InBackground):
            return self.provider
        raise UsageError(
            f"{self.name} has no background mode",
            where="[lane] prefer",
            effect="nothing was sent",
            hint="use the batch or the live lane",
        )

    def stage(self, chunk: Path, *, name: str) -> str:
        return self._repeated(lambda: self.provider.stage(chunk, name=name))

    def find(self, staged: str, *, tag: str, since: int, known: Container[str] = ()) -> list[Candidate]:
        return self._repeated(lambda: self.provider.find(staged, tag=tag, since=since, known=known))

    def poll(self, batch_id: str) -> BatchStatus:
        return self._repeated(lambda: self.provider.poll(batch_id))

    def cancel(self, batch_id: str) -> None:
        self._repeated(lambda: self.provider.cancel(batch_id))

    def free(self, act: Callable[[], T]) -> T:
        """Any other call that costs nothing: repeated like those above."""
        return self._repeated(act)

    def size_of(self, handle: str) -> int | None:
        """Bytes of a result file, or None where the server does not say: not every compatible one keeps this route."""
        try:
            return self._repeated(lambda: self.provider.size_of(handle))
        except (NotFound, Rejected):
            return None

    def delete(self, staged: str) -> None:
        """Deleted, or already gone."""
        try:
            self._repeated(lambda: self.provider.delete(staged))
        except NotFound:
            return

    def download(self, handle: str, sink: Callable[[], Any]) -> int:
        """Write one result file into a fresh `sink()` (a binary file that the caller owns); bytes written.

        A transfer that breaks is started again from nothing. A file that is not there yet (404) is waited for.
        """

        def transfer() -> int:
            out = sink()
            written = 0
            for block in self._blocks(handle):
                out.write(block)
                written += len(block)
            return written

        for turn in range(CALLS):
            try:
                return self._repeated(transfer)
            except NotFound:
                if turn == CALLS - 1:
                    raise
                self._sleep(self._wait(turn, None))
        raise AssertionError("unreachable")

    def _blocks(self, handle: str) -> Iterator[bytes]:
        yield from self.provider.results(handle)
