"""What every wire does to batches alike: record one, cancel it, put it where a test needs it."""

from __future__ import annotations

import time
from typing import Any

import orjson

from batchctl.emulator.process import progress
from batchctl.emulator.wire import Context, Wire

ENDED = ("completed", "failed", "expired", "cancelled")


def record(
    context: Context, *, wire: str, batch_id: str, later: float, hide: int, others: bool, **columns: Any
) -> None:
    """Write a new batch into the books, with the times at which it will move; it appears to callers after `later`."""
    settings = context.settings
    now = time.time() + later
    takes = settings.takes_seconds
    given = {
        "id": batch_id,
        "wire": wire,
        "settings": settings.stored(),
        "status": "completed" if others else "validating",
        "created": now,
        "visible_at": now if later else 0.0,
        "expires_at": int(now + settings.window),
        "validate_due": now + 0.1 * takes,
        "finalize_due": now + 0.9 * takes,
        "end_due": now + takes,
        "expire_due": now + settings.window if settings.window < takes else None,
        "hidden": hide,
        "others": int(others),
    }
    if others:
        given |= {"in_progress_at": now, "completed_at": now}
    context.store.insert_batch(**(given | columns))


def others_made(context: Context, wire: str) -> int:
    """How many batches of someone else this wire lists already."""
    counted = context.store.db.execute("SELECT count(*) FROM batch WHERE others = 1 AND wire = ?", (wire,))
    return int(counted.fetchone()[0])


def cancel(context: Context, row: Any) -> None:
    """Cancel a batch that has not ended; rows that are done are kept. Call inside a transaction."""
    now = time.time()
    if row["status"] in ("cancelling", "cancelled"):
        return
    if row["status"] == "validating":
        context.store.change_batch(row["id"], status="cancelled", cancelling_at=now, cancelled_at=now, held=None)
        return
    by_clock = row["end_due"] > row["created"]
    cut: dict[str, Any] = {}
    if by_clock and row["cut"] is None:
        cut = {"cut": progress(row, now), "cut_code": "batch_cancelled"}
    context.store.change_batch(row["id"], status="cancelling", cancelling_at=now, held=None, **cut)


def force(context: Context, wires: list[Wire], batch_id: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Put a batch where a test needs it.

    `status` may be an end (`completed` at once, `failed`, `expired`, `cancelled`), which takes the ordinary way there,
    or any other word, known or not, which is shown and keeps the batch from moving until `status` is null. `answered`:
    so many requests had an answer when it expired. Every other key replaces a field of the object that callers see.
    """
    store = context.store
    with store.transaction():
        name = store.db.execute("SELECT wire FROM batch WHERE id = ?", (batch_id,)).fetchone()
        wire = next((one for one in wires if name is not None and one.name == name[0]), wires[-1])
        row = store.batch(wire.name, batch_id)
        if row is None:
            raise wire.refusal(404, f"No batch found with id '{batch_id}'.")
        shown = {key: value for key, value in wanted.items() if key not in ("status", "errors", "answered")}
        if shown:
            patch = orjson.loads(row["patch"]) if row["patch"] else {}
            store.change_batch(batch_id, patch=orjson.dumps(patch | shown).decode())
        if "status" in wanted:
            _force_status(context, row, wanted)
    context.wake()
    return wire.shown(store.batch(wire.name, batch_id))


def _force_status(context: Context, row: Any, wanted: dict[str, Any]) -> None:
    store, status, now = context.store, wanted["status"], time.time()
    if status is None or row["status"] in ENDED:
        store.change_batch(row["id"], held=None if status in (None, row["status"]) else status)
    elif status == "completed":
        store.change_batch(row["id"], held=None, validate_due=now, finalize_due=now, end_due=now, expire_due=None)
    elif status == "expired":
        cut = wanted.get("answered", progress(row, now))
        store.change_batch(row["id"], held=None, validate_due=now, cut=cut, cut_code="batch_expired")
    elif status in ("cancelled", "cancelling"):
        cancel(context, row)
    elif status == "failed":
        sorry = {"code": "server_error", "line": None, "message": "The batch could not be run.", "param": None}
        store.change_batch(
            row["id"],
            held=None,
            status="failed",
            failed_at=now,
            errors=orjson.dumps(wanted.get("errors") or [sorry]).decode(),
            total=0,
            completed=0,
        )
    else:
        store.change_batch(row["id"], held=str(status))
