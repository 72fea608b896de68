"""What a command loads. The vendor SDKs cost seconds and memory: only the commands that talk to a provider pay."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.desk import JOB, PROMPT, ROWS, SCHEMA

SDKS = {"openai", "anthropic", "boto3", "botocore", "google", "httpx", "httpx2", "aiohttp"}
HEAVY = {"pyarrow", "pydantic", "rich", "jsonschema", "jsonschema_rs", "jinja2", "orjson", "asyncio"}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that is done."""
    folder = tmp_path_factory.mktemp("imports")
    files = {"job.toml": JOB, "messages.csv": ROWS, "prompt.md": PROMPT, "schema.json": SCHEMA}
    for name, text in files.items():
        (folder / name).write_text(text)
    assert loaded(folder, "run", "--wait") >= {"openai", "aiohttp", "pyarrow"}
    return folder


def loaded(folder: Path, *argv: str, env: Mapping[str, str] | None = None) -> set[str]:
    """Top-level modules that a command imported, as the interpreter itself reports them."""
    made = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "batchctl", *argv],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in made.stderr.split("\n") if line.startswith("import time:")]
    assert len(lines) > 50, made.stderr
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize("argv", [["--help"], ["--version"], []])
def test_help_loads_next_to_nothing(job: Path, argv: list[str]) -> None:
    assert not loaded(job, *argv) & (SDKS | HEAVY)


@pytest.mark.parametrize(
    "env",
    [
        {"_BATCHCTL_COMPLETE": "complete_bash", "COMP_WORDS": "batchctl sta", "COMP_CWORD": "1"},
        {"_BATCHCTL_COMPLETE": "complete_bash", "COMP_WORDS": "batchctl status tri", "COMP_CWORD": "2"},
        {"_BATCHCTL_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "batchctl status tri"},
    ],
)
def test_completion_loads_nothing_but_what_reads_options(job: Path, env: dict[str, str]) -> None:
    """typer 0.29 reads the values of options with pydantic; nothing of ours may add to it."""
    assert not loaded(job, env=env) & ((SDKS | HEAVY) - {"pydantic"})


@pytest.mark.parametrize(
    "argv",
    [
        ["status"],
        ["status", "--json"],
        ["check"],
        ["prepare"],
        ["validate"],
        ["validate", "--again"],
        ["submit", "--plan"],
        ["publish", "--set", "publish=[{to='labels.parquet'}, {to='labels.sqlite'}]"],
        ["compare", "--gold", "body"],
    ],
)
def test_what_stays_on_this_machine_loads_no_sdk(job: Path, argv: list[str]) -> None:
    assert not loaded(job, *argv) & SDKS


def test_status_reads_the_ledger_and_no_table(job: Path) -> None:
    assert not loaded(job, "status") & (SDKS | {"pyarrow", "jsonschema", "jsonschema_rs", "jinja2", "rich", "asyncio"})


def test_status_reads_no_lane_judge_or_price(job: Path) -> None:
    """Twenty times the start of a bare interpreter is the bar, and typer alone takes fifteen."""
    command = "import sys; sys.argv[1:] = ['status']; from batchctl.cli.main import main\ntry: main()\nexcept SystemExit: pass"
    shown = "print(*sorted(name for name in sys.modules if name.startswith('batchctl.')), file=sys.stderr)"
    made = subprocess.run(
        [sys.executable, "-c", f"{command}\n{shown}"], cwd=job, capture_output=True, text=True, check=True, timeout=120
    )
    found = set(made.stderr.split())
    assert "batchctl.workflow.status" in found
    rooms = ("judging", "tables", "chunks", "template", "emulator", "providers.guard", "providers.live", "prices.table")
    modules = {"batchctl.workflow." + name for name in ("live", "background", "submit", "notify", "rules")}
    assert not {one for one in found if one.removeprefix("batchctl.").startswith(rooms)} | (found & modules)


def test_completion_knows_job_files_and_runs(job: Path) -> None:
    def completed(words: str, position: int) -> list[str]:
        env = {"_BATCHCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(position)}
        made = subprocess.run(
            [sys.executable, "-m", "batchctl"],
            cwd=job,
            env={"PATH": os.environ["PATH"], **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert made.stderr == ""
        return made.stdout.split()

    assert completed("batchctl re", 1) == ["rerun", "report", "review", "resolve"]
    assert completed("batchctl status ", 2) == ["job.toml", "triage-0001"]
    assert completed("batchctl status tri", 2) == ["triage-0001"]
    assert "--wait" in completed("batchctl run --", 2)
