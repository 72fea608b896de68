"""Does what a job needs of its provider work? Key, listing, upload, model: asked one by one, and nothing of it spends."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchctl.files import write_file
from batchctl.model.batches import Request
from batchctl.model.errors import BatchctlError, Exit, NotFound
from batchctl.providers.guard import Guarded
from batchctl.workflow.reports import Report
from batchctl.workflow.workspace import Options, opened


def providers_check(options: Options) -> Report:
    """Try the job's provider. Exit 0 when everything works, else the code of the first thing that does not."""
    with opened(options, write=False) as workspace:
        plan = workspace.current_plan()
        assert plan is not None
        provider = workspace.provider(plan)
        model = plan.job.model.name
        # One line of a file that is uploaded, never named in a batch, and deleted again.
        line = provider.provider.encode(Request("batchctl-check", plan.endpoint, {"check": "batchctl"})) + b"\n"
        found: list[dict[str, Any]] = []
        code = Exit.OK

        def tried(name: str, act: Callable[[], str]) -> None:
            nonlocal code
            if code is Exit.NOT_ALLOWED:
                found.append({"check": name, "ok": None, "detail": "not tried: the key does not work"})
                return
            try:
                found.append({"check": name, "ok": True, "detail": act()})
            except BatchctlError as error:
                hint = f"; {error.hint}" if error.hint else ""
                found.append({"check": name, "ok": False, "detail": f"{error.what}{hint}"})
                code = error.exit_code if code is Exit.OK else code

        def listed() -> str:
            with tempfile.TemporaryDirectory() as folder:
                chunk = Path(folder) / "0001.jsonl"
                write_file(chunk, line)
                staged = "batchctl-check" if provider.traits.uploads else str(chunk)
                provider.find(staged, tag=f"batchctl-check-{secrets.token_hex(8)}", since=int(time.time()))
            return "batches can be listed"

        tried("key", lambda: "is set" if provider.account() else "none is needed")
        tried("batches", listed)
        if provider.traits.uploads:
            tried("upload", lambda: _uploaded(provider, line))
        tried("model", lambda: _known(provider, model))
        for one in found:
            if one["check"] == "model" and one["ok"] and one["detail"] == NOT_VERIFIED:
                one["ok"] = None
        words = {True: "ok", False: "fails", None: "?"}
        lines = [f"{provider.name} / {model}"]
        lines += [f"  {one['check']:<9}{words[one['ok']]:<7}{one['detail']}" for one in found]
        facts = {"provider": provider.name, "model": model, "checks": found}
        return Report(
            "providers",
            None,
            code,
            None,
            None,
            tuple(lines),
            f"batchctl prepare {options.target or 'job.toml'}"
            if code is Exit.OK
            else "correct what fails, then check again",
            facts,
            simulated=plan.job.model.provider == "emulator",
        )


NOT_VERIFIED = "not verified: the provider has no free way to ask"


def _uploaded(provider: Guarded, line: bytes) -> str:
    """A small file put where chunks go, and taken away again."""
    with tempfile.TemporaryDirectory() as folder:
        chunk = Path(folder) / "0001.jsonl"
        write_file(chunk, line)
        staged = provider.stage(chunk, name=f"batchctl-check-{secrets.token_hex(8)}.jsonl")
    provider.delete(staged)
    return "a small file was stored and deleted"


def _known(provider: Guarded, model: str) -> str:
    ask = getattr(provider.provider, "knows_model", None)
    if ask is None:
        return NOT_VERIFIED
    if not provider.free(lambda: ask(model)):
        raise NotFound(
            f"the model `{model}` is not there for this key",
            where=f"provider {provider.name}",
            effect="nothing was sent",
            hint="correct [model] name, or use a key that may use it",
        )
    return "is there for this key"
