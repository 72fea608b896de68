"""What may stand between a client and its provider: a proxy that cuts requests, a proxy with a password, a TLS server
nobody trusts, a server that refuses to end. All of it on loopback, one thread each."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

Handle = Callable[[socket.socket, bytes], None]


class Middlebox:
    """Listens on loopback and hands each connection, with the first request read from it, to `handle`."""

    def __init__(self, handle: Handle, *, tls: ssl.SSLContext | None = None) -> None:
        self._handle = handle
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heads: list[bytes] = []
        """First lines of what was asked."""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Middlebox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            with client:
                self._one(client)

    def _one(self, client: socket.socket) -> None:
        client.settimeout(10)
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            asked = read_request(client)
            if asked:
                self.heads.append(asked.partition(b"\r\n\r\n")[0])
                self._handle(client, asked)
        except (OSError, ssl.SSLError):
            return  # the client has left, as it may


def read_request(client: socket.socket) -> bytes:
    """One whole request, as its Content-Length or its last chunk tells."""
    asked = b""
    while b"\r\n\r\n" not in asked:
        block = client.recv(65_536)
        if not block:
            return asked
        asked += block
    head, _, body = asked.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        if name.lower() == b"transfer-encoding":
            while not asked.endswith(b"0\r\n\r\n"):
                asked += client.recv(65_536)
            return asked
    while len(body) < length:
        block = client.recv(65_536)
        if not block:
            break
        body += block
    return head + b"\r\n\r\n" + body


def forward(client: socket.socket, asked: bytes, url: str, *, most: int | None = None) -> None:
    """Send a request on to `url`, or its first `most` bytes, and bring the answer back. Connections are not kept."""
    head, _, body = asked.partition(b"\r\n\r\n")
    lines = [one for one in head.split(b"\r\n") if not one.lower().startswith(b"connection:")]
    whole = b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=10) as provider:
        provider.sendall(whole[:most])
        if most is not None:
            return
        while block := provider.recv(65_536):
            client.sendall(block)
