"""The chunks of a new attempt: failed rows packed again under one plan, identical requests once."""

from __future__ import annotations

from pathlib import Path

import orjson

from batchctl.chunks.names import copies_name
from batchctl.chunks.segments import COPIES, SegmentWriter
from batchctl.chunks.write import Packed, Packer, clear_chunks
from batchctl.ledger.transitions import NewChunk
from batchctl.model.errors import UsageError
from batchctl.model.ids import record_key
from batchctl.model.rows import Unusable
from batchctl.workflow.judged_rows import JudgedRow
from batchctl.workflow.requests import chunk_limits, even_rows, line_splice, new_chunk, require_enough, row_encoder
from batchctl.workflow.workspace import Plan


class Group:
    """Rows that are sent again under one plan, as one attempt."""

    def __init__(
        self, directory: Path, run_id: str, plan: Plan, attempt: int, first_number: int, rows: int, *, lane: str
    ) -> None:
        self.directory = directory
        self.lane = lane
        self.plan = plan
        self.attempt = attempt
        self.splice, _ = line_splice(plan, None)
        limits = chunk_limits(plan)
        self.encode = row_encoder(self.splice, limits.line_bytes)
        clear_chunks(directory, first_number)
        self.packer = Packer(
            directory,
            run=run_id,
            settings=plan.settings,
            attempt=attempt,
            frame=self.splice.frame,
            max_rows=even_rows(limits, rows),
            max_bytes=limits.file_bytes,
            first_number=first_number,
            separator=plan.codec().traits.id_separator,
        ).__enter__()
        self.paid: dict[bytes, tuple[int, str]] = {}  # request digest to its ordinal and source id
        self.copies: list[tuple[int, str, bytes, int, str, bytes]] = []
        self.count = 0

    def add(self, row: JudgedRow) -> None:
        """One more row; raises when the plan makes no request of it."""
        encoded = self.encode(orjson.loads(row.row))
        if isinstance(encoded, Unusable):
            raise UsageError(
                f"row `{row.source_id}` cannot become a request any more: {encoded.reason}",
                where=self.plan.where["prompt"],
                effect="nothing was sent",
                hint="correct the prompt",
            )
        _, request, middle = encoded
        source_id = row.source_id.encode()
        key = record_key(request, source_id)
        if self.plan.job.source.on_identical_text == "copy" and request in self.paid:
            ordinal, payer = self.paid[request]
            self.copies.append((row.position, row.source_id, key, ordinal, payer, row.row))
            return
        self.paid[request] = (self.count, row.source_id)
        self.count += 1
        self.packer.add(row.position, source_id, key, request, row.row, middle)

    def finish(self) -> list[NewChunk]:
        """Close and check the chunk files; what the ledger needs to know of them."""
        self.packer.__exit__(None)
        chunks = self.packer.chunks
        require_enough(self.plan, [one.requests for one in chunks], lane=self.lane)
        made = self._write_copies(chunks)
        codec = self.plan.codec()
        endpoint, model = self.plan.endpoint, self.plan.job.model.name
        return [
            new_chunk(
                self.directory,
                one,
                made.get(one.number, 0),
                lambda line: codec.check_line(line, endpoint, model),
                attempt=self.attempt,
                settings=self.plan.settings,
                splice=self.splice,
            )
            for one in chunks
        ]

    def _write_copies(self, chunks: list[Packed]) -> dict[int, int]:
        made: dict[int, int] = {}
        start = 0
        for chunk in chunks:
            mine = [one for one in self.copies if start <= one[3] < start + chunk.requests]
            if mine:
                with SegmentWriter(self.directory / copies_name(chunk.number), COPIES) as out:
                    for position, source_id, key, ordinal, payer, row in sorted(mine):
                        out.add(position, source_id, key, ordinal - start, payer, row)
                made[chunk.number] = len(mine)
            start += chunk.requests
        return made
