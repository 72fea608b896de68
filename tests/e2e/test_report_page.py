"""The report's page in a real browser: nothing logged, nothing fetched, nothing wider than the screen, readable by all."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import pytest

from batchctl.chunks.names import verdicts_name
from batchctl.chunks.segments import VERDICTS, SegmentWriter
from tests.conftest import NewJob, NewProvider
from tests.support.browser import CHROMIUM, look
from tests.support.jobs import JobFolder

LOOKS = {
    "desktop": {"width": 1280},
    "phone": {"width": 390},
    "dark desktop": {"width": 1280, "dark": True},
    "dark phone": {"width": 390, "dark": True},
    "print": {"width": 680, "paper": True},
}
PICTURES = os.environ.get("BATCHCTL_TEST_PICTURES")
"""A folder in which the pictures are kept, for a person to look at."""
ROWS, EACH = 100_000, 2_500
NAMES = {
    "truncated": "invalid_output",
    "schema": "invalid_output",
    "refused": "review_required",
    "expired": "provider_error",
}

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def seen_well(page: Path, tmp_path: Path, names: tuple[str, ...] = tuple(LOOKS)) -> None:
    """What must be true of a page, however it is looked at."""
    for name in names:
        profile = tmp_path / f"browser-{name.replace(' ', '-')}"
        profile.mkdir()
        seen = look(page, profile, **LOOKS[name])  # type: ignore[arg-type]
        if PICTURES:
            (Path(PICTURES) / f"{page.stem}-{name.replace(' ', '-')}.png").write_bytes(seen.picture)
        assert seen.messages == [], name
        assert seen.asked == [page.as_uri()], name
        assert seen.violations == [], name
        assert not seen.scrolls_sideways, name
        assert len(seen.picture) > 10_000, name


@needs_browser
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
    seen_well(page, tmp_path, ("desktop", "phone"))


@pytest.fixture
def large(new_job: NewJob, new_provider: NewProvider) -> JobFolder:
    """A run whose ledger and verdicts are those of 100,000 rows: one real chunk, and forty like it with other facts."""
    job = new_job(
        new_provider(),
        rows=20,
        model='provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 200 }',
        sample='rows = 10\nmin_valid = "0%"',
        more='\n[[rules]]\nname = "share of other"\nwhere = "output.label == \'other\'"\nmax_share = "1%"\n'
        '\n[[publish]]\nto = "out/labels.csv"\n',
    )
    job.run("run", "--wait", code=(0, 5))
    dice = random.Random(7)
    results = job.directory / "results"
    columns = [name for _, name, *_ in job.sql("PRAGMA table_info(chunk)")]
    for number in range(2, 2 + ROWS // EACH):
        kept = ", ".join(name for name in columns if name not in ("number", "requests", "cost", "published"))
        job.sql(
            f"INSERT INTO chunk (number, requests, cost, {kept})"
            f" SELECT ?, ?, cost * ? * ? / 10, {kept} FROM chunk WHERE number = 1",
            *(number, EACH, EACH // 20, dice.randint(9, 12)),
        )
        counts = {name: dice.randint(0, most) for name, most in zip(NAMES, (90, 40, 12, 3), strict=True)}
        with SegmentWriter(results / verdicts_name(number, 1), VERDICTS) as out:
            reasons = [name for name, count in counts.items() for _ in range(count)]
            for reason in [*reasons, *[None] * (EACH - len(reasons))]:
                out.add("completed" if reason is None else NAMES[reason], reason, *[None] * (len(VERDICTS) - 2))
        for name, count in [*counts.items(), ("", EACH - len(reasons))]:
            job.sql(
                "INSERT INTO tally VALUES (?, ?, ?, ?, ?, 0)",
                *(job.run_id, number, NAMES.get(name, "completed"), name, count),
            )
        hours, minutes = divmod(dice.randint(60, 700), 60)
        job.sql(
            "INSERT INTO intent (id, run, chunk, send, state, staged, account, sha256, created_at, created_epoch, sent_at,"
            " ended_at, batch_id) VALUES (?, ?, ?, 1, 'accepted', '', '', '', '', 0, '2026-11-20T08:00:00Z', ?, ?)",
            *(
                f"intent-{number}",
                job.run_id,
                number,
                f"2026-11-20T{8 + hours:02d}:{minutes:02d}:11Z",
                f"batch_{number}",
            ),
        )
    report = json.loads(job.sql("SELECT report FROM dry_run")[0][0])
    for name in ("usd", "usd_low", "usd_high"):
        report["forecast"][name] = str(round(float(report["forecast"][name]) * (ROWS + 20) / 20, 6))
    job.sql("UPDATE dry_run SET report = ?", json.dumps(report))
    return job


def test_a_page_of_a_hundred_thousand_rows_is_small(large: JobFolder, tmp_path: Path) -> None:
    page = tmp_path / "large.html"
    large.run("report", "--html", str(page), code=0)
    assert page.stat().st_size < 200_000
    text = page.read_text("utf-8")
    assert f"<td class=n>{ROWS + 20:,}</td>" in text
    facts = json.loads(large.run("report", "--json", code=0).out)
    assert facts["balance"]["rows"] == ROWS + 20
    for count in facts["failures"].values():
        assert f"{count:,}" in text
    assert len(re.findall(r"<tr><th scope=\"row\">\d+</th>", text)) >= ROWS // EACH
    if CHROMIUM is not None:
        seen_well(page, tmp_path)
