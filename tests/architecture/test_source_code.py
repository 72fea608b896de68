"""Rules that a reader of the code relies on, checked on the text itself."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "batchctl").rglob("*.py"))
WRITERS = [
    ROOT / "batchctl/ledger" / name
    for name in (
        "transitions.py",
        "decisions.py",
        "publications.py",
        "chosen.py",
        "live_calls.py",
        "purges.py",
        "canary.py",
        "holdings.py",
    )
]
SPEND = ("create", "call")


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def calls(path: Path) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert docstring, f"{names(path)} has no docstring"
    assert docstring.split("\n")[0].endswith((".", ":", "!", "?", ";", ",")) or "\n" in docstring


def test_lines_end_at_lf_and_nowhere_else() -> None:
    """`splitlines` also breaks at U+2028, NEL and form feed, which occur inside JSON strings."""
    found = [
        f"{names(path)}:{call.lineno}"
        for path in MODULES
        for call in calls(path)
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("splitlines", "iter_lines", "aiter_lines")
    ]
    assert not found


def test_nothing_that_promises_section_4_forbids() -> None:
    """No `eval`, `exec`, `pickle`, shell, unsafe YAML, or switched-off TLS verification."""
    forbidden_calls = {"eval", "exec", "compile", "__import__"}
    forbidden_words = ("shell=True", "verify=False", "yaml.load(", "import pickle", "os.system(")
    for path in MODULES:
        text = path.read_text("utf-8")
        assert not [word for word in forbidden_words if word in text], names(path)
        used = {call.func.id for call in calls(path) if isinstance(call.func, ast.Name)}
        assert not used & forbidden_calls, names(path)


def test_states_are_written_in_one_module() -> None:
    """Only the writers change a table of the ledger; `store`, `journal` and `rebuild` make, mirror or rebuild all of it."""
    schema = (ROOT / "batchctl/ledger/schema.sql").read_text("utf-8")
    tables = "|".join(re.findall(r"CREATE TABLE (\w+)", schema))
    write = re.compile(rf'(INSERT( OR \w+)? INTO|UPDATE|DELETE FROM) "?({tables})\b')
    for path in MODULES:
        if path.is_relative_to(ROOT / "batchctl" / "emulator") or path in WRITERS:  # its books are its own
            continue
        found = write.search(path.read_text("utf-8"))
        assert found is None or path.name in ("store.py", "journal.py", "rebuild.py"), f"{names(path)}: {found}"


def test_only_the_renderer_prints() -> None:
    for path in MODULES:
        if path.is_relative_to(ROOT / "batchctl" / "cli"):
            continue
        used = {call.func.id for call in calls(path) if isinstance(call.func, ast.Name)}
        assert "print" not in used, names(path)
        assert "sys.stdout.write" not in path.read_text("utf-8"), names(path)


def test_the_sdk_repeats_nothing() -> None:
    """An SDK's own retry of a lost create is a second bill."""
    for path in (ROOT / "batchctl" / "providers").glob("*.py"):
        for call in calls(path):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            if name in ("OpenAI", "AsyncOpenAI", "AzureOpenAI", "Anthropic", "AnthropicBedrock"):
                retries = [one.value for one in call.keywords if one.arg == "max_retries"]
                assert [ast.literal_eval(one) for one in retries] == [0], f"{names(path)}:{call.lineno}"


def test_commands_decide_nothing() -> None:
    """A command module knows options and workflow functions, and neither ledger nor provider."""
    for path in (ROOT / "batchctl" / "cli").rglob("*.py"):
        text = path.read_text("utf-8")
        for room in ("ledger", "providers", "tables", "judging", "chunks"):
            assert f"batchctl.{room}" not in text, f"{names(path)} knows {room}"


def test_layers_hold() -> None:
    """The contracts in pyproject.toml, by import-linter."""
    made = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "0 broken" in made.stdout
