"""Files for `vllm run-batch`: a provider without a server. A batch is a request file in a folder, and its answers beside it.

A chunk is copied to `NAME.jsonl`, a person runs `vllm run-batch -i NAME.jsonl -o NAME.out.jsonl --model MODEL`, and the
batch has ended once the output has as many whole lines as the input: vLLM writes one line a request, in order, and leaves
the beginning of a file when it is killed. A batch cancelled here (a file `NAME.cancelled`) ends with what is there.
Nothing is sent anywhere and nobody bills; there is no key, no live endpoint, and no create apart from the copy.

Facts: vllm-project/vllm `vllm/entrypoints/openai/run_batch.py`, read 2026-11-21. Its memory holds a whole file, so the
limits are our own.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from batchctl.files import blocks_of, make_directory, replacing, write_file
from batchctl.model.batches import BatchState, BatchStatus, Candidate, LiveAnswer, Post, Traits
from batchctl.model.errors import BatchctlError, NotFound, UsageError
from batchctl.providers.chunk_body import lines_in, opened
from batchctl.providers.openai import OpenAIBatch
from batchctl.providers.profiles import VLLM

ENDS = ("complete", "cancelled")


class VllmFiles(OpenAIBatch):
    """The folder that request files are put in and output files are looked for in."""

    knows_model: Any = None  # nobody is there to ask

    def __init__(self, *, name: str = "vllm", folder: Path | None = None) -> None:
        super().__init__(name=name, profile=VLLM)
        self._folder = folder
        self.traits = Traits(
            searchable=True,
            fenced=True,
            live=False,
            paid=False,
            endpoints=VLLM.endpoints,
            retention=VLLM.retention,
            regions=VLLM.regions,
        )

    def account(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def close(self) -> None:
        """There is nothing to let go of."""

    def outcome(self, error: BaseException) -> BatchctlError | None:
        if isinstance(error, FileNotFoundError):
            return NotFound("a file of the batch is not there", where=str(error.filename))
        return None

    def _at(self, name: str) -> Path:
        assert self._folder is not None, "a command that hands files out says where"
        if Path(name).name != name:  # an id that a person typed
            raise NotFound(f"there is no batch `{name}`", where=str(self._folder))
        return self._folder / name

    def command(self, batch_id: str, model: str) -> str:
        """What a person runs next."""
        source, target = self._at(f"{batch_id}.jsonl"), self._at(f"{batch_id}.out.jsonl")
        return shlex.join(["vllm", "run-batch", "-i", str(source), "-o", str(target), "--model", model])

    # --- the wire, as it were ---------------------------------------------------------------------------------------

    def stage(self, chunk: Path, *, name: str) -> str:
        target = self._at(name)
        make_directory(target.parent)
        with opened(str(chunk)) as source, replacing(target) as out:
            for block in blocks_of(source):
                out.write(block)
        return name

    def create(self, staged: str, *, endpoint: str, tag: str, run: str, chunk: int) -> str:  # noqa: ARG002
        if not self._at(staged).is_file():
            raise NotFound(
                "the request file is not there", where=str(self._at(staged)), effect="nothing was handed out"
            )
        return staged.removesuffix(".jsonl")

    def find(self, staged: str, *, tag: str, since: int, known: Container[str] = ()) -> list[Candidate]:  # noqa: ARG002
        """A request file that is there is a batch."""
        if not staged or not self._at(staged).is_file():
            return []
        return [Candidate(staged.removesuffix(".jsonl"), int(self._at(staged).stat().st_mtime), "waiting", "input")]

    def poll(self, batch_id: str) -> BatchStatus:
        total = lines_in(str(self._at(f"{batch_id}.jsonl")))
        output = self._at(f"{batch_id}.out.jsonl")
        done = lines_in(str(output)) if output.is_file() else 0
        word = "waiting" if not done else "running"
        if done >= total:
            word = "complete"
        elif self._at(f"{batch_id}.cancelled").is_file():
            word = "cancelled"
        return BatchStatus(
            state=BatchState.ENDED if word in ENDS else BatchState.RUNNING,
            vendor_status=word,
            batch_id=batch_id,
            files=(("output", output.name),) if word in ENDS and output.is_file() else (),
            counts={"total": total, "completed": done},
        )

    def results(self, handle: str) -> Iterator[bytes]:
        with self._at(handle).open("rb") as file:
            yield from blocks_of(file)

    def size_of(self, handle: str) -> int | None:
        return self._at(handle).stat().st_size

    def cancel(self, batch_id: str) -> None:
        if self.poll(batch_id).state is BatchState.RUNNING:
            write_file(self._at(f"{batch_id}.cancelled"), b"")

    def delete(self, staged: str) -> None:
        self._at(staged).unlink(missing_ok=True)

    def live_post(self, endpoint: str) -> Post | None:  # noqa: ARG002
        return None

    def call(self, body: bytes, endpoint: str) -> LiveAnswer:  # noqa: ARG002
        raise UsageError(
            f"{self.name} has no endpoint that answers single requests",
            where="[model] provider",
            effect="nothing was sent",
            hint="there is no dry run for files; a vLLM server can be tried as openai-compatible",
        )
