"""The sample does what its README and its `expected/` folder say."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from batchctl.jobfile import load
from batchctl.judging.schema import Schema
from tests.docs.blocks import ROOT, SAMPLE_README, blocks_of, compare
from tests.docs.walk import EXPECTED, Walk

SAMPLE = ROOT / "samples" / "support-tickets"
SEED_HINT = "another [emulator] seed in the sample's job.toml tells the story its README tells"


def _golden(path: Path, text: str, *, update: bool) -> None:
    if update:
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text, f"{path.name}: run pytest tests/docs --update-golden and read the diff"


@pytest.mark.parametrize("name", blocks_of(SAMPLE_README))
def test_the_readme_of_the_sample_shows_what_its_commands_print(name: str, walk: Walk, update: bool) -> None:
    compare(SAMPLE_README, name, walk.block(int(name.split()[1])), update=update)


def test_every_command_of_the_readme_is_followed_by_its_output(walk: Walk) -> None:
    assert list(blocks_of(SAMPLE_README)) == [f"sample {number}" for number in range(1, len(walk.steps) + 1)]


def test_counts_and_exit_codes_are_the_expected_ones(walk: Walk, update: bool) -> None:
    _golden(EXPECTED / "steps.json", walk.expected_steps(), update=update)


def test_the_finished_table_is_the_expected_one(walk: Walk, update: bool) -> None:
    _golden(EXPECTED / "labels.csv", (walk.folder / "labels.csv").read_text("utf-8"), update=update)


def test_the_balance_closes_after_every_command(walk: Walk) -> None:
    for step in walk.ours:
        assert step.status is not None
        counts = {state: count for state, count in step.status["balance"].items() if state not in ("rows", "copied")}
        assert step.status["balance"]["rows"] == sum(counts.values()) == 83


def test_the_story_first_failures_then_none(walk: Walk) -> None:
    first, *_, last = walk.ours
    assert first.status is not None
    assert {"invalid_json", "schema", "refused"} == set(first.status["reasons"]), "what [retry] cannot mend"
    assert max(chunk["attempt"] for chunk in first.status["chunks"]) > 1, "what it can was sent again"
    assert first.code == 3
    assert last.code == 0, SEED_HINT
    assert last.status is not None
    assert last.status["balance"]["completed"] == 83


def test_the_finished_table_has_every_ticket_once_with_its_id_as_written(walk: Walk) -> None:
    with (SAMPLE / "tickets.csv").open(encoding="utf-8", newline="") as file:
        tickets = [row["ticket_id"] for row in csv.DictReader(file)]
    with (walk.folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        labels = [row["ticket_id"] for row in csv.DictReader(file)]
    assert labels == tickets
    assert {"007", "0012", "1e5", "NA", "9007199254740993"} <= set(labels)


def test_every_answer_in_the_results_fits_the_schema(walk: Walk) -> None:
    schema = Schema.load((SAMPLE / "schema.json").read_bytes(), "schema.json")
    path = walk.folder / "samples/support-tickets/.batchctl/support-tickets-0001/results.jsonl"
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert Counter(row["state"] for row in rows) == {"completed": 83}
    assert [row["id"] for row in rows if schema.failure(row["output"]) is not None] == []
    assert sum(row["copied_from"] is not None for row in rows) == 6


def test_the_job_file_is_one_that_openai_would_take() -> None:
    job = load(SAMPLE / "job.toml", overrides=("model.provider=openai",), environ={})
    assert job.model.provider == "openai"
    assert job.prompt.system == "system.md"
