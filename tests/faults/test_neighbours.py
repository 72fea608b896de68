"""Lost answers at OpenAI's neighbours, through the command line: found by mark or by input, and paid once."""

from __future__ import annotations

from collections import Counter

import pytest

from batchctl.emulator import ADDRESSES
from tests.conftest import NewJob, NewProvider

AT = {
    "azure-openai": ("AZURE_OPENAI_API_KEY", "/azure/openai/v1/batches"),
    "mistral": ("MISTRAL_API_KEY", "/mistral/v1/batch/jobs"),
    "together": ("TOGETHER_API_KEY", "/together/v1/batches"),
}


@pytest.mark.parametrize("name", AT)
@pytest.mark.parametrize("do", ["drop-after", "drop-before", "500-after"])
def test_a_lost_create_is_paid_once(name: str, do: str, new_job: NewJob, new_provider: NewProvider) -> None:
    key, path = AT[name]
    vendor = new_provider(other_batches=3)
    vendor.fault(f"POST {path}", do, hide=1)
    address = f'base_url = "{vendor.url}{ADDRESSES[name]}"'
    job = new_job(vendor, model=f'provider = "{name}"\nname = "m"\n{address}', limits="chunk_rows = 3")
    job.marked = False
    job.env[key] = "sk-test-key"
    job.until_done("run", "--wait")
    assert [one["rows_billed"] for one in job.books.creates] == [3, 3]
    assert set(Counter(one["custom_id"] for one in job.books.rows).values()) == {1}
    job.check_money()
    assert job.check_balance()["completed"] == 6
    job.check_files()
