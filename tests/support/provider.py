"""The emulator as the provider of a test, and as the witness of what it was asked and what it billed.

The books are read from its state directory, so they can also be read after it was killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from batchctl.emulator import Emulator, Settings, billed_rows, read_witness, requests_seen

PATIENCE_SECONDS = 60.0
TARIFF = {
    "input": 0.375,
    "cached": 0.0375,
    "output": 2.25,
    "live_input": 0.75,
    "live_cached": 0.075,
    "live_output": 4.5,
}
"""The money meter's prices: those of gpt-5.4-mini (developers.openai.com/api/docs/pricing, read 2026-10-14), which the jobs
of the tests name. Written down here, so that the meter does not learn them from the code it judges."""


class Books:
    """What a provider knows of one run (or, without one, of everything): the judge of every test about money."""

    def __init__(self, state: Path, run: str | None = None, strangers: Collection[str] = ()) -> None:
        self.state = state
        self.run = run
        self.strangers = strangers

    @property
    def creates(self) -> list[dict[str, Any]]:
        """Every batch that was created, oldest first, acted upon or not; batches of someone else left out."""
        made = [one for one in read_witness(self.state)["creates"] if one["id"] not in self.strangers]
        return [one for one in made if self.run is None or (one["metadata"] or {}).get("batchctl_run") == self.run]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every row that was billed in a batch."""
        ours = {one["id"] for one in self.creates}
        return [one for one in billed_rows(self.state) if one["batch_id"] in ours]

    @property
    def requests(self) -> Counter[str]:
        """How often each request body was billed: needs no word of ours, only that the texts differ."""
        return Counter(one["digest"] for one in self.rows)

    @property
    def usd(self) -> Decimal:
        """What the batches cost by the provider's own meter."""
        return sum((Decimal(one["usd"]) for one in self.creates), Decimal(0))

    @property
    def live_usd(self) -> Decimal:
        """What every live call cost by the provider's own meter."""
        return Decimal(read_witness(self.state)["billed"]["live_usd"])

    @property
    def live(self) -> int:
        return int(read_witness(self.state)["live_calls"])


class Provider:
    """An emulator that serves at `url`, and what a test may do to it."""

    def __init__(self, url: str, state: Path) -> None:
        self.url = url
        self.state = state

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def books(self, run: str | None = None, strangers: Collection[str] = ()) -> Books:
        return Books(self.state, run, strangers)

    def calls(self, method: str = "", path: str = "") -> list[dict[str, Any]]:
        """Calls in the order they were answered."""
        seen = requests_seen(self.state)
        return [one for one in seen if one["method"].startswith(method) and one["path"].startswith(path)]

    def fault(self, on: str, do: str, **more: Any) -> None:
        """A scripted fault on the calls that fit, counted from now on."""
        self.ask("POST", "/emulator/faults", {"on": on, "do": do, **more})

    def clear_faults(self) -> None:
        self.ask("DELETE", "/emulator/faults")

    def force(self, batch_id: str, **fields: Any) -> Any:
        """Put a batch where a test needs it: an end, an unknown status, other fields; see `batches.force`."""
        return self.ask("POST", f"/emulator/batches/{batch_id}", fields)

    def ask(self, method: str, path: str, body: Any = None, *, key: str = "sk-test") -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.loads(answer.read())

    def stop(self) -> None:
        raise NotImplementedError


class ProviderThread(Provider):
    """An emulator in this process: quick to start, for tests that need settings of their own."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._emulator = Emulator(directory / "emulator", Settings.from_mapping({"prices": TARIFF, **settings}))
        super().__init__(self._emulator.start(), directory / "emulator")

    def stop(self) -> None:
        self._emulator.stop()


class ProviderProcess(Provider):
    """`batchctl emulator` as its users run it."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        faults = directory / "settings.json"
        faults.write_text(json.dumps({"prices": TARIFF, **settings}))
        argv = ["-m", "batchctl", "emulator", "--port", "0", "--state", str(directory), "--faults", str(faults)]
        words = directory / "stderr.txt"  # not a pipe: nobody reads while it runs, and a full one would stop it
        with words.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", *argv],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            )
        until(lambda: b"/v1" in words.read_bytes() or self._process.poll() is not None, "the emulator did not start")
        text = words.read_text()
        assert "/v1" in text, text
        super().__init__(text.split("emulator at ")[1].split("/v1")[0], directory / "emulator")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)


def until(what: Callable[[], Any], why: str = "it never came") -> Any:
    """Look again until there is something; for facts another process writes. The end is certain, the pause grows."""
    end, pause = time.monotonic() + PATIENCE_SECONDS, 0.002
    while not (found := what()):
        assert time.monotonic() < end, why
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return found


def most_at_once(books: Iterable[tuple[float, float]]) -> int:
    """The most intervals (start, end) that share an instant."""
    steps = sorted([(start, 1) for start, _ in books] + [(end, -1) for _, end in books])
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most
