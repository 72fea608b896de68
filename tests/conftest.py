"""Fixtures for tests of whole commands. `provider` is one emulator for many jobs, `new_provider` one of a test's own."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.bedrock import S3
from tests.support.commands import Commands
from tests.support.gcs import Gcs
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, ProviderProcess, ProviderThread

# No test of ours asserts on time: a slow machine is not a failure.
settings.register_profile("batchctl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("batchctl")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

NewJob = Callable[..., JobFolder]
NewProvider = Callable[..., Provider]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden texts and blocks of documents")


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """The command line, without the seconds that importing costs."""
    server = Commands(tmp_path_factory.mktemp("commands"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def _shared_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    emulator = ProviderProcess(tmp_path_factory.mktemp("provider"))
    yield emulator
    emulator.stop()


@pytest.fixture
def provider(_shared_provider: Provider) -> Iterator[Provider]:
    """An emulator process that answers at once and well, but for the faults a test adds to it."""
    yield _shared_provider
    _shared_provider.clear_faults()


@pytest.fixture
def new_provider(tmp_path: Path) -> Iterator[NewProvider]:
    """Emulators with settings of their own, started on demand."""
    started: list[Provider] = []

    def begin(**settings: Any) -> Provider:
        started.append(ProviderThread(tmp_path / f"provider-{len(started)}", **settings))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server for all tests of a process."""
    server = S3()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gcs() -> Iterator[Gcs]:
    """A Cloud Storage server for all tests of a process."""
    server = Gcs()
    yield server
    server.stop()


@pytest.fixture
def new_job(request: pytest.FixtureRequest, tmp_path: Path, commands: Commands) -> NewJob:
    """Job folders, each with a name that no other test uses at the same provider, unless it is given.

    Requests hold the name, and the emulator draws by the request: a test always has the same one, in any order of tests.
    """
    test = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    numbers = itertools.count(1)

    def make(provider: Provider | None, *, name: str = "", **write: Any) -> JobFolder:
        number = next(numbers)
        folder = tmp_path / f"job-{number}"
        return JobFolder(folder, commands, provider, name or f"job-{test}-{number}").write(**write)

    return make


@pytest.fixture
def job(new_job: NewJob, provider: Provider) -> JobFolder:
    """Six rows in two chunks, ready for any command."""
    return new_job(provider, limits="chunk_rows = 3")
