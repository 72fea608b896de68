"""Files that are complete or not there, directories that are private, lines that end at LF and nowhere else.

Everything durable goes through `replacing`: written beside its target under a `.part` name, synced, renamed, and the
directory synced, so that a reader (or a power cut) sees the old file or the new one. `crash_point` names the places
where the crash tests kill the process; it does nothing unless `BATCHCTL_CRASH_AT` names the point.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from batchctl.model.errors import StorageFailed, UsageError

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
BLOCK_BYTES = 1 << 20
PART = ".part"

_crashes_seen = 0


def crash_point(name: str) -> None:
    """Die here by SIGKILL when `BATCHCTL_CRASH_AT` is `name` or `name:N` (the N-th time). For the crash tests."""
    wanted = os.environ.get("BATCHCTL_CRASH_AT")
    if not wanted:
        return
    point, _, nth = wanted.partition(":")
    if point != name:
        return
    global _crashes_seen
    _crashes_seen += 1
    if _crashes_seen >= int(nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def storage_failed(error: OSError, path: Path | str, *, needed_bytes: int | None = None) -> StorageFailed:
    """Our error for a failing disk: names the path, and for a full one how much is needed and free."""
    where = str(path)
    hint = "the state is safe; free the cause and run the same command again"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = ""
        with suppress(OSError):
            free = f", {shutil.disk_usage(Path(path).parent).free:,} bytes are free"
        need = f"; about {needed_bytes:,} bytes are needed{free}" if needed_bytes else free.replace(", ", "; ", 1)
        return StorageFailed(f"the disk is full{need}", where=where, effect="nothing was lost", hint=hint)
    if error.errno == errno.EROFS:
        return StorageFailed("the file system is read-only", where=where, effect="nothing was lost", hint=hint)
    reason = error.strerror or type(error).__name__
    return StorageFailed(f"cannot write: {reason}", where=where, effect="nothing was lost", hint=hint)


def make_directory(path: Path) -> None:
    """Create `path` for this user only, whatever the umask; parents as well. An existing directory is left alone."""
    try:
        missing = []
        place = path
        while not place.exists():
            missing.append(place)
            place = place.parent
        for one in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(one, PRIVATE_DIRECTORY)
                os.chmod(one, PRIVATE_DIRECTORY)
        if missing:
            sync_directory(place)
    except OSError as error:
        raise storage_failed(error, path) from error


def open_private(path: Path, *, exclusive: bool = False, append: bool = False) -> BinaryIO:
    """Open a regular file for writing, mode 0600. A symlink in its place is refused, never followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    flags |= os.O_APPEND if append else os.O_TRUNC
    if exclusive:
        flags |= os.O_EXCL
    try:
        descriptor = os.open(path, flags, PRIVATE_FILE)
        os.fchmod(descriptor, PRIVATE_FILE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StorageFailed("refused to write through a symbolic link", where=str(path)) from error
        raise storage_failed(error, path) from error
    return os.fdopen(descriptor, "ab" if append else "wb", buffering=BLOCK_BYTES)


def sync_directory(path: Path) -> None:
    """Make renames and new names in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path, *, keep_mode: bool = False) -> Iterator[BinaryIO]:
    """A file object whose content becomes `path` when the block ends well, and never otherwise.

    On any error the part file is removed and `path` is what it was. `keep_mode` gives a file that others may read the
    permissions of the one it replaces. Raises `StorageFailed` for disk errors.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UsageError("refused to replace something that is not a regular file", where=str(path))
    part = path.with_name(path.name + PART)
    file = open_private(part)
    try:
        with file:
            yield file
            file.flush()
            if keep_mode and path.exists():
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_directory(path.parent)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise storage_failed(error, path) from error
        raise


def write_file(path: Path, content: bytes) -> None:
    """`replacing`, for content that is already in memory."""
    with replacing(path) as file:
        file.write(content)


def sync_file(path: Path) -> None:
    """Sync a file another library wrote, and make it private."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, PRIVATE_FILE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Split a byte stream at LF only, without the LF. The last line counts even without one.

    Not `splitlines` and not an SDK's line iterator: both also break at U+2028, NEL, form feed and lone CR, which occur
    inside JSON strings.
    """
    rest: list[bytes] = []
    for block in blocks:
        pieces = block.split(b"\n")
        if len(pieces) == 1:
            rest.append(block)
            continue
        rest.append(pieces[0])
        yield b"".join(rest)
        yield from pieces[1:-1]
        rest = [pieces[-1]]
    last = b"".join(rest)
    if last:
        yield last


def blocks_of(file: BinaryIO, size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """The rest of an open file, in blocks."""
    while block := file.read(size):
        yield block
