"""A process that runs `batchctl` commands by forking: the libraries are loaded once, every command is a real process.

Importing the vendor SDK costs seconds, a command costs hundredths of one. Requests come on stdin, one JSON object a
line (id, argv, cwd, env, and files for stdout and stderr); answers go to stdout: `{"id", "pid"}` when a command has
started, `{"pid", "code"}` when it has ended, however it ended. Several may run at once.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import sys
from typing import Any

MODULES = (
    "anthropic.resources.messages.batches",
    "anyio.from_thread",
    "openai.resources.batches",
    "openai.resources.files",
    "pyarrow.compute",
    "pyarrow.csv",
    "pyarrow.parquet",
    "batchctl.cli.main",
    "batchctl.emulator.wires",
    "batchctl.emulator.process",
    "batchctl.emulator.server",
    "batchctl.tables.delimited",
    "batchctl.tables.jsonl",
    "batchctl.tables.parquet",
    "batchctl.workflow.cancel",
    "batchctl.workflow.check",
    "batchctl.workflow.compare",
    "batchctl.workflow.publish",
    "batchctl.workflow.resolve",
    "batchctl.workflow.run",
    "batchctl.workflow.status",
)


NEXT_FORMAT = "TEST_NEXT_FORMAT"
"""Set for a command: it is that of a later batchctl, whose ledger has one table more."""


def next_format() -> None:
    from batchctl.ledger import formats

    formats.STEPS[formats.VERSION] = lambda db: db.execute("CREATE TABLE novelty AS SELECT id FROM run")
    formats.VERSION += 1


def load() -> None:
    """What commands import, so that the children need not."""
    for name in MODULES:
        importlib.import_module(name)


def become(request: dict[str, Any]) -> None:
    """In the child: the descriptors, directory, environment and arguments that were asked for."""
    output = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    opened = (os.open(os.devnull, os.O_RDONLY), os.open(request["out"], output), os.open(request["err"], output))
    for number, descriptor in enumerate(opened):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["batchctl", *request["argv"]]
    if NEXT_FORMAT in os.environ:
        next_format()
    faulthandler.register(signal.SIGUSR1)  # where a command is that does not end


def serve() -> dict[str, Any] | None:
    """The request of a child; None in the parent, once stdin has ended."""
    requests, answers = os.dup(0), os.dup(1)
    ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    waiting = b""
    while True:
        readable, _, _ = select.select([requests, ended], [], [])
        if ended in readable:
            os.read(ended, 512)
            _reap(answers)
        if requests not in readable:
            continue
        block = os.read(requests, 1 << 16)
        if not block:
            return None
        *lines, waiting = (waiting + block).split(b"\n")
        for line in lines:
            request = json.loads(line)
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (requests, answers, ended, wake):
                    os.close(descriptor)
                return dict(request)
            _tell(answers, {"id": request["id"], "pid": child})


def _reap(answers: int) -> None:
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not child:
            return
        _tell(answers, {"pid": child, "code": os.waitstatus_to_exitcode(status)})


def _tell(answers: int, what: dict[str, Any]) -> None:
    os.write(answers, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    load()
    gc.collect()
    gc.freeze()  # so that a child's first collection does not copy every page
    os.write(1, b"{}\n")  # ready
    asked = serve()
    if asked is not None:
        become(asked)
        from batchctl.cli.main import main

        try:
            main()
        except SystemExit as end:  # what the interpreter tidies up afterwards takes longer than most commands
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))
