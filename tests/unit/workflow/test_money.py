"""The most output tokens a request can have, whatever its provider calls the cap."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from batchctl.providers.params import CAPS
from batchctl.workflow.money import output_cap
from batchctl.workflow.workspace import Plan


def cap(params: dict[str, Any], endpoint: str = "/v1/responses") -> int | None:
    model = SimpleNamespace(params=params)
    return output_cap(cast("Plan", SimpleNamespace(endpoint=endpoint, job=SimpleNamespace(model=model))))


@pytest.mark.parametrize("name", CAPS)
def test_every_name_of_the_cap_bounds_the_answers(name: str) -> None:
    assert cap({name: 7}) == 7
    assert cap({name: 7, "n": 3}) == 21
    assert cap({"inferenceConfig": {name: 7}}) == 7
    assert cap({"generationConfig": {name: 7}}) == 7


def test_of_two_caps_the_larger_bounds_and_another_table_bounds_nothing() -> None:
    assert cap({"max_tokens": 7, "max_completion_tokens": 9}) == 9
    assert cap({"metadata": {"max_tokens": 7}}) is None
    assert cap({"temperature": 0}) is None
    assert cap({"max_tokens": 7}, "/v1/embeddings") == 0
