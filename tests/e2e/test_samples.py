"""The sample, unchanged, on every provider: only what `--set` names differs, and the same answers get the same verdicts.

The emulator is told what each ticket is answered (`says`), so every wire carries the same words; what must become of them
is written down here. Bedrock takes no batch as small as the sample: it says so, and the rows are sent live.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batchctl.emulator import ADDRESSES
from tests.conftest import ROOT
from tests.support import bedrock
from tests.support.bedrock import S3
from tests.support.commands import Commands
from tests.support.gcs import Gcs
from tests.support.jobs import KEY, JobFolder
from tests.support.provider import Provider, ProviderProcess
from tests.support.shape import check_shape

SAMPLE = ROOT / "samples" / "support-tickets"
LABELS = ("billing", "refund", "shipping", "bug", "account", "how_to", "feedback", "other")


@dataclass(frozen=True)
class Place:
    """Where the sample runs: what `--set` says, and which variable holds the key."""

    sets: Mapping[str, str]
    key: str = ""
    lane: tuple[str, ...] = ()
    refusals: bool = True
    """False: this wire has no word for a refusal, so it is text like any other."""
    bucket: str = field(default="")


PLACES = {
    "openai": Place({"name": "gpt-5-mini"}, "OPENAI_API_KEY"),
    "azure-openai": Place({"name": "my-deployment"}, "AZURE_OPENAI_API_KEY"),
    "anthropic": Place({"name": "claude-haiku-4-5"}, "ANTHROPIC_API_KEY"),
    "gemini": Place({"name": "gemini-2.5-flash"}, "GEMINI_API_KEY"),
    "vertex gcs": Place({"name": "gemini-2.5-flash"}, bucket="gcs"),
    "vertex bigquery": Place({"name": "gemini-2.5-flash", "bucket": "bq://a-project.batchctl"}),
    "bedrock": Place(
        {"name": bedrock.CLAUDE, "region": bedrock.REGION, "role_arn": bedrock.ROLE},
        lane=("--lane", "live"),
        bucket="s3",
    ),
    "mistral": Place({"name": "mistral-small-latest"}, "MISTRAL_API_KEY", refusals=False),
    "together": Place({"name": "meta-llama/Llama-3.3-70B-Instruct-Turbo"}, "TOGETHER_API_KEY", refusals=False),
    "openai-compatible": Place({"name": "some-model"}, "OPENAI_API_KEY"),
}


def answer(number: int) -> dict[str, Any]:
    """What a well-behaved model says about the ticket with this number."""
    label = LABELS[number % len(LABELS)]
    return {
        "label": label,
        "priority": number % 4 + 1,
        "needs_human": number % 3 == 0,
        "summary": f"Ticket {number}: “{label}”",
    }


BAD = {
    5: ("invalid_json", "I think this is a refund."),
    12: ("invalid_json", '{"label": "bug", "label": "other", "priority": 1, "needs_human": true, "summary": ""}'),
    19: ("schema", json.dumps(answer(19) | {"priority": 9})),
    26: ("schema", json.dumps(answer(26) | {"summary": "x" * 161})),
    33: ("schema", json.dumps(answer(33) | {"more": 1})),
    40: ("truncated", "truncated"),
    47: ("refused", "refused"),
}
"""Of some tickets: the reason their answer must get, and what the emulator does."""


def tickets() -> list[dict[str, str]]:
    with (SAMPLE / "tickets.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def told() -> dict[str, str]:
    """`says`: what is answered to a request that holds the text of a ticket, longest texts first."""
    first: dict[str, str] = {}
    for number, row in enumerate(tickets()):
        text = "\n" + row["body"].strip()  # as prompt.md has it: on a line of its own
        first.setdefault(text, BAD[number][1] if number in BAD else json.dumps(answer(number)))
    return dict(sorted(first.items(), key=lambda one: -len(one[0])))


def expected(refusals: bool) -> dict[str, tuple[Any, Any]]:
    """By ticket: output and reason. A ticket with the text of an earlier one gets that one's."""
    numbers: dict[str, int] = {}
    out: dict[str, tuple[Any, Any]] = {}
    for number, row in enumerate(tickets()):
        one = numbers.setdefault(row["body"].strip(), number)
        reason = BAD[one][0] if one in BAD else None
        out[row["ticket_id"]] = (
            None if reason else answer(one),
            "invalid_json" if reason == "refused" and not refusals else reason,
        )
    return out


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory, gcs: Gcs, s3: S3) -> Iterator[ProviderProcess]:
    """`batchctl emulator --port`, a process of its own."""
    folder = tmp_path_factory.mktemp("provider")
    started = ProviderProcess(folder, says=told(), reordered="100%", duplicated="10%", gcs=gcs.url, s3=s3.url)
    yield started
    started.stop()


def on(provider: Provider, commands: Commands, folder: Path, where: str, buckets: Mapping[str, Any]) -> JobFolder:
    """A copy of the sample, and `--set` for whoever it runs on."""
    place, name = PLACES[where], where.partition(" ")[0]
    path = folder / "support-tickets"
    shutil.copytree(SAMPLE, path, ignore=shutil.ignore_patterns(".batchctl"))
    job = JobFolder(path, commands, provider, "support-tickets")
    job.env |= bedrock.environment(provider) if name == "bedrock" else {}
    job.env |= {place.key: KEY} if place.key else {}
    job.marked = False
    sets = {"provider": name, **place.sets}
    if place.bucket:
        sets["bucket"] = buckets[place.bucket].bucket()
    if name in ("azure-openai", "mistral", "together", "openai-compatible"):
        sets["base_url"] = provider.url + ADDRESSES[name]
    job.sets = [word for key, value in sets.items() for word in ("--set", f"model.{key}={value}")]
    return job


SLOW = ("openai-compatible", "together", "vertex gcs")  # a near relation of each of them is run in CI


@pytest.mark.parametrize("where", [pytest.param(one, marks=pytest.mark.slow) if one in SLOW else one for one in PLACES])
def test_the_sample_on(
    where: str, emulator: ProviderProcess, commands: Commands, tmp_path: Path, gcs: Gcs, s3: S3
) -> None:
    place = PLACES[where]
    job = on(emulator, commands, tmp_path, where, {"gcs": gcs, "s3": s3})
    checks = job.run("providers", "check", "job.toml", "--json", *job.sets, code=0).json["checks"]
    assert not [one for one in checks if one["ok"] is False]
    before = len(emulator.books().rows)
    if place.lane:
        small = job.run("run", "job.toml", *job.sets, code=2)
        assert "--lane live" in small.err
    done = job.run("run", "job.toml", "--wait", *job.sets, *place.lane, code=3)
    assert "Balance  83 = " in done.err
    balance = job.check_balance()
    assert balance["rows"] == 83
    job.check_files()
    results = check_shape(job.directory / "results.jsonl")
    assert {
        one["id"]: (one["output"] if one["reason"] is None else None, one["reason"]) for one in results
    } == expected(place.refusals)
    assert {one["state"] for one in results if one["reason"] is None} == {"completed"}
    assert {one["provider"] for one in results} == {where.partition(" ")[0]}
    assert all(one["model"].startswith(place.sets["name"]) for one in results), "a snapshot of it, where there are any"
    billed = Counter((one["batch_id"], one["custom_id"]) for one in emulator.books().rows[before:])
    assert not place.lane or not billed
    assert set(billed.values()) <= {1}
