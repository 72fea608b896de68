"""The HTTP server: routes of the wires, the request log, scripted faults, and the emulator's own routes.

Every call to a wire passes one place (`_guard`), which numbers it, applies a scripted fault and writes the request log
before the answer leaves. Calls under `/emulator/` are the tests' own: never faulted, never logged.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator.batches import force
from batchctl.emulator.call import CALL, Call
from batchctl.emulator.faults import CallFault
from batchctl.emulator.store import new_id
from batchctl.emulator.wire import ODD, Context, Wire, WireError
from batchctl.emulator.wires import all_wires
from batchctl.emulator.witness import rows_of, summary
from batchctl.model.errors import UsageError

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_GARBAGE = b"<!doctype html><html><head><title>Welcome</title></head><body>Please sign in.</body></html>"


IDENTITIES = ("id", "name", "jobArn")
"""What the wires call the id of what a call has made."""


class _DroppedError(Exception):
    """The connection is to be closed without an answer."""


def build(context: Context) -> web.Application:
    wires = all_wires(context)
    app = web.Application(client_max_size=1 << 40, middlewares=[_guard_of(context, wires)])
    for wire in wires:
        wire.others()
    own = _Own(context, wires)
    app.add_routes(
        [
            web.get("/emulator/billed", own.billed),
            web.get("/emulator/billed/rows", own.billed_rows),
            web.post("/emulator/faults", own.add_faults),
            web.delete("/emulator/faults", own.clear_faults),
            web.post("/emulator/batches/{id}", own.force),
            *(route for wire in wires for route in wire.routes()),
        ]
    )
    return app


class _Own:
    """The emulator's own routes: its books, and its levers."""

    def __init__(self, context: Context, wires: list[Wire]) -> None:
        self._context = context
        self._wires = wires

    async def billed(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=orjson.dumps(summary(self._context.store)), content_type="application/json")

    async def billed_rows(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        waiting = bytearray()
        for line in rows_of(self._context.store):
            waiting += line
            if len(waiting) > 1 << 16:
                await response.write(bytes(waiting))
                waiting.clear()
        if waiting:
            await response.write(bytes(waiting))
        await response.write_eof()
        return response

    async def add_faults(self, request: web.Request) -> web.StreamResponse:
        """One fault, a list of them, or `{"calls": [...]}`; their calls are counted from now on."""
        given = orjson.loads(await request.read())
        if isinstance(given, dict):
            given = given.get("calls", [given])
        faults = [CallFault.from_mapping(one, "POST /emulator/faults") for one in given]
        for fault in faults:
            self._context.store.add_fault(fault)
        return web.json_response({"added": len(faults)})

    async def clear_faults(self, _request: web.Request) -> web.StreamResponse:
        self._context.store.clear_faults()
        return web.json_response({"cleared": True})

    async def force(self, request: web.Request) -> web.StreamResponse:
        wanted = orjson.loads(await request.read())
        shown = force(self._context, self._wires, request.match_info["id"], wanted)
        return web.Response(body=orjson.dumps(shown), content_type="application/json")


def _guard_of(context: Context, wires: list[Wire]) -> Any:
    def wire_of(request: web.Request) -> Wire:
        return next((one for one in wires if one.owns(request.path)), wires[-1])

    async def answered(request: web.Request, handler: _Handler) -> web.StreamResponse:
        wire = wire_of(request)
        try:
            if wire.owns(request.path):
                wire.refuse_stranger(request)
            return await handler(request)
        except WireError as refusal:
            return _refused(refusal)
        except UsageError as error:
            return _refused(wire.refusal(400, error.what))
        except ODD as error:
            return _refused(wire.odd(error))
        except web.HTTPNotFound:
            message = f"Invalid URL ({request.method} {request.path})"
            return _refused(wire.refusal(404, message))
        except web.HTTPMethodNotAllowed:
            message = f"Not allowed to {request.method} on {request.path}."
            return _refused(wire.refusal(405, message))

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            return await guarded(request, handler)
        except ConnectionResetError:
            return web.Response()  # the caller has gone in the middle of its request: there is nobody to tell
        except (sqlite3.Error, OSError, AssertionError, RuntimeError) as error:
            if request.transport is None:
                raise  # the caller has gone: there is nobody to tell
            request.app.logger.exception("%s %s failed in the emulator", request.method, request.path)
            what = f"The emulator failed, not a fault you asked for: {type(error).__name__}: {error}"
            return _refused(wire_of(request).refusal(500, what))

    async def guarded(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path.startswith("/emulator/"):
            return await answered(request, handler)
        number, fault = context.store.next_call(request.method, request.path, context.settings.calls)
        request_id = new_id("req_")
        CALL.set(Call())
        response: web.StreamResponse | None = None
        try:
            if fault is None:
                response = await answered(request, handler)
            else:
                response = await _struck(request, handler, answered, fault, wire_of(request))
        except _DroppedError:
            response = None
        _write(context, wire_of(request), request, number, request_id, response, fault)
        if fault is not None and fault.do == "hang":
            await asyncio.sleep(fault.seconds)
        if response is None or request.transport is None:
            _close(request)
            return web.Response()
        response.headers["x-request-id"] = request_id
        response.headers["request-id"] = request_id
        response.headers["x-batchctl-emulator"] = "simulated"
        response.headers["Date"] = formatdate(time.time() + context.settings.clock_offset, usegmt=True)
        if fault is not None and fault.do in ("truncate", "truncate-clean"):
            return await _half(request, response, clean=fault.do == "truncate-clean")
        return response

    return guard


def _write(
    context: Context,
    wire: Wire,
    request: web.Request,
    number: int,
    request_id: str,
    response: web.StreamResponse | None,
    fault: CallFault | None,
) -> None:
    entry: dict[str, Any] = {
        "seq": number,
        "at": time.time(),
        "method": request.method,
        "path": request.path,
        "query": request.query_string,
        "status": "dropped" if response is None else response.status,
        "fault": None if fault is None else fault.do,
        "idempotency_key": request.headers.get("Idempotency-Key"),
        "request_id": request_id,
        "bytes": request.content_length,
        "user_agent": request.headers.get("User-Agent"),
    }
    call = CALL.get()
    if request.method == "POST" and wire.creates(request.path):
        entry["metadata"], entry["created"] = call.metadata, call.created
    context.log.write(entry)


async def _struck(
    request: web.Request, handler: _Handler, answered: Any, fault: CallFault, wire: Wire
) -> web.StreamResponse:
    """What a fault leaves of a call. Raises `_DroppedError` for a connection that closes without an answer."""
    if not fault.acts:
        if (request.content_length or 0) < 1 << 20:
            await request.read()  # the caller has sent everything, so that it sees the answer and not a broken pipe
        if fault.do == "drop-before":
            raise _DroppedError
        if fault.do == "redirect":
            place = fault.location or f"http://{request.host}/emulator/redirected"
            return web.Response(status=307, headers={"Location": place})
        return _refused(_refusal_of(fault, wire))
    call = CALL.get()
    call.hide = fault.hide
    if fault.do == "late":
        call.later = fault.seconds
    response: web.StreamResponse = await answered(request, handler)
    if fault.do in ("drop-after", "late"):
        raise _DroppedError
    if fault.do == "garbage":
        return web.Response(body=_GARBAGE, content_type="text/html")
    if fault.do == "empty":
        return web.Response(body=b"", content_type="application/json")
    if fault.do == "no-id" and response.content_type == "application/json":  # the content of a file has none to lose
        body = orjson.loads(_body_of(response) or b"{}")
        for part in (body, *(one for one in body.values() if isinstance(one, dict))):  # some answer with a wrapper
            for name in IDENTITIES:
                part.pop(name, None)
        return web.Response(body=orjson.dumps(body), content_type="application/json")
    if fault.status is not None:
        return _refused(_refusal_of(fault, wire))
    return response


def _refusal_of(fault: CallFault, wire: Wire) -> WireError:
    headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
    if fault.do == "insufficient_quota":
        return wire.quota(headers)
    return wire.refusal(fault.status or 500, headers=headers)


def _refused(refusal: WireError) -> web.Response:
    if isinstance(refusal.body, bytes):
        return web.Response(
            status=refusal.status, body=refusal.body, content_type="application/xml", headers=refusal.headers
        )
    return web.Response(
        status=refusal.status,
        body=orjson.dumps(refusal.body),
        content_type="application/json",
        headers=refusal.headers,
    )


def _body_of(response: web.StreamResponse) -> bytes:
    """The whole body of an answer not yet sent; only faults need it, so a file may be held here."""
    if isinstance(response, web.FileResponse):
        return Path(response._path).read_bytes()
    body = getattr(response, "body", b"")
    return bytes(body) if isinstance(body, bytes | bytearray) else b""


async def _half(request: web.Request, response: web.StreamResponse, *, clean: bool) -> web.StreamResponse:
    """Half of the body: with the length of the whole and a lost connection, or as a chunked body that ends well."""
    body = _body_of(response)
    half = web.StreamResponse(status=response.status, headers=response.headers)
    half.headers.popall("Content-Length", None)
    if clean:
        half.enable_chunked_encoding()
    else:
        half.content_length = len(body)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if clean:
        await half.write_eof()
    else:
        await asyncio.sleep(0)
        _close(request)
    return half


def _close(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()
