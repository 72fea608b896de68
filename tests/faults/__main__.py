"""`python -m tests.faults [--scripts 1000] [--seed 1] [--jobs 2]`: random fault scripts, judged by the provider's books.

Seed N is script N: a failure is repeated with `--scripts 1 --seed N`, which prints the script and every command.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.scripts import Course, played, work
from tests.support.commands import Commands
from tests.support.spread import spread


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--scripts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    begun = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="batchctl-faults-"))
    done: dict[int, Course] = {}
    if asked.scripts == 1:
        commands = Commands(scratch)
        done[asked.seed] = played(scratch, commands, asked.seed, show=True)
        commands.close()
        print("\n".join(done[asked.seed].harms) or "no harm")
    else:
        for seed, course in spread(work, range(asked.seed, asked.seed + asked.scripts), asked.jobs, scratch):
            done[seed] = course
            if course.harms:
                print(f"python -m tests.faults --scripts 1 --seed {seed}   # {course.harms[0][:600]}", flush=True)
    states: Counter[str] = Counter()
    for one in done.values():
        states.update(one.states)
    failed = sorted(seed for seed, one in done.items() if one.harms)
    print(
        f"{len(done)} scripts in {time.monotonic() - begun:.0f} s: {sum(one.commands for one in done.values())} commands, "
        f"{sum(one.kills for one in done.values())} kills; rows: {dict(states)}; {len(failed)} with harm {failed}"
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return 1 if failed or len(done) != asked.scripts else 0


if __name__ == "__main__":
    sys.exit(main())
