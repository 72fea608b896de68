"""The one place where job file, ledger, run directory and provider are put together.

A workspace is a state directory (`.batchctl/` beside the job file, or `--state`). A command opens it with the options a
user gave; what it gets is the job as it is now, the run it is about, the plan that run was prepared with, and, only when
asked for, the provider.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchctl import jobfile
from batchctl.files import make_directory, write_file
from batchctl.jobfile import Job
from batchctl.ledger import queries
from batchctl.ledger.store import JobLock, Ledger, ledger_failed
from batchctl.model.errors import NotAllowed, StorageFailed, UsageError
from batchctl.providers import provider_for

if TYPE_CHECKING:
    from batchctl.judging.schema import Schema
    from batchctl.providers.base import Provider
    from batchctl.providers.guard import Guarded

SENT = "sent"
STATE_NAME = ".batchctl"
Progress = Callable[[str, int, int], None]


def no_progress(_what: str, _done: int, _total: int) -> None:
    """For callers that show nothing."""


def no_event(_name: str, **_facts: object) -> None:
    """For callers that keep no log."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may say to any command. `ask` answers a yes/no question, or is None when nobody can be asked.

    `note` is for people, `event` for a log that programs read: a name and facts, never row text.
    """

    target: str | None = None
    state: str | None = None
    overrides: tuple[str, ...] = ()
    yes: bool = False
    wait: bool = False
    max_wait_seconds: float | None = None
    lane: str | None = None
    budget: str | None = None
    ask: Callable[[str], bool] | None = None
    note: Callable[[str], None] = field(default=lambda _text: None)
    progress: Progress = no_progress
    event: Callable[..., None] = no_event
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    sleep: Callable[[float], None] = time.sleep

    def seconds(self, name: str, default: float) -> float:
        """A number of seconds from the environment; fractions allowed."""
        text = self.environ.get(name)
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < 10**9:
            raise UsageError(f"`{name}` must be a number of seconds", where="environment", effect="nothing was done")
        return value


@dataclass(frozen=True, slots=True)
class Plan:
    """A job with the texts it names: all that decides what is sent. `settings` is the digest of exactly that."""

    job: Job
    job_text: str
    prompt: str
    system: str | None
    schema_text: str | None
    where: Mapping[str, str]
    settings: str
    shape: str
    prompt_sha256: str
    schema_sha256: str | None

    @property
    def endpoint(self) -> str:
        return self.job.model.endpoint or self.codec().traits.endpoints[0]

    @property
    def wire(self) -> str:
        """Whose shapes the results have."""
        return self.codec().traits.wire

    def schema(self) -> Schema | None:
        from batchctl.judging.schema import Schema

        if self.schema_text is None:
            return None
        return Schema.load(self.schema_text.encode(), self.where["schema"])

    def codec(self) -> Provider:
        """The provider as far as it needs no key and no network."""
        return provider_for(self.job.model.provider, model_settings(self.job))

    def freeze(self, directory: Path) -> None:
        """Write job file, prompt and schema as they are now. The directory is the caller's; files are not synced."""
        texts = {
            "job.toml": self.job_text,
            "prompt.md": self.prompt,
            "system.md": self.system,
            "schema.json": self.schema_text,
            "set.json": json.dumps(list(self.job.overrides)),
        }
        for name, text in texts.items():
            if text is not None:
                (directory / name).write_bytes(text.encode())


def model_settings(job: Job) -> dict[str, Any]:
    names = (
        "base_url",
        "organization",
        "project",
        "location",
        "region",
        "bucket",
        "role_arn",
        "api_version",
        "profile",
    )
    return {name: getattr(job.model, name) for name in names} | {"key_name": job.model.key_env, "model": job.model.name}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _text(path: Path, key: str, where: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, sorted(p.name for p in path.parent.glob("*")), 1)
        hint = f"did you mean `{near[0]}`?" if near else f"create it, or correct {key} in {where}"
        raise UsageError(
            f"there is no file `{path.name}`",
            where=(str(path), f"{key} in {where}"),
            effect="nothing was sent",
            hint=hint,
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the file is not UTF-8 text (byte {error.start})",
            where=str(path),
            effect="nothing was sent",
            hint="save it as UTF-8",
        ) from None
    except OSError as error:
        raise UsageError(
            f"the file cannot be read: {error.strerror}",
            where=str(path),
            effect="nothing was sent",
            hint=f"correct {key} in {where}",
        ) from error


def plan_for(job: Job, where: str, *, names: Mapping[str, str] | None = None) -> Plan:
    """Read the texts a job names. `names` replaces the file names: a frozen job keeps its texts under fixed ones."""
    names = names or {}
    prompt_path = job.base / names.get("prompt", job.prompt.file)
    prompt = _text(prompt_path, "[prompt] file", where)
    system_path = job.base / names.get("system", job.prompt.system or "") if job.prompt.system else None
    system = _text(system_path, "[prompt] system", where) if system_path else None
    schema_path = job.base / names.get("schema", job.output.schema_ or "") if job.output.schema_ else None
    schema = _text(schema_path, "[output] schema", where) if schema_path else None
    model = job.model
    endpoint = model.endpoint or provider_for(model.provider, model_settings(job)).traits.endpoints[0]
    settings = _digest(
        [
            model.provider,
            model.name,
            endpoint,
            dict(model.params),
            job.output.mode,
            prompt,
            system,
            schema,
        ]
    )
    source = job.source
    shape = _digest(
        [
            job.name,
            settings,
            list(source.id),
            list(source.columns),
            source.format,
            source.encoding,
            source.where,
            source.on_duplicate_id,
            source.on_identical_text,
            job.limits.chunk_rows,
            job.limits.chunk_bytes,
        ]
    )
    return Plan(
        job=job,
        job_text=job.text,
        prompt=prompt,
        system=system,
        schema_text=schema,
        where={
            "job": where,
            "prompt": _shown(prompt_path),
            "system": _shown(system_path),
            "schema": _shown(schema_path),
        },
        settings=settings,
        shape=shape,
        prompt_sha256=_digest([prompt, system]),
        schema_sha256=None if schema is None else _digest(schema),
    )


def _shown(path: Path | None) -> str:
    """A path as a person in this directory would write it."""
    if path is None:
        return ""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _not_as_frozen(run_id: str, where: tuple[str, ...]) -> StorageFailed:
    return StorageFailed(
        f"the copy of the job that {run_id} was prepared with has changed",
        where=where,
        effect="nothing was done with it",
        hint="restore it from a backup; to use another prompt or schema, change the job's own files",
        code="damaged",
    )


class Workspace:
    """An opened state directory. Close it; `opened` does."""

    def __init__(
        self,
        options: Options,
        state: Path,
        ledger: Ledger | None,
        job_path: Path | None,
        job: Job | None,
        run_id: str | None,
    ) -> None:
        self.options = options
        self.state = state
        self._ledger = ledger
        self.job_path = job_path
        self.job = job
        self._run_id = run_id
        self.chosen_lane: str | None = None  # for this command, by `workflow.lanes`
        self._stack = ExitStack()
        self._providers: dict[str, Guarded] = {}
        self._emulator = ""
        self._lock: JobLock | None = None

    # --- ledger and run ---

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            raise UsageError(
                "nothing has been prepared here yet",
                where=str(self.state),
                effect="nothing was done",
                hint=f"`batchctl prepare {self.job_path or 'job.toml'}`",
            )
        return self._ledger

    @property
    def has_run(self) -> bool:
        return self._ledger is not None and self._find_run() is not None

    def _find_run(self) -> queries.Run | None:
        if self._ledger is None:
            return None
        if self._run_id is not None:
            return queries.run(self._ledger.db, self._run_id)
        if self.job is None:
            return None
        runs = queries.runs(self._ledger.db, self.job.name)
        return runs[-1] if runs else None

    @property
    def run(self) -> queries.Run:
        found = self._find_run()
        if found is None:
            name = self.job_path or "job.toml"
            raise UsageError(
                f"`{self.job.name if self.job else name}` has no run yet",
                where=str(self.state),
                effect="nothing was done",
                hint=f"`batchctl prepare {name}`",
            )
        return found

    def turn_to(self, run_id: str) -> None:
        """From here on the workspace is about this run."""
        self._run_id = run_id

    def directory(self, run_id: str | None = None) -> Path:
        return self.state / (run_id or self.run.id)

    def create_ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = Ledger.open(self.state, create=True)
            assert self._ledger is not None
            self._stack.callback(self._ledger.close)
        return self._ledger

    def lock(self, job_name: str | None = None) -> None:
        """Become the one writer of the job, or raise `Locked`. With --wait, wait for the holder."""
        if self._lock is not None:
            return
        make_directory(self.state)
        lock = JobLock(self.state, job_name or (self.job.name if self.job else self.run.job))
        limit = self.options.max_wait_seconds if self.options.max_wait_seconds is not None else 10.0**9
        lock.acquire(wait_seconds=limit if self.options.wait else 0.0, sleep=self.options.sleep)
        self.options.event("lease.acquired", job=lock.path.stem, pid=os.getpid())
        self._lock = lock
        self._stack.callback(lock.release)

    def mark_sent(self, run_id: str) -> None:
        """Leave a sign in the run's directory that rows of it may be paid for, whatever becomes of the ledger."""
        path = self.directory(run_id) / SENT
        if not path.exists():
            write_file(path, b"")

    def still_ours(self) -> None:
        """Before anything is spent: the state directory is still the one we locked."""
        assert self._lock is not None, "spending without the lock"
        self._lock.still_held()
        if not self.ledger.path.exists():
            raise StorageFailed(
                "the ledger was removed while this command ran",
                where=str(self.ledger.path),
                effect="nothing more is sent",
                hint="restore the state directory",
            )

    # --- plans and provider ---

    def frozen_plan(self, settings: str | None = None, run: queries.Run | None = None) -> Plan:
        """The plan a chunk was prepared with, from its frozen copy."""
        run = run or self.run
        row = queries.settings(self.ledger.db, run.id)[settings or run.settings]
        base = self.state / run.id / row.directory
        where = str(base / "job.toml")
        try:
            text = (base / "job.toml").read_bytes().decode()
            overrides = json.loads((base / "set.json").read_bytes())
        except (OSError, ValueError) as error:
            raise StorageFailed(
                f"the frozen job of {run.id} cannot be read: {error}",
                where=where,
                effect="nothing was done",
                hint="`batchctl check` names what is damaged",
            ) from error
        try:
            job = jobfile.from_text(text, where=where, overrides=overrides, environ=self.options.environ, base=base)
            plan = plan_for(job, where, names={"prompt": "prompt.md", "system": "system.md", "schema": "schema.json"})
        except UsageError as error:
            if "environment variable" in error.what:
                raise
            raise _not_as_frozen(run.id, error.where) from error
        model = plan.job.model
        now = (model.provider, model.name, plan.endpoint, plan.prompt_sha256, plan.schema_sha256)
        if now != (row.provider, row.model, row.endpoint, row.prompt_sha256, row.schema_sha256):
            raise _not_as_frozen(run.id, (str(base),))
        return plan

    def current_plan(self) -> Plan | None:
        """The job file as it is now, or None when the command was given a run whose job file is gone."""
        if self.job is None or self.job_path is None:
            return None
        return plan_for(self.job, _shown(self.job_path))

    @property
    def policy(self) -> Job:
        """Where limits, lane, retry and review come from: the job file as it is now, else as it was."""
        return self.job if self.job is not None else self.frozen_plan().job

    def lane(self, run: queries.Run) -> str:
        """How chunks of a run that wait are sent: as asked now, as asked when it was submitted, as the job file says."""
        return self.chosen_lane or run.lane or self.policy.lane.prefer

    def provider(self, plan: Plan) -> Guarded:
        """The provider that `plan` names, ready to talk; one for each `[model]`. Starts the emulator when that is it."""
        from batchctl.providers.guard import FIRST_WAIT_SECONDS, Guarded

        kept = self.policy.retention.remote_files if self.policy.retention is not None else None
        settings = model_settings(plan.job) | {"folder": self.state / plan.job.model.provider}
        settings["keep_seconds"] = None if kept == "on-publish" else kept
        key = _digest([plan.job.model.provider, settings])
        if key not in self._providers:
            if plan.job.model.provider == "emulator":
                settings |= {"base_url": self._start_emulator(plan.job) + "/v1", "api_key": "emulator"}
            usual = 0.01 if plan.job.model.provider == "emulator" else FIRST_WAIT_SECONDS
            waits = self.options.seconds("BATCHCTL_RETRY_SECONDS", usual) / FIRST_WAIT_SECONDS
            found = provider_for(plan.job.model.provider, settings)
            self._providers[key] = Guarded(found, sleep=self.options.sleep, waits=waits)
            self._stack.callback(found.close)
        return self._providers[key]

    def _start_emulator(self, job: Job) -> str:
        if not self._emulator:
            from batchctl.emulator import Emulator, Settings

            make_directory(self.state / "emulator")
            settings = Settings.from_mapping(dict((self.job or job).emulator), where="[emulator]")
            emulator = self._stack.enter_context(Emulator(self.state / "emulator", settings))
            self._emulator = str(emulator.start())
        return self._emulator

    def now(self) -> datetime:
        """The provider's time once this command has heard it, else ours: what gives something up must not rest on ours."""
        heard = [one for one in (each.server_now() for each in self._providers.values()) if one is not None]
        return datetime.fromtimestamp(heard[0], UTC) if heard else datetime.now(UTC)

    def account(self, provider: Guarded) -> str:
        """Who pays, as a digest that means nothing outside this workspace."""
        return hashlib.sha256(f"{self.ledger.workspace}\0{provider.account()}".encode()).hexdigest()[:32]

    def same_account(self, provider: Guarded, recorded: str, batch: str) -> None:
        """Refuse to look for a batch with another key or project: it would not be found, and not found means resend."""
        if recorded != self.account(provider):
            raise NotAllowed(
                f"batch `{batch}` was created with another key, project or address",
                where=f"provider {provider.name}",
                effect="nothing was sent; rows stay where they are",
                hint="use the key this run was submitted with",
            )

    def close(self) -> None:
        self._stack.close()


@contextmanager
def opened(options: Options, *, write: bool) -> Iterator[Workspace]:
    """Open what `options.target` names: a job file, or a run by id or unique prefix. Left out: `./job.toml`."""
    target = options.target or "job.toml"
    path = Path(target)
    is_job = options.target is None or path.suffix == ".toml" or os.sep in target or path.is_file()
    if path.is_dir() and (is_job or target in (".", "..")):
        raise UsageError(
            f"`{target}` is a directory, not a job file",
            effect="nothing was done",
            hint=f"name the job file in it, such as `{target.rstrip(os.sep)}{os.sep}job.toml`",
        )
    if is_job:
        job = jobfile.load(path, overrides=options.overrides, environ=options.environ)
        state = _state(options, job.base)
        ledger = Ledger.open(state, read_only=not write)
        workspace = Workspace(options, state, ledger, path, job, None)
    else:
        workspace = _by_run(options, target, write)
    if workspace._ledger is not None:
        workspace._stack.callback(workspace._ledger.close)
    try:
        yield workspace
    except sqlite3.IntegrityError:
        raise  # a bug of ours that a constraint has stopped
    except sqlite3.DatabaseError as error:
        raise ledger_failed(error, workspace.state / "ledger.db") from error
    finally:
        workspace.close()


def state_of(options: Options) -> Path:
    """The state directory that the target means, whether or not there is a ledger in it."""
    path = Path(options.target or "job.toml")
    if not path.is_file():
        return _state(options, Path())
    return _state(options, jobfile.load(path, overrides=options.overrides, environ=options.environ).base)


def _state(options: Options, base: Path) -> Path:
    named = options.state or options.environ.get("BATCHCTL_STATE")
    return Path(named) if named else base / STATE_NAME


def _by_run(options: Options, target: str, write: bool) -> Workspace:
    state = _state(options, Path())
    ledger = Ledger.open(state, read_only=not write)
    if ledger is None:
        raise UsageError(
            f"there is no job file and no run `{target}` here",
            where=str(state),
            effect="nothing was done",
            hint="give a job file, or --state DIR of the workspace that has the run",
        )
    runs = queries.runs(ledger.db)
    ids = [run.id for run in runs]
    found = (
        ids[-1:]
        if target == "@last"
        else [one for one in ids if one == target] or [one for one in ids if one.startswith(target)]
    )
    if not found and (newer := queries.successor(ledger.db, target)) is not None:
        options.note(f"{target} was replaced by {newer} before anything of it was sent")
        found = [newer]
    if len(found) != 1:
        ledger.close()
        near = difflib.get_close_matches(target, ids, 3)
        hint = f"did you mean `{near[0]}`?" if near else f"runs here: {', '.join(ids[-5:]) or 'none'}"
        what = f"there is no run `{target}`" if not found else f"`{target}` is the start of {len(found)} runs"
        raise UsageError(
            what,
            where=str(state),
            effect="nothing was done",
            hint=hint if not found else "give more of it: " + ", ".join(found[-5:]),
        )
    run = next(one for one in runs if one.id == found[0])
    job_path = state.parent / run.job_file
    job = None
    if job_path.is_file():
        job = jobfile.load(job_path, overrides=options.overrides, environ=options.environ)
        job = job if job.name == run.job else None
    return Workspace(options, state, ledger, job_path if job is not None else None, job, run.id)
