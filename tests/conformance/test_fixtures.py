"""Every recorded file of the wire contract is opened by a test, or is of something batchctl does not do, and says why."""

from __future__ import annotations

import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.conftest import ROOT, SHARED

CONTRACTS = SHARED / "contracts"
REASON = "fixtures are not beside"
NOT_OURS = {
    "fixtures-anthropic/batches/deleted.json": "batches are left to the vendor's 29 days",
    "fixtures-*/count_tokens*.json": "tokens are not counted at the vendor: the dry run has real ones",
    "fixtures-bedrock/eventbridge_state_change.json": "batches are polled",
    "fixtures-bedrock/iam_*.json": "policies are set up by a person",
    "fixtures-gemini/create_*inline.request.json": "never inline: a file is a fence and a name",
    "fixtures-openai/files/files_page.json": "files are known by their ids, never looked for",
    "fixtures-openai/files/upload_*.json": "a chunk is one upload",
    "fixtures-openai/webhooks/*.json": "batches are polled",
    "fixtures-vertex/*claude*request*": "of the models on Vertex only Google's are asked",
}
"""Names of files, and why no test reads them."""


@pytest.mark.skipif(not (CONTRACTS / "fixtures-openai").is_dir(), reason="the contract is not beside the checkout")
def test_every_recorded_file_is_opened_by_a_test_or_not_ours(tmp_path: Path) -> None:
    """The tests of the fixtures are run once more, by themselves, and heard opening files."""
    modules = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if REASON in path.read_text("utf-8")]
    modules.remove(__file__)
    told = tmp_path / "opened"
    argv = ["-p", "tests.support.reads", "-n0", "-q", "-m", "slow or not slow", "-p", "no:cacheprovider", *modules]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *argv],
        cwd=ROOT,
        env={**os.environ, "FIXTURE_READS": str(told)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    opened = {str(Path(name).resolve().relative_to(CONTRACTS.resolve())) for name in told.read_text().splitlines()}
    folders = [path for path in CONTRACTS.glob("fixtures-*") if path.is_dir()]
    there = {str(path.relative_to(CONTRACTS)) for one in folders for path in one.rglob("*") if path.is_file()}
    unread = there - opened
    assert {name for name in unread if not any(fnmatchcase(name, pattern) for pattern in NOT_OURS)} == set()
    idle = [pattern for pattern in NOT_OURS if not any(fnmatchcase(name, pattern) for name in unread)]
    assert idle == [], "a test reads these now"
