"""Requests handed out as files for `vllm run-batch`, and its answers read back: no server, no key, nothing paid."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NewJob
from tests.support.jobs import JobFolder

MODEL = 'provider = "openai"\nname = "Qwen/Qwen3-8B"\nparams = { max_output_tokens = 50 }'
GOOD = '{"label": "card", "note": "n"}'


def answered(line: Any, number: int, text: str | None = GOOD, error: Any = None) -> bytes:
    """A line as `vllm/entrypoints/openai/run_batch.py` writes it."""
    body = None
    if text is not None:
        message = {"role": "assistant", "content": text, "refusal": None, "tool_calls": [], "reasoning_content": None}
        usage = {"prompt_tokens": 5, "total_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
        body = {"object": "chat.completion", "model": line["body"]["model"], "choices": [choice], "usage": usage}
    response = {"status_code": 400 if text is None else 200, "request_id": f"vllm-batch-{number}", "body": body}
    out = {"id": f"vllm-{number}", "custom_id": line["custom_id"], "response": response, "error": error}
    return json.dumps(out).encode() + b"\n"


def ran(command: str, cwd: Path, *, bad: dict[int, Any] | None = None, only: int | None = None) -> None:
    """What `vllm run-batch` does; `only`: it was killed after so many requests."""
    words = shlex.split(command)
    assert words[:2] == ["vllm", "run-batch"]
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert given["--model"] == "Qwen/Qwen3-8B"
    lines = [json.loads(line) for line in (cwd / given["-i"]).read_bytes().split(b"\n")[:-1]]
    for line in lines:
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        assert line["body"]["max_tokens"] == 50
        assert line["body"]["response_format"]["type"] == "json_schema"
    wrong = bad or {}
    made = [answered(line, number, **wrong.get(number, {})) for number, line in enumerate(lines)]
    (cwd / given["-o"]).write_bytes(b"".join(made[:only]))


def exported(job: JobFolder) -> list[str]:
    done = job.run("prepare", "--export", "vllm", "--json", code=8)
    commands: list[str] = done.json["commands"]
    return commands


def test_files_go_out_and_answers_come_back(new_job: NewJob) -> None:
    job = new_job(None, model=MODEL, sample="", limits="chunk_rows = 4")
    first, second = exported(job)
    assert job.check_balance()["submitted"] == 6
    assert exported(job) == [first, second], "the same files again"

    ran(first, job.path, bad={1: {"text": None, "error": "too long"}, 2: {"text": "nonsense"}})
    job.run("poll", code=8)
    ran(second, job.path, only=1)
    job.run("poll", code=8)
    assert job.check_balance()["submitted"] == 6, "nothing is judged yet"
    ran(second, job.path)
    job.run("poll", code=0)
    job.run("validate", code=3)
    results = job.check_results([f"R-{number:03d}" for number in range(6)])
    assert [one["state"] for one in results.values()].count("completed") == 4
    assert "too long" in results["R-001"]["detail"]
    assert results["R-002"]["reason"] == "invalid_json"
    assert results["R-000"]["usage"]["input_tokens"] == 5
    assert results["R-000"]["cost_usd"] == "0"
    job.check_files()


def test_a_killed_run_can_be_given_up_and_its_beginning_counts(new_job: NewJob) -> None:
    job = new_job(None, model=MODEL)
    (command,) = exported(job)
    ran(command, job.path, only=4)
    job.run("poll", code=8)
    job.run("cancel", code=0)
    job.run("validate", code=3)
    states = [one["state"] for one in job.check_results().values()]
    assert states == ["completed"] * 4 + ["provider_error"] * 2
    done = job.run("rerun", "--json", code=8)
    assert done.json["rerun_rows"] == 2
    ran(done.err.split("is for you to run: ")[1].split("\n")[0], job.path)
    job.run("poll", code=0)
    job.run("validate", code=0)
    assert job.check_balance()["completed"] == 6


def test_an_export_that_does_not_exist(new_job: NewJob) -> None:
    job = new_job(None, model=MODEL)
    done = job.run("prepare", "--export", "csv", code=2)
    assert "use vllm" in done.err
    done = job.run("prepare", "--export", "vllm", "--set", "model.endpoint=/v1/responses", code=2)
    assert "/v1/chat/completions" in done.err
    job.run("prepare", "--set", "model.provider=vllm", code=0)
    done = job.run("dry-run", "--set", "model.provider=vllm", "--rows", "1", code=2)
    assert "single requests" in done.err
    done = job.run("submit", "--set", "model.provider=vllm", "--lane", "live", code=2)
    assert "in batch only" in done.err
    assert job.run("prepare", "--export", "vllm", "--set", "lane.prefer=live", code=8)


@pytest.mark.parametrize("point", ["K3", "K5", "K7", "K10", "K11:2"])
def test_a_kill_while_handing_out_leaves_one_file_a_chunk(new_job: NewJob, point: str) -> None:
    job = new_job(None, model=MODEL, limits="chunk_rows = 3")
    assert job.run("prepare", "--export", "vllm", BATCHCTL_CRASH_AT=point).killed
    commands = exported(job)
    assert len(commands) == 2
    assert job.check_balance()["submitted"] == 6
    for command in commands:
        ran(command, job.path)
    job.run("poll", code=0)
    job.run("validate", code=0)
    assert job.check_balance()["completed"] == 6
