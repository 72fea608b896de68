"""A page in headless Chromium, driven over its debugging socket: what it logs, how it looks, what axe finds."""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
PATIENCE_SECONDS = 60.0


@dataclass
class Seen:
    """A page as it was at one width. `asked` are the addresses it loaded, itself included."""

    messages: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    scrolls_sideways: bool = False
    picture: bytes = b""


class _Tab:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, seen: Seen) -> None:
        self._socket = socket
        self._seen = seen
        self._number = 0
        self.loaded = False

    async def ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            said = await self._socket.receive_json()
            if said.get("id") == self._number:
                assert "error" not in said, said
                return said["result"]
            self._note(said)

    async def until_loaded(self) -> None:
        while not self.loaded:
            self._note(await self._socket.receive_json())

    def _note(self, said: dict[str, Any]) -> None:
        method, params = said.get("method"), said.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.consoleAPICalled":
            self._seen.messages.append(str(params["args"]))
        elif method == "Runtime.exceptionThrown":
            self._seen.messages.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self._seen.messages.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self._seen.asked.append(params["request"]["url"])


async def _look(page: Path, profile: Path, width: int, dark: bool, paper: bool) -> Seen:
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *_ARGUMENTS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:  # it says where it listens once it does
            said.append(line)
            if found := re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line):
                break
        else:
            raise AssertionError("".join(said))
        port = found[1]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE_SECONDS)) as http:
            async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = [one for one in await answer.json() if one["type"] == "page"]
            async with http.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                return await _examined(_Tab(socket, seen := Seen()), seen, page, width, dark, paper)
    finally:
        process.kill()
        process.communicate()


async def _examined(tab: _Tab, seen: Seen, page: Path, width: int, dark: bool, paper: bool) -> Seen:
    for domain in ("Page", "Runtime", "Log", "Network"):
        await tab.ask(f"{domain}.enable")
    await tab.ask(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    await tab.ask("Emulation.setEmulatedMedia", features=[scheme], media="print" if paper else "")
    await tab.ask("Page.navigate", url=page.as_uri())
    await tab.until_loaded()
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    seen.scrolls_sideways = (await tab.ask("Runtime.evaluate", expression=wide))["result"]["value"]
    shot = await tab.ask("Page.captureScreenshot", captureBeyondViewport=True)
    seen.picture = base64.b64decode(shot["data"])
    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
    await tab.ask("Runtime.evaluate", expression=axe)
    run = "axe.run().then(r => r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 120)).join(' | ')))"
    found = await tab.ask("Runtime.evaluate", expression=run, awaitPromise=True, returnByValue=True)
    seen.violations = found["result"]["value"]
    return seen


def look(page: Path, profile: Path, *, width: int, dark: bool = False, paper: bool = False) -> Seen:
    """The page at `width` CSS pixels, or as it is printed. `profile` is an empty folder for the browser."""
    return asyncio.run(_look(page, profile, width, dark, paper))
