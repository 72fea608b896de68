"""Models of known accuracy: their answers are dice that know the gold label."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchctl.workflow.compare import Answer, Contestant, judge

FACTS = {
    "run": "eval-0001",
    "provider": "emulator",
    "model": "m",
    "prompt_version": "v1",
    "schema_version": "1",
    "simulated": True,
    "completed": 0,
    "usd_per_1000_completed": None,
    "p50_seconds": None,
    "p90_seconds": None,
}


def gold_labels(shared: Path, rows: int) -> dict[str, str]:
    """Questions of BANKING77 and their true categories."""
    with (shared / "data/banking77/test.csv").open(newline="") as file:
        every = list(csv.DictReader(file))
    chosen = random.Random(5).sample(every, rows)
    return {f"Q-{number}": one["category"] for number, one in enumerate(chosen)}


@dataclass(frozen=True)
class Truth:
    """A model that is right with the probability `accuracy`, whatever the row."""

    name: str
    accuracy: float
    seed: int
    refused: float = 0.0

    def answers(self, gold: Mapping[str, str]) -> dict[str, Answer]:
        dice = random.Random(self.seed)
        labels = sorted(set(gold.values()))
        found = {}
        for name, label in gold.items():
            throw = dice.random()
            if throw < self.accuracy:
                found[name] = Answer(label, "")
            elif throw < self.accuracy + self.refused:
                found[name] = Answer(None, "refused")
            else:
                found[name] = Answer(dice.choice([one for one in labels if one != label]), "")
        return found


def verdict_on(gold: Mapping[str, str], models: Sequence[Truth]) -> dict[str, Any]:
    met = [Contestant(one.name, dict(FACTS), one.answers(gold)) for one in models]
    return judge(met, gold, met[0], [])
