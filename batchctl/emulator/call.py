"""What one HTTP call carries besides its request: what a fault asks of the handler, what the handler tells the log."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Call:
    later: float = 0.0
    """What the call makes appears only after so many seconds."""
    hide: int = 0
    """The batch it creates stays out of so many list answers."""
    metadata: Any = None
    created: str | None = None


CALL: ContextVar[Call] = ContextVar("call")
