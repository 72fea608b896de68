"""A create whose answer never arrived: find its batch, or prove that there is none, or leave it to a person.

Not found is not proof: lists lag, and a request whose connection died can still act. So an absent batch is *fenced*
(its input is deleted at the provider, nothing can run any more), then the settle time is waited out on the monotonic
clock, then the provider is asked again. Only after two complete empty lists that far apart is the chunk free.

Where a vendor takes a token with a create, the very same create is asked again first: it is the same batch, whether the
first one acted or not. Only when that is refused, or the vendor may have forgotten the token, is it fenced like others.

Where a vendor keeps no mark, a list can only name batches that may be ours. Such a batch is never adopted by its looks:
while it runs the chunk waits for its results, which tell; where nothing tells, a person decides.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import Enum, auto

from batchctl.chunks.names import lines_name
from batchctl.files import crash_point
from batchctl.ledger import queries, transitions
from batchctl.ledger.queries import Intent
from batchctl.model.batches import Candidate, Proof
from batchctl.model.errors import BatchctlError, NotAllowed, NotFound, OutcomeUnknown, Rejected
from batchctl.providers.guard import Guarded
from batchctl.workflow.workspace import Workspace

SETTLE_FENCED_SECONDS = 120.0
SETTLE_UNFENCED_SECONDS = 900.0
WINDOW_SECONDS = 2 * 86_400  # how far back lists are read: matches are exact, so more of it only costs pages
STEP_SECONDS = 5.0
REPEATS = 3


class Look(Enum):
    """What one look at the provider says of an open intent."""

    ADOPTED = auto()
    ABSENT = auto()
    UNPROVEN = auto()  # a batch that may be ours runs: its results will tell
    UNDECIDABLE = auto()  # a batch may be ours, and nothing at the provider tells


def settle(workspace: Workspace, provider: Guarded, run: queries.Run) -> list[int]:
    """Bring every open intent of a run to an end: adopted, proved absent, or held. The chunks that wait for proof."""
    looks = [(one, _look(workspace, provider, one)) for one in _open(workspace, run)]
    waiting = [one.chunk for one, look in looks if look is Look.UNPROVEN]
    left = [one for one, look in looks if look is not Look.ADOPTED and not _held(workspace, one, look)]
    left = [one for one in left if one.chunk not in waiting]
    left = [one for one in left if not _repeated(workspace, provider, one)]
    if not left:
        return waiting
    for intent in left:
        fence(workspace, provider, intent)
    left = [one for one in left if _look(workspace, provider, one) is Look.ABSENT]
    if not left:
        return waiting
    fenced = provider.traits.fenced
    wait = workspace.options.seconds(
        "BATCHCTL_SETTLE_SECONDS", SETTLE_FENCED_SECONDS if fenced else SETTLE_UNFENCED_SECONDS
    )
    workspace.options.note(
        f"{run.id}: waiting {wait:g} s before {provider.name} is asked once more about "
        f"{', '.join('chunk ' + str(one.chunk) for one in left)}; nothing is sent meanwhile"
    )
    _wait(workspace, wait)
    for intent in left:
        if _look(workspace, provider, intent) is Look.ABSENT:
            because = "two complete lists without it" + (", input deleted in between" if fenced else "")
            with workspace.ledger.transaction() as db:
                transitions.give_back(db, intent.id, "absent", because=because)
    return waiting


def _open(workspace: Workspace, run: queries.Run) -> list[Intent]:
    return [one for one in queries.live_intents(workspace.ledger.db, run.id).values() if one.state == "open"]


def _held(workspace: Workspace, intent: Intent, look: Look) -> bool:
    """`on_ambiguous = "hold"`, or nothing can tell: a person decides, whatever the lists say. Held ones stay held."""
    chunk = next(one for one in queries.chunks(workspace.ledger.db, intent.run) if one.number == intent.chunk)
    if chunk.state is transitions.ChunkState.HELD:
        return True
    asked = workspace.policy.lane.on_ambiguous == "hold"
    if not asked and look is not Look.UNDECIDABLE:
        return False
    because = 'on_ambiguous = "hold"' if asked else "a batch may be it, and nothing at the provider tells"
    with workspace.ledger.transaction() as db:
        transitions.hold(db, intent.id, because=f"{because}: waits for `batchctl resolve`")
    return True


def candidates(workspace: Workspace, provider: Guarded, intent: Intent) -> list[Candidate]:
    """Every batch at the provider that is or may be this intent's and belongs to no other, oldest first."""
    staged = intent.staged
    if not provider.traits.uploads:
        path = workspace.directory(intent.run) / "chunks" / lines_name(intent.chunk)
        staged = provider.stage(path, name=intent.id)
    known = queries.batches_claimed(workspace.ledger.db)
    since = window_start(intent)
    return [one for one in provider.find(staged, tag=intent.id, since=since, known=known) if one.batch_id not in known]


def window_start(intent: Intent) -> int:
    """How far back lists are read for the batch of an intent, by the provider's clock; 0 when that was not known."""
    return max(0, intent.created_epoch - WINDOW_SECONDS)


def _look(workspace: Workspace, provider: Guarded, intent: Intent) -> Look:
    """Look once; adopt the oldest batch that is ours. Further ones (a repeated POST) are cancelled and reported."""
    workspace.same_account(provider, intent.account, intent.id)
    try:
        found = candidates(workspace, provider, intent)
    except NotAllowed:
        raise
    except BatchctlError as error:
        raise OutcomeUnknown(
            f"cannot tell whether chunk {intent.chunk} was sent: {error.what}",
            where=f"run {intent.run}, chunk {intent.chunk}, intent {intent.id}",
            effect="the batch may exist and be billed; it is not sent again",
            hint=f"run the same command again later; `batchctl resolve {intent.run}` shows what is known",
        ) from error
    ledger = workspace.ledger
    ours = [one for one in found if one.proof is Proof.CERTAIN]
    if not ours and found:
        return _unproven(workspace, intent, found)
    if not ours:
        with ledger.transaction() as db:
            transitions.saw_nothing(db, intent.id, epoch=time.time())
        return Look.ABSENT
    first, *extra = ours
    for one in extra:  # before the adoption: after a kill in between, the next look finds them all again
        provider.cancel(one.batch_id)
        with ledger.transaction() as db:
            said = f"{one.batch_id} carries the same mark; it may be charged"
            transitions.record_event(
                db, intent.run, transitions.SECOND_BATCH, said, chunk=intent.chunk, intent=intent.id
            )
        workspace.options.note(
            f"{intent.run} chunk {intent.chunk}: a second batch {one.batch_id} carried our mark; cancelled, it may be charged"
        )
    with ledger.transaction() as db:
        transitions.accept(db, intent.id, first.batch_id, because=f"found at the provider by {first.by}")
    workspace.options.event("submit.adopted", run=intent.run, chunk=intent.chunk, batch=first.batch_id, by=first.by)
    workspace.options.note(
        f"{intent.run} chunk {intent.chunk}: found batch {first.batch_id} at {provider.name}; adopted, nothing sent again"
    )
    return Look.ADOPTED


def prepared_epoch(run: queries.Run) -> int:
    """When a run was prepared: no batch of it can be older."""
    return int(datetime.strptime(run.created_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


def sent_by_a_copy(workspace: Workspace, provider: Guarded, run: queries.Run, chunk: int) -> bool:
    """Before a create out of a state directory that was copied: did another copy send this chunk? Both give it the same
    mark. True: its batch is ours now, or nobody can tell yet; nothing is to be created."""
    workspace.options.note(
        f"{run.id}: the ledger was copied, restored or rebuilt; chunk {chunk} is looked for at {provider.name} first"
    )
    intent = next(one for one in _open(workspace, run) if one.chunk == chunk)
    return _look(workspace, provider, intent) is not Look.ABSENT


def receive(workspace: Workspace, provider: Guarded, intent: str, run: str, chunk: int, batch_id: str) -> None:
    """The receipt: this batch is what the intent made. A batch that another intent has already is nobody's answer."""
    crash_point("K10")
    owner = queries.claimed(workspace.ledger.db, batch_id)
    if owner is not None:
        raise OutcomeUnknown(
            f"{provider.name} answered with batch `{batch_id}`, which belongs to {owner}",
            where=f"run {run}, chunk {chunk}",
            effect="it stays held",
            hint=f"`batchctl resolve {run}` shows what is known",
        )
    with workspace.ledger.transaction() as db:
        transitions.accept(db, intent, batch_id, because="created")
    crash_point("K11")


def _repeated(workspace: Workspace, provider: Guarded, intent: Intent) -> bool:
    """Ask the very same create again, where its tag is a token. False: that cannot help, the ordinary way is left.

    A refusal of the repetition says nothing of the first one, so the intent stays open whatever is raised here.
    """
    age = provider.server_time() - intent.created_epoch if intent.created_epoch else -1  # by the provider's clock
    if not 0 <= age < provider.traits.token_seconds or intent.fenced:
        return False
    chunk = next(one for one in queries.chunks(workspace.ledger.db, intent.run) if one.number == intent.chunk)
    plan = workspace.frozen_plan(chunk.settings)
    again = workspace.provider(plan)
    for _ in range(REPEATS):
        workspace.still_ours()
        try:
            batch_id = again.create(
                intent.staged, endpoint=plan.endpoint, tag=intent.id, run=intent.run, chunk=intent.chunk
            )
        except OutcomeUnknown as error:
            workspace.options.note(f"{intent.run} chunk {intent.chunk}: {error.what}; asked again with the same token")
            if _look(workspace, provider, intent) is Look.ADOPTED:
                return True
            continue
        except (Rejected, NotFound):
            return False
        receive(workspace, provider, intent.id, intent.run, intent.chunk, batch_id)
        return True
    raise OutcomeUnknown(
        f"chunk {intent.chunk} was asked for {REPEATS} more times with the same token, and no answer arrived",
        where=f"run {intent.run}, chunk {intent.chunk}, intent {intent.id}",
        effect="at most one batch exists; it is not sent under another token",
        hint="run the same command again later",
    )


def _unproven(workspace: Workspace, intent: Intent, found: list[Candidate]) -> Look:
    """Batches that may be this intent's: said once, and nothing is sent while one of them can still turn out to be."""
    runs = [one for one in found if one.proof is Proof.WHEN_ENDED]
    names = ", ".join(one.batch_id for one in runs or found)
    why = f"{names} may be it, by {found[0].by}; " + (
        "its results will tell" if runs else "nothing at the provider tells"
    )
    if intent.note != why and (runs or not intent.note):
        with workspace.ledger.transaction() as db:
            transitions.await_proof(db, intent.id, because=why)
        workspace.options.note(f"{intent.run} chunk {intent.chunk}: {why}; nothing is sent meanwhile")
    return Look.UNPROVEN if runs else Look.UNDECIDABLE


def fence(workspace: Workspace, provider: Guarded, intent: Intent) -> None:
    """Delete the input of an intent, where that keeps a late create from running."""
    if intent.fenced or not provider.traits.fenced:
        return
    provider.delete(intent.staged)
    with workspace.ledger.transaction() as db:
        transitions.fence(db, intent.id)


def _wait(workspace: Workspace, seconds: float) -> None:
    """In steps, so that a signal is answered at once; the clock on the wall plays no part."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        workspace.options.sleep(min(STEP_SECONDS, left))
