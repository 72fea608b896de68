"""`python -m tests.faults.released`: keeps a job in the ledger format of today, for the versions that come.

Six rows in two chunks: the first is collected and validated, the second was prepared and waits. Once for each released format,
by the version that released it; a kept job is never made again.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

from batchctl.ledger import formats
from tests.support.commands import Commands
from tests.support.jobs import JobFolder
from tests.support.provider import ProviderProcess

PLACE = Path(__file__).with_name("formats")
NAME = "kept"
FILES = ("job.toml", "prompt.md", "rows.csv", "schema.json", ".batchctl")


def main() -> int:
    target = PLACE / f"format-{formats.VERSION}.tar.gz"
    if target.exists():
        print(f"{target.name} is kept already")
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        commands, provider = Commands(Path(scratch)), ProviderProcess(Path(scratch) / "provider")
        job = JobFolder(Path(scratch) / "job", commands, provider, NAME).write(limits="chunk_rows = 3")
        job.run("prepare", code=0)
        assert job.run("submit", BATCHCTL_CRASH_AT="K4:2").killed
        assert job.run("poll", BATCHCTL_CRASH_AT="K4").killed  # what has ended is collected before anything is sent
        job.run("validate")
        assert job.check_balance() | {"completed": 3, "queued": 3} == job.check_balance()
        commands.close()
        provider.stop()
        with tarfile.open(target, "x:gz") as archive:
            for name in FILES:
                archive.add(job.path / name, name, filter=_nobody)
    return 0


def _nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Nothing of the machine or of who made it. The lock names both."""
    if entry.name.endswith(".lock"):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    sys.exit(main())
