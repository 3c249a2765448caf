"""Join tokens as the coordinator keeps them: a use is counted exactly once, whatever happens in between."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from twisted.internet.defer import Deferred

from clustersh.coordinator.ledger_files import Entry
from clustersh.coordinator.records import Enrolled, Record, TokenCreated, TokenRevoked
from clustersh.coordinator.tokens import KEPT_S, MAX_TOKENS, JoinTokens
from clustersh.trust.identity import Role
from clustersh.trust.keys import generate
from clustersh.trust.tokens import make_token
from clustersh.wire.pairing import TokenProof
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.units import timestamp

from ..memory_ledger import MemoryLedger
from .test_runs import World

KEY = b"k" * 32
NOW = 1_800_000_000.0
TRANSCRIPT = b"t" * 32


class Desk:
    """Tokens over a ledger in memory; *now* is for the test to move."""

    def __init__(self, ledger: MemoryLedger | None = None) -> None:
        self.now = NOW
        self.ledger = ledger or MemoryLedger()
        numbers = itertools.count(1)
        self.tokens = JoinTokens(self.ledger, KEY, lambda: self.now, lambda count: next(numbers).to_bytes(count, "big"))
        self.ledger.followers.append(self.tokens.follow)

    def enroll(self, id_: str, name: str = "ws1") -> Deferred[Entry]:
        """Let a machine in by that token, as the pairing does. Fails with ProblemError."""

        async def join() -> Entry:
            with self.tokens.held(id_):
                return await self.ledger.append(Enrolled("agent", name, "id", f"key of {name}", "", "token", id_))

        return Deferred.fromCoroutine(join())

    @property
    def statuses(self) -> dict[str, tuple[str, int]]:
        return {token.id: (token.status, token.used) for token in self.tokens.list()}


async def refused(work: Deferred[Entry]) -> str:
    with pytest.raises(ProblemError) as caught:
        await work
    assert caught.value.problem.kind is Kind.WRONG_TOKEN
    return caught.value.problem.detail


@pytest_twisted.ensureDeferred
async def test_a_token_lets_in_as_many_as_it_says() -> None:
    desk = Desk()
    made, expires = await desk.tokens.create(3600, 2)
    assert expires == timestamp(NOW + 3600)
    assert desk.ledger.records == [TokenCreated(made.id, 2, expires)], "no secret"
    for name in ("ws1", "ws2"):
        await desk.enroll(made.id, name)
    assert await refused(desk.enroll(made.id, "ws3")) == f"the join token {made.id} is used up: it was for 2 machines"
    assert desk.statuses == {made.id: ("used-up", 2)}


@pytest_twisted.ensureDeferred
async def test_of_two_that_race_for_the_last_use_one_wins() -> None:
    desk = Desk()
    made, _ = await desk.tokens.create(3600, 1)
    gate = desk.ledger.wait = Deferred()
    first = desk.enroll(made.id, "ws1")
    assert "used up" in await refused(desk.enroll(made.id, "ws2"))
    gate.callback(None)
    await first
    assert [record.name for record in desk.ledger.records if isinstance(record, Enrolled)] == ["ws1"]


@pytest_twisted.ensureDeferred
async def test_a_use_that_could_not_be_recorded_is_given_back() -> None:
    desk = Desk()
    made, _ = await desk.tokens.create(3600, 1)
    gate = desk.ledger.wait = Deferred()
    first = desk.enroll(made.id, "ws1")
    gate.errback(ProblemError(Kind.STORAGE, "the disk is full"))
    with pytest.raises(ProblemError, match="the disk is full"):
        await first
    await desk.enroll(made.id, "ws1")
    assert desk.statuses == {made.id: ("used-up", 1)}


@pytest_twisted.ensureDeferred
async def test_a_token_ends_by_the_coordinators_clock() -> None:
    desk = Desk()
    made, expires = await desk.tokens.create(60, 5)
    desk.now += 59.9
    await desk.enroll(made.id, "ws1")
    desk.now += 0.1
    assert await refused(desk.enroll(made.id, "ws2")) == (
        f"the join token {made.id} ended at {expires}, by the coordinator's clock"
    )
    desk.now += KEPT_S
    assert desk.statuses == {}, "forgotten some days later"
    assert "knows no token" in await refused(desk.enroll(made.id, "ws2"))


@pytest_twisted.ensureDeferred
async def test_a_revoked_token_lets_nobody_in() -> None:
    desk = Desk()
    made, _ = await desk.tokens.create(60, 5)
    await desk.tokens.revoke(made.id.upper())
    assert await refused(desk.enroll(made.id)) == f"the join token {made.id} was revoked"
    for id_ in (made.id, "ffffffffffff"):
        with pytest.raises(ProblemError) as caught:
            await desk.tokens.revoke(id_)
        assert caught.value.problem.kind is Kind.UNKNOWN_TOKEN


@pytest_twisted.ensureDeferred
async def test_only_who_has_the_token_gets_the_coordinators_proof() -> None:
    desk = Desk()
    made, _ = await desk.tokens.create(60, 1)
    right = TokenProof(made.id, made.proof(TRANSCRIPT))
    assert desk.tokens.answer(right, TRANSCRIPT) == made.answer(TRANSCRIPT)
    assert desk.tokens.answer(right, b"u" * 32) is None, "the proof of another conversation"
    for wrong in (
        TokenProof(made.id, made.answer(TRANSCRIPT)),
        TokenProof(made.id, b""),
        TokenProof(made.id, make_token(b"o" * 32, made.id).proof(TRANSCRIPT)),
        TokenProof("ffffffffffff", made.proof(TRANSCRIPT)),
        TokenProof("", b"x" * 100_000),
    ):
        assert desk.tokens.answer(wrong, TRANSCRIPT) is None


@pytest_twisted.ensureDeferred
async def test_there_may_be_only_so_many() -> None:
    desk = Desk()
    for number in range(MAX_TOKENS):
        desk.tokens.follow(Entry(1, "", "", "", 0, TokenCreated(f"{number:012x}", 1, timestamp(NOW + 5)), b""))
    with pytest.raises(ProblemError) as caught:
        await desk.tokens.create(60, 1)
    assert caught.value.problem.kind is Kind.RATE_LIMITED
    desk.now += KEPT_S + 5
    await desk.tokens.create(60, 1)


# -- what is on the disk


def tokens_of(world: World) -> JoinTokens:
    tokens = JoinTokens(world.ledger, KEY, world.now, lambda count: b"\x01" * count)
    world.ledger.subscribe(tokens.follow)
    return tokens


@pytest_twisted.ensureDeferred
async def test_uses_ends_and_revocations_survive_a_restart(make_world: Callable[[], World], tmp_path: Path) -> None:
    world = make_world()
    tokens = tokens_of(world)
    made, expires = await tokens.create(3600, 3)
    for name in ("ws1", "ws2"):
        with tokens.held(made.id):
            await world.registry.register(
                Role.AGENT, name, generate().public_key(), f"key of {name}", "192.0.2.1", "token", made.id
            )
    await world.registry.register(
        Role.AGENT, "db1", generate().public_key(), "key of ws1", "192.0.2.1", "token", made.id
    )
    before = tokens.list()
    assert [(token.status, token.used, token.expires) for token in before] == [("used-up", 3, expires)]
    await world.stop()
    for missing in (False, True):
        if missing:
            (tmp_path / "index.sqlite").unlink()
        again = make_world()
        restarted = tokens_of(again)
        await restarted.load(again.index)
        assert restarted.list() == before
        await again.stop()
    last = make_world()
    tokens = tokens_of(last)
    await tokens.load(last.index)
    await tokens.revoke(made.id)
    await last.stop()
    after = make_world()
    tokens = tokens_of(after)
    await tokens.load(after.index)
    assert [token.status for token in tokens.list()] == ["revoked"]


# -- whatever happens in whatever order


class TokenMachine(RuleBasedStateMachine):
    """Machines that join, writes that take their time or fail, crashes, revocations, and the clock."""

    tokens: Bundle[str] = Bundle("tokens")
    writes: Bundle[Deferred[None]] = Bundle("writes")

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.made: dict[str, tuple[int, float]] = {}
        self.revoked: set[str] = set()
        self.let_in: dict[str, int] = {}
        self.numbers = itertools.count(1)
        self.pending: dict[str, int] = {}

    @rule(target=tokens, uses=st.integers(1, 3), ttl_s=st.integers(1, 100))
    def create(self, uses: int, ttl_s: int) -> str:
        created = Deferred.fromCoroutine(self.desk.tokens.create(ttl_s, uses))
        made, _ = created.result  # type: ignore[misc] # nothing waits here
        self.made[made.id] = (uses, self.desk.now + ttl_s)
        return made.id

    def usable(self, id_: str) -> bool:
        uses, expires = self.made[id_]
        taken = self.let_in.get(id_, 0) + self.pending.get(id_, 0)
        return id_ not in self.revoked and self.desk.now < expires and taken < uses

    @rule(id_=tokens)
    def join(self, id_: str) -> None:
        expected = self.usable(id_)
        joined = self.desk.enroll(id_, f"ws{next(self.numbers)}")
        outcome: list[object] = []
        joined.addBoth(outcome.append)
        assert isinstance(outcome[0], Entry) == expected
        self.let_in[id_] = self.let_in.get(id_, 0) + expected

    @rule(target=writes, id_=tokens)
    def begin_to_join(self, id_: str) -> Deferred[None]:
        expected = self.usable(id_)
        gate: Deferred[None] = Deferred()
        self.desk.ledger.wait = gate
        desk, joined = self.desk, self.desk.enroll(id_, f"ws{next(self.numbers)}")
        desk.ledger.wait = None
        outcome: list[object] = []
        joined.addBoth(outcome.append)
        assert bool(outcome) != expected, "it waits, or was refused at once"
        if expected:
            self.pending[id_] = self.pending.get(id_, 0) + 1
        else:
            gate.addErrback(lambda _: None)  # nobody waits for it

        def written(result: object) -> None:
            if expected and desk is self.desk:
                self.pending[id_] -= 1
                self.let_in[id_] = self.let_in.get(id_, 0) + isinstance(outcome[0], Entry)

        joined.addBoth(written)
        return gate

    @rule(gate=consumes(writes), works=st.booleans())
    def end_a_write(self, gate: Deferred[None], works: bool) -> None:
        if works:
            gate.callback(None)
        else:
            gate.errback(ProblemError(Kind.STORAGE, "the disk is full"))

    @rule(id_=tokens)
    def revoke(self, id_: str) -> None:
        outcome: list[object] = []
        Deferred.fromCoroutine(self.desk.tokens.revoke(id_)).addBoth(outcome.append)
        assert (outcome == [None]) == (id_ not in self.revoked)
        self.revoked.add(id_)

    @rule(seconds=st.integers(1, 60))
    def pass_time(self, seconds: int) -> None:
        self.desk.now += seconds

    @rule()
    def crash(self) -> None:
        """What was not durable is gone; what was is read again."""
        dead, records = self.desk, list(self.desk.ledger.records)
        dead.ledger.followers.clear()
        dead.ledger.records = []
        self.desk = Desk(MemoryLedger())
        self.desk.now = dead.now
        for record in records:
            self.desk.ledger.append(record)
        next_free = len([record for record in records if isinstance(record, TokenCreated)])
        numbers = itertools.count(next_free + 1)
        self.desk.tokens._random = lambda count: next(numbers).to_bytes(count, "big")
        self.pending.clear()

    @invariant()
    def each_use_is_one_record(self) -> None:
        records: list[Record] = self.desk.ledger.records
        for token in self.desk.tokens.list():
            enrolled = sum(isinstance(record, Enrolled) and record.token == token.id for record in records)
            assert token.used == enrolled <= token.uses
            assert enrolled == self.let_in.get(token.id, 0)
            revoked = any(isinstance(record, TokenRevoked) and record.token == token.id for record in records)
            assert revoked == (token.id in self.revoked)


TestTokenMachine = TokenMachine.TestCase
TestTokenMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
