"""`python -m tests.crash [--mode kill] [--only 137:after] [--jobs 2]`: every system call of a run, struck once each way.

A job of three chunks runs against the emulator in a process of its own. Each call that changes a file or speaks to the
provider is struck in turn, the same command carries on, and the provider's books say what became of the rows. Every
failure is printed with the line that repeats it. Needs a C compiler.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.crash.matrix import KINDS, MODES, Bench, Outcome, shim, work
from tests.support.spread import spread

BEYOND = 60
"""Calls tried beyond those of the counted run: a struck run may poll more often."""
TOLD_EVERY = 100


def strikes(mode: str, calls: int, first: int, stride: int) -> list[tuple[int, str]]:
    return [(number, how) for number in range(first, calls + BEYOND + 1, stride) for how in MODES[mode]]


def told(kind: str, mode: str, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Every outcome; a harm is printed as it comes, with the line that repeats it: a long run may be ended early."""
    for count, one in enumerate(outcomes, 1):
        if one.harms:
            print(f"python -m tests.crash --job {kind} --mode {mode} --only {one.number}:{one.how}   # {one.call}")
            for harm in one.harms:
                print(f"    {harm[:1500]}")
        if one.harms or count % TOLD_EVERY == 0:
            print(f"{mode}: {count} strikes so far", flush=True)
        yield one


def report(mode: str, calls: list[str], outcomes: list[Outcome], seconds: float) -> int:
    struck = [one for one in outcomes if one.struck]
    failed = [one for one in outcomes if one.harms]
    kinds = Counter(one.split()[1] for one in calls)
    print(f"{mode}: {len(calls)} calls ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())})")
    counted = Counter(harm.partition(":")[0] for one in failed for harm in one.harms)
    print(f"{mode}: {len(struck)} strikes in {seconds:.0f} s, {len(failed)} with harm {dict(counted) or ''}")
    unsaid = [one for one in struck if one.first is not None and one.first.code == 0]
    if unsaid and mode not in ("kill", "powercut", "torn", "short", "clock"):
        print(f"{mode}: {len(unsaid)} errors did not stop the run: {Counter(one.call.split()[1] for one in unsaid)}")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--mode", choices=[*MODES, "all"], default="kill")
    parser.add_argument("--job", choices=KINDS, default=KINDS[0], help="what the struck run does (default: batch)")
    parser.add_argument("--only", metavar="N:HOW", action="append", help="strike this call only; may be repeated")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="strike from the N-th call on")
    parser.add_argument("--stride", type=int, default=1, help="strike every N-th call")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="print the calls of a run and strike none")
    asked = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="batchctl-crash-"))
    preload = shim(scratch)
    if preload is None:
        print("no C compiler: the calls cannot be struck", file=sys.stderr)
        return 2
    first = Bench(scratch / "count", preload, asked.job)
    calls = first.calls()
    first.close()
    if asked.list:
        print("\n".join(calls))
        return 0
    code = 0
    for mode in MODES if asked.mode == "all" else [asked.mode]:
        begun = time.monotonic()
        wanted = [(int(one.partition(":")[0]), one.partition(":")[2]) for one in asked.only or ()]
        tasks = wanted or strikes(mode, len(calls), asked.first, asked.stride)
        done = list(told(asked.job, mode, spread(work, tasks, asked.jobs, scratch, preload, asked.job)))
        code |= report(mode, calls, sorted(done, key=lambda one: (one.number, one.how)), time.monotonic() - begun)
        sys.stdout.flush()
    if code:
        print(f"what the failed runs left: {scratch}")
    else:
        shutil.rmtree(scratch)
    return code


if __name__ == "__main__":
    sys.exit(main())
