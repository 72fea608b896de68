"""What the README says is what the program does: help, keys, exit codes, examples, set-up commands, error texts."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from batchctl.emulator import CallFault, Settings
from batchctl.emulator.faults import ACTS, BEFORE
from batchctl.emulator.settings import RESULT_FAULTS
from batchctl.jobfile import from_text
from batchctl.model.errors import Exit
from batchctl.model.rows import Reason, RowState
from tests.docs.blocks import (
    COMMANDS,
    README,
    ROOT,
    SAMPLE_README,
    blocks_of,
    compare,
    fences_of,
    help_of,
    job_keys,
    made,
)
from tests.docs.walk import Walk, steady

TEXT = README.read_text("utf-8")
FROM_WALK = ("first output", "result line", "rerun line", "status json")
SET_UP = {"job": "batchctl run samples/support-tickets/job.toml --wait", "tests": ".venv/bin/python -m pytest"}


def section(title: str) -> str:
    """The text of a `##` section."""
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None, f"no section `{title}`"
    return match[1]


def first_cells(text: str, heading: str) -> list[str]:
    """The first column of the table whose first header cell is `heading`."""
    match = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[ |:-]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert match is not None, f"no table with `{heading}`"
    return [line.split("|")[1].strip() for line in match[1].splitlines()]


def names_in(cells: list[str]) -> list[str]:
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def set_up_command(name: str) -> str:
    match = re.search(rf"^<!-- set-up: {name} -->\n```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


# --- made from the program --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in blocks_of(README) if name not in FROM_WALK])
def test_a_block_is_what_the_program_says(name: str, update: bool) -> None:
    compare(README, name, made(name), update=update)


@pytest.mark.parametrize("name", FROM_WALK)
def test_a_block_shows_what_the_sample_gives(name: str, walk: Walk, update: bool) -> None:
    def pretty(value: dict[str, Any]) -> str:
        return f"```json\n{steady(json.dumps(value, indent=2, ensure_ascii=False))}\n```\n"

    first = walk.steps[0]
    assert first.status is not None
    texts = {
        "first output": f"```text\n{first.shown.partition('$ echo')[0]}```\n",
        "result line": pretty(walk.first_result),
        "rerun line": pretty(walk.first_rerun),
        "status json": pretty(first.status),
    }
    compare(README, name, texts[name], update=update)


def test_the_help_of_every_command_is_there() -> None:
    assert {f"help {command}" for command in COMMANDS} < set(blocks_of(README))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_opens_with_two_examples(command: str) -> None:
    examples = [line for line in help_of(command).splitlines() if line.startswith("    ") and "batchctl " in line]
    assert len(examples) == 2


# --- the top ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SET_UP)
def test_a_set_up_command_is_one_line_that_makes_its_environment(name: str) -> None:
    command = set_up_command(name)
    assert command.count("\n") == 1
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert SET_UP[name] in command
    subprocess.run(["bash", "-n", "-c", command], check=True)


def test_the_set_up_commands_come_first_after_one_sentence() -> None:
    before, *_ = TEXT.partition("<!-- set-up: job -->")
    title, sentence, *_ = before.strip().split("\n\n")
    assert title == "# batchctl"
    assert sentence.count(". ") == 0
    assert TEXT.index("<!-- set-up: job -->") < TEXT.index("<!-- set-up: tests -->") < TEXT.index("\n## ")


def test_the_sections_come_in_their_order() -> None:
    titles = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert titles == [
        "Contents",
        "Install",
        "Your first real job",
        "Commands",
        "Job file",
        "Providers",
        "Lanes",
        "What is guaranteed, and how",
        "Files on disk",
        "Row states and reasons",
        "Exit codes",
        "`--json`",
        "Cron and CI",
        "The emulator",
        "Costs",
        "Troubleshooting",
        "Values from Parquet",
        "Limits of this version",
    ]


def test_every_link_leads_somewhere() -> None:
    def anchor(title: str) -> str:
        return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")

    anchors = {anchor(title) for title in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in anchors
        else:
            assert (ROOT / target).exists()


# --- tables -------------------------------------------------------------------------------------------------------------


def test_every_exit_code_is_listed() -> None:
    assert [int(cell) for cell in first_cells(section("Exit codes"), "code")] == [int(code) for code in Exit]


def test_every_state_and_reason_is_listed() -> None:
    text = section("Row states and reasons")
    assert names_in(first_cells(text, "state")) == [str(state) for state in RowState]
    assert names_in(first_cells(text, "reason")) == [str(reason) for reason in Reason]


def test_the_balance_names_every_state() -> None:
    line = next(line for line in TEXT.splitlines() if line.startswith("`rows` = "))
    assert names_in([line]) == ["rows", *map(str, RowState)]


def test_the_job_files_keys_are_those_of_its_json_schema() -> None:
    """In the table, and nowhere else: a key in a sentence is one of them."""
    keys = {f"{header.strip('[]')}.{key}".lstrip(".") for header, key, _, _ in job_keys()}
    table, listed = "", set()
    for line in blocks_of(README)["keys"].splitlines():
        if header := re.fullmatch(r"`\[+([a-z_.]+)\]+`", line):
            table = header[1] + "."
        elif cell := re.match(r"\| `(?:\[+([a-z_.]+)\]+ )?([a-z_]+)` \|", line):
            listed.add((cell[1] + "." if cell[1] else table) + cell[2])
    assert listed == keys
    for table, key in re.findall(r"`\[([a-z_.]+)\] ([a-z_]+)`", TEXT):
        assert f"{table}.{key}" in keys


def test_the_emulators_keys_are_those_it_takes() -> None:
    text = section("The emulator")
    fields = {field.name.removeprefix("error") for field in dataclasses.fields(Settings)}
    assert set(names_in(first_cells(text, "key"))) == fields
    calls = text[text.index("[[emulator.calls]]") :]
    assert set(names_in(first_cells(calls, "key"))) == {field.name for field in dataclasses.fields(CallFault)}
    words = set(names_in([calls[calls.index("`do` is one of") :]]))
    assert words >= ACTS | BEFORE
    for word in words - ACTS - BEFORE - {"do", "GET /emulator/billed"}:
        CallFault.from_mapping({"on": "POST /v1/batches", "do": word}, "README.md")
    assert set(names_in([next(line for line in text.splitlines() if line.startswith("| `results`"))])) == {
        "results",
        *RESULT_FAULTS,
    }


def test_every_error_text_can_be_met() -> None:
    """Each piece of a message under Troubleshooting is in the program."""
    program = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "batchctl").rglob("*.py")))
    joined = re.sub(r'"\s*\n\s*f?"', "", program)
    for message in names_in(first_cells(section("Troubleshooting"), "message")):
        for piece in message.split("…"):
            assert piece.strip(" `") in joined, f"no message says `{piece.strip()}`"


# --- examples -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", [README, SAMPLE_README], ids=["README", "sample"])
def test_json_and_toml_examples_are_valid(document: Path) -> None:
    for text in fences_of(document, "json"):
        json.loads(text)
    for text in fences_of(document, "toml"):
        if text.startswith("version = 1"):
            from_text(text, where=document.name, environ={}, base=ROOT)
        else:
            smallest = 'version = 1\nname = "x"\nsource.path = "a.csv"\nprompt.file = "p"\n'
            smallest += 'model = { provider = "emulator", name = "m" }\n'
            job = from_text(smallest + text, where=document.name, environ={}, base=ROOT)
            Settings.from_mapping(dict(job.emulator))


def _commands_shown() -> set[tuple[str, ...]]:
    """Every `batchctl ...` in a code block or between backticks."""
    spans = [*fences_of(README, "sh"), *fences_of(README, "text"), *re.findall(r"`(batchctl [^`\n]+)`", TEXT)]
    found = set()
    for span in spans:
        for call in re.findall(r"(?:^|[ /(])batchctl ((?:'[^'\n]*'|[^\n|;&>#'])+)", span):
            words = tuple(shlex.split(re.sub(r"\s\(.*", "", call)))
            if words:
                found.add(words)
    return found


def test_commands_shown_take_the_options_they_are_shown_with() -> None:
    seen = 0
    for words in _commands_shown():
        command = words[0]
        if command not in COMMANDS:
            continue
        seen += 1
        for option in words[1:]:
            if option.startswith("--"):
                assert option.partition("=")[0] in help_of(command), f"batchctl {' '.join(words)}"
    assert seen > 20


def test_options_named_in_sentences_exist() -> None:
    helps = "\n".join(help_of(command) for command in COMMANDS) + help_of()
    for option in re.findall(r"`(--[a-z-]+)", TEXT):
        assert option in helps


def test_nothing_of_this_machine_is_in_the_documents() -> None:
    for document in (README, SAMPLE_README, ROOT / "CHANGELOG.md"):
        text = document.read_text("utf-8")
        assert re.findall(r"(?:/home/|/root|/tmp|/work|/Users/)\S*", text) == []
        assert re.findall(r"sk-[A-Za-z0-9]{8,}", text) == []
