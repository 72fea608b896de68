"""How close the live lane comes to the ideal: 64 calls under way, each answered after 100 ms, batchctl on one core.

    python -m tests.bench.live [rows]

The server is a process of its own that only waits. Printed: calls a second of the lane from first to last call, the ideal
(concurrency / latency), and their quotient; exit code 1 below 80 %.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

AT_ONCE = 64
LATENCY_SECONDS = 0.1
WANTED = 0.8
ANSWER = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1790000000,
    "model": "gpt-5.4-mini",
    "status": "completed",
    "error": None,
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "annotations": [], "text": '{"label":"a"}'}],
        }
    ],
    "usage": {"input_tokens": 60, "output_tokens": 5, "total_tokens": 65},
}


def serve(tell: Connection) -> None:
    """Answer every POST after the latency; at the end, tell when the first came and when the last left."""
    from aiohttp import web

    body = json.dumps(ANSWER).encode()
    times: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        loop = asyncio.get_running_loop()
        times.append(loop.time())
        await request.read()
        await asyncio.sleep(LATENCY_SECONDS)
        times.append(loop.time())
        return web.Response(body=body, content_type="application/json")

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/responses", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        tell.send(runner.addresses[0][1])
        await asyncio.get_running_loop().run_in_executor(None, tell.recv)
        tell.send((min(times), max(times), len(times) // 2))
        await runner.cleanup()

    asyncio.run(main())


def write_job(directory: Path, rows: int, port: int) -> None:
    lines = "".join(f"R-{number},question number {number}\n" for number in range(rows))
    (directory / "rows.csv").write_text("id,text\n" + lines)
    (directory / "prompt.md").write_text("Row {{ id }}: {{ text }}")
    (directory / "job.toml").write_text(
        'version = 1\nname = "bench"\nsource = { path = "rows.csv", id = "id" }\nprompt = { file = "prompt.md" }\n'
        'model = { provider = "openai-compatible", name = "m", endpoint = "/v1/responses",'
        f' base_url = "http://127.0.0.1:{port}/v1" }}\n'
        f'sample = {{ rows = 0 }}\nlane = {{ prefer = "live" }}\nlimits = {{ calls_at_once = {AT_ONCE} }}\n'
    )


def main() -> int:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 6400
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    server.start()
    try:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            write_job(directory, rows, ours.recv())
            env = {**os.environ, "OPENAI_API_KEY": "sk-bench"}
            for command in (["prepare"], ["submit", "--yes"]):
                core = {min(os.sched_getaffinity(0))}
                argv = [sys.executable, "-m", "batchctl", *command, "-q"]
                subprocess.run(
                    argv, cwd=directory, env=env, check=True, preexec_fn=lambda core=core: os.sched_setaffinity(0, core)
                )
        ours.send(None)
        first, last, calls = ours.recv()
    finally:
        server.join(5)
        server.kill()
    assert calls == rows
    ideal, reached = AT_ONCE / LATENCY_SECONDS, rows / (last - first)
    print(f"{rows:,} calls: {reached:,.0f} a second of {ideal:,.0f}, {reached / ideal:.0%}")
    return int(reached < WANTED * ideal)


if __name__ == "__main__":
    raise SystemExit(main())
