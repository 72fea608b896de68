"""`[[notify]]`: each event once, no row text, and a hook that fails changes no exit code."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

EVERY = 'on = ["done", "needs-attention", "budget", "deadline-risk"]'
MODEL = 'provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 64 }'


class Hook:
    """A webhook that keeps what it was sent."""

    def __init__(self) -> None:
        bodies: list[Any] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.status = 200
        self.bodies = bodies
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/secret-path?token=1"

    @property
    def events(self) -> list[str]:
        return [one["event"] for one in self.bodies]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.stop()


def with_hook(job: JobFolder, hook: Hook, on: str = EVERY) -> JobFolder:
    text = (job.path / "job.toml").read_text()
    (job.path / "job.toml").write_text(text + f'\n[[notify]]\n{on}\nwebhook = "${{HOOK}}"\n')
    job.env["HOOK"] = hook.url
    return job


def test_done_is_told_once_and_without_row_text(new_job: NewJob, provider: Provider, hook: Hook) -> None:
    job = with_hook(new_job(provider), hook)
    for _ in range(2):
        job.run("run", "--wait", code=0)
    job.run("validate", code=0)
    assert hook.events == ["done"]
    message = hook.bodies[0]
    assert message["run"] == job.run_id
    assert message["balance"]["completed"] == 6
    assert "question number" not in json.dumps(message)
    assert "R-00" not in json.dumps(message)
    assert not [one for one in job.state.rglob("*") if one.is_file() and b"secret-path" in one.read_bytes()]


def test_what_needs_a_person_and_a_budget_that_stops(new_job: NewJob, new_provider: NewProvider, hook: Hook) -> None:
    job = with_hook(new_job(new_provider(invalid=1.0), model=MODEL), hook)
    job.run("run", "--wait", "--set", "limits.budget=0.000001 USD", code=6)
    assert hook.events == ["budget"]
    job.run("run", "--wait", code=3)
    assert hook.events == ["budget", "needs-attention"]


def test_a_deadline_at_risk(new_job: NewJob, new_provider: NewProvider, hook: Hook) -> None:
    job = with_hook(new_job(new_provider(latency=100_000), lane='deadline = "0s"'), hook, 'on = ["deadline-risk"]')
    for _ in range(2):
        job.run("run", code=7)
    assert hook.events == ["deadline-risk"]


@pytest.mark.parametrize("status", [500, 307])
def test_a_hook_that_fails_is_told_and_tried_again(
    status: int, new_job: NewJob, provider: Provider, hook: Hook
) -> None:
    hook.status = status
    job = with_hook(new_job(provider), hook)
    done = job.run("run", "--wait", code=0)
    assert f"[[notify]] 1 was not told of `done`: its webhook answered {status}" in done.err
    assert "secret-path" not in done.err + done.out
    assert hook.events == ["done"]
    hook.status = 200
    job.run("validate", code=0)
    assert hook.events == ["done", "done"]


def test_commands_get_the_event_on_stdin(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider)
    keep = "import sys; open('told.json', 'ab').write(sys.stdin.buffer.read()); print('noise')"
    hooks = [[sys.executable, "-c", keep], [sys.executable, "-c", "raise SystemExit(3)"], ["no-such-program"]]
    text = "".join(f"\n[[notify]]\n{EVERY}\ncommand = {json.dumps(one)}\n" for one in hooks)
    (job.path / "job.toml").write_text((job.path / "job.toml").read_text() + text)
    done = job.run("run", "--wait", "--json", code=0)
    assert done.json["exit"] == 0
    assert "[[notify]] 2 was not told of `done`: its command ended with 3" in done.err
    assert "[[notify]] 3 was not told of `done`: its command cannot be run" in done.err
    told = [json.loads(line) for line in (job.path / "told.json").read_text().splitlines()]
    assert [one["event"] for one in told] == ["done"]


def test_a_hook_needs_one_way(new_job: NewJob, provider: Provider) -> None:
    for more in ("", 'webhook = "http://example.com/x"\n', 'webhook = "https://h.example"\ncommand = ["true"]\n'):
        job = new_job(provider, more=f"\n[[notify]]\n{EVERY}\n{more}")
        assert "notify" in job.run("prepare", code=2).err
