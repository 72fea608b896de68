"""The review loop at a terminal: driven through a pseudo-terminal, with rows and answers that try to take it over."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cli.desk import BATCHCTL, PATIENCE_SECONDS, ROOT, Desk

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\x1b]52;c;cm0gLXJmIC8=\x07 \x9b31m \x90q\x9c [bold]x[/bold] [/foo] [link=file:///etc/passwd]y[/link]"
    " \u202egnp.exe\u202c \u2066iso\u2069 \u200frtl \x08\x08 \r gone \x00 {{ 7 * 7 }} q\na\nACCEPT"
)
QUESTION = "[q]uit ? "
ALLOWED = {"\n", "\r", "\t"}  # the terminal itself makes CR LF of a line end


class Terminal:
    """What a person sees and types."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.seen = ""
        self._bytes = b""

    def until(self, words: str) -> str:
        """Everything shown up to and with these words, since the last call."""
        while words not in self.seen:
            assert select.select([self.master], [], [], PATIENCE_SECONDS)[0], f"never came: {words}\n{self.seen}"
            try:
                block = os.read(self.master, 4096)
            except OSError:  # the other end is closed
                block = b""
            assert block, f"ended before: {words}\n{self.seen}"
            self._bytes += block
            self.seen = self._bytes.decode(errors="replace")
        shown, _, rest = self.seen.partition(words)
        self._bytes = rest.encode()
        self.seen = rest
        return shown + words

    def type(self, line: str) -> None:
        os.write(self.master, line.encode() + b"\n")


@contextmanager
def reviewing(desk: Desk, *argv: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*BATCHCTL, "review", *argv],
        cwd=desk.path,
        env={**desk.env, "PYTHONPATH": str(ROOT)},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    try:
        yield Terminal(master), process
    finally:
        process.kill()
        process.wait()
        os.close(master)


@pytest.fixture
def hostile(bare: Desk) -> Desk:
    """Three rows that wait, in which everything a model or a customer wrote is hostile."""
    rows = [{"message_id": f"M-{number}", "subject": HOSTILE, "body": f"{HOSTILE}{number}"} for number in (1, 2)]
    rows.append({"message_id": f"M-\x1b[31m{HOSTILE[:20]}", "subject": "", "body": "3"})
    bare.write("messages.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    schema = {
        "type": "object",
        "properties": {"label": {"enum": [HOSTILE, "fine"]}, HOSTILE[:30]: {"const": HOSTILE}},
        "required": ["label", HOSTILE[:30]],
        "additionalProperties": False,
    }
    bare.write("schema.json", json.dumps(schema))
    bare.job(("messages.csv", "messages.jsonl"), more='\n[review]\nwhen = "true"\n')
    bare.run("run", "--wait", code=3)
    return bare


def safe(text: str) -> bool:
    """Whether a terminal can only show it."""
    return all(one in ALLOWED or one.isprintable() for one in text) and "\u202e" not in text


def test_hostile_rows_are_only_shown(hostile: Desk) -> None:
    with reviewing(hostile) as (terminal, process):
        first = terminal.until(QUESTION)
        terminal.type("x")
        helped = terminal.until(QUESTION)
        assert "reject it: the row goes into the rerun file" in helped
        terminal.type("a seen \x1b[1m it")
        second = terminal.until(QUESTION)
        terminal.type("u")
        back = terminal.until(QUESTION)
        terminal.type("a")
        terminal.until(QUESTION)
        terminal.type("e")
        terminal.until("leave it) > ")
        terminal.type('{"label": "nope"}')
        refused = terminal.until(QUESTION)
        assert "does not match the schema" in refused
        terminal.type("e")
        terminal.until("leave it) > ")
        terminal.type(json.dumps({"label": "fine", HOSTILE[:30]: HOSTILE}))
        third = terminal.until(QUESTION)
        terminal.type("r no good")
        end = terminal.until("Next: ")
        assert process.wait(PATIENCE_SECONDS) == 3
    for shown in (first, second, back, third, end):
        assert safe(shown), repr(shown)
    assert "1 of 3" in first
    assert "2 of 3" in second
    assert "1 of 3" in back
    assert "\\x1b]52;c" in first
    assert "[bold]x[/bold] [/foo]" in first, "markup is text"
    assert "{{ 7 * 7 }}" in first
    assert "1 accept, 1 edit, 1 reject" in end
    states = [
        json.loads(line)["state"] for line in (hostile.directory / "results.jsonl").read_bytes().split(b"\n")[:-1]
    ]
    assert states == ["completed", "completed", "invalid_output"]


def test_a_terminal_that_goes_away_keeps_what_is_decided(hostile: Desk) -> None:
    with reviewing(hostile) as (terminal, process):
        terminal.until(QUESTION)
        terminal.type("a")
        terminal.until(QUESTION)
        os.write(terminal.master, b"\x04")  # end of input
        terminal.until("Next: ")
        assert process.wait(PATIENCE_SECONDS) == 3
    assert hostile.run("status", "--json", code=3).json["balance"]["completed"] == 1
    assert (hostile.directory / "results.jsonl").read_bytes().count(b'"state":"completed"') == 1


def test_without_a_terminal_it_lists_and_asks_nothing(hostile: Desk) -> None:
    shown = hostile.run("review", code=3).out
    assert safe(shown)
    assert "3 rows of triage-0001 waiting for a person" in shown
    for action in (("show", "M-1"), ("list",), ("show", "M-1", "--json")):
        assert safe(hostile.run("review", *action, code=3).out)
