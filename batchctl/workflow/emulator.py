"""The local stand-in for the providers' APIs, as a server for any client."""

from __future__ import annotations

from pathlib import Path

from batchctl.files import make_directory
from batchctl.model.errors import Exit, UsageError
from batchctl.workflow.reports import Report
from batchctl.workflow.workspace import STATE_NAME, Options


def emulator(options: Options, *, host: str, port: int, faults: Path | None) -> Report:
    """Serve until a signal. State (files, batches, the log of what was billed) stays in the state directory."""
    from batchctl.emulator import ADDRESSES, Settings, serve

    if host not in ("127.0.0.1", "::1", "localhost"):
        raise UsageError(
            f"the emulator listens on this machine only, not at `{host}`",
            where="--host",
            effect="nothing was started",
            hint="use 127.0.0.1",
        )
    settings = Settings() if faults is None else Settings.from_file(faults)
    directory = Path(options.state or options.environ.get("BATCHCTL_STATE") or STATE_NAME) / "emulator"
    make_directory(directory)

    def told(url: str) -> None:
        options.note(f"emulator at {url}/v1   (simulated answers; state in {directory})")
        others = [f"{name} {url}{path}" for name, path in ADDRESSES.items() if path != ADDRESSES["openai"]]
        options.note("other wires, as [model] base_url: " + ", ".join(others))

    serve(
        directory,
        settings,
        host,
        port,
        told,
    )
    return Report(
        "emulator", None, Exit.OK, None, None, ("emulator stopped",), "", {"directory": str(directory)}, simulated=True
    )
