"""What a signal does to a command that has calls under way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Caught(Protocol):
    """Who is told: which signals the loop is to catch, and, by it, which one came."""

    signal: int
    signals: tuple[int, ...]


@contextmanager
def signals(work: Caught) -> Iterator[None]:
    """A first signal lets the answers under way arrive for some seconds, then does what it did before; a second at once.

    The loop itself catches them: one that the kernel gives to another thread would not wake it otherwise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {int(one): signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    work.signals = tuple(number for number, handler in before.items() if callable(handler))
    try:
        yield
    finally:
        for number in work.signals:
            signal.signal(number, before[number])
    if work.signal:
        before[work.signal](work.signal, None)
