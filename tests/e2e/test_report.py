"""`report`: figures against the provider's books, and a page that stands alone."""

from __future__ import annotations

import re
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from batchctl.report_html import page
from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder

MODEL = 'provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 200 }'
EVIL = "</td></table><script>alert(1)</script><img src=x onerror=alert(2)>"
OUTSIDE = re.compile(
    r"(?i)\b(?:src|href|action|xlink:href|srcset)\s*=|url\(|@import|<script|<link|<iframe|https?://|javascript:"
)


class Page(HTMLParser):
    """Tags and text of a page; fails on a tag that is not closed in order."""

    VOID = ("meta", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def job(new_job: NewJob, new_provider: NewProvider) -> JobFolder:
    """Thirty rows in three chunks, a quarter of them failed, one attempt more for the provider's errors."""
    rows = [{"id": f"R-{number}", "text": f"{EVIL} {number}"} for number in range(30)]
    job = new_job(
        new_provider(seed=3, truncated=0.2, **{"500": 0.1}),
        rows=rows,
        limits="chunk_rows = 10",
        model=MODEL,
        sample='rows = 6\nmin_valid = "0%"',
    )
    job.run("run", "--wait", code=3)
    job.run("rerun", "--wait", code=3)
    return job


def test_figures_are_those_of_the_books_and_the_text_leads_with_a_completed_row(job: JobFolder) -> None:
    facts = job.run("report", "--json", code=0).json
    total = job.books.usd + job.books.live_usd
    done = facts["balance"]["completed"]
    assert Decimal(facts["cost"]["usd_at_most"]) >= total
    spent = {one["for"]: Decimal(one["usd"]) for one in facts["spend"]}
    assert spent["first attempts"] + spent["reruns"] == job.books.usd
    assert spent["reruns"] > 0
    assert Decimal(facts["usd_per_completed"]) == pytest.approx(sum(spent.values()) / done)
    first, second = facts["attempts"]
    assert (first["requests"], second["attempt"]) == (30, 2)
    assert second["requests"] == first["failures"]["provider"]
    assert sum(one["failed"] for one in facts["chunks"] if one["attempt"] == 1) == sum(first["failures"].values())
    assert len(facts["turnaround"]["batches"]) == 4
    assert Decimal(facts["forecast"]["usd_fact"]) == spent["first attempts"]
    low, high = (Decimal(facts["forecast"][name]) for name in ("usd_low", "usd_high"))
    assert facts["forecast"]["inside"] == (low <= spent["first attempts"] <= high)
    done = job.run("report", code=0)
    assert re.match(r"job-[0-9a-f]{8}-1-0001   \$0\.\d+ per completed row", done.out)
    assert EVIL not in done.out
    assert job.run("report", code=0).out == done.out


def test_the_page_stands_alone_stays_small_and_has_row_text_only_when_asked(job: JobFolder) -> None:
    job.run("report", "--html", "report.html", code=0)
    text = (job.path / "report.html").read_text("utf-8")
    assert not OUTSIDE.search(text), OUTSIDE.search(text)
    assert "onerror" not in text
    read = Page(text)
    assert read.tags.count("svg") >= 4
    assert read.tags.count("h1") == 1
    facts = job.run("report", "--json", code=0).json
    for count in facts["failures"].values():
        assert f"{count:,}" in read.words
    job.run("report", "--html", "report.html", "--with-text", code=0)
    text = (job.path / "report.html").read_text("utf-8")
    assert "<script" not in text
    assert "<img" not in text
    assert EVIL in Page(text).words
    assert oct((job.path / "report.html").stat().st_mode & 0o777) == "0o600"
    done = job.run("report", "--html", "nowhere/report.html", code=2)
    assert "there is no directory" in done.err
    # a hundred thousand rows in thousands of chunks
    chunk = facts["chunks"][0]
    facts["chunks"] = [{**chunk, "chunk": number} for number in range(2_000)]
    facts["turnaround"]["batches"] = [{"chunk": number, "requests": 50, "seconds": 9} for number in range(2_000)]
    text = page(facts, str, str)
    assert len(text.encode()) < 200_000
    Page(text)


def test_before_anything_was_sent_nothing_is_claimed(
    new_job: NewJob, new_provider: NewProvider, tmp_path: Path
) -> None:
    job = new_job(new_provider())
    job.run("prepare", code=0)
    done = job.run("report", "--html", "report.html", code=0)
    assert "no row is completed yet" in done.out
    Page((job.path / "report.html").read_text("utf-8"))
