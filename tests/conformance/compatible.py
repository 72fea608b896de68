"""The emulator's wires for OpenAI's neighbours, as vendors of the provider contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from batchctl.providers import openai as module
from tests.conformance.contract import CANARY, ProviderContract
from tests.conftest import NewProvider
from tests.support.emulated import Emulated
from tests.support.provider import Provider


class Neighbour(Emulated):
    """A wire under a path of its own: `root` ends before `/files`, `base` is the address a person would give."""

    root: ClassVar[str]
    base: ClassVar[str]
    batches_path: ClassVar[str] = "/batches"
    live: ClassVar[str] = "/chat/completions"
    query: ClassVar[str] = ""
    repeated: ClassVar[tuple[str, ...]] = ("input_file_id", "endpoint", "metadata", "completion_window")

    def __init__(self, provider: Provider) -> None:
        super().__init__(provider)
        self.url = provider.url + self.base
        jobs, files = self.root + self.batches_path, self.root + "/files"
        self.create_path = jobs  # type: ignore[misc]
        self.calls_of: Mapping[str, str] = {  # type: ignore[misc]
            "create": f"POST {jobs}",
            "list": f"GET {jobs}",
            "poll": f"GET {jobs}/*",
            "cancel": f"POST {jobs}/*/cancel",
            "upload": f"POST {files}",
            "size": f"GET {files}/*",
            "results": f"GET {files}/*/content",
            "delete": f"DELETE {files}/*",
            "live": f"POST {self.root}{self.live}",
        }

    def mark_again(self, batch_id: str) -> str:
        jobs = self.root + self.batches_path
        first = self.provider.ask("GET", f"{jobs}/{batch_id}{self.query}")
        made = self.provider.ask("POST", jobs + self.query, {name: first[name] for name in self.repeated})
        return str(made.get("job", made)["id"])


class NeighbourContract(ProviderContract):
    """The contract for a neighbour: `vendor` is its wire."""

    vendor: ClassVar[type[Neighbour]]

    def made(self, url: str, key: str) -> Any:
        raise NotImplementedError

    def build(self, server: Neighbour | str | None, *, key: str = CANARY) -> Any:
        url = server if isinstance(server, str) or server is None else server.url
        return self.made(url or "http://127.0.0.1:1", key)

    def shorten_timeouts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)

    @pytest.fixture
    def server(self, new_provider: NewProvider) -> Neighbour:
        return self.vendor(new_provider())

    @pytest.fixture
    def slow_server(self, new_provider: NewProvider) -> Neighbour:
        return self.vendor(new_provider(latency="1h"))
