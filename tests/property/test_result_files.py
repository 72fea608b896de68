"""Whatever bytes a provider sends for results: no row is without a verdict, and none has another row's answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchctl.chunks import segments
from batchctl.ledger import queries
from batchctl.workflow.judge import Task, judge_chunk
from batchctl.workflow.validate import task_of
from batchctl.workflow.workspace import Options, opened
from tests.support.commands import Commands
from tests.support.jobs import JobFolder
from tests.support.provider import ProviderThread

MODELS = {
    "openai": 'provider = "openai"\nname = "gpt-5.4-mini"',
    "anthropic": 'provider = "anthropic"\nname = "claude-haiku-4-5"\nparams = { max_tokens = 100 }',
    "gemini": 'provider = "gemini"\nname = "gemini-2.5-flash"',
}
FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
JUNK = st.binary(max_size=30) | st.sampled_from(
    [b"\xef\xbb\xbf", b"\0", b"{}", b'{"custom_id":', b'"', b"}{", b"[" * 2000, b"null"]
)
LETTERS = "abcdefgh"

Verdicts = list[tuple[str, str | None]]


@dataclass(frozen=True)
class Collected:
    """A chunk of eight rows with good answers: its result lines, and what is made of other bytes in their place."""

    task: Task
    lines: list[bytes]
    verdicts: Verdicts

    def judged(self, content: bytes) -> Verdicts:
        (self.task.results / "fuzzed.jsonl").write_bytes(content)
        judge_chunk(replace(self.task, files=("fuzzed.jsonl",)))
        [path] = self.task.results.glob("*.verdicts.parquet")
        return [
            (state.decode(), output and output.decode()) for state, output in segments.tuples(path, ("state", "output"))
        ]


@pytest.fixture(scope="module", params=list(MODELS))
def collected(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, commands: Commands
) -> Collected:
    place = tmp_path_factory.mktemp("collected")
    provider = ProviderThread(place / "provider")
    job = JobFolder(place / "job", commands, provider, f"fuzz-{request.param}")
    job.write([{"id": one, "text": f"question {one}"} for one in LETTERS], model=MODELS[request.param])
    job.run("run", "--wait", code=0)
    provider.stop()
    with opened(Options(target=str(job.path / job.file), environ=job.env), write=False) as workspace:
        [chunk] = queries.chunks(workspace.ledger.db, job.run_id)
        task = task_of(workspace, chunk, workspace.frozen_plan())
    [name] = task.files
    lines = (task.results / name).read_bytes().split(b"\n")[:-1]
    found = Collected(task, lines, [])
    verdicts = found.judged(b"\n".join(lines))
    assert [state for state, _ in verdicts] == ["completed"] * len(LETTERS)
    assert len({output for _, output in verdicts}) == len(LETTERS), "a swapped answer must be seen"
    return replace(found, verdicts=verdicts)


@FUZZ
@given(content=st.binary(max_size=3000))
def test_any_bytes_give_every_row_a_verdict(collected: Collected, content: bytes) -> None:
    assert [state for state, _ in collected.judged(content)] == ["provider_error"] * len(LETTERS)


@FUZZ
@given(data=st.data())
def test_bytes_that_change_give_every_row_a_verdict(collected: Collected, data: st.DataObject) -> None:
    content = bytearray(b"\n".join(collected.lines))
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 40))] = data.draw(JUNK)
    assert len(collected.judged(bytes(content))) == len(LETTERS)


@FUZZ
@given(data=st.data())
def test_lines_in_any_order_cut_and_repeated_give_each_row_its_own_answer(
    collected: Collected, data: st.DataObject
) -> None:
    """Every whole line is found, as long as nothing but blanks is beside it; what is cut or gone is never made up."""
    numbers = st.integers(0, len(LETTERS) - 1)
    whole = data.draw(st.lists(numbers, max_size=12))
    pieces = [collected.lines[number] + b"\n" for number in whole]
    for _ in range(data.draw(st.integers(0, 4))):
        line = collected.lines[data.draw(numbers)]
        piece = data.draw(st.sampled_from([line[: data.draw(st.integers(0, len(line) - 1))], data.draw(JUNK)]))
        pieces.insert(data.draw(st.integers(0, len(pieces))), b"\n" + piece.replace(b"\n", b"") + b"\n")
    for number, (verdict, good) in enumerate(zip(collected.judged(b"".join(pieces)), collected.verdicts, strict=True)):
        assert verdict == (good if number in whole else ("provider_error", None))
