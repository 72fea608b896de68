"""A submission whose outcome is unknown: the evidence, and a person's decision."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from batchctl.files import sha256_of, write_file
from batchctl.ledger import live_calls, queries, transitions
from batchctl.ledger.queries import Intent
from batchctl.model.batches import Proof
from batchctl.model.errors import BatchctlError, ConsentMissing, Exit, UsageError
from batchctl.workflow import reconcile, unreachable
from batchctl.workflow.money import cost
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.results import write_results
from batchctl.workflow.standing import is_simulated
from batchctl.workflow.validate import judged
from batchctl.workflow.workspace import Options, Workspace, opened


def resolve(
    options: Options,
    *,
    chunk: int | None = None,
    adopt: str | None = None,
    not_sent: bool = False,
    abandon: bool = False,
) -> Report:
    """Show what is known of every open submission, or settle one: adopt a batch, declare it not sent, or give it up."""
    decisions = [one for one in (adopt, not_sent, abandon) if one]
    if len(decisions) > 1:
        raise UsageError("choose one of --adopt, --not-sent and --abandon", effect="nothing was changed")
    with opened(options, write=True) as workspace:
        run = workspace.run
        workspace.lock()
        unsure = [one for one in queries.live_intents(workspace.ledger.db, run.id).values() if one.state == "open"]
        lost = queries.lost_calls(workspace.ledger.db, run.id)
        if chunk is not None:
            unsure = [one for one in unsure if one.chunk == chunk]
            lost = {one: count for one, count in lost.items() if one == chunk}
            if not unsure and not lost and (beyond := unreachable.look(workspace, run, chunk)) is not None:
                return _beyond(workspace, run, beyond, decisions, abandon=abandon)
            if not unsure and not lost:
                raise UsageError(
                    f"chunk {chunk} of {run.id} is not waiting for a decision",
                    effect="nothing was changed",
                    hint=f"`batchctl resolve {run.id}` lists those that are",
                )
        evidence = [_evidence(workspace, one) for one in unsure] + [_calls(run, *one) for one in sorted(lost.items())]
        lines: list[str] = []
        if lost and decisions and not unsure:
            lines += [_decide_calls(workspace, run, lost, adopt=adopt, not_sent=not_sent)]
        elif not evidence:
            lines.append(f"{run.id}: every submission's outcome is known")
        elif decisions:
            if len(unsure) > 1:
                raise UsageError(
                    f"{len(unsure)} submissions are open; name one", effect="nothing was changed", hint="add --chunk N"
                )
            lines.append(_decide(workspace, unsure[0], evidence[0], adopt=adopt, not_sent=not_sent))
        else:
            for one in evidence:
                lines += one["lines"]
        db = workspace.ledger.db
        balance = queries.balance(db, run.id)
        waiting = balance["held"] or queries.lost_calls(db, run.id)
        code = Exit.UNKNOWN if waiting else Exit.OK
        following = (
            f"batchctl resolve {run.id} {'--adopt ID | ' if unsure else ''}--not-sent | --abandon"
            if waiting
            else f"batchctl {('poll' if unsure else 'rerun') if decisions else 'status'} {run.id}"
        )
        facts = {"open": [{key: value for key, value in one.items() if key != "lines"} for one in evidence]}
        return Report(
            "resolve",
            run.id,
            code,
            balance,
            cost(db, run, balance),
            tuple(lines),
            following,
            facts,
            simulated=is_simulated(workspace),
        )


def _beyond(
    workspace: Workspace, run: queries.Run, found: unreachable.Unreachable, decisions: list[Any], *, abandon: bool
) -> Report:
    """A batch that was sent and has no answers to give: what is known of it, or the end of waiting for them."""
    if decisions and not abandon:
        raise UsageError(
            f"chunk {found.chunk.number} is batch `{found.intent.batch_id}`: it was sent",
            where=f"run {run.id}",
            effect="nothing was changed",
            hint="--abandon gives its answers up",
        )
    lines = tuple(found.lines)
    if abandon:
        lines = (unreachable.give_up(workspace, found),)
        judged(workspace, run)
        write_results(workspace.state, workspace.ledger.db, run)
    balance = queries.balance(workspace.ledger.db, run.id)
    return Report(
        "resolve",
        run.id,
        Exit.OK if abandon else Exit.ATTENTION,
        balance,
        cost(workspace.ledger.db, run, balance),
        lines,
        f"batchctl rerun {run.id}" if abandon else f"batchctl resolve {run.id} --chunk {found.chunk.number} --abandon",
        {"open": [found.facts]},
        simulated=is_simulated(workspace),
    )


def _calls(run: queries.Run, chunk: int, count: int) -> dict[str, Any]:
    """What is known of live calls without an answer: no list at a provider names them."""
    lines = [
        f"chunk {chunk} of {run.id}: {plural(count, 'live call')} whose answer never arrived",
        "  a live call leaves no trace at the provider that could be found again; its row is held",
        "  unknown   whether the provider acted on them; they may be billed",
    ]
    return {"chunk": chunk, "calls": count, "lane": "live", "lines": lines}


def _decide_calls(
    workspace: Workspace, run: queries.Run, lost: dict[int, int], *, adopt: str | None, not_sent: bool
) -> str:
    """A person's word on every lost live call that was named. Their rows go to the rerun file; nothing is sent here."""
    options, count = workspace.options, sum(lost.values())
    if adopt is not None:
        raise UsageError(
            "a live call leaves nothing at the provider that could be adopted",
            where=f"run {run.id}",
            effect="nothing was changed",
            hint="--not-sent or --abandon",
        )
    question = (
        "If they were acted upon after all, a rerun pays for these rows twice. Call them not sent?"
        if not_sent
        else "They count as billed, with what they can cost at most, and a rerun asks again. Give the answers up?"
    )
    if not options.yes and not (options.ask and options.ask(question)):
        raise ConsentMissing(
            f"{plural(count, 'lost live call')} of {run.id} need your word",
            where=", ".join(f"chunk {one}" for one in lost),
            effect="nothing was changed",
            hint="add --yes when you are sure",
        )
    state = "absent" if not_sent else "abandoned"
    with workspace.ledger.transaction() as db:
        for chunk in lost:
            live_calls.decide_calls(db, run.id, chunk, state, because="a person's word")
    judged(workspace, run)
    write_results(workspace.state, workspace.ledger.db, run)
    how = "not sent" if not_sent else "given up"
    return f"{plural(count, 'live call')} of {run.id}: {how}; a rerun asks for their rows again"


def _evidence(workspace: Workspace, intent: Intent) -> dict[str, Any]:
    """Times, counts and what the provider lists now, in words and as data."""
    chunk = next(one for one in queries.chunks(workspace.ledger.db, intent.run) if one.number == intent.chunk)
    listed: list[dict[str, Any]] | None
    try:
        provider = workspace.provider(workspace.frozen_plan())
        workspace.same_account(provider, intent.account, intent.id)
        listed = [asdict(one) for one in reconcile.candidates(workspace, provider, intent)]
        sign = "with its mark or input" if provider.traits.searchable else "that may be it"
        asked = f"the provider lists {plural(len(listed), 'batch', 'batches')} {sign}"
    except BatchctlError as error:
        listed, asked = None, f"the provider could not be asked: {error.what}"
    lines = [
        f"chunk {chunk.number} of {intent.run}: {plural(chunk.requests, 'request')}, no answer recorded",
        f"  about to be sent {intent.created_at}",
        f"  mark      {intent.id}",
        f"  input     {intent.staged}" + ("   (deleted: nothing can run from it any more)" if intent.fenced else ""),
        f"  {asked}",
    ]
    for one in listed or []:
        created = datetime.fromtimestamp(one["created_at"] or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {Proof.WHEN_ENDED: "; its results will tell", Proof.NEVER: "; nothing tells"}.get(one["proof"], "")
        lines.append(f"    {one['batch_id']}   created {created}   {one['vendor_status']}   by {one['by']}{told}")
    lines.append("  unknown   whether the provider acted on the request; the batch may exist and be billed")
    return {
        "chunk": chunk.number,
        "attempt": chunk.attempt,
        "requests": chunk.requests,
        "intent": intent.id,
        "staged": intent.staged,
        "fenced": intent.fenced,
        "created_at": intent.created_at,
        "candidates": listed,
        "asked": asked,
        "note": intent.note,
        "lines": lines,
    }


def _decide(
    workspace: Workspace, intent: Intent, evidence: dict[str, Any], *, adopt: str | None, not_sent: bool
) -> str:
    ledger = workspace.ledger
    listed = {one["batch_id"]: one["proof"] for one in evidence["candidates"] or []}
    certain = [batch_id for batch_id, proof in listed.items() if proof is Proof.CERTAIN]
    options = workspace.options
    if adopt is not None:
        owner = queries.claimed(ledger.db, adopt)
        if owner is not None:
            raise UsageError(f"batch `{adopt}` belongs to {owner} already", effect="nothing was changed")
        if evidence["candidates"] is not None and adopt not in listed:
            raise UsageError(
                f"batch `{adopt}` is not one that could be chunk {intent.chunk}",
                where=f"run {intent.run}, {evidence['asked']}",
                effect="nothing was changed: none of its results could be joined to our rows",
                hint=f"`batchctl resolve {intent.run}` shows what the provider lists now",
            )
        question = (
            f"Nothing proves yet that batch {adopt} is chunk {intent.chunk}; if it is not, its answers join no row."
        )
        unsure = listed.get(adopt) is not Proof.CERTAIN
        if unsure and not options.yes and not (options.ask and options.ask(f"{question} Take it?")):
            raise ConsentMissing(question, where=f"run {intent.run}", effect="nothing was changed", hint="add --yes")
        provider = workspace.provider(workspace.frozen_plan())
        provider.poll(adopt)  # it exists, under this account
        with ledger.transaction() as db:
            transitions.accept(db, intent.id, adopt, because="adopted by a person")
        return f"chunk {intent.chunk} is batch {adopt}"
    if not_sent and certain:
        raise UsageError(
            f"the provider has batch `{certain[0]}`: chunk {intent.chunk} was sent",
            where=f"run {intent.run}",
            effect="nothing was changed",
            hint=f"batchctl resolve {intent.run} --chunk {intent.chunk} --adopt {certain[0]}",
        )
    if not_sent:
        question = "If the batch exists after all, these rows will be paid twice. Send them again?"
        if not options.yes and not (options.ask and options.ask(question)):
            raise ConsentMissing(
                "declaring a submission not sent can pay for its rows twice",
                where=f"run {intent.run}, chunk {intent.chunk}",
                effect="nothing was changed",
                hint="add --yes when you are sure the provider has no such batch",
            )
        _fenced_if_possible(workspace, intent)
        with ledger.transaction() as db:
            transitions.give_back(db, intent.id, "absent", because="declared not sent by a person")
        return f"chunk {intent.chunk} is free to be sent again"
    question = "Its rows end without results and are not sent again by themselves. Give this batch up?"
    if not options.yes and not (options.ask and options.ask(question)):
        raise ConsentMissing("giving a submission up needs your word", effect="nothing was changed", hint="add --yes")
    _fenced_if_possible(workspace, intent)
    chunk = next(one for one in queries.chunks(ledger.db, intent.run) if one.number == intent.chunk)
    name = f"{chunk.number:04d}.a{chunk.attempt}.jsonl"
    path = workspace.directory(intent.run) / "results" / name
    write_file(path, b"")
    with ledger.transaction() as db:
        transitions.abandon(db, intent.id, results=json.dumps({name: sha256_of(path)}), because="given up by a person")
    return f"chunk {intent.chunk} is given up; `batchctl validate {intent.run}` puts its rows into the rerun file"


def _fenced_if_possible(workspace: Workspace, intent: Intent) -> None:
    """A create that is still under way finds its input gone. The person's word stands when the provider is away."""
    try:
        reconcile.fence(workspace, workspace.provider(workspace.frozen_plan()), intent)
    except BatchctlError as error:
        workspace.options.note(f"the input of chunk {intent.chunk} could not be deleted: {error.what}")
