"""What every provider module must keep, as tests to inherit. `test_<provider>.py` brings fixtures, never exceptions.

A vendor that cannot do something says so in its `Traits`; a test asks those and never the vendor's name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchctl.chunks.splice import cut
from batchctl.model.batches import Ask, BatchState, BatchStatus, Proof, Request
from batchctl.model.errors import (
    BatchctlError,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    ProviderError,
    Rejected,
    Throttled,
)
from batchctl.model.ids import custom_id
from batchctl.providers.base import Provider
from batchctl.providers.guard import CALLS, Guarded

CANARY = "sk-canary-0123456789abcdefghijklmnop"
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["label"],
    "additionalProperties": False,
}
MARK = "0a1b2c3d"
TAG = "bc-0a1b2c3d-0001-1-0123456789ab"
WIDE = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


class Server(Protocol):
    """The vendor's stand-in, and what the contract needs to do to it."""

    def strike(self, call: str, do: str, **more: Any) -> None:
        """A fault on the next "create", "upload", "poll", "list", "results", "cancel", "delete" or "live" call."""
        ...

    def creates(self) -> int:
        """POSTs that ask for a batch, acted upon or not."""
        ...

    def batches(self) -> list[str]: ...
    def calls(self) -> int: ...
    def rows_billed(self) -> int: ...
    def show(self, batch_id: str, **fields: Any) -> None:
        """Change what the vendor shows of a batch; `status` to a word of any kind."""
        ...

    def end(self, batch_id: str, how: str, *, after: int) -> None:
        """Let a running batch end, "expired" or "cancelled", with so many of its requests done."""
        ...

    def settle(self, batch_id: str) -> None:
        """Return once the batch has ended."""
        ...

    def mark_again(self, batch_id: str) -> str:
        """A second batch with the same mark and input: a middlebox repeated the request."""
        ...


@dataclass
class Waits:
    """A sleep that does not sleep."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class ProviderContract:
    """Fixtures a subclass gives: `server` (runs batches at once), `slow_server` (runs none), `build(server, key=)`."""

    endpoints: ClassVar[tuple[str, ...]]
    vendor_states: ClassVar[Mapping[str, BatchState]]
    model: ClassVar[str]
    words: ClassVar[Mapping[str, str]] = {}
    """The vendor's own word for an end that another vendor calls completed, expired or cancelled."""
    says_sizes: ClassVar[bool] = True
    """Whether the vendor tells how large a result file is."""
    id_field: ClassVar[str] = "custom_id"
    """What a result line calls the custom_id."""
    harvest: ClassVar[Mapping[str, int]] = {"expired": 5, "cancelled": 5}
    """Lines of a batch of five that ended so after two: not every vendor has a line for what never ran."""
    modes: ClassVar[tuple[str, ...]] = ("native", "tool", "prompt")
    settable: ClassVar[frozenset[str]] = frozenset()
    """Fields of a body that batchctl fills in and `params` may set."""

    # --- fixtures --------------------------------------------------------------------------------------------------

    def build(self, server: Any, *, key: str = CANARY) -> Provider:
        raise NotImplementedError

    def elsewhere(self, server: Any) -> Provider:
        """The same vendor under another account."""
        return self.build(server, key=CANARY + "x")

    def sdk_states(self) -> set[str]:
        """The vendor's own list of batch statuses, read from the installed SDK."""
        raise NotImplementedError

    @pytest.fixture
    def server(self) -> Server:
        raise NotImplementedError

    @pytest.fixture
    def slow_server(self) -> Server:
        raise NotImplementedError

    @pytest.fixture
    def provider(self, server: Server) -> Iterator[Provider]:
        one = self.build(server)
        yield one
        one.close()

    @pytest.fixture
    def waits(self) -> Waits:
        return Waits()

    @pytest.fixture
    def guarded(self, provider: Provider, waits: Waits) -> Guarded:
        return Guarded(provider, sleep=waits)

    @pytest.fixture
    def slow(self, slow_server: Server, waits: Waits) -> Iterator[Guarded]:
        one = self.build(slow_server)
        yield Guarded(one, sleep=waits)
        one.close()

    @pytest.fixture
    def chunk(self, provider: Provider, tmp_path: Path) -> Path:
        """Five requests."""
        path = tmp_path / "0001.jsonl"
        path.write_bytes(b"".join(self.line(provider, number) + b"\n" for number in range(5)))
        return path

    def body(self, provider: Provider, prompt: str, **more: Any) -> dict[str, Any]:
        endpoint = more.pop("endpoint", self.endpoints[0])
        given = {"system": None, "params": {}, "schema": None, "mode": "native", "schema_name": "t"} | more
        return provider.body(Ask(endpoint=endpoint, model=self.model, prompt=prompt, **given))[0]

    def line(self, provider: Provider, number: int) -> bytes:
        body = self.body(provider, f"question {number}: yes or no?", schema=SCHEMA)
        name = custom_id(MARK, f"{number:016x}", number, 1, provider.traits.id_separator)
        return provider.encode(Request(name, self.endpoints[0], body))

    def create(self, guarded: Guarded, staged: str, tag: str = TAG) -> str:
        return guarded.create(staged, endpoint=self.endpoints[0], tag=tag, run="triage-0001", chunk=1)

    def ended(self, guarded: Guarded, server: Server, chunk: Path) -> tuple[str, BatchStatus]:
        batch_id = self.create(guarded, guarded.stage(chunk, name=f"{TAG}.jsonl"))
        server.settle(batch_id)
        return batch_id, guarded.poll(batch_id)

    def lines_of(self, guarded: Guarded, status: BatchStatus, tmp_path: Path) -> list[Any]:
        found = []
        for kind, handle in status.files:
            with (tmp_path / kind).open("wb") as out:
                guarded.download(handle, lambda out=out: out)
            found += [orjson.loads(line) for line in (tmp_path / kind).read_bytes().split(b"\n") if line]
        return found

    # --- the codec -------------------------------------------------------------------------------------------------

    @given(texts=st.tuples(WIDE, WIDE), with_system=st.booleans(), with_schema=st.booleans())
    @settings(
        max_examples=60,
        deadline=None,
        database=None,  # one provider's failing example says nothing about another's
        suppress_health_check=[HealthCheck.differing_executors],  # inherited by every provider: what a contract is
    )
    def test_splicing_gives_the_bytes_of_encoding(
        self, texts: tuple[str, str], with_system: bool, with_schema: bool
    ) -> None:
        """Rows are spliced into a line that was encoded once; what is sent must be what `encode` would have written."""
        provider = self.build(None)
        for endpoint in self.endpoints:
            for mode in self.modes:

                def encode(name: str, given: Any, endpoint: str = endpoint, mode: str = mode) -> bytes:
                    body = self.body(
                        provider,
                        given[0],
                        endpoint=endpoint,
                        system=given[1] if with_system else None,
                        schema=SCHEMA if with_schema else None,
                        mode=mode,
                        params={"metadata": {"a": "b"}},
                    )
                    return provider.encode(Request(name, endpoint, body))

                holes = texts if with_system else texts[:1]
                splice = cut(encode, [lambda row, place=place: row[str(place)] for place in range(len(holes))])
                name = custom_id(MARK, "0123456789abcdef", 7, 1, provider.traits.id_separator)
                row = {str(place): text for place, text in enumerate(holes)}
                spliced = splice.line(name, splice.holes(row))
                whole = encode(name, holes) + b"\n"
                ends = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))  # line ends to some readers
                for raw, escaped in ends:
                    whole = whole.replace(raw, escaped)
                assert spliced == whole
                assert spliced.count(b"\n") == 1
                assert provider.check_line(spliced[:-1], endpoint, self.model) is None

    def test_encoding_needs_no_key_and_no_network_and_is_the_same_every_time(self, monkeypatch: Any) -> None:
        for name in self.build(None).traits.credentials:
            monkeypatch.delenv(name, raising=False)
        first, second = (self.line(self.build(None, key=""), 1) for _ in range(2))
        assert first == second

    def test_a_line_for_another_model_or_endpoint_is_told(self, provider: Provider) -> None:
        line = self.line(provider, 1)
        assert provider.check_line(line, self.endpoints[0], self.model) is None
        assert provider.check_line(line, self.endpoints[0], "another-model")
        assert provider.check_line(line[:-1], self.endpoints[0], self.model)
        assert provider.check_line(b"[]", self.endpoints[0], self.model)
        if len(self.endpoints) > 1:
            assert provider.check_line(line, self.endpoints[1], self.model)

    def test_params_cannot_take_the_place_of_the_row(self, provider: Provider) -> None:
        given = self.body(provider, "the row")
        for key in given.keys() - self.settable:
            with pytest.raises(BatchctlError):
                self.body(provider, "the row", params={key: "something else"})

    def test_the_body_is_not_shared_between_calls(self, provider: Provider) -> None:
        params = {"metadata": {"a": ["b"]}}
        first = self.body(provider, "one", params=params, schema=copy.deepcopy(SCHEMA))
        before = orjson.dumps(first)
        second = self.body(provider, "two", params=params)
        second["metadata"]["a"].append("c")
        assert orjson.dumps(first) == before
        assert params == {"metadata": {"a": ["b"]}}

    def test_limits_are_stated_with_their_source(self, provider: Provider) -> None:
        for endpoint in self.endpoints:
            limits = provider.limits(endpoint)
            assert 0 < limits.requests < 2**24, "the place in a custom_id has six hex digits"
            assert 0 < limits.line_bytes <= limits.file_bytes
            assert limits.source

    # --- the paid call ---------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "do", ["drop-after", "500-after", "garbage", "no-id", "empty", "truncate", "truncate-clean"]
    )
    def test_a_lost_create_is_not_repeated_and_can_be_found(
        self, guarded: Guarded, server: Server, chunk: Path, do: str
    ) -> None:
        staged = guarded.stage(chunk, name=f"{TAG}.jsonl")
        server.strike("create", do)
        with pytest.raises(OutcomeUnknown):
            self.create(guarded, staged)
        assert server.creates() == 1
        assert len(server.batches()) == 1
        server.settle(server.batches()[0])
        found = guarded.find(staged, tag=TAG, since=0)
        assert [one.batch_id for one in found] == server.batches()
        assert found[0].proof is Proof.CERTAIN
        if not guarded.traits.searchable:
            assert guarded.find(staged, tag=TAG, since=0, known=server.batches()) == []

    @pytest.mark.parametrize("do", ["drop-before", "500", "503", "408", "409", "redirect"])
    def test_an_unclear_create_is_unknown_whether_it_acted_or_not(
        self, guarded: Guarded, server: Server, chunk: Path, waits: Waits, do: str
    ) -> None:
        staged = guarded.stage(chunk, name=f"{TAG}.jsonl")
        server.strike("create", do)
        with pytest.raises(OutcomeUnknown):
            self.create(guarded, staged)
        assert server.creates() == 1
        assert guarded.find(staged, tag=TAG, since=0) == []
        assert waits.seconds == []

    @pytest.mark.parametrize(
        ("do", "kind"),
        [
            ("400", Rejected),
            ("401", NotAllowed),
            ("403", NotAllowed),
            ("404", NotFound),
            ("413", Rejected),
            ("429", Throttled),
        ],
    )
    def test_a_clear_refusal_is_not_unknown_and_not_repeated(
        self, guarded: Guarded, server: Server, chunk: Path, waits: Waits, do: str, kind: type[BatchctlError]
    ) -> None:
        staged = guarded.stage(chunk, name=f"{TAG}.jsonl")
        server.strike("create", do)
        with pytest.raises(kind):
            self.create(guarded, staged)
        assert server.creates() == 1
        assert server.batches() == []
        assert waits.seconds == []

    def test_silence_is_unknown(self, server: Server, chunk: Path, waits: Waits, monkeypatch: Any) -> None:
        self.shorten_timeouts(monkeypatch)
        provider = self.build(server)
        guarded = Guarded(provider, sleep=waits)
        staged = guarded.stage(chunk, name=f"{TAG}.jsonl")
        server.strike("create", "hang", seconds=30)
        with pytest.raises(OutcomeUnknown):
            self.create(guarded, staged)
        assert server.creates() == 1
        assert len(guarded.find(staged, tag=TAG, since=0)) == 1  # while it runs, too
        provider.close()

    def shorten_timeouts(self, monkeypatch: Any) -> None:
        raise NotImplementedError

    def test_nobody_home_is_a_refusal(self, chunk: Path) -> None:
        """No byte of the request left this machine: it may be sent again."""
        provider = self.build("http://127.0.0.1:1")
        with pytest.raises(Throttled) as raised:
            self.create(Guarded(provider, sleep=Waits()), "file-x" if provider.traits.uploads else str(chunk))
        assert raised.value.code == "unreachable"
        provider.close()

    def test_billing_is_told_from_throttling(self, guarded: Guarded, server: Server, chunk: Path) -> None:
        staged = guarded.stage(chunk, name=f"{TAG}.jsonl")
        server.strike("create", "insufficient_quota")
        with pytest.raises(Throttled) as raised:
            self.create(guarded, staged)
        assert raised.value.billing
        server.strike("create", "429", retry_after=7)
        with pytest.raises(Throttled) as raised:
            self.create(guarded, staged)
        assert not raised.value.billing
        assert raised.value.wait_seconds == 7

    def test_two_batches_with_one_mark_are_both_found_oldest_first(
        self, slow: Guarded, slow_server: Server, chunk: Path
    ) -> None:
        if not slow.traits.searchable:
            return
        staged = slow.stage(chunk, name=f"{TAG}.jsonl")
        first = self.create(slow, staged)
        second = slow_server.mark_again(first)
        other = slow.stage(chunk, name="other.jsonl")
        self.create(slow, other, tag="bc-0a1b2c3d-0002-1-0123456789ab")
        found = slow.find(staged, tag=TAG, since=0)
        assert sorted(one.batch_id for one in found) == sorted([first, second])
        assert [one.created_at for one in found] == sorted(one.created_at or 0 for one in found)

    @pytest.mark.parametrize(
        "do", ["garbage", "empty", "truncate", "truncate-clean", "500", "drop-before", "404", "429", "401"]
    )
    def test_a_list_that_cannot_be_read_is_never_an_empty_one(
        self, guarded: Guarded, server: Server, chunk: Path, do: str
    ) -> None:
        staged = guarded.stage(chunk, name=f"{TAG}.jsonl")
        self.create(guarded, staged)
        server.strike("list", do, nth="every")
        with pytest.raises((ProviderError, NotAllowed, OutcomeUnknown)):
            guarded.find(staged, tag=TAG, since=0)

    def test_a_fence_keeps_a_late_create_from_running(self, guarded: Guarded, server: Server, chunk: Path) -> None:
        if not guarded.traits.fenced:
            return
        staged = guarded.stage(chunk, name=f"{TAG}.jsonl")
        guarded.delete(staged)
        guarded.delete(staged)  # already gone counts as deleted
        try:
            batch_id = self.create(guarded, staged)
        except (NotAllowed, NotFound, Rejected):
            assert server.batches() == []  # refused at once
        else:
            server.settle(batch_id)
            assert guarded.poll(batch_id).state is BatchState.REFUSED
        assert server.rows_billed() == 0

    def test_a_create_asked_again_with_its_token_is_the_same_batch(
        self, guarded: Guarded, server: Server, chunk: Path
    ) -> None:
        if not guarded.traits.token_seconds:
            return
        staged = guarded.stage(chunk, name=f"{TAG}.jsonl")
        server.strike("create", "drop-after")
        with pytest.raises(OutcomeUnknown):
            self.create(guarded, staged)
        batch_id = self.create(guarded, staged)
        assert server.batches() == [batch_id] == [self.create(guarded, staged)]
        server.settle(batch_id)
        assert self.create(guarded, staged) == batch_id
        assert server.rows_billed() == 5

    def test_a_live_call_is_made_once(self, guarded: Guarded, server: Server) -> None:
        body = orjson.dumps(self.body(guarded.provider, "yes or no?", schema=SCHEMA))
        assert guarded.call(body, self.endpoints[0]).status == 200
        before = server.calls()
        server.strike("live", "drop-after")
        with pytest.raises(OutcomeUnknown):
            guarded.call(body, self.endpoints[0])
        assert server.calls() == before + 1

    # --- statuses --------------------------------------------------------------------------------------------------

    def test_every_status_of_the_installed_sdk_is_known(self) -> None:
        assert self.sdk_states() == set(self.vendor_states)

    @pytest.mark.parametrize("word", ["hibernating", "COMPLETE", "succeeded", "done"])
    def test_an_unknown_status_is_not_an_end(self, slow: Guarded, slow_server: Server, chunk: Path, word: str) -> None:
        batch_id = self.create(slow, slow.stage(chunk, name=f"{TAG}.jsonl"))
        slow_server.show(batch_id, status=word)
        status = slow.poll(batch_id)
        assert status.state is BatchState.RUNNING
        assert not status.known_word

    def test_an_answer_about_another_batch_is_no_answer(self, slow: Guarded, slow_server: Server, chunk: Path) -> None:
        batch_id = self.create(slow, slow.stage(chunk, name=f"{TAG}.jsonl"))
        slow_server.show(batch_id, id="batch_of_someone_else")
        with pytest.raises(ProviderError):
            slow.poll(batch_id)

    # --- results ---------------------------------------------------------------------------------------------------

    def test_every_request_gets_its_own_result(
        self, guarded: Guarded, server: Server, chunk: Path, tmp_path: Path
    ) -> None:
        _, status = self.ended(guarded, server, chunk)
        assert status.state is BatchState.ENDED
        sent = [orjson.loads(line) for line in chunk.read_bytes().split(b"\n") if line]
        found = self.lines_of(guarded, status, tmp_path)
        assert sorted(one[self.id_field] for one in found) == sorted(one[self.id_field] for one in sent)
        for kind, handle in status.files:
            size = (tmp_path / kind).stat().st_size
            assert guarded.size_of(handle) == ((size or None) if self.says_sizes else None)

    @pytest.mark.parametrize("end", ["expired", "cancelled"])
    def test_what_was_done_before_the_end_is_harvested(
        self, slow: Guarded, slow_server: Server, chunk: Path, tmp_path: Path, end: str
    ) -> None:
        batch_id = self.create(slow, slow.stage(chunk, name=f"{TAG}.jsonl"))
        slow_server.end(batch_id, end, after=2)
        slow_server.settle(batch_id)
        status = slow.poll(batch_id)
        assert (status.state, status.vendor_status) == (BatchState.ENDED, self.words.get(end, end))
        assert status.out_of_time is (end == "expired")
        found = self.lines_of(slow, status, tmp_path)
        assert len(found) == self.harvest[end]
        assert slow_server.rows_billed() == 2

    @pytest.mark.parametrize("do", ["truncate", "drop-before", "500", "404", "429"])
    def test_a_broken_transfer_starts_again_from_nothing(
        self, guarded: Guarded, server: Server, chunk: Path, tmp_path: Path, do: str
    ) -> None:
        _, status = self.ended(guarded, server, chunk)
        whole = self.lines_of(guarded, status, tmp_path)
        handle = status.files[0][1]
        server.strike("results", do, count=2)
        target = tmp_path / "again"
        sinks = []

        def sink() -> Any:
            sinks.append(target.open("wb"))
            return sinks[-1]

        written = guarded.download(handle, sink)
        for one in sinks:
            one.close()
        assert written == target.stat().st_size
        assert guarded.size_of(handle) == (written if self.says_sizes else None)
        assert [orjson.loads(line) for line in target.read_bytes().split(b"\n") if line] == whole

    def test_a_size_that_cannot_be_read_is_not_no_size(self, guarded: Guarded, server: Server, chunk: Path) -> None:
        if not self.says_sizes:
            return
        _, status = self.ended(guarded, server, chunk)
        server.strike("size", "garbage", nth="every")
        with pytest.raises(ProviderError):
            guarded.size_of(status.files[0][1])

    # --- free calls are repeated, within bounds --------------------------------------------------------------------

    def free(self, guarded: Guarded, chunk: Path) -> Callable[[], Any]:
        """A call that costs nothing: the upload, or where there is none, the list."""
        if guarded.traits.uploads:
            return lambda: guarded.stage(chunk, name=f"{TAG}.jsonl")
        return lambda: guarded.find(str(chunk), tag=TAG, since=0)

    def test_free_calls_are_repeated_and_then_given_up(
        self, guarded: Guarded, server: Server, chunk: Path, waits: Waits
    ) -> None:
        call = "upload" if guarded.traits.uploads else "list"
        act = self.free(guarded, chunk)
        server.strike(call, "500", count=CALLS - 1)
        act()
        assert len(waits.seconds) == CALLS - 1
        server.strike(call, "500", nth="every")
        before = server.calls()
        with pytest.raises(ProviderError) as raised:
            act()
        assert raised.value.code == "unavailable"
        assert server.calls() == before + CALLS

    def test_the_wait_a_provider_asks_for_is_kept_within_reason(
        self, guarded: Guarded, server: Server, chunk: Path, waits: Waits
    ) -> None:
        call = "upload" if guarded.traits.uploads else "list"
        act = self.free(guarded, chunk)
        server.strike(call, "429", retry_after=3)
        act()
        assert waits.seconds == [3]
        server.strike(call, "429", retry_after=80_000)
        act()
        assert waits.seconds[1] <= 60

    def test_cancelling_what_has_ended_is_no_error(self, guarded: Guarded, server: Server, chunk: Path) -> None:
        batch_id, _ = self.ended(guarded, server, chunk)
        guarded.cancel(batch_id)
        guarded.cancel(batch_id)
        assert guarded.poll(batch_id).vendor_status == self.words.get("completed", "completed")

    # --- who, and with what secret ---------------------------------------------------------------------------------

    def test_an_account_is_told_apart_and_reveals_no_key(self, server: Server) -> None:
        one, same, other = self.build(server), self.build(server), self.elsewhere(server)
        assert one.account() == same.account() != other.account()
        assert CANARY not in one.account()

    def test_no_key_is_said_so_and_a_key_never(self, server: Server, monkeypatch: Any) -> None:
        for name in self.build(None).traits.credentials:
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(NotAllowed) as raised:
            self.build(server, key="").account()
        assert any(name in raised.value.what + raised.value.hint for name in self.build(None).traits.credentials)
        for broken in (f"{CANARY}\n", f" {CANARY}", f"{CANARY}\x07"):
            with pytest.raises(NotAllowed) as raised:
                self.build(server, key=broken).account()
            assert CANARY not in everything(raised.value)

    @pytest.mark.parametrize("do", ["400", "401", "403", "404", "429", "500", "garbage", "drop-before", "redirect"])
    def test_no_error_carries_the_key(self, guarded: Guarded, server: Server, chunk: Path, do: str) -> None:
        staged = guarded.stage(chunk, name=f"{TAG}.jsonl")
        server.strike("create", do)
        with pytest.raises(BatchctlError) as raised:
            self.create(guarded, staged)
        assert CANARY not in everything(raised.value)


def everything(error: BatchctlError) -> str:
    """All text of an error, as a report or a traceback would show it."""
    import traceback

    shown = "".join(traceback.format_exception(error))
    return "\n".join([error.what, *error.where, error.effect, error.hint, shown])
