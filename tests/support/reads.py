"""A pytest plugin: runs only the tests that need the contract's fixtures, and writes down which of those files they open.

`test_fixtures.py` runs it in a process of its own: `pytest -p tests.support.reads`, with `FIXTURE_READS` naming the file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

MARK = "/contracts/fixtures-"
opened: set[str] = set()


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and MARK in arguments[0]:
        opened.add(arguments[0])


def needs_fixtures(item: pytest.Item) -> bool:
    return any("fixtures are not beside" in str(mark.kwargs.get("reason")) for mark in item.iter_markers("skipif"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left = [item for item in items if not needs_fixtures(item)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if needs_fixtures(item)]
    sys.addaudithook(_hear)  # what was opened to collect the tests was not judged


def pytest_sessionfinish() -> None:
    Path(os.environ["FIXTURE_READS"]).write_text("".join(f"{path}\n" for path in sorted(opened)))
