"""`python -m tests.bench [--rows 100000,1000000] [--keep DIR]`: CPU seconds and peak memory as ratios.

Every figure compares two child processes of this run, by the CPU time (user + system) and peak resident memory the
kernel reports for them. Prepare is measured against the script users write (`csv.DictReader`, an f-string,
`json.dumps`); validate against a plain loop of `json.loads` and
`jsonschema.validate`, and against one that makes its validator once; start-up against `python -c pass`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from batchctl.files import sha256_of
from batchctl.ledger import queries, transitions
from batchctl.ledger.store import Ledger
from batchctl.ledger.transitions import ChunkState

WORDS = [
    "the",
    "card",
    "payment",
    "was",
    "declined",
    "when",
    "I",
    "tried",
    "to",
    "withdraw",
    "money",
    "from",
    "an",
    "ATM",
    "yesterday",
    "and",
    "nobody",
    "answers",
    "my",
    "mails",
    "please",
    "help",
    "refund",
    "order",
    "number",
    '"urgent"',
    "account",
    "Grüße",
    "naïve",
]
JOB = """version = 1
name = "bench"
source = { path = "rows.csv", id = "message_id" }
prompt = { file = "prompt.md" }
output = { schema = "schema.json" }
model = { provider = "openai", name = "gpt-5-mini", params = { max_output_tokens = 200 } }
sample = { rows = 0 }
"""
PROMPT = "Classify this message.\n\nSubject: {{ subject }}\n\n{{ body }}\n"
LABELS = ["billing", "bug", "refund", "other"]
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": LABELS},
        "priority": {"type": "integer", "minimum": 1, "maximum": 5},
        "needs_human": {"type": "boolean"},
        "summary": {"type": "string"},
        "note": {"type": ["string", "null"]},
    },
    "required": ["label", "priority", "needs_human", "summary", "note"],
    "additionalProperties": False,
}
USER_SCRIPT = """
import csv, json, sys
schema = json.load(open("schema.json"))
with open("rows.csv", newline="", encoding="utf-8") as source, open("requests.jsonl", "w", encoding="utf-8") as out:
    for row in csv.DictReader(source):
        prompt = f"Classify this message.\\n\\nSubject: {row['subject']}\\n\\n{row['body']}\\n"
        out.write(json.dumps({
            "custom_id": row["message_id"], "method": "POST", "url": "/v1/responses",
            "body": {"model": "gpt-5-mini", "input": [{"role": "user", "content": prompt}], "max_output_tokens": 200,
                     "text": {"format": {"type": "json_schema", "name": "bench", "strict": True, "schema": schema}}},
        }) + "\\n")
"""
USER_LOOP = """
import csv, itertools, json, sys
import jsonschema
schema = json.load(open("schema.json"))
most = int(sys.argv[1])
source = itertools.islice(csv.DictReader(open("rows.csv", newline="", encoding="utf-8")), most)
rows = {row["message_id"]: row for row in source}
ids = json.load(open("ids.json"))
with open("good.jsonl", "w") as good, open("bad.jsonl", "w") as bad:
    for name in sys.argv[2:]:
        for line in itertools.islice(open(name, encoding="utf-8", newline="\\n"), most):
            result = json.loads(line)
            row = rows[ids[result["custom_id"]]]
            body = result["response"]["body"]
            text = "".join(part["text"] for item in body["output"] if item["type"] == "message"
                           for part in item["content"])
            try:
                output = json.loads(text)
                jsonschema.validate(output, schema)
            except (ValueError, jsonschema.ValidationError) as error:
                bad.write(json.dumps({**row, "_reason": str(error)}) + "\\n")
                continue
            good.write(json.dumps({"id": row["message_id"], "output": output, "usage": body["usage"], "row": row}) + "\\n")
"""
PREPARED_LOOP = USER_LOOP.replace("jsonschema.validate(output, schema)", "validator.validate(output)").replace(
    'open("schema.json"))\n', 'open("schema.json"))\nvalidator = jsonschema.Draft202012Validator(schema)\n', 1
)
LOOP_ROWS = 20_000  # the plain loop takes milliseconds a row: measured on the first of them, counted for all


@dataclass(frozen=True)
class Cost:
    """What one child process took."""

    cpu_seconds: float
    peak_mb: float


_MEASURE = """
import json, os, subprocess, sys
for line in sys.stdin:
    command, cwd, env = json.loads(line)
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    print(json.dumps([process.returncode, cpu, usage.ru_maxrss / 1024, said]), flush=True)
"""
"""What starts the measured commands. A process of its own: the kernel counts the memory of the one that forks, too."""


@cache
def _starter() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _MEASURE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )


def measured(command: list[str], cwd: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command; its CPU time and peak memory, from the kernel. Without `env` it has ours, and a key."""
    starter = _starter()
    assert starter.stdin is not None
    assert starter.stdout is not None
    starter.stdin.write(json.dumps([command, str(cwd), env or {**os.environ, "OPENAI_API_KEY": "bench"}]) + "\n")
    starter.stdin.flush()
    code, cpu, peak, said = json.loads(starter.stdout.readline())
    if code not in (0, 3, 8):
        raise SystemExit(f"{command} failed with {code}:\n{said}")
    return Cost(cpu, peak)


def write_rows(path: Path, count: int) -> None:
    """`count` rows of about 0.7 kB, some with quotes and newlines; the same rows every time."""
    source = random.Random(7)
    bodies = [" ".join(source.choices(WORDS, k=105)) for _ in range(997)]
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["message_id", "subject", "body", "lang", "created_at"])
        for number in range(count):
            body = f"{number} {bodies[number % 997]}"
            if number % 5 == 0:
                body = body.replace(" and ", "\n")
            subject = " ".join(source.choices(WORDS, k=5))
            out.writerow([f"{number:08d}", subject, body, "en", "2026-11-01T10:00:00Z"])


def collect(directory: Path, failing: float) -> list[str]:
    """Put a result for every request where `poll` would have, `failing` of them unusable; names of the result files."""
    state = directory / ".batchctl"
    ledger = Ledger.open(state)
    assert ledger is not None
    run = queries.runs(ledger.db, "bench")[-1]
    source = random.Random(3)
    ids: dict[str, str] = {}
    names = []
    for chunk in queries.chunks(ledger.db, run.id):
        name = f"{chunk.number:04d}.a1.jsonl"
        path = state / run.id / "results" / name
        with (state / run.id / "chunks" / f"{chunk.number:04d}.jsonl").open("rb") as lines, path.open("wb") as out:
            for number, line in enumerate(lines):
                custom_id = line[14:49].decode()
                ids[custom_id] = f"{len(ids):08d}"
                out.write(result_line(custom_id, number, source, failing))
        names.append(str(path.relative_to(directory)))
        if chunk.state is ChunkState.PLANNED:
            intent = f"bench-{chunk.number}"
            with ledger.transaction() as db:
                transitions.move(db, run.id, chunk.number, ChunkState.UPLOADED, because="bench", staged="file-1")
                transitions.open_intent(db, intent=intent, run=run.id, chunk=chunk.number, send=1, staged="file-1",
                                        account="", sha256=chunk.sha256, epoch=0, bound=None)  # fmt: skip
                transitions.accept(db, intent, f"batch-{chunk.number}", because="bench")
                transitions.end(db, intent, because="bench")
                transitions.fetched(db, run.id, chunk.number, {name: sha256_of(path)}, because="bench")
    ledger.close()
    (directory / "ids.json").write_text(json.dumps(ids))
    return names


def result_line(custom_id: str, number: int, source: random.Random, failing: float) -> bytes:
    """One line of an output file as `/v1/responses` gives it."""
    answer = {
        "label": LABELS[number % 4], "priority": number % 5 + 1, "needs_human": number % 3 == 0,
        "summary": "The customer reports a declined payment and asks for a refund of the order.", "note": None,
    }  # fmt: skip
    if source.random() < failing:
        answer["priority"] = "high" if number % 2 else 9
    body = {
        "id": f"resp_{number:024x}", "object": "response", "created_at": 1794874500, "status": "completed",
        "background": False, "error": None, "incomplete_details": None, "instructions": None,
        "max_output_tokens": 200, "max_tool_calls": None, "model": "gpt-5-mini-2025-08-07",
        "output": [
            {"id": f"rs_{number:x}", "type": "reasoning", "summary": []},
            {"id": f"msg_{number:x}", "type": "message", "role": "assistant", "status": "completed", "content": [
                {"type": "output_text", "annotations": [], "logprobs": [], "text": json.dumps(answer)}]},
        ],
        "parallel_tool_calls": True, "previous_response_id": None, "reasoning": {"effort": "low", "summary": None},
        "service_tier": "default", "store": True, "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"}, "tool_choice": "auto", "tools": [],
        "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled",
        "usage": {"input_tokens": 316, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                  "output_tokens": 45, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 361},
        "user": None, "metadata": {},
    }  # fmt: skip
    line = {"id": f"batch_req_{number:x}", "custom_id": custom_id,
            "response": {"status_code": 200, "request_id": f"req_{number:x}", "body": body}, "error": None}  # fmt: skip
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def bench(directory: Path, rows: int) -> dict[str, Cost]:
    """All measurements for one number of rows, in a fresh directory."""
    directory.mkdir(parents=True)
    tool = [sys.executable, "-m", "batchctl"]
    (directory / "job.toml").write_text(JOB)
    (directory / "prompt.md").write_text(PROMPT)
    (directory / "schema.json").write_text(json.dumps(SCHEMA))
    write_rows(directory / "rows.csv", rows)
    costs = {"prepare": measured([*tool, "prepare", "-q"], directory)}
    costs["script"] = measured([sys.executable, "-c", USER_SCRIPT], directory)
    looped = min(rows, LOOP_ROWS)
    for failing in (0.01, 0.2):
        names = collect(directory, failing)
        if failing != 0.01:  # the same run, other results: what `validate` finds is decided by the files
            refetch(directory)
        costs[f"validate {failing:.0%}"] = measured([*tool, "validate", "-q"], directory)
        for name, loop in (("loop", USER_LOOP), ("prepared", PREPARED_LOOP)):
            made = measured([sys.executable, "-c", loop, str(looped), names[0]], directory)
            costs[f"{name} {failing:.0%}"] = Cost(made.cpu_seconds / looped * rows, made.peak_mb)
    costs["status"] = measured([*tool, "status"], directory)
    return costs


def refetch(directory: Path) -> None:
    """Make the ledger take the new result files as collected and not yet judged."""
    ledger = Ledger.open(directory / ".batchctl")
    assert ledger is not None
    for run in queries.runs(ledger.db, "bench"):
        for chunk in queries.chunks(ledger.db, run.id):
            digests = {name: sha256_of(directory / ".batchctl" / run.id / "results" / name) for name in chunk.results}
            with ledger.transaction() as db:
                db.execute("UPDATE chunk SET state = 'fetched', results_sha256 = ? WHERE run = ? AND number = ?",
                           (json.dumps(digests), run.id, chunk.number))  # fmt: skip
    ledger.close()


def start_up() -> dict[str, float]:
    """CPU of `--help` over a bare interpreter, best of five each."""
    here = Path.cwd()
    bare = min(measured([sys.executable, "-c", "pass"], here).cpu_seconds for _ in range(5))
    shown = min(measured([sys.executable, "-m", "batchctl", "--help"], here).cpu_seconds for _ in range(5))
    return {"bare": bare, "help": shown}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default="100000,1000000", help="comma-separated numbers of rows")
    parser.add_argument("--keep", type=Path, help="work in this directory and keep it")
    arguments = parser.parse_args()
    place = arguments.keep or Path(tempfile.mkdtemp(prefix="batchctl-bench-"))
    peaks: dict[int, dict[str, float]] = {}
    say = sys.stdout.write
    try:
        base = start_up()
        say(f"--help              {base['help'] / base['bare']:8.1f} x `python -c pass`\n")
        for rows in (int(text) for text in arguments.rows.split(",")):
            costs = bench(place / str(rows), rows)
            say(f"{rows:,} rows of about 0.7 kB\n")
            micros = {name: cost.cpu_seconds / rows * 1e6 for name, cost in costs.items()}
            say(f"  prepare           {micros['script'] / micros['prepare']:8.1f} x the script's rows per CPU second"
                f"   ({micros['prepare']:.1f} against {micros['script']:.1f} us a row)\n")  # fmt: skip
            for share in ("1%", "20%"):
                ours, theirs = micros[f"validate {share}"], micros[f"loop {share}"]
                prepared = micros[f"prepared {share}"]
                say(f"  validate {share:>3} bad  {theirs / ours:8.1f} x the plain loop's"
                    f"   ({ours:.1f} against {theirs:.1f} us a row)"
                    f", {prepared / ours:.1f} x with a validator made once ({prepared:.1f})\n")  # fmt: skip
            say(f"  status            {costs['status'].cpu_seconds / base['bare']:8.1f} x `python -c pass`\n")
            peaks[rows] = {name: costs[name].peak_mb for name in ("prepare", "validate 1%", "validate 20%")}
            say("  peak memory       " + ", ".join(f"{name} {mb:,.0f} MB" for name, mb in peaks[rows].items()) + "\n")
        if len(peaks) > 1:
            small, large = min(peaks), max(peaks)
            for name in peaks[small]:
                say(f"memory of {name}, {large:,} over {small:,} rows: {peaks[large][name] / peaks[small][name]:.2f}\n")
    finally:
        if arguments.keep is None:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
