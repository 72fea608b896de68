"""An answer whose bytes drip on for ever is given up: the time-outs of the SDKs are for one read, not for all of them.

Loaded by the clients that need it only, since it loads their HTTP library.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx2

ENOUGH_SECONDS = 600.0
LEAST_BYTES_A_SECOND = 1_000
"""A large result file may take as long as it needs; what is slower than this is no transfer."""


class Patient(httpx2.SyncByteStream):
    """The bytes of an answer, which must come in time."""

    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        begun, received = time.monotonic(), 0
        for block in self._stream:
            received += len(block)
            if time.monotonic() - begun > ENOUGH_SECONDS + received / LEAST_BYTES_A_SECOND:
                raise httpx2.ReadTimeout("the answer goes on and on")
            yield block

    def close(self) -> None:
        self._stream.close()


def patient(answer: httpx2.Response) -> None:
    """An event hook: from here on the answer is read with patience, and not with more."""
    assert isinstance(answer.stream, httpx2.SyncByteStream)
    answer.stream = Patient(answer.stream)
