"""Loaded by every interpreter the test starts: a connection that would leave this machine ends the process."""

import os
import socket
import sys
from typing import Any

_connect, _connect_ex, _sendto = socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto
_lookup = socket.getaddrinfo


def _check(place: object) -> None:
    if isinstance(place, tuple) and str(place[0]) not in ("127.0.0.1", "::1", "localhost"):
        os.write(2, f"LEFT THE MACHINE: {place[0]}\n".encode())
        os._exit(99)


def _guarded(name: str, function: Any, position: int) -> Any:
    def call(*arguments: Any, **more: Any) -> Any:
        _check(arguments[position])
        return function(*arguments, **more)

    call.__name__ = name
    return call


def _resolved(host: Any, *arguments: Any, **more: Any) -> Any:
    if host not in (None, "", b""):
        _check((host.decode() if isinstance(host, bytes) else host,))
    return _lookup(host, *arguments, **more)


socket.socket.connect = _guarded("connect", _connect, 1)  # type: ignore[method-assign]
socket.socket.connect_ex = _guarded("connect_ex", _connect_ex, 1)  # type: ignore[method-assign]
socket.socket.sendto = _guarded("sendto", _sendto, -1)  # type: ignore[method-assign]
socket.getaddrinfo = _resolved
sys.modules["batchctl_test_loopback"] = sys.modules[__name__]  # proof that it is there
