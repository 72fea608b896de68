"""`route`: the verdict of every kind of work, and what it asks when the list does not say enough."""

from __future__ import annotations

import csv
import json
from contextlib import chdir
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batchctl.model.errors import Exit, UsageError
from batchctl.workflow.route import Task, advise, route
from batchctl.workflow.workspace import Options

TODAY = date(2026, 11, 21)

VERDICTS: dict[str, tuple[str, dict[str, str]]] = {
    "chat replies": ("live", {"waiting": "yes", "per_month": "90000", "delay": "2s"}),
    "search help": ("live", {"waiting": "yes"}),
    "form checks": ("live", {"waiting": "yes", "delay": "1s"}),
    "moderation before publishing": ("live", {"waiting": "yes", "delay": "5s"}),
    "fraud hold": ("live", {"waiting": "no", "delay": "10m"}),
    "nightly summaries": ("batch", {"waiting": "no", "delay": "overnight"}),
    "tagging": ("batch", {"waiting": "no", "delay": "1d"}),
    "backfill": ("batch", {"waiting": "no", "per_month": "2m"}),
    "evaluations": ("batch", {"delay": "12h"}),
    "embeddings": ("batch", {"waiting": "no", "delay": "3d"}),
    "compliance queue": ("batch", {"waiting": "no", "delay": "24h"}),
    "one research brief": ("background", {"long": "yes", "per_month": "1"}),
    "one large document": ("background", {"long": "yes", "waiting": "yes"}),
    "yearly filing": ("background", {"per_month": "1", "input_tokens": "400k"}),
    "every contract in the archive": ("batch", {"long": "yes", "waiting": "no", "per_month": "5000"}),
    "support tool": ("both", {"waiting": "sometimes"}),
    "lead scoring": ("unsure", {"waiting": "no", "delay": "3h"}),
    "something": ("unsure", {}),
}


def listed(tmp_path: Path, rows: list[dict[str, str]], name: str = "tasks.csv") -> Options:
    path = tmp_path / name
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".toml":
        path.write_text(
            "".join("[[tasks]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in r.items()) for r in rows)
        )
    else:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="") as out:
            writer = csv.DictWriter(out, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
    return Options(target=str(path))


def tasks(options: Options) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = route(options, today=TODAY).facts["tasks"]
    return found


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "toml"])
def test_every_kind_of_work_gets_its_lane(suffix: str, tmp_path: Path) -> None:
    rows = [{"task": name, **facts} for name, (_, facts) in VERDICTS.items()]
    found = tasks(listed(tmp_path, rows, f"tasks.{suffix}"))
    assert {one["task"]: one["lane"] for one in found} == {name: lane for name, (lane, _) in VERDICTS.items()}
    for one in found:
        assert one["reason"]
        assert one["review_at"] == ("2026-12-21" if one["lane"] == "unsure" else "2027-02-19")
        assert (one["question"] or "").endswith("?") or one["lane"] != "unsure"


def test_unsure_asks_what_would_decide() -> None:
    assert advise(Task("x")).question == "Is a person waiting for the answer?"
    assert advise(Task("x", delay_seconds=7200)).question == "Does it matter if it takes 24 hours?"


def test_a_month_in_each_lane_is_exact_or_unknown(tmp_path: Path) -> None:
    facts = {"waiting": "no", "delay": "1d", "per_month": "10,000", "input_tokens": "400", "output_tokens": "60"}
    rows = [
        {"task": "priced", **facts, "model": "gpt-5-mini", "provider": "openai"},
        {"task": "no provider", **facts, "model": "gpt-5-mini"},
        {"task": "no batch price", **facts, "model": "gpt-3.5-turbo-instruct", "provider": "openai"},
    ]
    priced, unnamed, unpublished = tasks(listed(tmp_path, rows))
    assert Decimal(priced["usd_per_month"]["batch"]) == Decimal("10000") * (400 * Decimal("0.125") + 60) / 10**6
    assert Decimal(priced["usd_per_month"]["live"]) == 2 * Decimal(priced["usd_per_month"]["batch"])
    assert unnamed["usd_per_month"] == {"live": None, "batch": None}
    assert "provider" in unnamed["question"]
    assert unpublished["usd_per_month"]["batch"] is None


def test_the_same_work_twice_and_in_two_lanes_is_flagged(tmp_path: Path) -> None:
    rows = [
        {"task": "tag tickets", "waiting": "no", "delay": "1d", "lane": "batch", "input": "tickets"},
        {"task": "ticket tagging (nightly)", "waiting": "no", "delay": "1d", "lane": "batch", "input": "Tickets"},
        {"task": "translate tickets", "waiting": "yes", "lane": "live", "input": "tickets"},
        {"task": "score calls", "waiting": "no", "delay": "1d", "lane": "live", "input": "calls"},
        {"task": "calls scored", "waiting": "no", "delay": "1d", "lane": "batch", "input": "calls"},
    ]
    flags = {one["task"]: one["flags"] for one in tasks(listed(tmp_path, rows))}
    assert flags["tag tickets"] == ["duplicate of ticket tagging (nightly)"]
    assert flags["ticket tagging (nightly)"] == ["duplicate of tag tickets"]
    assert flags["translate tickets"] == []
    assert flags["score calls"] == ["other lane today", "in two lanes: also calls scored"]
    assert flags["calls scored"] == ["in two lanes: also score calls"]


def test_check_fails_only_for_a_task_in_another_lane(tmp_path: Path) -> None:
    wrong = listed(tmp_path, [{"task": "chat", "waiting": "yes", "lane": "batch"}], "wrong.csv")
    right = listed(tmp_path, [{"task": "chat", "waiting": "yes", "lane": "live"}], "right.csv")
    assert route(wrong, today=TODAY).exit is Exit.OK
    assert route(wrong, check=True, today=TODAY).exit is Exit.GATE
    assert route(right, check=True, today=TODAY).exit is Exit.OK


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"task": "x", "speed": "1"}, "no column `speed`"),
        ({"task": " ", "waiting": "yes"}, "has no name"),
        ({"task": "x", "waiting": "maybe"}, "`waiting` is 'maybe'"),
        ({"task": "x", "delay": "soon"}, "`delay` is 'soon'"),
        ({"task": "x", "per_month": "-3"}, "`per_month` is '-3'"),
        ({"task": "x", "long": "rather"}, "`long` is 'rather'"),
        ({"task": "x", "lane": "fast"}, "`lane` is 'fast'"),
    ],
)
def test_what_cannot_be_understood_is_named(row: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        tasks(listed(tmp_path, [row], "tasks.jsonl"))
    assert caught.value.where[0].endswith("task 1")


def test_a_job_without_a_run_is_told_how_to_learn_its_cost(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        'version = 1\nname = "x"\nsource = { path = "r.csv" }\nprompt = { file = "p.md" }\n'
        'model = { provider = "openai", name = "gpt-5-mini" }\n'
    )
    with chdir(tmp_path):
        (one,) = tasks(Options(target="job.toml"))
    assert (one["lane"], one["usd_per_run"]) == ("batch", {"live": None, "batch": None})
    assert "dry-run" in one["question"]
