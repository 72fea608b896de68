"""Starting and stopping: the server in a thread with its own event loop, the worker in another."""

from __future__ import annotations

import asyncio
import signal
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from batchctl.emulator.settings import Settings

if TYPE_CHECKING:
    from batchctl.emulator.process import Worker

_CATCH_UP_SECONDS = 600.0


class Emulator:
    """A provider on this machine, with all of its state under `state_dir`.

    Stopping it and starting another on the same directory, even after SIGKILL, goes on where it was: batches whose
    time has come meanwhile are run before `start` returns, as a real service would have gone on working. Two on one
    directory do not disturb each other; one of them runs the batches.
    """

    def __init__(self, state_dir: Path, settings: Settings | None = None) -> None:
        self._state_dir = Path(state_dir)
        self._settings = settings or Settings()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._worker: Worker | None = None
        self.url = ""

    def start(self, port: int = 0, host: str = "127.0.0.1") -> str:
        """Serve until `stop`; returns the base address (without `/v1`). Raises `OSError` for a taken port."""
        if self._thread is not None:
            return self.url
        from batchctl.emulator.process import Worker
        from batchctl.emulator.store import Store
        from batchctl.emulator.wires import batch_wires

        Store(self._state_dir).close()  # made here once, so that neither thread meets a half-made one
        self._worker = Worker(self._state_dir, batch_wires())
        self._worker.start()
        self._worker.caught_up.wait(_CATCH_UP_SECONDS)
        self._ready.clear()
        self._thread = threading.Thread(
            target=self._serve, args=(host, port), name="batchctl-emulator-server", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            self.stop()
            raise failure
        return self.url

    def stop(self) -> None:
        """Stop serving and working; what is half done is left for the next start. Calling it again does nothing."""
        if self._loop is not None and self._leave is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._leave.set)
        if self._worker is not None:
            self._worker.halt()
            self._worker.join()
        if self._thread is not None:
            self._thread.join()
        self._loop = self._leave = self._thread = self._worker = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _serve(self, host: str, port: int) -> None:
        try:
            asyncio.run(self._main(host, port))
        except BaseException as error:  # handed to the caller of `start`
            self._failure = error
        finally:
            self._ready.set()

    async def _main(self, host: str, port: int) -> None:
        from aiohttp import web

        from batchctl.emulator.server import build
        from batchctl.emulator.store import Store
        from batchctl.emulator.wire import Context
        from batchctl.emulator.witness import RequestLog

        # aiohttp silences this warning of its own with `catch_warnings`, which another thread's can undo; under `-W error`
        # an upload then fails.
        warnings.filterwarnings("ignore", "unread_data", DeprecationWarning)
        assert self._worker is not None
        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        store, log = Store(self._state_dir), RequestLog(self._state_dir)
        context = Context(self._settings, store, log, self._worker.wake)
        runner = web.AppRunner(build(context), access_log=None, shutdown_timeout=0.2)
        try:
            await runner.setup()
            site = web.TCPSite(runner, host, port, reuse_address=True)
            await site.start()
            bound = runner.addresses[0][1]
            self.url = f"http://{host}:{bound}"
            self._ready.set()
            await self._leave.wait()
        finally:
            await runner.cleanup()
            log.close()
            store.close()


def serve(state_dir: Path, settings: Settings, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Call it in the main thread: signals arrive nowhere else."""
    leave = threading.Event()
    before = {number: signal.signal(number, lambda *_: leave.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    emulator = Emulator(state_dir, settings)
    try:
        ready(emulator.start(port, host))
        leave.wait()
    finally:
        emulator.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
