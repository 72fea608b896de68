"""The provider's clock, as the `Date` of its answers tells it: ours may be days off, and may jump while a command runs.

Between answers the monotonic clock carries it on. That one stands still while the machine sleeps, so that the time told
may be too early and is never too late: a window that begins with it leaves nothing out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any


class ServerTime:
    """Of one provider, by the last answer that carried a date."""

    def __init__(self) -> None:
        self._difference: float | None = None  # of the server's Unix time and our monotonic clock

    def heard(self, date: str | None) -> None:
        """The `Date` header of an answer, if it had one. What is no date changes nothing."""
        try:
            at = parsedate_to_datetime(date or "").timestamp()
        except (TypeError, ValueError, OverflowError):
            return
        self._difference = at - time.monotonic()

    def now(self) -> int | None:
        """Unix seconds; None when no answer has told it yet."""
        return None if self._difference is None else int(self._difference + time.monotonic())

    def of_httpx(self) -> dict[str, list[Callable[[Any], None]]]:
        """`event_hooks` of an httpx2 client: every answer is listened to, and has to end some day."""
        from batchctl.providers.patience import patient

        return {"response": [lambda answer: self.heard(answer.headers.get("date")), patient]}

    def of_boto(self, client: Any) -> None:
        """Listen to every answer a botocore client gets, errors too."""
        client.meta.events.register("after-call.*.*", self._after_call)

    def _after_call(self, http_response: Any, **_: Any) -> None:
        self.heard(http_response.headers.get("date"))
