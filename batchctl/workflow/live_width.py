"""One row of the live lane, and how many may be under way at once: more for each answer, half for each refusal."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import orjson

from batchctl.model.batches import LiveAnswer
from batchctl.providers.guard import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS

MOST_AT_ONCE = 64
FIRST_WIDTH = 8


@dataclass(slots=True)
class Row:
    """One request. `bound` is what it can cost at most, in picodollars; `turn` counts the width's changes before it left."""

    custom_id: str
    line: bytes
    bound: int | None = None
    turn: int = 0


def line_of(custom_id: str, answer: LiveAnswer) -> bytes:
    """One answer as a line of a result file. In JSON a line feed is only ever white space between two tokens."""
    raw = answer.raw or orjson.dumps(answer.body)
    head = orjson.dumps({"status": answer.status, "request_id": answer.request_id})
    body = raw.replace(b"\r", b" ").replace(b"\n", b" ")
    return b'{"custom_id":%b,"live":%b,"body":%b}}\n' % (orjson.dumps(custom_id), head[:-1], body)


class Width:
    """How many calls may be under way: grows by one for each answer, is halved by a refusal, waits when told to."""

    def __init__(self, most: int, learnt: int | None, waits: float) -> None:
        self.most = most
        self.now = max(1, min(most, FIRST_WIDTH, learnt or FIRST_WIDTH))
        self.narrowed = False
        self.turn = 0
        self.refusals = 0
        self.lost = 0
        self._waits = waits
        self._until = 0.0

    def answered(self, row: Row, answer: LiveAnswer) -> None:
        self.refusals = self.lost = 0
        if row.turn == self.turn:
            self.now = min(self.most, self.now + 1)
        room = answer.room
        if room.requests == 0 and room.reset_seconds is not None:
            self._wait(room.reset_seconds)

    def refused(self, row: Row, asked: float | None) -> None:
        """The provider has no room. Calls that left before the last change say nothing new."""
        if row.turn == self.turn:
            self._halve()
            self.refusals += 1
            longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**self.refusals)
            self._wait(random.uniform(longest / 2, longest) if asked is None else asked)

    def unknown(self, row: Row) -> None:
        self.lost += 1
        if row.turn == self.turn:
            self._halve()

    def _halve(self) -> None:
        self.now = max(1, self.now // 2)
        self.narrowed = True
        self.turn += 1

    def _wait(self, seconds: float) -> None:
        self._until = max(self._until, time.monotonic() + min(seconds, LONGEST_WAIT_SECONDS) * self._waits)

    @property
    def pause(self) -> float:
        return max(0.0, self._until - time.monotonic())
