"""How much memory a chunk of 200 MB takes on its way up and down, on every provider.

    python -m tests.bench.memory [--mb 200] [PLACE ...]

A place is a provider, `vertex-gcs` or `vertex-bigquery`. `submit`, `poll` and `validate` are processes of their own; what
the kernel says they had at most (VmHWM) is held against the same commands on a chunk of a hundred rows. The answers are as
long as the requests. The emulator and the object stores are other processes or belong to this one. Exit code 1 above
150 MB up or down; what judging takes is told as well, and grows with the length of rows and answers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from batchctl.emulator import ADDRESSES
from tests.bench.__main__ import measured
from tests.support import bedrock
from tests.support.bedrock import S3
from tests.support.gcs import Gcs
from tests.support.provider import Provider, ProviderProcess

MOST_MB = 150
WAYS = ("up", "down", "judged")
IDLE_ROWS = 100  # the fewest that every provider takes
ROW_BYTES = 10_000
PLACES = {
    "openai": "gpt-5.4-mini",
    "azure-openai": "my-deployment",
    "anthropic": "claude-haiku-4-5",
    "gemini": "gemini-2.5-flash",
    "vertex-gcs": "gemini-2.5-flash",
    "vertex-bigquery": "gemini-2.5-flash",
    "bedrock": bedrock.CLAUDE,
    "mistral": "mistral-small-latest",
    "together": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
    "openai-compatible": "some-model",
}
SMALLER = {"together": 100}
"""Megabytes of a file at providers that take less than the others."""


def write_job(folder: Path, place: str, keys: dict[str, str], rows: int) -> None:
    folder.mkdir(parents=True)
    filler = "card payment declined refund order " * (ROW_BYTES // 35)
    with (folder / "rows.csv").open("w") as file:
        file.write("id,text\n")
        file.writelines(f"R-{number},{number} {filler}\n" for number in range(rows))
    (folder / "prompt.md").write_text("{{ text }}")
    model = "\n".join(f'{key} = "{value}"' for key, value in keys.items())
    (folder / "job.toml").write_text(
        f'version = 1\nname = "memory-{place}-{rows}"\nsource = {{ path = "rows.csv", id = "id" }}\n'
        'prompt = { file = "prompt.md" }\nsample = { rows = 0 }\nlimits = { chunk_bytes = "1000MB" }\n'
        f"[model]\n{model}\n"
    )


def keys_of(place: str, provider: Provider, gcs: Gcs, s3: S3) -> dict[str, str]:
    name, _, storage = place.partition("-") if place.startswith("vertex") else (place, "", "")
    keys = {"provider": name, "name": PLACES[place]}
    if storage:
        keys["bucket"] = gcs.bucket() if storage == "gcs" else "bq://a-project.batchctl"
    elif name == "bedrock":
        keys |= {"region": bedrock.REGION, "role_arn": bedrock.ROLE, "bucket": s3.bucket()}
    elif name in ("azure-openai", "mistral", "together", "openai-compatible"):
        keys["base_url"] = provider.url + ADDRESSES[name]
    return keys


def peaks(folder: Path, place: str, provider: Provider, gcs: Gcs, s3: S3, rows: int) -> dict[str, float]:
    """Megabytes that each command had at most."""
    write_job(folder, place, keys_of(place, provider, gcs, s3), rows)
    names = ("OPENAI", "AZURE_OPENAI", "ANTHROPIC", "GEMINI", "MISTRAL", "TOGETHER")
    env = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    env |= {f"{name}_API_KEY": "sk-bench" for name in names}
    env |= {"OPENAI_BASE_URL": provider.base_url, "ANTHROPIC_BASE_URL": provider.url, "BATCHCTL_YES": "1"}
    env |= {"BATCHCTL_GEMINI_BASE_URL": provider.url, "BATCHCTL_VERTEX_BASE_URL": provider.url}
    env |= {"STORAGE_EMULATOR_HOST": f"{provider.url}/gcs", "BATCHCTL_POLL_SECONDS": "0.5"}
    env |= bedrock.environment(provider)
    tool = [sys.executable, "-m", "batchctl"]
    measured([*tool, "prepare", "-q"], folder, env)
    found = {
        "up": measured([*tool, "submit", "-q"], folder, env).peak_mb,
        "down": measured([*tool, "poll", "--wait", "-q"], folder, env).peak_mb,
        "judged": measured([*tool, "validate", "-q"], folder, env).peak_mb,
    }
    results = list((folder / ".batchctl").glob("*/results/*.jsonl"))
    assert results, "nothing came down"
    found["sent"] = sum(path.stat().st_size for path in (folder / ".batchctl").glob("*/chunks/*.jsonl")) / 1e6
    found["came"] = sum(path.stat().st_size for path in results) / 1e6
    return found


def compared(place: str, mb: int, gcs: Gcs, s3: S3) -> dict[str, int]:
    """What each command had above idle, told on a line of JSON."""
    folder = Path(tempfile.mkdtemp(prefix="batchctl-memory-"))
    rows = min(mb, SMALLER.get(place, mb)) * 1_000_000 // (ROW_BYTES + 700)
    provider = ProviderProcess(folder / "provider", says={"": "y" * ROW_BYTES}, gcs=gcs.url, s3=s3.url)
    try:
        idle = peaks(folder / "idle", place, provider, gcs, s3, IDLE_ROWS)
        full = peaks(folder / "full", place, provider, gcs, s3, rows)
    finally:
        provider.stop()
        shutil.rmtree(folder, ignore_errors=True)
    more = {way: round(full[way] - idle[way]) for way in WAYS}
    told = {"place": place, "mb_above_idle": more, "mb_idle": {way: round(idle[way]) for way in WAYS}}
    print(json.dumps(told | {"mb_sent": round(full["sent"]), "mb_came": round(full["came"])}), flush=True)
    return more


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__.split("\n")[0])
    parser.add_argument("places", nargs="*", metavar="PLACE", help="left out: all of them")
    parser.add_argument("--mb", type=int, default=200, help="size of the chunk")
    arguments = parser.parse_args()
    above = []
    with ExitStack() as stack:
        gcs, s3 = Gcs(), S3()
        stack.callback(gcs.stop)
        stack.callback(s3.stop)
        for place in arguments.places or PLACES:
            more = compared(place, arguments.mb, gcs, s3)
            above += [place] if max(more["up"], more["down"]) > MOST_MB else []
    return int(bool(above))


if __name__ == "__main__":
    raise SystemExit(main())
