"""One request of Google's, answered at once: the same answers and fates as in a batch, drawn without a key."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson
from aiohttp import web

from batchctl.emulator.faults import Fates
from batchctl.emulator.google_answers import Manner
from batchctl.emulator.google_checks import RefusedError
from batchctl.emulator.store import new_id
from batchctl.emulator.wire import Context

_LIVE = {"error500": 500, "error429": 429, "timeout": 504, "expired": 503, "unknown": 500}


def one_answer(
    context: Context, manner: Manner, endpoint: str, request: dict[str, Any], body: dict[str, Any]
) -> web.StreamResponse:
    """`request` is what was asked, checked; `body` as it was written: what is drawn depends on it."""
    settings = context.settings
    payload = orjson.dumps(body)
    digest = sha256(payload)
    fate = Fates(settings).draw(digest.digest(), "", payload)
    if fate.delivery in _LIVE:
        raise RefusedError(status=_LIVE[fate.delivery])
    said = manner.answer(request, payload, fate.quality, new_id("")[:24], settings.seed)
    context.bill_live(endpoint, digest.hexdigest(), said)
    return web.Response(body=said.body, content_type="application/json")
