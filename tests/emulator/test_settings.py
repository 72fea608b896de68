"""Settings as people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchctl.emulator import Settings
from batchctl.model.errors import UsageError


def test_shares_and_times_have_several_spellings() -> None:
    settings = Settings.from_mapping(
        {
            "latency": "5m",
            "speed": 60,
            "invalid": "3%",
            "500": 0.1,
            "reordered": True,
            "window": "24h",
            "refused": "0.5",
        }
    )
    assert settings.takes_seconds == 5
    assert (settings.invalid, settings.error500, settings.reordered, settings.refused) == (0.03, 0.1, 1.0, 0.5)


@pytest.mark.parametrize(
    ("mapping", "word"),
    [
        ({"latencey": 1}, "`latency`"),
        ({"invalid": 3}, "invalid"),
        ({"invalid": "many"}, "invalid"),
        ({"latency": "soon"}, "latency"),
        ({"speed": 0}, "speed"),
        ({"seed": "x"}, "seed"),
        ({"expired": 0.6, "missing": 0.6}, "add up"),
        ({"results": ["strangr"]}, "`stranger`"),
        ({"calls": [{"on": "POST /v1/batches", "do": "drop-aftr"}]}, "`drop-after`"),
        ({"calls": [{"on": "/v1/batches", "do": "429"}]}, "POST /v1/batches"),
        ({"calls": [{"on": "POST /v1/batches", "do": "429", "nht": 2}]}, "`nth`"),
        ({"calls": {}}, "calls"),
    ],
)
def test_mistakes_are_named(mapping: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.from_mapping(mapping)
    assert word in f"{caught.value.what} {caught.value.hint}"
    assert caught.value.where[0].startswith("job.toml [emulator]")


def test_a_file_may_be_toml_or_json(tmp_path: Path) -> None:
    toml = tmp_path / "faults.toml"
    toml.write_text('latency = "2s"\n500 = "3%"\n[[calls]]\non = "POST /v1/batches"\ndo = 429\nnth = "every"\n')
    json = tmp_path / "faults.json"
    json.write_text('{"latency": 2, "500": 0.03, "calls": [{"on": "POST /v1/batches", "do": "429", "nth": "every"}]}')
    assert Settings.from_file(toml) == Settings.from_file(json)
    toml.write_text("latency = ")
    with pytest.raises(UsageError):
        Settings.from_file(toml)
    with pytest.raises(UsageError):
        Settings.from_file(tmp_path / "none.toml")


def test_a_batch_remembers_its_settings() -> None:
    settings = Settings.from_mapping({"invalid": 0.1, "results": ["crlf"], "models": ["m"]})
    assert Settings.restored(settings.stored()) == settings
