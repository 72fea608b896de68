"""Opening the ledger: pragmas, migrations, the writer's lock. States are written in `transitions.py` only.

SQLite in WAL mode with `synchronous=FULL`: with NORMAL a power cut after a paid request can lose its intent. Readers
never take the writer's lock; a writer holds a kernel lock (`flock`) on one file per job, which dies with the process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import socket
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from batchctl.files import PART, PRIVATE_FILE, crash_point, make_directory, storage_failed
from batchctl.ledger import formats, journal
from batchctl.ledger.places import check_local
from batchctl.model.errors import BatchctlError, Locked, StorageFailed, UsageError

BUSY_SECONDS = 30.0
LOCK_LOOK_SECONDS = 0.2


def utc_now() -> str:
    """RFC 3339, UTC, whole seconds. For people and files; order comes from sequence numbers."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Ledger:
    """One open ledger. `db` rows are `sqlite3.Row`."""

    def __init__(self, db: journal.Recording, path: Path) -> None:
        self.db = db
        self.path = path

    @classmethod
    def open(cls, state: Path, *, create: bool = False, read_only: bool = False) -> Ledger | None:
        """The ledger of a state directory; None when there is none and `create` is false."""
        path = state / "ledger.db"
        check_local(state)
        if not path.exists():
            check_no_runs(state, path)
            if not create:
                return None
            make_directory(state)
        check_private(state)
        with storage_errors(path):
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE))
            db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, factory=journal.Recording)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA foreign_keys = ON")
            try:
                ledger = cls(db, path)._ready(create=create, read_only=read_only)
            except BaseException:
                db.close()
                raise
            if ledger is None:
                db.close()
        return ledger

    def _ready(self, *, create: bool, read_only: bool) -> Ledger | None:
        """This ledger in the newest format; None while another process is about to make it."""
        version = self._version()
        if version == 0:
            try:
                check_no_runs(self.path.parent, self.path)
            except StorageFailed:
                if not self._version():  # else: another process was first
                    raise
            if not create:
                return None
        else:
            self.check_newest()
        if not read_only or version < formats.VERSION:
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA synchronous = FULL")
            self.db.execute("PRAGMA secure_delete = ON")
            if version == 0:
                self._create()
            elif version < formats.VERSION:
                self._upgrade()
            os.chmod(self.path, PRIVATE_FILE)
        if read_only:
            self.db.execute("PRAGMA query_only = ON")
        return self

    def _create(self) -> None:
        """Fill an empty ledger, in one transaction."""
        with self.transaction() as db:
            if self._version():  # another process was first
                return
            formats.create(db)
            db.execute("INSERT INTO meta VALUES ('workspace', ?)", (secrets.token_hex(16),))
            db.execute("INSERT INTO meta VALUES ('place', ?)", (place_of(self.path),))

    def _upgrade(self) -> None:
        """Bring an older ledger to the newest format, in one transaction, once a copy of it lies beside it.

        Raises `Locked` while an older batchctl is at work.
        """
        with ExitStack() as stack, self.transaction(compact=True) as db:
            version = self._version()
            if version < formats.VERSION:  # else: another process was first
                stack.enter_context(all_locked(self.path.parent))
                formats.keep(self.path, version)
                formats.upgrade(db, version)

    def _version(self) -> int:
        """The format of the ledger, 0 for an empty one. One that a later batchctl made is refused."""
        version = int(self.db.execute("PRAGMA user_version").fetchone()[0])
        if version > formats.VERSION:
            raise UsageError(
                f"this ledger has format {version}; this batchctl knows formats up to {formats.VERSION}",
                where=str(self.path),
                effect="it was not touched",
                hint="upgrade batchctl",
                code="newer_ledger",
            )
        return version

    @contextmanager
    def transaction(self, *, compact: bool = False) -> Iterator[sqlite3.Connection]:
        """Everything inside is committed and synced together, or not at all. `compact` writes the journal anew."""
        with storage_errors(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            self.db.recorded = []
            try:
                yield self.db
                changes, self.db.recorded = self.db.recorded, None
                if changes or compact:
                    self._record(changes or [], compact=compact)
            except BaseException:
                self.db.recorded = None
                self.db.execute("ROLLBACK")
                raise
            crash_point("before-commit")
            self.db.execute("COMMIT")
            crash_point("after-commit")

    def compact_journal(self) -> None:
        """Write the journal anew from the ledger as it is: what was deleted there is gone from both."""
        with self.transaction(compact=True):
            pass

    def vacuum(self) -> None:
        """Write the ledger anew: nothing that was deleted stays in a free page or in the write-ahead log."""
        with storage_errors(self.path):
            self.db.execute("VACUUM")
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _record(self, changes: list[journal.Change], *, compact: bool) -> None:
        """What is about to be committed, into the journal. A journal that is not this ledger's is written anew."""
        path, mark = self.path.with_name(journal.NAME), self._known(journal.MARK)
        self._version()  # a later batchctl may have upgraded it since it was opened
        self.check_newest()
        if not compact and journal.holds(path, mark):
            name, _, offset = mark.partition(" ")
            mark = f"{name} {journal.append(path, int(offset), journal.line_of(changes, formats.VERSION))}"
        else:
            former = f"{self._known(journal.FORMER)} {mark.partition(' ')[0]}".strip()
            self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (journal.FORMER, former))
            mark = journal.compact(path, self.db, formats.VERSION, mark)
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (journal.MARK, mark))

    def _known(self, key: str) -> str:
        """What is said under a key of `meta`; empty when nothing is."""
        found = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found is not None else ""

    def check_newest(self) -> None:
        """Refuse a ledger that does not know the last of what its journal says was done: it would be paid for again.

        Another process may write meanwhile: then the mark has moved on before its second line was in the journal.
        """
        if all(self._is_behind() for _ in range(2)):  # a line that is being cut off can look like two once
            raise StorageFailed(
                "the ledger is older than its journal",
                where=str(self.path),
                effect="nothing was sent: what the journal knows may be paid for already",
                hint=_again(self.path),
                code="damaged",
            )

    def _is_behind(self) -> bool:
        mark = self._known(journal.MARK)
        ahead = journal.is_ahead(self.path.with_name(journal.NAME), mark, self._known(journal.FORMER))
        return bool(mark) and ahead and self._known(journal.MARK) == mark

    @property
    def workspace(self) -> str:
        """Random, made once per ledger: tells our batches from those of another machine running the same job."""
        return str(self.db.execute("SELECT value FROM meta WHERE key = 'workspace'").fetchone()[0])

    @property
    def is_copy(self) -> bool:
        """Whether the ledger lies elsewhere than where it was made: another copy of it may send the same chunks."""
        made = self.db.execute("SELECT value FROM meta WHERE key = 'place'").fetchone()
        return made is None or made[0] != place_of(self.path)

    def close(self) -> None:
        self.db.close()


def place_of(path: Path) -> str:
    """Machine and file. A renamed directory is the same place; a copy, a restored backup and another machine are not."""
    machine = Path("/etc/machine-id")
    name = machine.read_bytes().strip() if machine.is_file() else socket.gethostname().encode()
    return f"{hashlib.sha256(name).hexdigest()[:16]} {path.stat().st_ino}"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """SQLite's own complaints about disk and file as `StorageFailed`; everything else passes."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise Locked(
                "another process is writing the ledger and does not end",
                where=str(path),
                effect="nothing was done",
                hint="let it finish, or look for a process that hangs: `fuser` names it",
            ) from error
        raise ledger_failed(error, path) from error
    except OSError as error:
        raise storage_failed(error, path) from error


def ledger_failed(error: sqlite3.DatabaseError, path: Path) -> StorageFailed:
    """SQLite's complaint in our words: a damaged file, or a disk that does not take what is written."""
    damaged = any(word in str(error) for word in ("malformed", "not a database"))
    return StorageFailed(
        f"the ledger is damaged: {error}" if damaged else f"the ledger cannot be used: {error}",
        where=str(path),
        effect="nothing was sent and no other file was changed" if damaged else "nothing was lost",
        hint=f"{_again(path)}; request and result files beside it are not touched"
        if damaged
        else "free the disk or correct its permissions, then run the same command again",
        code="damaged" if damaged else None,
    )


def _again(path: Path) -> str:
    """How to get a lost ledger back."""
    if path.with_name(journal.NAME).exists():
        return "`batchctl check --rebuild` makes it again from its journal"
    return f"restore {path.name} from a backup"


def check_no_runs(state: Path, path: Path) -> None:
    """Refuse to begin a ledger beside runs: what they paid for would be paid again."""
    if state.exists() and not state.is_dir():
        raise StorageFailed(
            "the state directory is not a directory",
            where=str(state),
            effect="nothing was done",
            hint="move the file away, or name another place with --state DIR",
        )
    runs = sorted(one.parent.parent.name for one in state.glob("*/chunks/*.jsonl") if one.parent.parent.suffix != PART)
    if runs or journal.knows_runs(path.with_name(journal.NAME)):  # a purged run has no chunks any more
        beside = (
            f"of the runs beside it: {', '.join(dict.fromkeys(runs[-5:]))}" if runs else "its journal tells of runs"
        )
        raise StorageFailed(
            "the ledger is empty" if path.exists() else "the ledger is missing",
            where=(str(path), beside),
            effect="nothing was done: these runs may be paid for already",
            hint=f"{_again(path)}, or move {'the runs' if runs else journal.NAME} away to begin again",
            code="damaged",
        )


def check_private(state: Path) -> None:
    """Refuse a state directory that is someone else's or that others may write to: they could forge what was paid."""
    facts = state.stat()
    if facts.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        raise UsageError(
            "the state directory belongs to another user",
            where=str(state),
            effect="nothing was done",
            hint="use --state DIR",
        )
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(
            "the state directory can be written by others",
            where=str(state),
            effect="nothing was done",
            hint=f"chmod 700 {state}",
        )


class JobLock:
    """The one writer of a job. A kernel lock: a killed holder leaves nothing behind."""

    def __init__(self, state: Path, job: str) -> None:
        self.path = state / f"{job}.lock"
        self._descriptor: int | None = None

    def acquire(self, *, wait_seconds: float = 0.0, sleep: Callable[[float], None] = time.sleep) -> None:
        """Take the lock, or raise `Locked` naming the holder once `wait_seconds` are over."""
        end = time.monotonic() + wait_seconds
        while not self._try():
            if time.monotonic() >= end:
                raise self._held()
            sleep(LOCK_LOOK_SECONDS)

    def _try(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StorageFailed(
                    "the lock is a symbolic link, which is not followed",
                    where=str(self.path),
                    effect="nothing was done",
                    hint="remove it and run the same command again",
                ) from error
            raise storage_failed(error, self.path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        if not self._same_file(descriptor):  # someone deleted the lock file between open and lock
            os.close(descriptor)
            return False
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": utc_now()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        self._descriptor = descriptor
        return True

    def _same_file(self, descriptor: int) -> bool:
        ours = os.fstat(descriptor)
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)

    def still_held(self) -> None:
        """Raise when the lock file was deleted or replaced under us: a second process may now hold its own."""
        if self._descriptor is None or not self._same_file(self._descriptor):
            raise StorageFailed(
                "the state directory was removed or replaced while this command ran",
                where=str(self.path.parent),
                effect="nothing more is sent",
                hint="look at `batchctl status` before running again",
            )

    def _held(self) -> BatchctlError:
        try:
            holder = json.loads(self.path.read_bytes() or b"{}")
        except (OSError, ValueError):
            holder = {}
        who = f"{holder.get('host', 'this machine')}, process {holder.get('pid', 'unknown')}"
        return Locked(
            f"another batchctl holds this job: {who}, since {holder.get('since', 'just now')}",
            where=str(self.path),
            effect="nothing was done",
            hint="let it finish, or wait for it with --wait",
        )

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def all_locked(state: Path) -> Iterator[None]:
    """The one writer of every job of a state directory. Raises `Locked` naming who is at work."""
    with ExitStack() as stack:
        for file in sorted(state.glob("*.lock")):
            lock = JobLock(state, file.stem)
            lock.acquire()
            stack.callback(lock.release)
        yield
