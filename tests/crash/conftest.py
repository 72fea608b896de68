"""The fork server that carries the shim, once for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.matrix import Bench, shim


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    place = tmp_path_factory.mktemp("shim")
    preload = shim(place)
    if preload is None:
        pytest.skip("needs a C compiler")
    made = Bench(place / "bench", preload)
    yield made
    made.close()
