"""On the gold labels of BANKING77 with models of known accuracy, the interval holds the truth as often as it promises."""

from __future__ import annotations

import random

import pytest

from tests.compare.known import Truth, gold_labels, verdict_on
from tests.conftest import SHARED

pytestmark = pytest.mark.skipif(not (SHARED / "data/banking77").is_dir(), reason="the shared test data is not here")
SEEDS = 100


def test_the_truth_is_inside_the_interval_in_at_least_93_of_100_seeds() -> None:
    """A model's accuracy is a property of the model: each row is right with that probability, each seed is a new set."""
    gold = gold_labels(SHARED, 400)
    for accuracy in (0.75, 0.95):
        inside = difference = 0
        for seed in range(SEEDS):
            prod, small = Truth("prod", 0.9, seed), Truth("small", accuracy, seed + 1_000)
            one, other = verdict_on(gold, [prod, small])["contestants"]
            inside += other["accuracy"]["low"] <= accuracy <= other["accuracy"]["high"]
            pair = other["paired"]
            difference += pair["low"] <= accuracy - 0.9 <= pair["high"]
            assert one["paired"] is None
        assert inside >= 93, (accuracy, inside)
        assert difference >= 93, (accuracy, difference)


def test_labels_and_confusions_are_counted_as_anyone_would() -> None:
    gold = gold_labels(SHARED, 300)
    model = Truth("m", 0.8, 7, refused=0.1)
    one = verdict_on(gold, [model])["contestants"][0]
    answers = model.answers(gold)
    assert one["accuracy"]["hits"] == sum(answers[name].label == label for name, label in gold.items())
    assert one["refused"]["hits"] == sum(answer.reason == "refused" for answer in answers.values())
    assert one["schema_valid"]["hits"] == 300 - one["refused"]["hits"]
    assert sum(cell["rows"] for cell in one["confusion"]) == 300
    label = random.Random(1).choice(sorted(one["labels"]))
    mine = one["labels"][label]
    assert mine["support"] == sum(was == label for was in gold.values())
    assert mine["answered"] == sum(answer.label == label for answer in answers.values())
    assert mine["recall"]["hits"] == mine["precision"]["hits"]
