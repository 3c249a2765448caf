"""An agent whose ``[agent] name`` has changed, against real pairings over TLS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from clustersh.agent import renaming
from clustersh.agent.renaming import Renaming
from clustersh.agent.state import IDENTITY_FILE, AgentIdentity, load_identity
from clustersh.home import write_json
from clustersh.pairing_client import PENDING_FILE, Pairing
from clustersh.rest_client import RestClient
from clustersh.trust.credentials import load_certificate
from clustersh.trust.identity import Identity, Role
from clustersh.trust.tls import load_client_policy
from clustersh.wire.pairing import PENDING_S

from ..fake_coordinator import later, reactor
from ..pairing_coordinator import PairingCoordinator

ensure = pytest_twisted.ensureDeferred


class Machine:
    """A machine that is enrolled as ws1; *said* is what its renaming logs."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.folder = folder / "agent"
        self.clock = Clock()
        self.coordinator = PairingCoordinator(folder / "ca", self.clock, policy="open")
        self.said: list[str] = []

    async def enroll(self) -> None:
        client = RestClient(reactor, self.coordinator.address, None)
        pairing = Pairing(reactor, client, self.folder, Role.AGENT)
        await pairing.start("ws1")
        pairing.keep(await pairing.wait())
        await pairing.close()
        (self.folder / PENDING_FILE).unlink()
        write_json(self.folder / IDENTITY_FILE, AgentIdentity(self.coordinator.address.netloc, "ws1", "id-1"))

    def rename(self, name: str = "db1") -> Deferred[None]:
        work = Renaming(reactor, self.folder, load_identity(self.folder), name, time.time)
        return Deferred.fromCoroutine(work.run())

    async def until_said(self, text: str) -> str:
        for _ in range(3000):
            found = [said for said in self.said if text in said]
            if found:
                return found[0]
            await later(0.01)
        raise AssertionError(f"it did not say {text!r}: {self.said}")

    def hear(self, event: LogEvent) -> None:
        if event.get("log_namespace", "").endswith("renaming.Renaming"):
            self.said.append(formatEvent(event))

    @property
    def certified(self) -> str:
        return Identity.from_certificate(load_certificate(self.folder / "cert.pem")).name


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    globalLogPublisher.addObserver(made.hear)
    pytest_twisted.blockon(Deferred.fromCoroutine(made.enroll()))
    yield made
    globalLogPublisher.removeObserver(made.hear)
    pytest_twisted.blockon(Deferred.fromCoroutine(made.coordinator.stop()))


@ensure
async def test_where_machines_enroll_by_themselves_the_name_changes_at_once(machine: Machine) -> None:
    key = (machine.folder / "key.pem").read_bytes()
    await machine.rename()
    netloc = machine.coordinator.address.netloc
    assert load_identity(machine.folder) == AgentIdentity(netloc, "db1", "id-1", before="ws1")
    assert machine.certified == "db1"
    assert (machine.folder / "key.pem").read_bytes() == key
    assert not (machine.folder / PENDING_FILE).exists()
    assert machine.said == ["this machine is called db1 now (it was ws1)"]
    assert machine.coordinator.secure[-3:] == [True] * 3, "over TLS"
    load_client_policy(machine.folder)


@ensure
async def test_elsewhere_it_goes_on_until_somebody_allows_it(machine: Machine) -> None:
    machine.coordinator.pairings._policy = "approve"
    renaming = machine.rename()
    said = await machine.until_said("clusterd approve ")
    assert said.startswith("[agent] name is db1, and this machine goes on as ws1: to allow db1, run on ws1: ")
    assert (load_identity(machine.folder).machine, machine.certified, renaming.called) == ("ws1", "ws1", False)
    await machine.coordinator.approve(said.partition("clusterd approve ")[2].split()[0])
    await renaming
    assert (load_identity(machine.folder).machine, machine.certified) == ("db1", "db1")


@ensure
async def test_what_nobody_allows_in_time_is_left(machine: Machine) -> None:
    machine.coordinator.pairings._policy = "token"
    renaming = machine.rename()
    await machine.until_said("clusterd approve ")
    machine.clock.advance(PENDING_S + 1)
    await renaming
    assert machine.said[-1].endswith("it was not allowed in time; the agent asks again at its next start")
    assert (load_identity(machine.folder).machine, machine.certified) == ("ws1", "ws1")


@ensure
async def test_a_name_that_another_machine_has_is_left_to_it(machine: Machine) -> None:
    machine.coordinator.taken[Role.AGENT, "db1"] = "another key"
    await machine.rename()
    assert machine.said == [
        "[agent] name is db1, and this machine goes on as ws1: the name db1 belongs to another key (choose with --name)"
    ]
    assert (load_identity(machine.folder).machine, machine.certified) == ("ws1", "ws1")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which are short here."""
    taken: list[float] = []

    def pause(timer: Any, seconds: float) -> Deferred[None]:
        taken.append(seconds)
        return later(0.01)

    monkeypatch.setattr(renaming, "deferLater", pause)
    return taken


async def until_tried(pauses: list[float], asking: Deferred[None]) -> None:
    while not pauses:
        assert not asking.called
        await later(0.01)


@ensure
async def test_a_coordinator_that_is_away_is_asked_again(machine: Machine, pauses: list[float]) -> None:
    port = machine.coordinator.address.port
    await machine.coordinator.stop()
    asking = machine.rename()
    await until_tried(pauses, asking)
    back: Any = reactor.listenTCP(port, machine.coordinator.fake._door, interface="127.0.0.1")
    await asking
    assert load_identity(machine.folder).machine == "db1"
    assert set(pauses) == {renaming.RETRY_S}
    await back.stopListening()


@ensure
async def test_an_impostor_is_not_asked(machine: Machine, tmp_path: Path, pauses: list[float]) -> None:
    other = PairingCoordinator(tmp_path / "impostor", policy="open")
    write_json(machine.folder / IDENTITY_FILE, AgentIdentity(other.address.netloc, "ws1", "id-1"))
    asking = machine.rename()
    await until_tried(pauses, asking)
    assert other.calls == []
    asking.addErrback(lambda _: None)
    asking.cancel()
    await other.stop()
