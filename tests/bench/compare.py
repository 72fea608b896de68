"""`python -m tests.bench.compare [--rows 3080] [--seeds 100]`: does `compare` recover what is known of a model?

One run of BANKING77 questions is made at the emulator; then, for each seed, its stored answers are replaced by those of a
model that is right with a known probability, and the whole command reads them, with the gold labels as a column of the
source. Counted: how often the interval holds that probability.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batchctl.chunks.names import rows_name, verdicts_name
from batchctl.workflow.compare import Asked, compare
from batchctl.workflow.run import run
from batchctl.workflow.workspace import Options
from tests.bench.forecast import questions

ACCURACIES = (0.75, 0.9, 0.97)


def write_job(place: Path, rows: int) -> list[str]:
    """The job; gives the labels there are."""
    labels = set()
    with (place / "rows.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, ["id", "text", "category"])
        writer.writeheader()
        for number, row in enumerate(questions(rows)):
            writer.writerow({"id": number, "text": row["text"], "category": row["category"]})
            labels.add(row["category"])
    fields = {"label": {"type": "string", "enum": sorted(labels)}}
    schema = {"type": "object", "properties": fields, "required": ["label"], "additionalProperties": False}
    (place / "prompt.md").write_text("Which intent is it?\n\n{{ text }}")
    (place / "schema.json").write_text(json.dumps(schema))
    (place / "job.toml").write_text(
        'version = 1\nname = "eval"\nsource = { path = "rows.csv", id = "id", on_identical_text = "send" }\n'
        'prompt = { file = "prompt.md" }\noutput = { schema = "schema.json" }\nsample = { rows = 0 }\n'
        'model = { provider = "emulator", name = "gpt-5-mini" }\n'
    )
    return sorted(labels)


def answer(directory: Path, labels: list[str], accuracy: float, seed: int) -> None:
    """Put the answers of a model of this accuracy into the stored verdicts of a run of one chunk."""
    dice = random.Random(seed)
    rows = pq.read_table(directory / "chunks" / rows_name(1), columns=["row"]).column(0).to_pylist()
    path = directory / "results" / verdicts_name(1, 1)
    verdicts = pq.read_table(path)
    said = []
    for row in rows:
        true = orjson.loads(row)["category"]
        right = dice.random() < accuracy
        said.append(json.dumps({"label": true if right else dice.choice([one for one in labels if one != true])}))
    place = verdicts.schema.get_field_index("output")
    pq.write_table(verdicts.set_column(place, verdicts.schema.field(place), pa.array(said, pa.string())), path)


def covered(place: Path, *, rows: int, seeds: int) -> dict[float, int]:
    """Accuracy to the number of seeds whose interval holds it."""
    labels = write_job(place, rows)
    found = dict.fromkeys(ACCURACIES, 0)
    with chdir(place):
        run(Options(wait=True))
        for accuracy in ACCURACIES:
            for seed in range(seeds):
                answer(place / ".batchctl" / "eval-0001", labels, accuracy, seed)
                one = compare(Options(), ["job.toml"], Asked(gold="category")).facts["contestants"][0]
                assert one["accuracy"]["rows"] == rows
                found[accuracy] += one["accuracy"]["low"] <= accuracy <= one["accuracy"]["high"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=3_080)
    parser.add_argument("--seeds", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchctl-compare-") as place:
        found = covered(Path(place), rows=given.rows, seeds=given.seeds)
    for accuracy, inside in found.items():
        sys.stdout.write(f"accuracy {accuracy:.0%}: the interval holds it in {inside} of {given.seeds} seeds\n")
    sys.exit(0 if min(found.values()) >= 0.93 * given.seeds else 1)


if __name__ == "__main__":
    main()
