"""`python -m tests.bench.rules [--rows 100000]`: judging with twenty CEL rules over judging without, as a ratio.

Both judge the same stored answers, in one child process each, by the CPU time the kernel reports. Promised: rules leave
at least a third of the speed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.bench.__main__ import JOB, PROMPT, SCHEMA, collect, measured, write_rows

LEAST = 1 / 3
CHECKS = (
    *(f"output.label != 'refund' || output.priority >= {number}" for number in range(-5, 1)),
    *(f"size(output.summary) <= {number}" for number in (200, 400)),
    *(f"!output.summary.contains('forbidden {number}')" for number in range(6)),
    "output.note == null || size(output.note) > 0",
    "output.label in ['billing', 'bug', 'refund', 'other']",
    "output.summary.matches('^[A-Z]')",
    "output.needs_human || output.priority <= 5",
)
OF_ROWS = ("row.subject != ''", "output.label != 'bug' || row.message_id != ''")


def rules() -> str:
    """Twenty checks, two of which look at the row."""
    checks = [*CHECKS, *OF_ROWS]
    assert len(checks) == 20
    return "".join(f'\n[[rules]]\nname = "rule {number}"\ncheck = """{one}"""\n' for number, one in enumerate(checks))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rules", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    validate = [sys.executable, "-m", "batchctl", "validate", "-q", "--again"]
    with tempfile.TemporaryDirectory(prefix="batchctl-bench-") as name:
        place = Path(name)
        (place / "job.toml").write_text(JOB)
        (place / "prompt.md").write_text(PROMPT)
        (place / "schema.json").write_text(json.dumps(SCHEMA))
        write_rows(place / "rows.csv", rows)
        measured([sys.executable, "-m", "batchctl", "prepare", "-q"], place)
        collect(place, 0.01)
        plain = measured(validate, place)
        (place / "job.toml").write_text(JOB + rules())
        ruled = measured(validate, place)
    ratio = plain.cpu_seconds / ruled.cpu_seconds
    micros = [one.cpu_seconds / rows * 1e6 for one in (plain, ruled)]
    sys.stdout.write(
        f"{rows:,} rows: {micros[0]:.1f} us a row without rules, {micros[1]:.1f} with twenty: {ratio:.2f} of the speed "
        f"(at least {LEAST:.2f})\n"
    )
    raise SystemExit(0 if ratio >= LEAST else 1)


if __name__ == "__main__":
    main()
