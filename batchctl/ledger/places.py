"""Where a state directory may lie: on a disk of this machine.

The write-ahead log needs memory that all processes share, so that SQLite does not work over a network file system
(sqlite.org/wal.html, "All processes using a database must be on the same host computer", read 2026-11-21); locks there
are not always those of the kernel either.
"""

from __future__ import annotations

import re
from pathlib import Path

from batchctl.model.errors import UsageError

MOUNTS = Path("/proc/self/mountinfo")  # Linux; elsewhere nothing is known, and nothing is refused
NETWORK = frozenset(
    "nfs nfs4 cifs smb3 smbfs afs davfs fuse.sshfs fuse.s3fs fuse.mount-s3 fuse.gcsfuse fuse.rclone fuse.goofys".split()  # noqa: SIM905
)
_ESCAPED = re.compile(r"\\([0-7]{3})")


def file_system_of(path: Path, mounts: str) -> str:
    """The type of the file system that `path` lies on, by the text of mountinfo; empty when it does not tell."""
    place = path.resolve()
    found, depth = "", -1
    for line in mounts.split("\n"):
        fields, _, kind = line.partition(" - ")
        parts = fields.split(" ")
        if len(parts) < 5 or not kind:
            continue
        mounted = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), parts[4]))
        if (
            place.is_relative_to(mounted) and len(mounted.parts) >= depth
        ):  # of two mounts at one place, the later is seen
            found, depth = kind.split(" ")[0], len(mounted.parts)
    return found


def check_local(state: Path) -> None:
    """Refuse a state directory that other machines share."""
    if not MOUNTS.is_file():
        return
    kind = file_system_of(state, MOUNTS.read_text("utf-8", "surrogateescape"))
    if kind in NETWORK:
        raise UsageError(
            f"the state directory lies on a network file system ({kind}), where a ledger is not safe",
            where=str(state),
            effect="nothing was done",
            hint="keep the state on a disk of this machine: --state DIR, or BATCHCTL_STATE",
            code="network_file_system",
        )
