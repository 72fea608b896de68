"""`python -m tests.bench.forecast [--rows 10000] [--sample 50] [--seeds 100]`: is the dry run's forecast honest?

One run of BANKING77 questions is paid for in full at the emulator, whose money meter is the truth; then the same run is
forecast from samples of different seeds. Counted: how often the interval holds the truth, and how often the midpoint is
within 10 % of it.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from batchctl.emulator import read_witness
from batchctl.workflow.dry_run import dry_run
from batchctl.workflow.run import run
from batchctl.workflow.workspace import Options

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "banking77"
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["card", "transfer", "other"]},
        "reason": {"type": "string", "maxLength": 120},
    },
    "required": ["label", "reason"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Honesty:
    """Of so many forecasts: how many intervals held the billed total, how many midpoints were within 10 % of it."""

    seeds: int
    covered: int
    near: int
    billed: Decimal
    widest: Decimal

    def __str__(self) -> str:
        return (
            f"{self.seeds} forecasts of ${self.billed}: interval holds it {self.covered} times, midpoint within 10 % "
            f"{self.near} times, widest interval {self.widest:.0%} of it"
        )


def questions(rows: int) -> Iterator[dict[str, str]]:
    """The first rows of the training set, then of the test set."""
    for name in ("train.csv", "test.csv"):
        with (DATA / name).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if not rows:
                    return
                rows -= 1
                yield row


def write_job(place: Path, rows: int, pick: str, faults: str) -> None:
    with (place / "rows.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, ["id", "text", "category"])
        writer.writeheader()
        for number, row in enumerate(questions(rows)):
            writer.writerow({"id": number, "text": row["text"], "category": row["category"]})
    (place / "prompt.md").write_text("Which intent is it, and why?\n\n{{ text }}")
    (place / "schema.json").write_text(json.dumps(SCHEMA))
    (place / "job.toml").write_text(
        'version = 1\nname = "forecast"\nsource = { path = "rows.csv", id = "id", on_identical_text = "send" }\n'
        'prompt = { file = "prompt.md" }\noutput = { schema = "schema.json" }\n'
        'model = { provider = "emulator", name = "gpt-5-mini", params = { max_output_tokens = 200 } }\n'
        f'sample = {{ rows = 0, pick = "{pick}", min_valid = "0%" }}\nemulator = {{ {faults} }}\n'
    )


def honesty(place: Path, *, rows: int, sample: int, seeds: int, pick: str = "random", faults: str = "") -> Honesty:
    """Pay for the run, then forecast it with seeds 1, 2, 3, ..."""
    write_job(place, rows, pick, faults)
    covered = near = 0
    widest = Decimal(0)
    with chdir(place):
        run(Options(wait=True))
        billed = Decimal(read_witness(place / ".batchctl" / "emulator")["billed"]["usd"])
        for seed in range(1, seeds + 1):
            report = dry_run(Options(target="forecast-0001", overrides=(f"sample.seed={seed}",)), rows=sample)
            found = report.facts["forecast"]
            mid, low, high = (Decimal(found[name]) for name in ("usd", "usd_low", "usd_high"))
            covered += low <= billed <= high
            near += abs(mid - billed) <= billed / 10
            widest = max(widest, (high - low) / billed)
    return Honesty(seeds, covered, near, billed, widest)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.forecast", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--pick", default="random")
    parser.add_argument("--faults", default="", help='as in [emulator], such as "truncated = 0.03, 500 = 0.02"')
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchctl-forecast-") as place:
        found = honesty(
            Path(place), rows=given.rows, sample=given.sample, seeds=given.seeds, pick=given.pick, faults=given.faults
        )
    sys.stdout.write(f"{found}\n")
    sys.exit(0 if min(found.covered, found.near) >= 0.9 * given.seeds else 1)


if __name__ == "__main__":
    main()
