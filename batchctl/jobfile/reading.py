"""From TOML text to a `Job`: overrides, `${NAME}`, secrets, types; all problems at once.

No value from the environment and none that looks like a secret is ever part of a message, an exception chain included:
that is why errors here are raised `from None`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, time
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from batchctl.jobfile import lines as positions
from batchctl.jobfile.keys import Job, Keys
from batchctl.jobfile.problems import Problem, combined, dotted, explain, shown, without_echoes, written_path
from batchctl.jobfile.secrets import looks_secret, names_credential
from batchctl.model.errors import UsageError

KeyPath = positions.Path

_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"
_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<broken>\$\{)")


def load(path: Path, *, overrides: Sequence[str] = (), environ: Mapping[str, str]) -> Job:
    """Read a job file. `overrides` are `key=value` (`--set`); messages name the file as `path` was given."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(
            f"there is no job file `{path}`",
            effect="nothing was sent",
            hint=_jobs_near(path) or "`batchctl init NAME` writes one; give its path: `batchctl run path/to/job.toml`",
        ) from None
    except OSError as exc:
        raise UsageError(
            f"the job file cannot be read: {exc.strerror}",
            where=str(path),
            effect="nothing was sent",
            hint="give a file",
        ) from exc
    try:
        text = raw.decode("utf-8-sig")  # editors on Windows put a byte order mark first
    except UnicodeDecodeError as exc:
        raise UsageError(
            "the job file is not UTF-8 text",
            where=_place(str(path), _line_at(raw, exc.start)),
            effect="nothing was sent",
            hint="save it as UTF-8",
        ) from None
    return from_text(text, where=str(path), overrides=overrides, environ=environ, base=path.parent)


def _jobs_near(path: Path) -> str:
    """What else may be meant: files beside it that look like jobs, the likeliest first. "" when there is none."""
    found = {}
    for other in sorted(path.parent.glob("*.toml")) if path.parent.is_dir() else ():
        try:
            table = tomllib.loads(other.read_text("utf-8-sig"))
        except (OSError, ValueError):
            continue  # whatever it is, it is no job
        if {"version", "name", "source"} <= table.keys():
            found[other.name] = str(other)
    near = get_close_matches(path.name, found, 3, 0.0)
    return "there is " + ", ".join(f"`{found[name]}`" for name in near) if near else ""


def from_text(text: str, *, where: str, overrides: Sequence[str] = (), environ: Mapping[str, str], base: Path) -> Job:
    """Read a job file's text. `where` is what messages call it, `base` where its relative paths start."""
    table = _parse(text, where)
    lines = positions.Lines(text)
    problems: list[Problem] = []
    overridden = _override(table, overrides, problems)

    def located(problem: Problem) -> Problem:
        """With its place: the override that set this key, or is the only reason for this table, else the line."""
        if problem.where:
            return problem
        line = lines.line_of(problem.path)
        for path, key in overridden.items():
            made_it = line is None and path[: len(problem.path)] == problem.path
            if problem.path and (made_it or problem.path[: len(path)] == path):
                return problem._replace(where=f"--set {key}")
        return problem._replace(where=_place(where, line))

    _check_version(table, where, located)
    problems += _secrets(table)
    known_lines = {lines.line_of(problem.path) for problem in problems}
    problems += [
        Problem((), "this line holds what looks like a secret", _REMOVE_IT, _place(where, number))
        for number, line in enumerate(text.split("\n"), 1)
        if looks_secret(line) and number not in known_lines
    ]
    hidden: set[KeyPath] = {problem.path for problem in problems}
    for path, value in list(_leaves(table)):
        if isinstance(value, str) and "${" in value:
            _expand(table, path, value, environ, problems)
            hidden.add(path)
    broken = {problem.path for problem in problems}
    job: Keys | None = None
    try:
        with _without_plugins():
            job = Keys.model_validate(table)
    except ValidationError as exc:
        found = [
            explain(error, path, hidden)
            for error in exc.errors(include_url=False)
            if error["type"] != "default_factory_not_called"  # follows from another error
            and (path := written_path(error["loc"], table)) not in broken
        ]
        problems += without_echoes(found)
    if _value_at(table, ("source", "path")) in ("-", ["-"]) and _value_at(table, ("source", "format")) is None:
        problems.append(
            Problem(("source", "path"), '`source.path` "-" needs a format', 'add format = "jsonl" to [source]')
        )
    if problems or job is None:
        raise combined([located(problem) for problem in problems], where)
    keys = {name: getattr(job, name) for name in Keys.model_fields}
    return Job.model_construct(set(job.model_fields_set), **keys, base=base, text=text, overrides=tuple(overrides))


@contextmanager
def _without_plugins() -> Iterator[None]:
    """Plugins of pydantic would see every value, and looking for some takes as long as reading the file.

    By its documented variable (docs.pydantic.dev/latest/concepts/plugins, read 2026-11-21); nothing else is started.
    """
    before = os.environ.get(_PLUGINS)
    os.environ[_PLUGINS] = "__all__"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PLUGINS]
        else:
            os.environ[_PLUGINS] = before


def _line_at(raw: bytes, offset: int) -> int:
    return raw.count(b"\n", 0, offset) + 1


def _place(where: str, line: int | None) -> str:
    return where if line is None else f"{where}:{line}"


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        message, _, position = str(exc).partition(" (at ")
        if match := re.match(r"line ([0-9]+), column ([0-9]+)", position):
            place = f"{where}:{match[1]}:{match[2]}"
        else:
            last = text.rstrip("\n").rpartition("\n")[2]
            place = f"{where}:{text.rstrip().count(chr(10)) + 1}:{len(last) + 1}"
        what = "the job file is not valid TOML"
        detail = message[:1].lower() + message[1:]
        detail = re.sub(
            r"\(([^()]*)\)",
            lambda found: re.sub(r"', '|'|,$", lambda quote: "." if len(quote[0]) > 1 else "", found[1]),
            detail,
        )
        if detail and not looks_secret(detail):
            what += f": {detail}"
    except (RecursionError, ValueError):  # brackets nested by the thousand; a number of thousands of digits
        place, what = where, "the job file is not valid TOML: nested too deeply, or a number too long"
    raise UsageError(what, where=place, effect="nothing was sent", hint="text needs quotes; see toml.io") from None


def _override(table: dict[str, Any], overrides: Sequence[str], problems: list[Problem]) -> dict[KeyPath, str]:
    """Put `key=value` into the table; returns what was set, by path, for messages."""
    done: dict[KeyPath, str] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        path = positions.key_path(key.strip())
        given = shown(key.strip())
        if not equals or not path:
            problems.append(
                Problem((), "`--set` wants key=value", "write it like `--set model.name=gpt-5`", f"--set {given}")
            )
            continue
        node: Any = table
        for part in path[:-1]:
            node = node.setdefault(str(part), {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict):
            problems.append(
                Problem(
                    path, f"`{given}` cannot be set: it is not inside a table", "change the job file", f"--set {given}"
                )
            )
            continue
        node[str(path[-1])] = _override_value(value.strip())
        done[path] = given
    return done


def _override_value(written: str) -> Any:
    """TOML when it is TOML, else text; a bare date is text, since no key takes a date."""
    try:
        parsed = tomllib.loads(f"value = {written}")
    except (ValueError, RecursionError):
        return written
    if list(parsed) != ["value"] or isinstance(parsed["value"], date | time):
        return written
    return parsed["value"]


def _check_version(table: Mapping[str, Any], where: str, located: Callable[[Problem], Problem]) -> None:
    """Before anything else: another version may have other keys, and a list of them would only confuse."""
    version = table.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version != 1:
        problem = located(
            Problem(
                ("version",),
                f"this job file has version {version}; this batchctl reads version 1",
                "install a newer batchctl" if version > 1 else "write version = 1",
            )
        )
        raise combined([problem], where)


_REMOVE_IT = (
    "remove it, and make a new key if this file was shared; batchctl takes credentials only from the environment, "
    "such as OPENAI_API_KEY, from a named profile, or from --env-file"
)


def _secrets(table: dict[str, Any]) -> list[Problem]:
    found = []
    for path, value in _entries(table):
        name = shown(dotted(path))
        last = path[-1]
        if isinstance(last, str) and names_credential(last):
            found.append(Problem(path, f"`{name}` would put a credential into the job file", _REMOVE_IT))
        elif (isinstance(value, str) and looks_secret(value)) or (isinstance(last, str) and looks_secret(last)):
            found.append(Problem(path, f"`{name}` holds what looks like a secret", _REMOVE_IT))
    return found


def _entries(node: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every key and list item, tables before what is in them."""
    children: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(node, dict):
        children = iter(node.items())
    elif isinstance(node, list):
        children = iter(enumerate(node))
    for part, value in children:
        yield (*path, part), value
        yield from _entries(value, (*path, part))


def _leaves(table: dict[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    return ((path, value) for path, value in _entries(table) if not isinstance(value, dict | list))


def _expand(
    table: dict[str, Any], path: KeyPath, value: str, environ: Mapping[str, str], problems: list[Problem]
) -> None:
    """Replace `${NAME}` in place. What a variable holds is inserted as it is, never read as TOML or expanded again."""
    name = shown(dotted(path))

    def replace(match: re.Match[str]) -> str:
        if match["broken"]:
            problems.append(
                Problem(path, f"`{name}` has a `${{` that names no variable", "write ${NAME}, or $${ for a plain ${")
            )
            return ""
        if not (variable := match["name"]):
            return "${"
        held = environ.get(variable)
        if fault := _fault_of(held):
            problems.append(
                Problem(path, f"`{name}` needs the environment variable {variable}, which {fault}", _set_hint(variable))
            )
        elif held is not None and looks_secret(held):
            problems.append(
                Problem(
                    path,
                    f"`{name}` takes {variable}, which holds what looks like a secret",
                    "remove it: batchctl passes credentials to the provider itself, and a job's keys are stored",
                )
            )
        return held or ""

    node: Any = table
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = _VARIABLE.sub(replace, value)


def _fault_of(held: str | None) -> str:
    if held is None:
        return "is not set"
    if not held.strip():
        return "is empty"
    if re.search(r"[\x00-\x1f\x7f]", held):
        return "holds a line break or another control character"
    if held[0] in "\"'" or held[-1] in "\"'":
        return "has quotes around its value, probably pasted in"
    if held != held.strip():
        return "begins or ends with a space"
    return ""


def _set_hint(variable: str) -> str:
    return f"set it before running batchctl: `export {variable}=...`"


def _value_at(table: Any, path: KeyPath) -> Any:
    for part in path:
        if not isinstance(table, dict) or part not in table:
            return None
        table = table[part]
    return table
