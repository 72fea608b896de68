"""The review loop at a terminal: driven through a pseudo-terminal, with rows and answers that try to take it over."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cli.desk import BATCHCTL, PATIENCE_SECONDS, ROOT, Desk

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\x1b]52;c;cm0gLXJmIC8=\x07 \x9b31m \x90q\x9c [bold]x[/bold] [/foo] [link=file:///etc/passwd]y[/link]"
    " \u202egnp.exe\u202c \u2066iso\u2069 \u200frtl \x08\x08 \r gone \x00 {{ 7 * 7 }} q\na\nACCEPT"
)
LINK = "\x1b]8;;file:///etc/passwd\x1b\\click\x1b]8;;\x1b\\ \x9d8;;https://example.org\x9cC1\x9d8;;\x9c"
UNSEEN = "fi\u200bne fi\u2060ne fi\xadne \ufefffine \u180e \u2063 \U000e0041\U000e0101 \ufff9a\ufffab\ufffb \u2028 \u2029 \x85"
JOINED = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f468\u200d\U0001f469"  # words that need their joiners
LONG = "x" * 100_000 + "\x1b[31m" + "\u202e" * 5_000 + "\n" * 5_000 + "the end"
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
def reviewing(desk: Desk, *argv: str, columns: int = 80) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
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
    """Whether a terminal can only show it, and a person sees all of it."""
    return all(one in ALLOWED or one.isprintable() for one in text) and not set(text) & {"\u202e", "\U000e0101"}


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


@pytest.mark.parametrize("columns", [80, 12])
def test_links_what_cannot_be_seen_and_endless_text_are_shown_as_what_they_are(bare: Desk, columns: int) -> None:
    rows = [
        {"message_id": f"M-{number}", "subject": text, "body": "b"} for number, text in enumerate((LINK, UNSEEN, LONG))
    ]
    rows.append({"message_id": f"M-{LINK}{UNSEEN}", "subject": JOINED, "body": "b"})
    bare.write("messages.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    label = {"enum": [LINK + UNSEEN + LONG]}
    schema = {"type": "object", "properties": {"label": label}, "required": ["label"], "additionalProperties": False}
    bare.write("schema.json", json.dumps(schema))
    bare.job(("messages.csv", "messages.jsonl"), more='\n[review]\nwhen = "true"\n')
    bare.run("run", "--wait", code=3)
    with reviewing(bare, columns=columns) as (terminal, process):
        shown = []
        for _ in rows:
            shown.append(terminal.until(QUESTION))
            terminal.type("s")
        shown.append(terminal.until("Next: "))
        assert process.wait(PATIENCE_SECONDS) == 3
    for one in shown:
        assert safe(one.replace("\u200c", "").replace("\u200d", "")), repr(one)
        assert len(one) < 20_000, "a bounded part of it"
    assert "\\x1b]8;;file:///etc/passwd" in shown[0]
    assert "\\x9d8;;https://example.org" in shown[0]
    for written in (
        "fi\\u200bne",
        "fi\\u2060ne",
        "fi\\xadne",
        "\\ufefffine",
        "\\U000e0041\\U000e0101",
        "\\u2028",
        "\\x85",
    ):
        assert written in shown[1]
    assert "more lines" in shown[2]
    assert JOINED in shown[3]


def test_one_of_several_answers_is_taken_by_its_number(bare: Desk) -> None:
    bare.job(more="\n[emulator]\nconflict = 1.0\n")
    bare.run("run", "--wait", code=3)
    came = bare.run("review", "show", "M-1", "--json", code=3).json["row"]["came_back"]
    with reviewing(bare) as (terminal, process):
        shown = terminal.until(QUESTION)
        assert "answer 1 of 2" in shown
        assert "answer 2 of 2" in shown
        terminal.type("a looks good")
        assert "which one?" in terminal.until(QUESTION)
        terminal.type("a 3")
        assert "has no answer 3" in terminal.until(QUESTION)
        terminal.type("a 2 looks good")
        assert "2 of 3" in terminal.until(QUESTION)
        terminal.type("q")
        terminal.until("Next: ")
        assert process.wait(PATIENCE_SECONDS) == 3
    row = json.loads((bare.directory / "results.jsonl").read_bytes().split(b"\n")[0])
    assert (row["state"], row["output"]) == ("completed", json.loads(came[1]))
    assert row["detail"].endswith(": looks good")


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
