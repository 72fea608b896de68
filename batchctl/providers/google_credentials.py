"""Google's application default credentials: who calls, with a token that is fresh whenever one is needed.

On loopback there are none: what listens there needs no token, and must not be given one. Tokens last about an hour, so
none is kept here; google-auth renews its own before it runs out.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from batchctl.model.errors import BatchctlError, NotAllowed, Throttled

VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)


class Credentials:
    """Loaded when first asked for. `local`: nobody, for an address on this machine."""

    def __init__(self, *, local: bool) -> None:
        self._local = local
        self._found: Any = None
        self._project: str | None = None
        self._lock = threading.Lock()

    def get(self) -> Any:
        """google-auth's object, or `NotAllowed` when there is none on this machine."""
        with self._lock:
            if self._found is None:
                self._found, self._project = self._load()
            return self._found

    @property
    def project(self) -> str | None:
        """The project the credentials name, if they do."""
        self.get()
        return self._project

    def _load(self) -> tuple[Any, str | None]:
        if self._local:
            from google.auth.credentials import AnonymousCredentials

            return AnonymousCredentials(), None  # type: ignore[no-untyped-call]
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError

        try:
            return google.auth.default(scopes=SCOPES)
        except DefaultCredentialsError as error:
            raise NotAllowed(
                "no Google credentials are on this machine",
                where=str(error).partition("\n")[0][:200],
                effect="nothing was sent",
                hint=f"gcloud auth application-default login, or set {VARIABLE} to a key file",
            ) from None

    def headers(self) -> Mapping[str, str]:
        """What a call carries, with a token that is valid now."""
        found, headers = self.get(), dict[str, str]()
        if not self._local:
            from google.auth.transport.requests import Request

            found.before_request(Request(), "POST", "", headers)
        return headers

    def hidden_in(self, text: str) -> str:
        """`text` without the token: a gateway may repeat what it was sent."""
        token = getattr(self._found, "token", None)
        return text.replace(token, "[token]") if isinstance(token, str) and token else text


def auth_outcome(error: BaseException) -> BatchctlError | None:
    """What an exception of google-auth means: nothing was sent."""
    from google.auth.exceptions import GoogleAuthError, TransportError

    if isinstance(error, TransportError):
        return Throttled(f"cannot get a token: {str(error)[:200]}", effect="nothing was sent", code="unreachable")
    if isinstance(error, GoogleAuthError):
        return NotAllowed(
            f"the Google credentials were not accepted: {type(error).__name__}",
            where=str(error).partition("\n")[0][:200],
            effect="nothing was sent",
            hint=f"gcloud auth application-default login, or set {VARIABLE} to a key file",
        )
    return None
