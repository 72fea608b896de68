"""`/gcs/...`: the Cloud Storage server behind the Vertex wire."""

from __future__ import annotations

from batchctl.emulator.google_checks import GoogleErrors, RefusedError
from batchctl.emulator.settings import Settings
from batchctl.emulator.store_front import StoreFront
from batchctl.emulator.vertex_batch import gcs_of


class GcsFront(GoogleErrors, StoreFront):
    """A window on the Cloud Storage server; it names addresses for uploads in several pieces."""

    name = "gcs"
    same_host = True

    def address(self, settings: Settings) -> str:
        return gcs_of(settings)

    def refusal(self, status: int, message: str = "", headers: dict[str, str] | None = None) -> RefusedError:
        return GoogleErrors.refusal(self, status, message, headers)
