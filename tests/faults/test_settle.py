"""How long a create that cannot be found is waited for: on a clock of the test's own, with the true settle time."""

from __future__ import annotations

from contextlib import chdir
from types import SimpleNamespace

import pytest

from batchctl.workflow import reconcile
from batchctl.workflow.submit import submit
from batchctl.workflow.workspace import Options
from tests.conftest import NewJob, NewProvider
from tests.faults.test_lost_answers import CREATE, finished


def test_absence_is_believed_after_a_fence_and_the_whole_settle_time_between_two_lists(
    new_job: NewJob, new_provider: NewProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = new_provider()  # of its own: a long list of batches has more pages than one
    job = new_job(provider, limits="chunk_rows = 3")
    job.run("prepare", code=0)
    job.env["BATCHCTL_SETTLE_SECONDS"] = ""
    before = len(provider.calls())
    provider.fault(CREATE, "drop-before")
    clock = SimpleNamespace(now=0.0)
    asleep: list[tuple[float, list[str]]] = []

    def sleep(seconds: float) -> None:
        calls = [f"{one['method']} {one['path'].split('/')[2]}" for one in provider.calls()[before:]]
        asleep.append((seconds, calls))
        clock.now += seconds

    monkeypatch.setattr(reconcile, "time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: 0.0))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, job.env[name])
    with chdir(job.path):
        submit(Options(environ=job.env, yes=True, sleep=sleep))
    assert sum(seconds for seconds, _ in asleep) >= reconcile.SETTLE_FENCED_SECONDS >= 120
    for _, calls in asleep:
        assert calls == ["POST files", "POST batches", "GET batches", "DELETE files", "GET batches"]
    after = [f"{one['method']} {one['path'].split('/')[2]}" for one in provider.calls()[before:]][5:]
    assert after[:3] == ["GET batches", "POST files", "POST batches"]
    job.env["BATCHCTL_SETTLE_SECONDS"] = "0.05"
    job.run("run", "--wait", code=0)
    finished(job)
