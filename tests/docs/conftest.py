"""The sample is walked through once for all tests of the documents."""

from __future__ import annotations

import os

import pytest

from tests.docs.walk import Walk, walked
from tests.support.commands import Commands


@pytest.fixture(scope="session")
def update(request: pytest.FixtureRequest) -> bool:
    """Whether documents are rewritten instead of compared."""
    asked = request.config.getoption("--update-golden")
    return bool(asked) or os.environ.get("UPDATE_GOLDEN", "") not in ("", "0")


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory, commands: Commands) -> Walk:
    return walked(tmp_path_factory.mktemp("sample"), commands)
