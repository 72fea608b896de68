"""A Hypothesis state machine over whole commands: any order of work, kills, edits, cancels and provider faults.

After every step the balance closes and the provider billed each row at most once per attempt, in every run of the job;
at the end the job can be carried on until nothing is under way.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.conftest import NewProvider
from tests.faults.scripts import FAULTS, KILLS, OVER, ROUTES, carried_on, decide
from tests.support.commands import Commands
from tests.support.jobs import JobFolder
from tests.support.judge import harms, has_run
from tests.support.provider import Provider, until

ROWS = [f"R-{number:03d}" for number in range(5)]
PROMPT = "Row {{ id }}: {{ text }}"
COMMANDS = ("prepare", "submit", "run", "poll", "validate", "rerun", "cancel", "resolve")
_numbers = itertools.count(1)


class Machine(RuleBasedStateMachine):
    """One job at one provider. `edited` counts the prompts it had."""

    def __init__(self, place: Path, commands: Commands, provider: Provider) -> None:
        super().__init__()
        self.provider = provider
        name = f"machine-{next(_numbers)}"
        self.job = JobFolder(place / name, commands, provider, name)

    @initialize(rows=st.integers(1, 5), hold=st.booleans())
    def write(self, rows: int, hold: bool) -> None:
        self.job.write(5, limits=f"chunk_rows = {rows}", lane='on_ambiguous = "hold"' if hold else "")

    @rule(command=st.sampled_from(COMMANDS))
    def command(self, command: str) -> None:
        self.job.run(command)

    @rule(command=st.sampled_from(("run", "poll", "rerun")))
    def waits(self, command: str) -> None:
        self.job.run(command, "--wait", "--max-wait", "5s")

    @rule(command=st.sampled_from(("prepare", "submit", "run", "poll", "rerun", "cancel")), at=st.sampled_from(KILLS))
    def crash(self, command: str, at: str) -> None:
        self.job.run(command, BATCHCTL_CRASH_AT=at)

    @rule(on=st.sampled_from(ROUTES), do=st.sampled_from(FAULTS), hide=st.integers(0, 2))
    def fault(self, on: str, do: str, hide: int) -> None:
        self.provider.fault(on, do, hide=hide, **({"seconds": 0.1} if do in ("hang", "late") else {}))

    @rule(version=st.integers(1, 3), option=st.sampled_from(("--resend-changed", "--keep-done")))
    def edit(self, version: int, option: str) -> None:
        """The prompt changes, and the job is told what that means for rows that are done."""
        (self.job.path / "prompt.md").write_text(f"{PROMPT} (version {version})")
        self.job.run("run", option)

    @rule(seed=st.integers(0, 9))
    def decide(self, seed: int) -> None:
        decide(self.job, random.Random(seed))

    @invariant()
    def nothing_is_paid_twice_and_every_row_has_one_place(self) -> None:
        runs = self.job.sql("SELECT number FROM run ORDER BY number") if has_run(self.job) else [(1,)]
        for (number,) in runs:
            self.job.number = number
            assert harms(self.job, ROWS, ended=False) == []

    def teardown(self) -> None:
        """Whatever was left undone can be carried on, and no batch that is still running adds to the bill."""
        self.provider.clear_faults()
        if has_run(self.job):
            self.job.run("run", "--keep-done")
            assert carried_on(self.job, random.Random(0)), self.job.done[-1]
        until(lambda: all(one["status"] in OVER for one in self.provider.books().creates))
        self.nothing_is_paid_twice_and_every_row_has_one_place()


def test_any_order_of_commands_kills_edits_and_faults(
    tmp_path: Path, commands: Commands, new_provider: NewProvider
) -> None:
    provider = new_provider(latency="50ms")
    few = settings(
        max_examples=4,
        stateful_step_count=8,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: Machine(tmp_path, commands, provider), settings=few)
