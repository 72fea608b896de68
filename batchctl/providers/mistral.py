"""Mistral batch jobs: OpenAI's files and bodies, jobs of its own under `/v1/batch/jobs`.

A line is `{"custom_id", "body"}`; `model` stands in each body, which the vendor takes in place of the job's. Jobs carry
our mark in their metadata. Results can be fetched for 24 hours after the end only. A job that failed may have answered
rows before: it counts as refused only when it has nothing to show.

Facts: mistralai 3.7.0 (`client/jobs.py`, `client/models/batchjob.py`), docs.mistral.ai/studio-api/batch-processing and
.../resources/known-limitations, read 2026-11-21. What deleting an input does to a late create is not documented.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import UTC, datetime
from typing import Any

from batchctl.model.batches import BatchState, BatchStatus, Candidate, LineError, Refusal
from batchctl.model.errors import OutcomeUnknown
from batchctl.providers.http import epoch, has_id, identity, json_object, whole
from batchctl.providers.openai import LIST_PAGES, PAGE_BATCHES, OpenAIBatch
from batchctl.providers.profiles import MISTRAL


class MistralBatch(OpenAIBatch):
    """Mistral's wire."""

    batches = "/batch/jobs"

    def __init__(
        self,
        *,
        name: str = "mistral",
        base_url: str | None = None,
        api_key: str | None = None,
        key_name: str | None = None,
    ) -> None:
        super().__init__(name=name, profile=MISTRAL, base_url=base_url, api_key=api_key, key_name=key_name)

    def _address(self, given: str) -> str:
        return given.rstrip("/").removesuffix("/v1") + "/v1"

    def create(self, staged: str, *, endpoint: str, tag: str, run: str, chunk: int) -> str:
        job = {
            "input_files": [staged],
            "endpoint": endpoint,
            "metadata": {"batchctl_intent": tag, "batchctl_run": run, "batchctl_chunk": str(chunk)},
        }
        return identity(self._asked("post", self.batches, body=job), "create")

    def find(self, staged: str, *, tag: str, since: int, known: Container[str] = ()) -> list[Candidate]:  # noqa: ARG002
        """As the contract says: every page is read and compared here, so that nothing rests on the server's filters."""
        found: dict[str, Candidate] = {}
        seen = 0
        query = {
            "page_size": PAGE_BATCHES,
            "order_by": "-created",
            "created_after": datetime.fromtimestamp(since, UTC).isoformat(),
        }
        for page in range(LIST_PAGES):
            answer = json_object(self._asked("get", self.batches, query={**query, "page": page}), "GET " + self.batches)
            total, jobs = whole(answer.get("total")), answer.get("data")
            if jobs is None and total == 0:  # an empty list may be left out
                jobs = []
            if (
                total is None
                or not isinstance(jobs, list)
                or not all(isinstance(one, dict) and has_id(one) for one in jobs)
            ):
                raise OutcomeUnknown(f"{self.name} answered with something else than a list of jobs")
            for job in jobs:
                candidate = _candidate(job, staged, tag)
                if candidate is not None:
                    found[candidate.batch_id] = candidate
            seen += len(jobs)
            if seen >= total:
                break
            if not jobs:
                raise OutcomeUnknown(
                    f"{self.name} listed {seen} of {total} jobs and then none", where="GET " + self.batches
                )
        else:
            raise OutcomeUnknown(
                f"{self.name} listed more than {LIST_PAGES * PAGE_BATCHES:,} jobs", where="GET " + self.batches
            )
        return sorted(found.values(), key=lambda one: (one.created_at or 0, one.batch_id))

    def _read(self, batch: Mapping[str, Any]) -> BatchStatus:
        return status_of(batch)


def _candidate(job: Mapping[str, Any], staged: str, tag: str) -> Candidate | None:
    metadata, inputs = job.get("metadata"), job.get("input_files")
    marked = isinstance(metadata, dict) and metadata.get("batchctl_intent") == tag
    reads = bool(staged) and isinstance(inputs, list) and staged in inputs
    if not marked and not reads:
        return None
    by = "mark and input" if marked and reads else "mark" if marked else "input"
    return Candidate(str(job["id"]), epoch(job.get("created_at")), str(job.get("status")), by)


def status_of(job: Mapping[str, Any]) -> BatchStatus:
    """One job object as `BatchStatus`. Tolerates missing counts and words it does not know."""
    word = str(job.get("status") or "").lower()
    named = [(kind, job.get(key)) for kind, key in (("output", "output_file"), ("errors", "error_file"))]
    files = tuple((kind, handle) for kind, handle in named if isinstance(handle, str) and handle)
    keys = {"total": "total_requests", "completed": "succeeded_requests", "failed": "failed_requests"}
    counts = {ours: job[theirs] for ours, theirs in keys.items() if whole(job.get(theirs)) is not None}
    complaints = (
        tuple(
            LineError(code=word or "unknown", message=str(one.get("message") or "")[:500])
            for one in job.get("errors") or ()
            if isinstance(one, dict)
        )
        if isinstance(job.get("errors"), list)
        else ()
    )
    state = MISTRAL.states.get(word, BatchState.RUNNING)
    if state is BatchState.REFUSED and (files or counts.get("completed")):
        state = BatchState.ENDED
    return BatchStatus(
        state=state,
        vendor_status=str(job.get("status") or "unknown"),
        batch_id=str(job.get("id") or ""),
        files=files,
        counts=counts,
        refusal=Refusal.FILE if state is BatchState.REFUSED else None,
        errors=complaints,
        known_word=word in MISTRAL.states,
        owes_results=word == MISTRAL.completed,
        out_of_time=word == MISTRAL.expired,
    )
