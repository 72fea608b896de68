"""The parts of the documents that are made from the program: help texts, tables of keys, output of the sample.

A part stands between `<!-- block: NAME -->` and `<!-- /block -->`. A test compares it with what `made` gives for NAME;
with `--update-golden` (or UPDATE_GOLDEN=1) it is rewritten instead, and the diff is read as prose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from batchctl.cli.main import GROUPS, application
from batchctl.jobfile import json_schema
from batchctl.tables import parquet
from batchctl.workflow.providers import providers

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SAMPLE_README = ROOT / "samples" / "support-tickets" / "README.md"
COMMANDS = tuple(name for names in GROUPS.values() for name in names)
_BLOCK = re.compile(r"<!-- block: (?P<name>[^\n]+?) -->\n(?P<text>.*?)<!-- /block -->", re.DOTALL)
_FENCE = re.compile(r"^```(?P<kind>[a-z]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks_of(document: Path) -> dict[str, str]:
    """NAME to text, of every part of a document that is made from the program."""
    found = [(match["name"], match["text"]) for match in _BLOCK.finditer(document.read_text("utf-8"))]
    assert len(dict(found)) == len(found), f"a block appears twice in {document.name}"
    return dict(found)


def replace_block(document: Path, name: str, text: str) -> None:
    """Put `text` into the part called NAME."""
    whole = document.read_text("utf-8")

    def put(match: re.Match[str]) -> str:
        return f"<!-- block: {name} -->\n{text}<!-- /block -->" if match["name"] == name else match[0]

    document.write_text(_BLOCK.sub(put, whole), "utf-8")


def fences_of(document: Path, kind: str) -> list[str]:
    """The contents of the fenced blocks of one kind, in order."""
    return [match["text"] for match in _FENCE.finditer(document.read_text("utf-8")) if match["kind"] == kind]


def compare(document: Path, name: str, text: str, *, update: bool) -> None:
    """The part called NAME says `text`; with `update`, it does from now on."""
    if update:
        replace_block(document, name, text)
    shown = blocks_of(document)[name]
    assert shown == text, f"{document.name}, block `{name}`: run pytest tests/docs --update-golden and read the diff"


def made(name: str) -> str:
    """The text of a block that needs no run of the sample."""
    kind, _, rest = name.partition(" ")
    makers: dict[str, Callable[[str], str]] = {
        "help": _help_block,
        "keys": lambda _: _keys(),
        "providers": lambda _: _providers(),
        "parquet": lambda _: _parquet(),
    }
    return makers[kind](rest)


# --- help -------------------------------------------------------------------------------------------------------------


@lru_cache
def help_of(*command: str) -> str:
    """What `batchctl COMMAND --help` prints on a terminal of 80 columns, which is what Typer's runner simulates."""
    result = CliRunner().invoke(application(), [*command, "--help"], prog_name="batchctl")
    assert result.exit_code == 0, result.output
    return result.output.rstrip("\n") + "\n"


def _entries(text: str) -> tuple[str, list[str]]:
    """The help before its options, and the options, each with the lines that continue it."""
    head, _, options = text.partition("Options:\n")
    return head, re.findall(r"^  -.*\n(?:    .*\n)*", options, re.MULTILINE)


def _words(entry: str) -> str:
    return " ".join(entry.split())


def _help_block(command: str) -> str:
    """`batchctl --help` whole, the options all commands share, or one command without those."""
    if not command:
        return f"```text\n{help_of()}```\n"
    _, common = _entries(help_of("providers"))
    if command == "options":
        return f"```text\n{''.join(common)}```\n"
    head, own = _entries(help_of(command))
    shared = {_words(entry) for entry in common}
    assert shared <= {_words(entry) for entry in own}, f"`{command}` lacks an option that all commands share"
    left = [entry for entry in own if _words(entry) not in shared]
    text = head + ("Options:\n" + "".join(left) if left else "")
    return f"```text\n{text.rstrip()}\n```\n"


# --- the job file -----------------------------------------------------------------------------------------------------


def _referred(node: dict[str, Any], definitions: dict[str, Any]) -> str | None:
    """The table a node stands for, if it is one: by reference, as a choice, or as items of a list."""
    for one in (node, node.get("items", {}), *node.get("anyOf", [])):
        if "$ref" in one:
            name = str(one["$ref"]).rpartition("/")[2]
            return name if definitions[name].get("type") == "object" else None
    return None


def job_keys() -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """Every key of the job file: (table header or "", key, its schema, whether it is required)."""
    schema = json_schema()
    definitions = schema["$defs"]
    tables: list[tuple[str, str]] = []
    for key, node in schema["properties"].items():
        table = _referred(node, definitions)
        if table is None:
            yield "", key, node, key in schema["required"]
        else:
            tables.append((f"[[{key}]]" if node.get("type") == "array" else f"[{key}]", table))
    while tables:
        header, table = tables.pop(0)
        about = definitions[table]
        for key, node in about["properties"].items():
            inner = _referred(node, definitions)
            yield header, key, node, key in about.get("required", [])
            if inner is not None:
                tables.insert(0, (f"[{header.strip('[]')}.{key}]", inner))


def _values(node: dict[str, Any]) -> list[str]:
    choices = [node, *node.get("anyOf", [])]
    return [str(value) for one in choices for value in one.get("enum", [])]


def _keys() -> str:
    """A table for each part of the job file."""
    lines: list[str] = []
    last = None
    for header, key, node, required in job_keys():
        about = str(node.get("description", "")).replace("|", "\\|")
        values = _values(node)
        if values and not all(value in about for value in values):
            about += " One of " + ", ".join(f"`{value}`" for value in values) + "."
        if header != last:
            title = f"`{header}`" if header else "At the top of the file"
            lines += ["", title, "", "| key | default | meaning |", "| --- | --- | --- |"]
            last = header
        default = "required" if required else _default(node)
        lines.append(f"| `{key}` | {default} | {about} |".replace("|  |", "| |"))
    return "\n".join(lines[1:]) + "\n"


def _default(node: dict[str, Any]) -> str:
    value = node.get("default")
    if value is None or value in ([], {}):
        return ""
    return f"`{json.dumps(value) if not isinstance(value, str) else value}`"


# --- providers and tables -----------------------------------------------------------------------------------------------


def _providers() -> str:
    """`batchctl providers --json` as a table."""
    rows: list[dict[str, Any]] = list(providers().facts["providers"])
    lines = [
        "| provider | requests a batch | file | results kept | key | cannot |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        own = row["provider"] == "openai-compatible"
        size = f"{row['file_bytes'] / 1e6:,.0f} MB"
        lines.append(
            f"| `{row['provider']}` | {row['requests']:,}{'*' if own else ''} | {size}{'*' if own else ''} "
            f"| {'up to the server' if own else row['retention'].removeprefix('results ')} "
            f"| {', '.join(f'`{one}`' for one in row['credentials']) or 'none'} | {'; '.join(row['cannot'])} |"
        )
    lines += [
        "",
        "| provider | endpoints, the first when the job names none | source of the limits |",
        "| --- | --- | --- |",
    ]
    for row in rows:
        endpoints = ", ".join(f"`{one}`" for one in row["endpoints"])
        lines.append(f"| `{row['provider']}` | {endpoints} | {row['source']} |")
    return "\n".join([*lines, ""])


def _parquet() -> str:
    """The table of values in the module that reads Parquet, its continued rows joined."""
    rows: list[list[str]] = []
    for line in (parquet.__doc__ or "").splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0]:
            rows.append(cells)
        else:
            rows[-1][1] += " " + cells[1]
    rows[1] = ["---" for _ in rows[1]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) + "\n"
