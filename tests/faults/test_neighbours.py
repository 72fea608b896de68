"""Lost answers and kills at OpenAI's neighbours, through the command line: found by mark or by input, and paid once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from batchctl.emulator import ADDRESSES
from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder

AT = {
    "azure-openai": ("AZURE_OPENAI_API_KEY", "/azure/openai/v1/batches"),
    "mistral": ("MISTRAL_API_KEY", "/mistral/v1/batch/jobs"),
    "together": ("TOGETHER_API_KEY", "/together/v1/batches"),
}


@pytest.fixture
def at(new_job: NewJob, new_provider: NewProvider) -> Callable[[str], JobFolder]:
    """Six rows in two chunks at a neighbour that others use, too."""

    def make(name: str) -> JobFolder:
        vendor = new_provider(other_batches=3)
        address = f'base_url = "{vendor.url}{ADDRESSES[name]}"'
        job = new_job(vendor, model=f'provider = "{name}"\nname = "m"\n{address}', limits="chunk_rows = 3")
        job.marked = False
        job.env[AT[name][0]] = "sk-test-key"
        return job

    return make


def finished(job: JobFolder) -> None:
    """Every row answered, and paid once."""
    assert [one["rows_billed"] for one in job.books.creates] == [3, 3]
    assert set(Counter(one["custom_id"] for one in job.books.rows).values()) == {1}
    job.check_money()
    assert job.check_balance()["completed"] == 6
    job.check_files()


@pytest.mark.parametrize("name", AT)
@pytest.mark.parametrize("do", ["drop-after", "drop-before", "500-after"])
def test_a_lost_create_is_paid_once(name: str, do: str, at: Callable[[str], JobFolder]) -> None:
    job = at(name)
    assert job.provider is not None
    job.provider.fault(f"POST {AT[name][1]}", do, hide=1)
    job.until_done("run", "--wait")
    finished(job)


@pytest.mark.slow
@pytest.mark.parametrize("name", AT)
@pytest.mark.parametrize("point", ["K4", "K5", "K6", "K7", "K10", "K11", "K10:2"])
def test_a_kill_anywhere_is_paid_once(name: str, point: str, at: Callable[[str], JobFolder]) -> None:
    job = at(name)
    job.run("prepare", code=0)
    assert job.run("submit", BATCHCTL_CRASH_AT=point).killed
    job.check_money()
    job.until_done("run", "--wait")
    finished(job)
