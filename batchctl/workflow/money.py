"""The books of a run: what was spent, on what, by which price, and whether more may be spent.

Spending is booked once per row and attempt from the usage that came back, failures included: in the transaction that
makes a chunk's verdicts count, and for each live call as its answer arrives. The price is frozen in the ledger when it is
first needed, so that books do not move when a price table is renewed; `[prices]` in the job file always wins over it.

A budget is kept by upper bounds. What is at the provider counts with the most it can cost: every byte of a request as a
token (or, after a dry run, a tenth more than the densest request of its sample), and every answer as long as the output
cap allows (without a cap: as long as the longest of the sample). What came back counts with what it did cost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pydantic_core import PydanticCustomError

from batchctl.jobfile.values import money as parse_budget
from batchctl.ledger import asked, chosen, queries, transitions
from batchctl.ledger.queries import Chunk
from batchctl.ledger.transitions import ChunkState
from batchctl.model.errors import BudgetReached, UsageError
from batchctl.model.rows import RowState
from batchctl.prices import Price, as_usd, find, override, picos, usd_text
from batchctl.prices.lookup import Lane
from batchctl.providers.params import CAPS
from batchctl.workflow.workspace import Plan, Workspace

CAP_TABLES = ("inferenceConfig", "generationConfig", "generation_config")
NO_OUTPUT = ("/v1/embeddings", "/v1/moderations", ":embedContent")
BATCH, LIVE, BACKGROUND = "batch", "live", "background"
DRY_RUN = "dry-run"
UNBOOKED = (ChunkState.INTENT, ChunkState.HELD, ChunkState.SUBMITTED, ChunkState.ENDED, ChunkState.FETCHED)
BYTES_A_TOKEN = 4  # of English in JSON, about
MOST_OF_BUDGET = Fraction(95, 100)
DENSER = (11, 10)  # a request may have so many tokens a byte more than the densest of the sample


def price_of(workspace: Workspace, run: queries.Run, settings: str, lane: Lane) -> Price | None:
    """The price a run's books are kept with: the job file's, else the one frozen, else what is found now. Freezes it."""
    frozen = queries.prices(workspace.ledger.db, run.id).get((settings, lane))
    known = None if frozen is None else Price.from_dict(frozen)
    price = _own(workspace, lane) or known
    if price is None:
        row = queries.settings(workspace.ledger.db, run.id)[settings]
        price = find(row.provider, row.model, lane)
    if price is not None and price != known:
        with workspace.ledger.transaction() as db:
            transitions.set_price(db, run.id, settings, lane, price.as_dict())
    return price


def _own(workspace: Workspace, lane: Lane) -> Price | None:
    """What the job file says a token costs."""
    own = workspace.policy.prices
    if own is None:
        return None
    if lane == "batch":
        return override(own.input, own.output, cached=own.cached, cache_write=own.cache_write)
    if own.live_input is None or own.live_output is None:
        return None
    return override(own.live_input, own.live_output)


@dataclass(slots=True)
class Books:
    """What a run has cost so far, in picodollars."""

    first: int = 0
    reruns: int = 0
    dry_runs: int = 0
    live: int = 0  # chunks sent row by row, first attempts and reruns, at live price
    unpriced: int = 0  # chunks and calls that were billed while no price is known
    unmetered: int = 0  # requests and calls that may be billed and whose tokens nobody has told us
    unmetered_bound: int | None = 0
    in_flight: list[Chunk] = field(default_factory=list)  # sent and not booked yet

    @property
    def booked(self) -> int:
        return self.first + self.reruns + self.dry_runs + self.live

    @property
    def known(self) -> int | None:
        """Everything booked, or None when a part of it has no price."""
        return None if self.unpriced else self.booked


def books(db: Any, run: queries.Run) -> Books:
    """Read the books of a run; the dry runs of runs it replaced are part of them."""
    found = Books()
    twice = asked.second_batches(db, run.id)
    for chunk in queries.chunks(db, run.id):
        if extra := twice.get(chunk.number):
            found.unmetered += extra * chunk.requests
            found.unmetered_bound = _sum(found.unmetered_bound, None if chunk.bound is None else extra * chunk.bound)
        if chunk.state in UNBOOKED and chunk.lane == BATCH:  # a live chunk is booked call by call
            found.in_flight.append(chunk)
        if chunk.state is not ChunkState.APPLIED:
            continue
        billed = chunk.usage.get("paid_requests", 0) + chunk.unmetered
        found.unpriced += chunk.cost is None and billed > 0
        if chunk.lane != BATCH:
            found.live += chunk.cost or 0
        elif chunk.attempt == 1:
            found.first += chunk.cost or 0
        else:
            found.reruns += chunk.cost or 0
        if chunk.unmetered:
            found.unmetered += chunk.unmetered
            share = None if chunk.bound is None else -(-chunk.bound * chunk.unmetered // max(chunk.requests, 1))
            found.unmetered_bound = _sum(found.unmetered_bound, share)
    for name in [*queries.replaced(db, run), run.id]:
        for calls in queries.calls(db, name):
            if calls.purpose == DRY_RUN:
                found.dry_runs += calls.cost
            else:
                found.live += calls.cost
            found.unpriced += calls.unpriced
            if calls.unmetered:
                found.unmetered += calls.unmetered
                found.unmetered_bound = _sum(found.unmetered_bound, calls.bound)
    return found


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


def cost(db: Any, run: queries.Run, balance: dict[str, int] | None = None) -> dict[str, Any]:
    """The `cost` object of `--json`: decimal strings, null when unknown. Reads only."""
    found = books(db, run)
    known = found.known
    done = 0 if balance is None else balance[RowState.COMPLETED] + balance[RowState.PUBLISHED]
    dry = queries.last_dry_run(db, run.settings)
    forecast = None if dry is None else (dry.report.get("forecast") or {}).get("usd")
    at_most = _sum(known, found.unmetered_bound)
    named = [Price.from_dict(one).named for one in queries.prices(db, run.id).values()]
    return {
        "usd": None if known is None else as_usd(known),
        "usd_per_1000_completed": None if known is None or not done else as_usd((known * 1000 + done // 2) // done),
        "forecast_usd": forecast,
        "prices_from": "; ".join(dict.fromkeys(named)) or None,
        "usd_first_attempts": None if found.unpriced else as_usd(found.first),
        "usd_reruns": None if found.unpriced else as_usd(found.reruns),
        "usd_dry_runs": None if found.unpriced else as_usd(found.dry_runs),
        "usd_live": None if found.unpriced else as_usd(found.live),
        "unmetered": found.unmetered,
        "usd_at_most": None if at_most is None else as_usd(at_most),
    }


def cost_line(db: Any, run: queries.Run, balance: dict[str, int]) -> str | None:
    """`  cost   $2.18 = ...`, for summaries; None while nothing was spent."""
    found = books(db, run)
    if not (found.booked or found.unmetered or found.unpriced):
        return None
    if found.unpriced:
        return "  cost                  unknown: no price is known for this model; see [prices]"
    parts = [("batch", found.first), ("reruns", found.reruns), ("live", found.live), ("dry runs", found.dry_runs)]
    shown = " + ".join(f"{word} {usd_text(amount)}" for word, amount in parts if amount)
    line = f"  cost                  {usd_text(found.booked)}" + (f" = {shown}" if " + " in shown else "")
    done = balance[RowState.COMPLETED] + balance[RowState.PUBLISHED]
    if done:
        line += f"   {usd_text(found.booked * 1000 // done)} per 1,000 completed"
    if any(one.provider == "emulator" for one in queries.settings(db, run.id).values()):
        line += "   simulated"
    if found.unmetered:
        most = "" if found.unmetered_bound is None else f", at most {usd_text(found.unmetered_bound)}"
        line += f"   and {found.unmetered:,} requests nobody gave tokens for{most}"
    return line


def output_cap(plan: Plan) -> int | None:
    """Output tokens one request can have at most, by its params; None without a cap."""
    if plan.endpoint.endswith(NO_OUTPUT):
        return 0
    params = plan.job.model.params
    tables = [params, *(params[name] for name in CAP_TABLES if isinstance(params.get(name), dict))]
    found = [table[key] for table in tables for key in CAPS if isinstance(table.get(key), int)]
    answers = params.get("n", 1)
    return max(found) * (answers if isinstance(answers, int) else 1) if found else None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What requests under one plan can cost at most in one lane."""

    price: Price | None
    output_tokens: int | None  # of one answer; None: nothing bounds it
    dense: tuple[int, int] | None  # so many tokens in so many bytes, at most; None: as many as bytes

    def most(self, size: int, requests: int) -> int | None:
        """Picodollars; None without a price or a cap on the answers. `size` is that of the request lines in bytes."""
        if self.price is None or self.output_tokens is None:
            return None
        taken = size if self.dense is None else min(size, -(-size * self.dense[0] // self.dense[1]))
        return self.price.rates.at_most(taken, self.output_tokens * requests)


def bounds_of(workspace: Workspace, run: queries.Run, settings: str, lane: Lane) -> Bounds:
    """By the price of the lane, the output cap, and what a dry run has seen."""
    db = workspace.ledger.db
    dry = queries.last_dry_run(db, settings) or queries.last_dry_run(db, run.settings)
    seen = {} if dry is None else dry.report.get("seen") or {}
    given = output_cap(workspace.frozen_plan(settings))
    if given is None:
        given = seen.get("output_tokens")
    dense = (seen["input_tokens"] * DENSER[0], seen["line_bytes"] * DENSER[1]) if seen.get("line_bytes") else None
    return Bounds(price_of(workspace, run, settings, lane), given, dense)


def input_tokens(workspace: Workspace, run: queries.Run, settings: str, size: int) -> int:
    """About how many tokens so many bytes of request lines are: as dense as the densest of the dry run, else four bytes."""
    db = workspace.ledger.db
    dry = queries.last_dry_run(db, settings) or queries.last_dry_run(db, run.settings)
    seen = {} if dry is None else dry.report.get("seen") or {}
    if not seen.get("line_bytes"):
        return -(-size // BYTES_A_TOKEN)
    return int(-(-size * seen["input_tokens"] // seen["line_bytes"]))


def most_of(workspace: Workspace, run: queries.Run, chunk: Chunk, lane: Lane = "batch") -> int | None:
    """Picodollars that a chunk can cost at most; None without a price or a cap on the answers."""
    return bounds_of(workspace, run, chunk.settings, lane).most(chunk.bytes, chunk.requests)


def price_lane(lane: str) -> Lane:
    """Which price a lane is billed at: whatever is no batch costs the live price."""
    return "batch" if lane == BATCH else "live"


def announced(workspace: Workspace, requests: int, lane: Lane = "batch", chunks: Sequence[Chunk] | None = None) -> str:
    """What so many requests that wait now would cost: an upper bound with its assumptions, and the forecast beside it."""
    run = workspace.run
    db = workspace.ledger.db
    if chunks is None:
        chunks = queries.chunks(db, run.id)
    waiting = [one for one in chunks if one.state in (ChunkState.PLANNED, ChunkState.UPLOADED)]
    price = price_of(workspace, run, run.settings, lane)
    if price is None:
        return "The price is not known to batchctl."
    most = [most_of(workspace, run, one, lane) for one in waiting]
    if sum(one.requests for one in waiting) != requests or None in most:
        return f"No output cap bounds what they cost; {lane} prices of {price.named}."
    total = sum(one or 0 for one in most)
    return f"They cost at most {usd_text(total)}, if every answer is as long as the cap ({price.named})."


def budget_of(workspace: Workspace, run: queries.Run) -> int | None:
    """Picodollars: what a person gave for this run with `--budget`, until the job file is changed after that."""
    own = workspace.policy.limits.budget
    said = None if own is None else str(own.amount)
    given = json.loads(queries.run(workspace.ledger.db, run.id).budget or "{}")
    if given and given["instead_of"] == said:
        return picos(Decimal(given["usd"]))
    return None if own is None else picos(own.amount)


def settle_budget(workspace: Workspace, run: queries.Run) -> None:
    """Put `--budget` on record, so that the commands that follow keep to it."""
    text = workspace.options.budget
    if text is None:
        return
    try:
        amount = parse_budget(text).amount
    except PydanticCustomError as error:
        raise UsageError(
            f"`{text}` is no budget", where="--budget", effect="nothing was done", hint="write it as 5.00USD"
        ) from error
    own = workspace.policy.limits.budget
    found = json.dumps({"usd": str(amount), "instead_of": None if own is None else str(own.amount)})
    if found != queries.run(workspace.ledger.db, run.id).budget:
        with workspace.ledger.transaction() as db:
            chosen.set_budget(db, run.id, found, because=f"{amount} USD, asked for")


def room(workspace: Workspace, run: queries.Run) -> int | None:
    """Picodollars of the budget that nothing sent so far can use up; None without a budget."""
    budget = budget_of(workspace, run)
    if budget is None:
        return None
    found = books(workspace.ledger.db, run)
    if found.unpriced:
        raise _no_price(run)
    left = budget - found.booked
    if found.unmetered_bound is None:
        raise _no_bound(run)
    left -= found.unmetered_bound
    for chunk in found.in_flight:
        most = chunk.bound if chunk.bound is not None else most_of(workspace, run, chunk)
        if most is None:
            raise _no_bound(run)
        left -= most
    return left


def require_room(workspace: Workspace, run: queries.Run, chunk: Chunk) -> int | None:
    """Raise `BudgetReached` when this chunk could break the budget; the most it can cost otherwise, if that is known."""
    most = most_of(workspace, run, chunk)
    left = room(workspace, run)
    if left is None:
        return most
    if most is None:
        raise _no_price(run) if price_of(workspace, run, chunk.settings, "batch") is None else _no_bound(run)
    _require_pace(workspace, run, chunk)
    if most > left:
        raise budget_reached(workspace, run, f"chunk {chunk.number}", most, left)
    return most


def _require_pace(workspace: Workspace, run: queries.Run, chunk: Chunk) -> None:
    """Raise `BudgetReached` before another wave of first attempts when the run costs more than forecast, and too much.

    What came back so far has cost more a request than the dry run said, and at that rate the whole run ends above
    `MOST_OF_BUDGET` of the budget: better to stop with half of the rows than to learn it from the last chunk.
    """
    budget, dry = budget_of(workspace, run), queries.last_dry_run(workspace.ledger.db, chunk.settings)
    expected = None if dry is None else dry.report.get("forecast")
    first = [one for one in queries.chunks(workspace.ledger.db, run.id) if one.attempt == 1 and one.lane == BATCH]
    back = [one for one in first if one.state is ChunkState.APPLIED and one.cost is not None]
    if budget is None or not expected or expected["usd"] is None or not back or chunk.attempt > 1:
        return
    requests, spent = sum(one.requests for one in back), sum(one.cost or 0 for one in back)
    rate, forecast = Fraction(spent, requests), Fraction(picos(Decimal(expected["usd"])), expected["requests"])
    found = books(workspace.ledger.db, run)
    left = sum(one.requests for one in first if one not in back)
    ends = math.ceil(found.booked + (found.unmetered_bound or 0) + rate * left)
    if rate <= forecast or ends <= budget * MOST_OF_BUDGET:
        return
    more = "" if not forecast else f" (+{float(rate / forecast) - 1:.0%})"
    per, said = usd_text(round(rate * 1000)), usd_text(round(forecast * 1000))
    raise BudgetReached(
        f"stopped before chunk {chunk.number}: at this rate the run ends at {usd_text(ends)}, over "
        f"{float(MOST_OF_BUDGET):.0%} of the budget of {usd_text(budget)}",
        where=(
            f"run {run.id}, [limits] budget",
            f"{requests:,} requests cost {usd_text(spent)}, {per} per 1,000; the dry run said {said}{more}",
        ),
        effect=f"nothing more was sent; the answers to {requests:,} requests are safe",
        hint=f"go on with `batchctl submit {run.id} --budget {_cents(math.ceil(ends / MOST_OF_BUDGET))}USD`, lower the "
        f"output cap in [model] params and prepare again, or stop here and publish what is there",
        code="ahead_of_forecast",
    )


def _cents(amount: int) -> str:
    """Picodollars as dollars and whole cents, rounded up."""
    cents = -(-amount // 10**10)
    return f"{cents // 100}.{cents % 100:02d}"


def live_room(workspace: Workspace, run: queries.Run, bounds: Bounds) -> int | None:
    """`room` for live calls, each of which must have a bound then; None without a budget."""
    left = room(workspace, run)
    if left is not None and bounds.most(1, 1) is None:
        raise _no_price(run) if bounds.price is None else _no_bound(run)
    return left


def require_calls(workspace: Workspace, run: queries.Run, most: list[int | None], *, priced: bool) -> None:
    """Raise `BudgetReached` when live calls that can cost so much each could break the budget together."""
    left = room(workspace, run)
    if left is None:
        return
    if None in most:
        raise _no_bound(run) if priced else _no_price(run)
    total = sum(one or 0 for one in most)
    if total > left:
        raise budget_reached(workspace, run, f"a dry run of {len(most):,} calls", total, left)


def budget_reached(workspace: Workspace, run: queries.Run, what: str, most: int, left: int) -> BudgetReached:
    """The error of a send that could break the budget, with the options spelled out."""
    total = budget_of(workspace, run)
    assert total is not None
    return BudgetReached(
        f"the budget has no room for {what}: it can cost up to {usd_text(most)}, and "
        f"{usd_text(max(left, 0))} of {usd_text(total)} is left",
        where=f"run {run.id}, [limits] budget",
        effect="it was not sent; what was sent before is safe",
        hint=f"raise it with --budget {_cents(total - left + most)}USD, lower the output cap in [model] params, or stop here",
    )


def _no_price(run: queries.Run) -> BudgetReached:
    return BudgetReached(
        "there is a budget, and no price is known for this model",
        where=f"run {run.id}, [limits] budget",
        effect="nothing was sent",
        hint="give [prices] input and output (and live_input, live_output for the dry run) in the job file",
        code="price_unknown",
    )


def _no_bound(run: queries.Run) -> BudgetReached:
    return BudgetReached(
        "there is a budget, and nothing bounds what an answer can cost",
        where=f"run {run.id}, [limits] budget",
        effect="nothing was sent",
        hint="give [model] params an output cap, such as max_output_tokens = 500",
        code="no_bound",
    )
