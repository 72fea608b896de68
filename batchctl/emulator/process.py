"""Running batches: one worker thread per emulator, one working worker per state directory.

Nothing a batch does counts before the transaction that ends it: result and billing files are written beside their final
place first, so a worker that is killed leaves only rubbish, and the next one starts the batch again and writes the same
bytes. What was decided while running (where a cancel cut) is committed when it is decided.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
from array import array
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Protocol

import orjson

from batchctl.emulator.settings import Settings
from batchctl.emulator.store import TERMINAL, Store, private_file
from batchctl.emulator.tariff import usd

_LOOK_EVERY = 256  # rows between two looks at whether to stop or whether someone cancelled
_HELD_BACK = 16  # second lines of duplicated rows wait for this many others, so that they are not neighbours
_RETENTION_SECONDS = 30 * 86400


@dataclass(frozen=True, slots=True)
class Valid:
    """What reading the input file found: `errors` empty means that the batch may run."""

    total: int
    model: str | None
    tokens: int
    errors: tuple[dict[str, Any], ...]


@dataclass(slots=True)
class Made:
    """One result line. `answered` says that the row got a 200, which is what is billed; an empty line is a lost row.

    `not_run` says that the row was not even tried: it counts as neither completed nor failed.
    """

    line: bytes
    answered: bool
    custom_id: str
    second: bytes = b""
    expired: bool = False
    not_run: bool = False
    digest: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class RowMaker(Protocol):
    def make(self, line: bytes, index: int, cut_code: str | None) -> Made: ...
    def undone(self, custom_id: Any, code: str) -> bytes: ...
    def stranger(self, custom_id: Any) -> bytes: ...


class InStore:
    """For wires whose inputs and results are files of the emulator's own store."""

    def bring(self, store: Store, batch: Any) -> None:
        """Nothing is anywhere else."""

    def carry(self, store: Store, batch: Any, output: Path, counts: dict[str, int]) -> str:  # noqa: ARG002
        return ""


class BatchWire(Protocol):
    """What running a batch needs to know of a vendor. `one_file`: all result lines are in one file, errors among them."""

    one_file: bool

    def bring(self, store: Store, batch: Any) -> None:
        """Before validation: the input from where the vendor reads it into the store."""
        ...

    def carry(self, store: Store, batch: Any, output: Path, counts: dict[str, int]) -> str:
        """Before the end: the results to where the vendor writes them; what kept them from it, or "". Repeatable."""
        ...

    def validate(self, path: Path, endpoint: str, settings: Settings, queued_tokens: int) -> Valid: ...
    def rows(self, *, batch_id: str, endpoint: str, settings: Settings, created: int) -> RowMaker: ...
    def gone(self, file_id: str) -> dict[str, Any]:
        """The error of a batch whose input file is not there."""
        ...

    def output_name(self, batch_id: str, kind: str) -> str: ...
    def new_file_id(self) -> str: ...


class _StoppedError(Exception):
    """The emulator is stopping; what was half written is left to the next start."""


@dataclass(slots=True)
class _Tally:
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    usd: Decimal = Decimal(0)
    expired: bool = False


class Worker(threading.Thread):
    """Moves batches through their states. `wake` it when something changed; `caught_up` is set when nothing is due."""

    def __init__(self, state_dir: Path, wires: Mapping[str, BatchWire]) -> None:
        super().__init__(name="batchctl-emulator-worker", daemon=True)
        self._state_dir = state_dir
        self._wires = wires
        self._halt = threading.Event()
        self._wake = threading.Event()
        self.caught_up = threading.Event()

    def wake(self) -> None:
        self._wake.set()

    def halt(self) -> None:
        self._halt.set()
        self._wake.set()

    def run(self) -> None:
        with ExitStack() as stack:
            stack.callback(self.caught_up.set)  # whoever waits for it must not wait for a thread that has ended
            store = Store(self._state_dir)
            stack.callback(store.close)
            handle = os.open(self._state_dir / "worker.lock", os.O_RDWR | os.O_CREAT, 0o600)
            stack.callback(os.close, handle)
            mine = False
            while not self._halt.is_set():
                self._wake.clear()
                mine = mine or _claim(handle)
                try:
                    wait = self._step(store) if mine else 0.2
                except _StoppedError:
                    return
                if wait is not None:
                    self.caught_up.set()
                    self._wake.wait(wait)

    def _step(self, store: Store) -> float | None:
        """Do one piece of due work and return None, or return how long nothing will be due."""
        wait = 0.5  # another process may have created something
        for batch in store.open_batches():
            due = _due(batch)
            now = time.time()
            if due <= now:
                self._advance(store, batch, now)
                return None
            wait = min(wait, due - now)
        return max(wait, 0.001)

    def _advance(self, store: Store, batch: Any, now: float) -> None:
        status, settings = batch["status"], Settings.restored(batch["settings"])
        if status == "validating":
            self._validate(store, batch, settings)
        elif status == "in_progress" and batch["cut_code"] is None and _expired(batch, now):
            done = progress(batch, batch["expire_due"])
            store.change_batch(batch["id"], only_in=("in_progress",), cut=done, cut_code="batch_expired")
        elif status == "in_progress" and batch["end_due"] > batch["created"] and batch["cut_code"] is None:
            store.change_batch(batch["id"], only_in=("in_progress",), status="finalizing", finalizing_at=now)
        else:
            self._finish(store, batch, settings)

    # -- validating

    def _validate(self, store: Store, batch: Any, settings: Settings) -> None:
        wire = self._wires[batch["wire"]]
        wire.bring(store, batch)
        entry = store.file(batch["wire"], batch["input_file_id"])
        queued = store.db.execute(
            "SELECT coalesce(sum(tokens), 0) FROM batch WHERE id != ? AND others = 0"
            " AND status IN ('in_progress', 'finalizing', 'cancelling')",
            (batch["id"],),
        ).fetchone()[0]
        found = Valid(0, None, 0, (wire.gone(batch["input_file_id"]),))
        if entry is not None:
            with suppress(FileNotFoundError):  # deleted while it was read
                found = wire.validate(store.files / entry["id"], batch["endpoint"], settings, queued)
            if store.file(batch["wire"], batch["input_file_id"]) is None:
                found = Valid(0, None, 0, (wire.gone(batch["input_file_id"]),))
        now = time.time()
        if found.errors:
            errors = orjson.dumps(found.errors).decode()
            store.change_batch(batch["id"], only_in=("validating",), status="failed", errors=errors, failed_at=now)
            return
        # The input is kept under the batch's own name: deleting the uploaded file no longer matters once it was read.
        kept = store.work / f"{batch['id']}.input"
        try:
            kept.unlink(missing_ok=True)
            os.link(store.files / batch["input_file_id"], kept)
        except FileNotFoundError:
            return  # deleted just now: the next round finds it gone
        store.change_batch(
            batch["id"],
            only_in=("validating",),
            status="in_progress",
            in_progress_at=now,
            total=found.total,
            model=found.model,
            tokens=found.tokens,
        )

    # -- running

    def _finish(self, store: Store, batch: Any, settings: Settings) -> None:
        batch_id, wire = batch["id"], self._wires[batch["wire"]]
        output = store.work / f"{batch_id}.output.part"
        errors = store.work / f"{batch_id}.errors.part"
        billed = store.work / f"{batch_id}.billed.part"
        tally = self._run_rows(store, batch, settings, wire, (output, errors, billed))
        _oddities(settings, batch_id, wire, batch, output, errors)
        problem = wire.carry(store, batch, output, _manifest(batch, tally))
        now = time.time()
        if problem:
            told = orjson.dumps([{"code": "Failed", "message": problem}]).decode()
            store.change_batch(batch_id, status="failed", errors=told, failed_at=now)
            return
        files: dict[str, Any] = {}
        with store.transaction():
            current = store.db.execute("SELECT * FROM batch WHERE id = ?", (batch_id,)).fetchone()
            if current["status"] in TERMINAL:
                return
            for column, part in (("output_file_id", output), ("error_file_id", errors)):
                files[column] = None
                if part.stat().st_size:
                    files[column] = wire.new_file_id()
                    store.add_file(
                        part,
                        wire=batch["wire"],
                        file_id=str(files[column]),
                        filename=wire.output_name(batch_id, column.split("_")[0]),
                        purpose="batch_output",
                        created=now,
                        keep_seconds=current["output_seconds"] or _RETENTION_SECONDS,
                    )
            billed.replace(store.billed / f"{batch_id}.jsonl")
            end, when = "completed", "completed_at"
            if current["status"] == "cancelling":
                end, when = "cancelled", "cancelled_at"
            elif tally.expired or current["cut_code"] == "batch_expired":
                end, when = "expired", "expired_at"
            begun: dict[str, Any] = {} if end == "cancelled" else {"finalizing_at": current["finalizing_at"] or now}
            ended: dict[str, Any] = {when: now, **begun, **files}
            store.change_batch(
                batch_id,
                status=end,
                **ended,
                completed=tally.completed,
                failed=tally.failed,
                billed=1,
                billed_rows=tally.completed,
                input_tokens=tally.input_tokens,
                output_tokens=tally.output_tokens,
                cached_tokens=tally.cached_tokens,
                reasoning_tokens=tally.reasoning_tokens,
                usd=str(tally.usd),
            )
        for rest in (output, errors, store.work / f"{batch_id}.input"):
            rest.unlink(missing_ok=True)

    def _run_rows(
        self, store: Store, batch: Any, settings: Settings, wire: BatchWire, parts: tuple[Path, Path, Path]
    ) -> _Tally:
        batch_id = batch["id"]
        started = int(batch["in_progress_at"] or batch["created"])
        maker = wire.rows(batch_id=batch_id, endpoint=batch["endpoint"], settings=settings, created=started)
        cut, cut_code = batch["cut"], batch["cut_code"]
        if batch["status"] == "cancelling" and cut is None:
            cut, cut_code = 0, "batch_cancelled"
            store.change_batch(batch_id, cut=cut, cut_code=cut_code)
        tally, waiting = _Tally(), []
        bill_of = b'{"batch_id":%b,"custom_id":' % orjson.dumps(batch_id)
        with ExitStack() as stack:
            output, errors, billed = (stack.enter_context(private_file(part)) for part in parts)
            source = stack.enter_context((store.work / f"{batch_id}.input").open("rb", buffering=1 << 20))
            for index, line in enumerate(source):
                if index % _LOOK_EVERY == 0:
                    if self._halt.is_set():
                        raise _StoppedError
                    if cut is None and self._cancelled(store, batch_id, tally):
                        cut, cut_code = index, "batch_cancelled"
                        store.change_batch(batch_id, cut=cut, cut_code=cut_code)
                made = maker.make(line, index, cut_code if cut is not None and index >= cut else None)
                if not made.answered:
                    (output if wire.one_file else errors).write(made.line)
                    tally.expired = tally.expired or made.expired
                    tally.failed += not made.not_run
                    continue
                tally.completed += 1
                tally.input_tokens += made.input_tokens
                tally.output_tokens += made.output_tokens
                tally.cached_tokens += made.cached_tokens
                tally.reasoning_tokens += made.reasoning_tokens
                tally.usd += usd(settings.prices, "batch", made.input_tokens, made.cached_tokens, made.output_tokens)
                output.write(made.line)
                billed.write(
                    bill_of
                    + orjson.dumps(made.custom_id)
                    + b',"digest":"%b","input_tokens":%d,"output_tokens":%d}\n'
                    % (made.digest.encode(), made.input_tokens, made.output_tokens)
                )
                if made.second:
                    waiting.append(made.second)
                if len(waiting) > _HELD_BACK:
                    output.write(waiting.pop(0))
            for line in waiting:
                output.write(line)
        if settings.reordered:
            for part in parts[:2]:
                _shuffle(part, settings.reordered, settings.seed)
        return tally

    def _cancelled(self, store: Store, batch_id: str, tally: _Tally) -> bool:
        store.change_batch(
            batch_id, only_in=("in_progress", "finalizing"), completed=tally.completed, failed=tally.failed
        )
        row = store.db.execute("SELECT status FROM batch WHERE id = ?", (batch_id,)).fetchone()
        return bool(row[0] == "cancelling")


def _manifest(batch: Any, tally: _Tally) -> dict[str, int]:
    return {
        "totalRecordCount": batch["total"],
        "processedRecordCount": tally.completed + tally.failed,
        "successRecordCount": tally.completed,
        "errorRecordCount": tally.failed,
        "inputTokenCount": tally.input_tokens,
        "outputTokenCount": tally.output_tokens,
    }


def _claim(handle: int) -> bool:
    """Become the one that works on this directory; the lock ends with its process, however it ends."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _due(batch: Any) -> float:
    """When the next thing happens to a batch."""
    status = batch["status"]
    if status == "validating":
        return float(batch["validate_due"])
    if status == "cancelling" or batch["cut_code"] is not None:
        return 0.0
    due = float(batch["finalize_due"] if status == "in_progress" else batch["end_due"])
    expire = batch["expire_due"]
    return due if expire is None else min(due, float(expire))


def _expired(batch: Any, now: float) -> bool:
    return (
        batch["expire_due"] is not None and batch["expire_due"] <= now and batch["expire_due"] < batch["finalize_due"]
    )


def progress(batch: Any, now: float) -> int:
    """Rows done by now, by the clock; at the real service a running batch shows how far it is."""
    if batch["in_progress_at"] is None or batch["end_due"] <= batch["created"]:
        return int(batch["completed"])
    span = batch["finalize_due"] - batch["in_progress_at"]
    part = 1.0 if span <= 0 else (now - batch["in_progress_at"]) / span
    return int(batch["total"] * min(1.0, max(0.0, part)))


def _shuffle(path: Path, share: float, seed: int) -> None:
    """Give a share of the lines each other's places; memory holds their offsets only."""
    if not path.stat().st_size:
        return
    offsets = array("Q", [0])
    with path.open("rb") as file:
        for line in file:
            offsets.append(offsets[-1] + len(line))
    random = Random(seed)
    order = array("L", range(len(offsets) - 1))
    moving = array("L", (place for place in order if share >= 1 or random.random() < share))
    targets = list(moving)
    random.shuffle(targets)
    for place, target in zip(moving, targets, strict=True):
        order[place] = target
    other = path.with_suffix(".shuffled")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as lines,
        private_file(other) as out,
    ):
        for place in order:
            out.write(lines[offsets[place] : offsets[place + 1]])
    other.replace(path)


def _oddities(settings: Settings, batch_id: str, wire: BatchWire, batch: Any, output: Path, errors: Path) -> None:
    """What real result files have been seen to hold, put in on request."""
    words = set(settings.results) - {"u2028"}
    if not words:
        return
    maker = wire.rows(batch_id=batch_id, endpoint=batch["endpoint"], settings=settings, created=int(batch["created"]))
    first = b""
    with output.open("rb") as file:
        first = file.readline()
    with output.open("ab") as file:
        if "stranger" in words:
            file.write(maker.stranger("a-custom-id-of-nobody"))
        if "null-id" in words:
            file.write(maker.stranger(None))
    if "both-files" in words and first:
        with (output if wire.one_file else errors).open("ab") as file:
            line = orjson.loads(first)
            file.write(maker.undone(line.get("custom_id") or line.get("key"), "batch_expired"))
    if words & {"crlf", "blank"}:
        other = output.with_suffix(".odd")
        with output.open("rb") as file, private_file(other) as out:
            for number, line in enumerate(file):
                if "blank" in words and number % 2:
                    out.write(b"\n")
                out.write(line[:-1] + b"\r\n" if "crlf" in words else line)
        other.replace(output)
    size = output.stat().st_size
    if "cut-last" in words and size > 80:
        os.truncate(output, size - 40)
    elif "no-final-newline" in words and size:
        os.truncate(output, size - (2 if "crlf" in words else 1))


__all__ = ["BatchWire", "Made", "RowMaker", "Valid", "Worker", "progress"]
