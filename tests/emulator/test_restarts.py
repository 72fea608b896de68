"""State outlives the process: stopped, killed, or shared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchctl.emulator import Emulator, Settings, read_witness

from .conftest import Driver, Start, line, shaped, until

ROOT = Path(__file__).parents[2]
SERVE = """
import sys
from pathlib import Path
from batchctl.emulator import Settings, serve
settings = Settings.from_mapping({"latency": sys.argv[2]})
serve(Path(sys.argv[1]), settings, "127.0.0.1", 0, lambda url: print(url, flush=True))
"""


Begin = Callable[[Path, str], tuple["subprocess.Popen[str]", str]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Serve in another process; the ones still running at the end are killed."""
    running: list[subprocess.Popen[str]] = []

    def launch(state: Path, latency: str) -> tuple[subprocess.Popen[str], str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(state), latency], stdout=subprocess.PIPE, text=True, env=environment
        )
        running.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield launch
    for process in running:
        if process.poll() is None:
            finish(process, signal.SIGKILL)


def finish(process: subprocess.Popen[str], how: int) -> int:
    process.send_signal(how)
    code = process.wait(20)
    assert process.stdout is not None
    process.stdout.close()
    return code


class At:
    """Stands in for an emulator in another process."""

    def __init__(self, url: str) -> None:
        self.url = url


def test_a_batch_is_found_and_finished_by_the_next_start(start: Start) -> None:
    first = start(latency=600)
    batch = first.create([line(f"r{number}") for number in range(20)])
    first.emulator.stop()
    second = start()
    assert second.sdk.batches.retrieve(batch.id).status == "validating"
    second.force(batch.id, status="completed")
    assert len(second.results(second.wait(batch.id))[0]) == 20


def test_what_fell_due_meanwhile_is_done_before_the_first_call(start: Start) -> None:
    first = start(latency=0.3)
    batch = first.create([line("a")])
    first.emulator.stop()
    until(lambda: _age(first.state_dir) > 0.5)
    second = start()
    assert second.sdk.batches.retrieve(batch.id).status == "completed"


def _age(state_dir: Path) -> float:
    return time.time() - (state_dir / "requests.jsonl").stat().st_mtime


def test_killed_in_the_middle_it_bills_once(begin: Begin, tmp_path: Path) -> None:
    state = tmp_path / "state"
    process, url = begin(state, "0")
    driver = Driver(At(url), state)  # type: ignore[arg-type]
    batch = driver.create([shaped(f"r{number}") for number in range(20_000)])

    def under_way() -> Any:
        return any((state / "work").glob("*.output.part"))

    until(under_way)
    finish(process, signal.SIGKILL)
    driver.sdk.close()
    assert read_witness(state)["rows_billed"] in (0, 20_000)
    with Emulator(state, Settings()) as emulator:
        again = Driver(emulator, state)
        ended = again.wait(batch.id)
        good, _ = again.results(ended)
        again.sdk.close()
    assert ended.status == "completed"
    assert len({one["custom_id"] for one in good}) == len(good) == 20_000
    assert read_witness(state)["rows_billed"] == 20_000
    assert read_witness(state)["batches"] == 1


def test_serve_ends_on_a_signal(begin: Begin, tmp_path: Path) -> None:
    for how in (signal.SIGTERM, signal.SIGINT):
        process, url = begin(tmp_path / "state", "1h")
        assert url.startswith("http://127.0.0.1:")
        assert finish(process, how) == 0


def test_two_processes_share_a_directory(start: Start, begin: Begin) -> None:
    here = start()
    process, url = begin(here.state_dir, "0")
    there = Driver(At(url), here.state_dir)  # type: ignore[arg-type]
    made = [one.create([line(f"r{number}")]).id for number, one in enumerate((here, there) * 3)]
    assert {here.wait(batch_id).status for batch_id in made} == {"completed"}
    there.sdk.close()
    finish(process, signal.SIGTERM)
    assert here.billed()["rows_billed"] == 6


def test_importing_the_package_loads_no_server() -> None:
    code = "import sys, batchctl.emulator; print({'aiohttp', 'openai', 'jsonschema_rs'} & set(sys.modules) or '')"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert shown.stdout.strip() == ""
