"""Ctrl-C and SIGTERM while a batch runs: the command leaves, the batch goes on, the next command finishes the job."""

import signal

import pytest

from tests.cli.desk import PATIENCE_SECONDS, Desk
from tests.conftest import NewProvider
from tests.support.provider import Provider, until


@pytest.fixture
def provider_at_work(desk: Desk, new_provider: NewProvider) -> Provider:
    """A provider whose batches do not end by themselves, and a job that uses it."""
    provider = new_provider(latency=3600)
    desk.job(('provider = "emulator"', 'provider = "openai"'))
    desk.env |= {"OPENAI_BASE_URL": provider.base_url, "OPENAI_API_KEY": "sk-test", "BATCHCTL_YES": "1"}
    return provider


def submitted(desk: Desk) -> bool:
    """Whether the ledger knows the batch."""
    return any(name == "intent" and row[4] == "accepted" for name, row in desk.tables())


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "asked to end"), (signal.SIGHUP, 143, "asked to end")],
)
def test_leaving_while_a_batch_runs(
    desk: Desk, provider_at_work: Provider, number: signal.Signals, code: int, word: str
) -> None:
    process = desk.start("run", "--wait")
    until(lambda: submitted(desk), "the batch was never created")
    process.send_signal(number)
    left = desk.finish(process, "run", "--wait", code=code)
    assert left.err.startswith(f"{word}: the state is safe; batches keep running at the provider"), left
    assert desk.run("status", "--json", code=8).json["balance"]["submitted"] == 3
    [batch] = provider_at_work.books().creates
    assert batch["status"] in ("validating", "in_progress"), "it was not cancelled"
    provider_at_work.force(batch["id"], status="completed")
    done = desk.run("run", "--wait", "--json", code=0)
    assert done.json["balance"]["completed"] == 3
    assert len(provider_at_work.books().creates) == 1
    assert len(provider_at_work.books().rows) == 3


def test_ctrl_c_twice(desk: Desk, provider_at_work: Provider) -> None:
    """The second one leaves at once; nothing is lost by it."""
    process = desk.start("run", "--wait")
    until(lambda: submitted(desk), "the batch was never created")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode in (130, -signal.SIGINT)
    assert desk.run("status", "--json", code=8).json["balance"]["submitted"] == 3
    [batch] = provider_at_work.books().creates
    provider_at_work.force(batch["id"], status="completed")
    desk.run("run", "--wait", code=0)


def test_leaving_while_the_provider_is_silent(desk: Desk, provider_at_work: Provider) -> None:
    """A create that never answers: its outcome is unknown, the next command finds the batch and pays nothing twice."""
    provider_at_work.fault("POST /v1/batches", "hang")
    process = desk.start("run", "--wait")
    until(lambda: provider_at_work.books().creates, "the create never arrived")
    process.send_signal(signal.SIGINT)
    desk.finish(process, "run", "--wait", code=130)
    assert desk.run("status", "--json", code=11).json["balance"]["held"] == 3
    [batch] = provider_at_work.books().creates
    provider_at_work.force(batch["id"], status="completed")
    assert "adopted, nothing sent again" in desk.run("run", "--wait", code=0).err
    assert len(provider_at_work.books().creates) == 1


def test_in_json_an_interruption_says_nothing_that_is_not_json(desk: Desk, provider_at_work: Provider) -> None:
    process = desk.start("run", "--wait", "--json")
    until(lambda: submitted(desk), "the batch was never created")
    process.send_signal(signal.SIGTERM)
    left = desk.finish(process, "run", "--wait", code=143)
    assert (left.out, left.err) == ("", "")
