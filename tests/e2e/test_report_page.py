"""The report's page in a real browser: nothing logged, nothing fetched, nothing wider than the screen, readable by all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.browser import CHROMIUM, look

WIDTHS = ((1280, False), (390, False), (1280, True))

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def test_the_page_in_chromium(new_job: NewJob, new_provider: NewProvider, tmp_path: Path) -> None:
    rows = [{"id": f"R-{number}", "text": f"<img src=x onerror=alert({number})>"} for number in range(60)]
    job = new_job(
        new_provider(seed=3, truncated=0.2, refused=0.1, **{"500": 0.1}),
        rows=rows,
        limits="chunk_rows = 5",
        model='provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 200 }',
        sample='rows = 4\nmin_valid = "0%"',
    )
    job.run("run", "--wait", code=3)
    page = tmp_path / "report.html"
    job.run("report", "--html", str(page), "--with-text", code=0)
    assert page.stat().st_size < 200_000
    for number, (width, dark) in enumerate(WIDTHS):
        profile = tmp_path / f"browser-{number}"
        profile.mkdir()
        seen = look(page, profile, width=width, dark=dark)
        assert seen.messages == []
        assert seen.asked == [page.as_uri()]
        assert seen.violations == [], f"{width} px wide"
        assert not seen.scrolls_sideways
        assert len(seen.picture) > 10_000
