"""The coordinator's side of a pairing, with a Clock, and with somebody in the middle."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from clustersh.coordinator.addresses import plain_address
from clustersh.coordinator.approvals import Approvals
from clustersh.coordinator.pairing import (
    ALL_BURST,
    MAX_PENDING_EACH,
    START_BURST,
    WRONG_BURST,
    Pairings,
)
from clustersh.coordinator.policy.overrides import Overrides
from clustersh.coordinator.records import Adoption, Enrolled
from clustersh.coordinator.refusals import Refusal, Refusals
from clustersh.coordinator.rest_pairing import PairingCalls
from clustersh.coordinator.tokens import JoinTokens
from clustersh.coordinator.whois import NO_RULE, TailnetRule
from clustersh.trust import keys
from clustersh.trust.authority import Authority
from clustersh.trust.identity import Identity, Role, fingerprint
from clustersh.trust.pairing import PairingCode, commitment, make_request, new_nonce, transcript_hash
from clustersh.wire.codec import decode_json, encode_json
from clustersh.wire.pairing import PENDING_S, PairOffer, PairReveal, PairStart, PairStatus
from clustersh.wire.policy import AllowedRun
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import Approved
from clustersh.wire.units import parse_timestamp

from ..memory_ledger import MemoryLedger
from .conftest import Opener

HERE = plain_address("192.168.1.7")
NOON = parse_timestamp("2026-11-20T12:00:00Z")


class Register:
    """Names and keys, in memory. *failure* is raised by the next registration."""

    def __init__(self) -> None:
        self.ledger: MemoryLedger
        self.names: dict[tuple[Role, str], str] = {}
        self.approved_by: list[str] = []
        self.ais: set[str] = set()
        self.adopted: list[Adoption] = []
        self.failure: Exception | None = None
        self.wait: Deferred[None] | None = None

    def holder(self, role: Role, name: str) -> str | None:
        return self.names.get((role, name))

    def check_join(self, role: Role, name: str, fingerprint: str) -> None:
        for (known_role, _), key in self.names.items():
            if key == fingerprint and known_role is not role:
                raise ProblemError(Kind.UNTRUSTED, f"this key is a {known_role}'s")
        if self.holder(role, name) not in (None, fingerprint):
            raise ProblemError(Kind.NAME_TAKEN, f"the name {name} belongs to another key", hint="--name")

    def is_ais(self, role: Role, name: str, fingerprint: str) -> bool:
        return fingerprint in self.ais

    async def register(
        self,
        role: Role,
        name: str,
        public_key: EllipticCurvePublicKey,
        fingerprint: str,
        address: str,
        approved_by: str,
        token: str = "",
        adoption: Adoption | None = None,
        *,
        ai: bool = False,
    ) -> bytes:
        self.check_join(role, name, fingerprint)
        if self.wait is not None:
            await self.wait
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        self.names[role, name] = fingerprint
        self.approved_by.append(f"{approved_by}, ai" if ai else approved_by)
        self.ais.update({fingerprint} if ai else ())
        if adoption is not None:
            self.adopted.append(adoption)
        if token:
            await self.ledger.append(
                Enrolled(role.value, name, f"id of {name}", fingerprint, address, approved_by, token)
            )
        return b"certificate of " + name.encode()


@dataclass
class Desk:
    """Pairings on a Clock."""

    ca_der: bytes
    policy: Any = "approve"
    tailnet: TailnetRule = NO_RULE
    clock: Clock = field(default_factory=Clock)
    register: Register = field(default_factory=Register)
    refused: list[Refusal] = field(default_factory=list)

    def __post_init__(self) -> None:
        counter = itertools.count(1)
        refusals = Refusals(self.clock, self.refused.append)
        self.ledger = self.register.ledger = MemoryLedger()
        random = iter(range(1, 1 << 20))
        self.tokens = JoinTokens(
            self.ledger,
            b"k" * 32,
            lambda: NOON + self.clock.seconds(),
            lambda count: next(random).to_bytes(count, "big"),
        )
        self.ledger.followers.append(self.tokens.follow)
        self.pairings = Pairings(
            self.register,
            self.ca_der,
            self.clock,
            lambda count: next(counter).to_bytes(count, "big"),
            refusals,
            policy=self.policy,
            tokens=self.tokens,
            host="box",
            tailnet=self.tailnet,
        )
        self.overrides = Overrides(self.clock, lambda count: next(counter).to_bytes(count, "big"))
        self.approvals = Approvals(self.pairings, self.overrides, self.clock, refusals)

    async def approve(self, code: str, *, ai: bool = False, dry_run: bool = False) -> Approved:
        return await self.approvals.approve(code, "admin-1", ai=ai, dry_run=dry_run)


class Asker:
    """The other side: `clustersh login` or `clusteragent enroll`."""

    def __init__(
        self, name: str = "ann@mba", role: Role = Role.FRONTEND, key: EllipticCurvePrivateKey | None = None
    ) -> None:
        self.key = key or keys.generate()
        self.role = role
        self.request = make_request(self.key, name, role)
        self.nonce = new_nonce()
        self.offer: PairOffer | None = None

    def start(self) -> PairStart:
        return PairStart(self.role.value, self.request, commitment(self.nonce))

    @property
    def reveal(self) -> PairReveal:
        return PairReveal(self.nonce)

    def code_for(self, offer: PairOffer) -> PairingCode:
        """The code, computed from what this side has seen."""
        return PairingCode.of(transcript_hash(self.role, self.request, offer.ca, self.nonce, offer.nonce))

    async def ask(self, desk: Desk) -> tuple[str, PairingCode]:
        offer = desk.pairings.start(self.start(), HERE)
        await desk.pairings.reveal(offer.id, self.reveal)
        return offer.id, self.code_for(offer)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ca"), datetime.now(UTC))


@pytest.fixture
def desk(authority: Authority) -> Desk:
    return Desk(authority.certificate_der)


async def refusal(awaitable: Any) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await awaitable
    return caught.value


def kind_of(error: ProblemError) -> Kind:
    return error.problem.kind


@pytest_twisted.ensureDeferred
async def test_the_right_code_lets_in_and_shows_who_came(desk: Desk) -> None:
    asker = Asker("Ann@MBA")
    id_, code = await asker.ask(desk)
    assert (await desk.pairings.progress(id_, 0)).status is PairStatus.PENDING
    approved = await desk.approve(f" {code.code.upper()} ")
    assert approved.name == "ann@mba"
    assert (approved.role, approved.address) == ("frontend", "192.168.1.7")
    assert (approved.fingerprint, approved.check) == (fingerprint(asker.key.public_key()), code.check)
    progress = await desk.pairings.progress(id_, 0)
    assert (progress.status, progress.certificate) == (PairStatus.APPROVED, b"certificate of ann@mba")
    assert await desk.approve(code.code) == approved
    assert desk.register.approved_by == ["admin"]


@pytest_twisted.ensureDeferred
async def test_pending_shows_who_waits_but_no_code(desk: Desk) -> None:
    _, code = await Asker().ask(desk)
    desk.pairings.start(Asker("not-revealed@x").start(), HERE)
    desk.clock.advance(5)
    (waiting,) = desk.pairings.pending()
    assert (waiting.name, waiting.role, waiting.address, waiting.age_s) == ("ann@mba", "frontend", "192.168.1.7", 5.0)
    assert code.code not in encode_json(waiting).decode()
    await desk.approve(code.code)
    assert desk.pairings.pending() == []


@pytest_twisted.ensureDeferred
async def test_waiting_ends_with_the_approval_or_in_time(desk: Desk) -> None:
    id_, code = await Asker().ask(desk)
    waiting = Deferred.fromCoroutine(desk.pairings.progress(id_, 30))
    other = Deferred.fromCoroutine(desk.pairings.progress(id_, 10))
    desk.clock.advance(10)
    assert (await other).status is PairStatus.PENDING
    assert not waiting.called
    await desk.approve(code.code)
    assert (await waiting).status is PairStatus.APPROVED


# -- somebody in the middle


@pytest.mark.parametrize("swapped", ["key", "ca", "name", "server nonce", "client nonce"])
@pytest_twisted.ensureDeferred
async def test_a_man_in_the_middle_changes_the_code(desk: Desk, tmp_path: Path, swapped: str) -> None:
    victim = Asker("ann@mba")
    middle = {
        "key": Asker("ann@mba"),
        "name": Asker("eve@mba", key=victim.key),
        "client nonce": Asker("ann@mba", key=victim.key),
    }.get(swapped, victim)
    middle.request = victim.request if swapped == "client nonce" else middle.request
    offer = desk.pairings.start(middle.start(), HERE)
    await desk.pairings.reveal(offer.id, middle.reveal)
    shown = offer
    if swapped == "ca":
        other = Authority.create(tmp_path / "eve", datetime.now(UTC)).certificate.public_bytes(Encoding.DER)
        shown = PairOffer(offer.id, other, offer.nonce)
    if swapped == "server nonce":
        shown = PairOffer(offer.id, offer.ca, new_nonce())
    error = await refusal(desk.approve(victim.code_for(shown).code))
    assert kind_of(error) is Kind.WRONG_CODE
    assert "impostor" in error.problem.hint and "a run's code is good once" in error.problem.hint
    assert "clustersh logout" in error.problem.hint
    assert desk.register.names == {}


@pytest_twisted.ensureDeferred
async def test_a_nonce_that_was_not_committed_to_ends_the_pairing(desk: Desk) -> None:
    asker = Asker()
    offer = desk.pairings.start(asker.start(), HERE)
    assert kind_of(await refusal(desk.pairings.reveal(offer.id, PairReveal(new_nonce())))) is Kind.BAD_REQUEST
    assert kind_of(await refusal(desk.pairings.reveal(offer.id, asker.reveal))) is Kind.UNKNOWN_PAIRING


@pytest_twisted.ensureDeferred
async def test_a_nonce_is_revealed_once(desk: Desk) -> None:
    asker = Asker()
    offer = desk.pairings.start(asker.start(), HERE)
    await desk.pairings.reveal(offer.id, asker.reveal)
    assert (await desk.pairings.reveal(offer.id, asker.reveal)).status is PairStatus.PENDING
    assert kind_of(await refusal(desk.pairings.reveal(offer.id, PairReveal(new_nonce())))) is Kind.BAD_REQUEST
    assert len(desk.pairings.pending()) == 1


@pytest_twisted.ensureDeferred
async def test_two_equal_codes_are_both_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PairingCode, "of", classmethod(lambda cls, transcript: cls("1a2b3c4d", "0000")))
    for name in ("ann@a", "ann@b"):
        await Asker(name).ask(desk)
    error = await refusal(desk.approve("1a2b3c4d"))
    assert kind_of(error) is Kind.WRONG_CODE
    assert "2 requests" in error.problem.detail
    assert desk.pairings.pending() == []
    assert desk.register.names == {}


# -- who may ask


@pytest.mark.parametrize("spoilt", ["role", "request", "commitment", "name", "admin"])
def test_a_request_that_makes_no_sense_is_refused(desk: Desk, spoilt: str) -> None:
    asker = Asker()
    start = {
        "role": PairStart("agent", asker.request, commitment(asker.nonce)),
        "request": PairStart("frontend", asker.request[:-1], commitment(asker.nonce)),
        "commitment": PairStart("frontend", asker.request, b"short"),
        "name": Asker("spaces in it").start(),
        "admin": PairStart("admin", asker.request, commitment(asker.nonce)),
    }[spoilt]
    with pytest.raises(ProblemError) as caught:
        desk.pairings.start(start, HERE)
    assert kind_of(caught.value) is Kind.BAD_REQUEST


@pytest_twisted.ensureDeferred
async def test_a_name_of_another_key_is_refused_at_once_and_at_the_approval(desk: Desk) -> None:
    _, first = await Asker().ask(desk)
    _, second = await Asker().ask(desk)
    await desk.approve(first.code)
    assert kind_of(await refusal(desk.approve(second.code))) is Kind.NAME_TAKEN
    with pytest.raises(ProblemError) as caught:
        desk.pairings.start(Asker().start(), HERE)
    assert kind_of(caught.value) is Kind.NAME_TAKEN
    assert "--name" in caught.value.problem.hint


@pytest_twisted.ensureDeferred
async def test_one_key_has_one_role(desk: Desk) -> None:
    asker = Asker()
    _, code = await asker.ask(desk)
    await desk.approve(code.code)
    with pytest.raises(ProblemError) as caught:
        desk.pairings.start(Asker("mba", Role.AGENT, asker.key).start(), HERE)
    assert kind_of(caught.value) is Kind.UNTRUSTED


@pytest_twisted.ensureDeferred
async def test_with_open_enrollment_machines_need_no_code_but_users_do(authority: Authority) -> None:
    desk = Desk(authority.certificate_der, policy="open")
    machine, user = Asker("ws1", Role.AGENT), Asker()
    offer = desk.pairings.start(machine.start(), HERE)
    progress = await desk.pairings.reveal(offer.id, machine.reveal)
    assert (progress.status, progress.certificate) == (PairStatus.APPROVED, b"certificate of ws1")
    assert desk.register.approved_by == ["open"]
    offer = desk.pairings.start(user.start(), HERE)
    assert (await desk.pairings.reveal(offer.id, user.reveal)).status is PairStatus.PENDING


@pytest_twisted.ensureDeferred
async def test_a_known_machine_enrolls_again_with_its_key_and_another_s_needs_a_code(desk: Desk) -> None:
    machine = Asker("ws1", Role.AGENT)
    id_, code = await machine.ask(desk)
    assert (await desk.pairings.progress(id_, 0)).status is PairStatus.PENDING
    await desk.approve(code.code)
    again = Asker("ws1", Role.AGENT, machine.key)
    id_, _ = await again.ask(desk)
    assert (await desk.pairings.progress(id_, 0)).status is PairStatus.APPROVED
    assert desk.register.approved_by == ["admin", "same key"]


@pytest_twisted.ensureDeferred
async def test_a_registration_that_fails_can_be_approved_again(desk: Desk) -> None:
    id_, code = await Asker().ask(desk)
    desk.register.failure = ProblemError(Kind.STORAGE, "the disk is full")
    assert kind_of(await refusal(desk.approve(code.code))) is Kind.STORAGE
    assert (await desk.pairings.progress(id_, 0)).status is PairStatus.PENDING
    await desk.approve(code.code)
    assert (await desk.pairings.progress(id_, 0)).status is PairStatus.APPROVED


@pytest_twisted.ensureDeferred
async def test_approving_twice_at_once_registers_once(desk: Desk) -> None:
    _, code = await Asker().ask(desk)
    desk.register.wait = Deferred()
    first = Deferred.fromCoroutine(desk.approve(code.code))
    assert kind_of(await refusal(desk.approve(code.code))) is Kind.UNAVAILABLE
    desk.register.wait.callback(None)
    await first
    assert desk.register.approved_by == ["admin"]


# -- how often, and how long


@pytest_twisted.ensureDeferred
async def test_pairings_expire(desk: Desk) -> None:
    id_, code = await Asker().ask(desk)
    waiting = Deferred.fromCoroutine(desk.pairings.progress(id_, 60))
    desk.clock.advance(PENDING_S)
    assert kind_of(await refusal(waiting)) is Kind.UNKNOWN_PAIRING
    assert kind_of(await refusal(desk.approve(code.code))) is Kind.WRONG_CODE
    assert desk.pairings.pending() == []


@pytest_twisted.ensureDeferred
async def test_an_approval_at_the_last_moment_can_still_be_fetched(desk: Desk) -> None:
    id_, code = await Asker().ask(desk)
    desk.clock.advance(PENDING_S - 1)
    await desk.approve(code.code)
    desk.clock.advance(PENDING_S - 1)
    assert (await desk.pairings.progress(id_, 0)).status is PairStatus.APPROVED


def starts_from(desk: Desk, address: str, count: int) -> int:
    """Try *count* starts; return how many were taken."""
    taken, start = 0, Asker().start()
    for _ in range(count):
        try:
            desk.pairings.start(start, plain_address(address))
        except ProblemError as error:
            assert kind_of(error) is Kind.RATE_LIMITED
        else:
            taken += 1
    return taken


def test_one_address_may_begin_few_and_another_is_not_hurt(desk: Desk) -> None:
    assert starts_from(desk, "10.0.0.1", 50) == START_BURST
    assert starts_from(desk, "10.0.0.2", 1) == 1
    desk.clock.advance(3)
    assert starts_from(desk, "10.0.0.1", 50) == 3


def test_addresses_of_one_ipv6_network_are_one(desk: Desk) -> None:
    assert sum(starts_from(desk, f"fd00::{host:x}", 1) for host in range(1, 50)) == START_BURST


def test_all_together_are_limited(desk: Desk) -> None:
    assert sum(starts_from(desk, f"10.0.{host}.1", 1) for host in range(200)) == ALL_BURST


def test_few_may_wait_at_a_time(desk: Desk) -> None:
    taken = 0
    for _ in range(60):
        taken += starts_from(desk, "10.0.0.1", 1)
        desk.clock.advance(1)
    assert taken == MAX_PENDING_EACH
    assert {refusal.reason for refusal in desk.refused} == {"too many requests wait already"}


@pytest_twisted.ensureDeferred
async def test_wrong_codes_are_counted_and_then_all_codes_refused_for_a_while(desk: Desk) -> None:
    _, code = await Asker().ask(desk)
    for guess in range(int(WRONG_BURST) + 1):
        wrong = await refusal(desk.approve(f"{guess:08x}"))
        assert kind_of(wrong) is Kind.WRONG_CODE
    assert kind_of(await refusal(desk.approve(code.code))) is Kind.RATE_LIMITED
    desk.clock.advance(60)
    assert (await desk.approve(code.code)).name == "ann@mba"
    assert [(each.reason, each.times, each.again) for each in desk.refused] == [
        ("wrong code", 1, False),
        ("wrong code", int(WRONG_BURST), True),
    ]


@pytest.mark.parametrize("code", ["", "1a2b", "zzzzzzzz", "1a2b3c4d5", "1A2B3C4é"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_code_is_a_wrong_code(desk: Desk, code: str) -> None:
    await Asker().ask(desk)
    assert kind_of(await refusal(desk.approve(code))) is Kind.WRONG_CODE


# -- over the network


@pytest_twisted.ensureDeferred
async def test_a_login_over_plain_http(open_front: Opener, authority: Authority) -> None:
    front, desk = open_front(), Desk(authority.certificate_der)
    PairingCalls(desk.pairings, authority.certificate_pem).add_to(front.api)
    json = {"Content-Type": "application/json"}
    asker = Asker()
    started = await front.call("POST", "/pair", plain=True, data=encode_json(asker.start()), headers=json)
    offer = decode_json(started.content, PairOffer)
    assert (offer.host, offer.ca) == ("box", authority.certificate_der)
    path = f"/pair/{offer.id}"
    revealed = await front.call("POST", path, plain=True, data=encode_json(asker.reveal), headers=json)
    assert revealed.json["status"] == "pending"
    await desk.approve(asker.code_for(offer).code)
    assert (await front.call("GET", path, plain=True)).json["status"] == "approved"
    assert (await front.call("GET", "/pair/ff", plain=True)).problem == "unknown-pairing"
    assert (await front.call("POST", "/pair", plain=True, data=encode_json(asker.start()))).problem == "bad-request"
    pem = await front.call("GET", "/ca.pem", plain=True)
    assert (pem.content, pem.headers["content-type"]) == (authority.certificate_pem, "application/x-pem-file")
    assert (await front.call("GET", "/health", plain=True)).json["service"] == "clusterd"


@pytest_twisted.ensureDeferred
async def test_those_that_were_let_in_do_not_keep_their_neighbours_out(authority: Authority) -> None:
    desk = Desk(authority.certificate_der, policy="open")
    for number in range(MAX_PENDING_EACH + 5):
        machine = Asker(f"ws{number}", Role.AGENT)
        offer = desk.pairings.start(machine.start(), HERE)
        assert (await desk.pairings.reveal(offer.id, machine.reveal)).status is PairStatus.APPROVED
        desk.clock.advance(1)


# -- runs that the policy stopped have codes too

STOPPED = AllowedRun("ai@ci", "ws1", ("ws1",), 1, "reboot", ("power",))
BOT = Identity(Role.FRONTEND, "ai@ci", "bot")


@pytest_twisted.ensureDeferred
async def test_a_runs_code_is_typed_as_a_logins(desk: Desk) -> None:
    run = desk.overrides.ask(BOT, "digest", frozenset(), STOPPED)
    _, code = await Asker().ask(desk)
    waiting = desk.approvals.pending()
    assert [(each.name, each.role, each.what) for each in waiting] == [
        ("ann@mba", "frontend", ""),
        ("ai@ci", "run", "reboot on ws1"),
    ]
    assert not any(secret in str(waiting) for secret in (run.code, code.code))
    with_ai = await refusal(desk.approve(run.code, ai=True))
    assert kind_of(with_ai) is Kind.BAD_REQUEST and run.approver == ""
    approved = await desk.approve(f" {run.code.upper()} ")
    assert (approved.role, approved.allowed, run.approver) == ("run", STOPPED, "admin-1")
    assert await desk.approve(run.code) == approved, "until it is used"
    assert [each.role for each in desk.approvals.pending()] == ["frontend"]
    assert (await desk.approve(code.code)).allowed is None
    desk.overrides.take(run)
    assert kind_of(await refusal(desk.approve(run.code))) is Kind.WRONG_CODE


@pytest_twisted.ensureDeferred
async def test_a_login_and_a_run_with_one_code_are_both_refused(desk: Desk) -> None:
    _, code = await Asker().ask(desk)
    run = desk.overrides.ask(BOT, "digest", frozenset(), STOPPED)
    run.code = code.code
    error = await refusal(desk.approve(code.code))
    assert kind_of(error) is Kind.WRONG_CODE and "2 requests have this code" in str(error)
    assert desk.approvals.pending() == []
    assert desk.register.names == {}


@pytest_twisted.ensureDeferred
async def test_wrong_codes_close_the_door_for_runs_too(desk: Desk) -> None:
    run = desk.overrides.ask(BOT, "digest", frozenset(), STOPPED)
    for guess in range(int(WRONG_BURST) + 1):
        assert kind_of(await refusal(desk.approve(f"{guess + 1000:08x}"))) is Kind.WRONG_CODE
    assert kind_of(await refusal(desk.approve(run.code))) is Kind.RATE_LIMITED
    desk.clock.advance(60)
    assert (await desk.approve(run.code)).allowed == STOPPED


@pytest_twisted.ensureDeferred
async def test_a_client_is_let_in_as_an_ai_agents(desk: Desk) -> None:
    _, code = await Asker().ask(desk)
    approved = await desk.approve(code.code, ai=True)
    assert approved.ai and desk.register.approved_by == ["admin, ai"]
    assert await desk.approve(code.code, ai=True) == approved
    _, other = await Asker("bob@mba").ask(desk)
    assert not (await desk.approve(other.code)).ai
    late = await refusal(desk.approve(other.code, ai=True))
    assert kind_of(late) is Kind.BAD_REQUEST and "let in already" in str(late)
    eve = Asker("eve@mba")
    desk.register.ais.add(fingerprint(eve.key.public_key()))
    _, again = await eve.ask(desk)
    for dry_run in (True, False):
        assert (await desk.approve(again.code, dry_run=dry_run)).ai, "it was one before"
    _, machine = await Asker("ws1", Role.AGENT).ask(desk)
    assert "this is a machine" in str(await refusal(desk.approve(machine.code, ai=True)))
    assert len(desk.approvals.pending()) == 1
