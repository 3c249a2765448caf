"""Who is at an address of the tailnet: asked of a stand-in for Tailscale's program, recorded, and required."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from clustersh import tailscale_program
from clustersh.coordinator import whois
from clustersh.coordinator.addresses import plain_address
from clustersh.coordinator.records import TailnetSeen
from clustersh.coordinator.whois import AGAIN_S, PAUSE_S, Acquaintances, TailnetRule, Whois
from clustersh.trust.authority import Authority
from clustersh.trust.identity import Role
from clustersh.trust.keys import generate
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.tailnet import TailnetIdentity

from ..tailscale_double import NO_SERVICE, Tailscale
from .test_pairing import Asker, Desk
from .world import World

ensure = pytest_twisted.ensureDeferred
JOSHUA = TailnetIdentity("joshua@example.com", "web01.tail1234.ts.net")
CI = TailnetIdentity("tagged-devices", "ci.tail1234.ts.net")
THERE, ELSEWHERE, LAN = (plain_address(text) for text in ("100.64.0.2", "100.64.0.9", "192.168.1.7"))


@pytest.fixture
def tailscale(tmp_path: Path) -> Tailscale:
    return Tailscale(tmp_path / "tailscale")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whois, "RUN_S", 30.0)  # a loaded machine takes its time to start a shell


def asking(tailscale: Tailscale) -> Whois:
    return Whois(reactor, lambda: str(tailscale.bin / "tailscale"))


@ensure
async def test_a_user_a_tagged_node_and_somebody_unknown(tailscale: Tailscale) -> None:
    tailscale.know("100.64.0.2", "user")
    tailscale.know("[fd7a:115c:a1e0::9]", "tagged")
    ask = asking(tailscale)
    assert await ask(THERE, 4711) == JOSHUA
    assert await ask(plain_address("fd7a:115c:a1e0::9"), 4712) == CI
    assert await ask(ELSEWHERE, 4713) is None
    assert tailscale.calls == [
        "whois --json 100.64.0.2:4711",
        "whois --json [fd7a:115c:a1e0::9]:4712",
        "whois --json 100.64.0.9:4713",
    ]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.168.1.7", "10.1.2.3", "fd00::7", "203.0.113.9"])
@ensure
async def test_of_other_addresses_nobody_is_asked(tailscale: Tailscale, address: str) -> None:
    tailscale.know(address, "user")
    assert await asking(tailscale)(plain_address(address), 1) is None
    assert tailscale.calls == []


@ensure
async def test_without_the_program_nobody_is_known() -> None:
    assert await Whois(reactor, lambda: None)(THERE, 1) is None
    assert await Whois(reactor, lambda: "/nowhere/tailscale")(THERE, 1) is None


@pytest.mark.parametrize("content", ["", "nonsense", "[]", "{}", '{"Node": null, "UserProfile": null}'])
@ensure
async def test_what_names_nobody_is_nobody(tailscale: Tailscale, content: str) -> None:
    (tailscale.bin.parent / "whois" / "100.64.0.2").write_text(content)
    assert await asking(tailscale)(THERE, 1) is None
    assert len(tailscale.calls) == 1


@ensure
async def test_a_program_that_hangs_is_ended_and_only_a_few_run_at_once(
    tailscale: Tailscale, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whois, "RUN_S", 1.0)
    monkeypatch.setattr(tailscale_program, "RUN_S", 60.0)
    tailscale.hang()
    ask = asking(tailscale)
    began = reactor.seconds()  # type: ignore[attr-defined]
    asked = [Deferred.fromCoroutine(ask(THERE, port)) for port in range(whois.MAX_AT_ONCE + 3)]
    assert [each.called for each in asked].count(True) == 3, "beyond those nobody is waited for"
    assert await gatherResults(asked) == [None] * len(asked)
    assert 1.0 <= reactor.seconds() - began < 40.0  # type: ignore[attr-defined]
    (tailscale.bin.parent / "slow").unlink()
    tailscale.know("100.64.0.2", "user")
    monkeypatch.setattr(whois, "RUN_S", 30.0)
    assert await ask(THERE, 1) == JOSHUA


# -- keeping up


class Book:
    """Acquaintances on a Clock; *who* is at each address."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.who: dict[str, TailnetIdentity] = {str(THERE): JOSHUA}
        self.asked: list[str] = []
        self.noted: list[tuple[str, TailnetIdentity]] = []
        self.book = Acquaintances(self.clock.seconds, self.identify, self.note)

    async def identify(self, address: Any, port: int) -> TailnetIdentity | None:
        self.asked.append(str(address))
        return self.who.get(str(address))

    async def note(self, fingerprint: str, identity: TailnetIdentity) -> None:
        self.noted.append((fingerprint, identity))


def test_a_key_is_looked_at_again_at_another_address_and_after_an_hour() -> None:
    book = Book()
    for _ in range(3):
        book.book.came("key", THERE, 1)
    assert book.asked == [str(THERE)] and book.noted == [("key", JOSHUA)]
    book.clock.advance(PAUSE_S)
    book.book.came("key", THERE, 1)
    assert len(book.asked) == 1
    book.book.came("key", ELSEWHERE, 1)
    book.book.came("key", THERE, 1)
    assert book.asked == [str(THERE), str(ELSEWHERE)], "one that goes to and fro isn't asked about each time"
    assert book.noted == [("key", JOSHUA)], "nobody is known there"
    book.who[str(ELSEWHERE)] = CI
    book.clock.advance(AGAIN_S)
    book.book.came("key", ELSEWHERE, 1)
    assert book.noted[-1] == ("key", CI)
    book.book.came("other", LAN, 1)
    assert len(book.asked) == 3


@ensure
async def test_it_is_recorded_when_it_changes_and_known_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.load()
    await world.join("ws1")
    key = "key of ws1"
    await world.registry.register(Role.ADMIN, "admin", generate().public_key(), "key of admin", "127.0.0.1", "first")
    for fingerprint, identity in ((key, JOSHUA), (key, JOSHUA), (key, CI), ("unknown", CI), ("key of admin", CI)):
        await world.registry.note_tailnet(fingerprint, identity)
    records: Any = world.records(TailnetSeen)
    assert [(record.name, record.login) for record in records] == [
        ("ws1", "joshua@example.com"),
        ("ws1", "tagged-devices"),
    ]
    assert world.registry.machine("ws1").tailnet == CI
    await world.registry.accept("ws1")
    await world.join("ws1")
    assert world.registry.machine("ws1").tailnet == CI, "what else changes leaves it"
    await world.settled()
    await world.stop()
    again = World(tmp_path)
    await again.load()
    assert again.registry.machine("ws1").tailnet == CI
    await again.registry.forget("ws1")
    await again.registry.note_tailnet(key, JOSHUA)
    assert len(again.records(TailnetSeen)) == 2
    await again.stop()


# -- required


@pytest.fixture(scope="module")
def ca_der(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Authority.create(tmp_path_factory.mktemp("ca"), datetime.now(UTC)).certificate_der


class Door:
    """Pairings that know who is at THERE; *required* as `[enrollment] tailnet_only`."""

    def __init__(self, ca_der: bytes, *, required: bool) -> None:
        self.book = Book()
        rule = TailnetRule(self.book.identify, self.book.note, required)
        self.desk = Desk(ca_der, policy="open", tailnet=rule)

    async def ask(self, role: Role, name: str, address: Any) -> str:
        asker = Asker(name, role)
        asker.offer = self.desk.pairings.start(asker.start(), address, 4711)
        progress = await self.desk.pairings.reveal(asker.offer.id, asker.reveal)
        return str(progress.status)


@pytest.mark.parametrize(("role", "name"), [(Role.AGENT, "ws1"), (Role.FRONTEND, "ann@mba")])
@ensure
async def test_where_the_tailnet_is_required_others_are_refused(ca_der: bytes, role: Role, name: str) -> None:
    door = Door(ca_der, required=True)
    for address in (LAN, ELSEWHERE):
        with pytest.raises(ProblemError) as refused:
            await door.ask(role, name, address)
        problem = refused.value.problem
        assert problem.kind is Kind.ADDRESS_NOT_ALLOWED
        assert str(address) in problem.detail
        assert ("tailscale up" if address is LAN else f"tailscale whois {address}") in problem.hint
    assert door.desk.register.approved_by == [] and door.desk.pairings.pending() == []
    assert [refusal.reason for refusal in door.desk.refused] == ["not of the tailnet"] * 2
    assert await door.ask(role, name, THERE) == ("approved" if role is Role.AGENT else "pending")


@ensure
async def test_where_it_is_not_they_are_let_in_and_those_that_are_known_are_noted(ca_der: bytes) -> None:
    door = Door(ca_der, required=False)
    assert await door.ask(Role.AGENT, "ws1", LAN) == "approved"
    assert door.book.noted == []
    assert await door.ask(Role.AGENT, "ws2", THERE) == "approved"
    assert [identity for _, identity in door.book.noted] == [JOSHUA]


BROKEN = {
    "missing": None,
    "no service": f"echo {NO_SERVICE!r} >&2; exit 1",
    "silent": "exit 3",
    "killed": "kill -9 $$",
    "garbage": "head -c 4096 /dev/urandom",
    "endless": "yes",
    "nested": "yes [ | head -n 100000 | tr -d '\\n'",
    "nobody": "echo '{}'",
    "hanging": "exec sleep 5",
    "held open": "sleep 5 & exit 0",
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
@ensure
async def test_where_the_tailnet_is_required_and_can_not_be_asked_nobody_is_let_in(
    ca_der: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    hangs = script is not None and "sleep" in script
    monkeypatch.setattr(whois, "RUN_S", 0.5 if hangs else 30.0)
    program = tmp_path / "tailscale"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    ask = Whois(reactor, lambda: str(program) if script is not None else None)
    door = Door(ca_der, required=True)
    rule = TailnetRule(ask, door.book.note, True)
    door.desk = Desk(ca_der, policy="open", tailnet=rule)
    for role, name in ((Role.AGENT, "ws1"), (Role.FRONTEND, "ann@mba")):
        with pytest.raises(ProblemError) as refused:
            await door.ask(role, name, THERE)
        assert refused.value.problem.kind is Kind.ADDRESS_NOT_ALLOWED
        assert f"doesn't know who is at {THERE}" in refused.value.problem.detail
    assert door.desk.register.approved_by == [] and door.desk.pairings.pending() == [] and door.book.noted == []
