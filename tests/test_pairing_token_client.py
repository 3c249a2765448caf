"""The asking side with a join token or a pinned CA: what a coordinator has to prove to it before anything is kept."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from clustersh.coordinator.tokens import JoinTokens
from clustersh.pairing_client import PENDING_FILE, Pairing, read_pending
from clustersh.pinning import PAIRING_ANSWER_LIMIT
from clustersh.rest_client import RestClient, Unreachable
from clustersh.trust.errors import PairingError
from clustersh.trust.identity import Role, certificate_sha256
from clustersh.trust.tokens import JoinToken
from clustersh.wire.problems import Kind, ProblemError

from .fake_coordinator import Answer, reactor
from .memory_ledger import MemoryLedger
from .pairing_coordinator import PairingCoordinator

ensure = pytest_twisted.ensureDeferred


class Machine:
    """A machine that enrolls, and a coordinator that takes tokens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "agent"
        self.coordinator = PairingCoordinator(folder / "ca", policy="token")
        self.pairings: list[Pairing] = []

    def pairing(self, token: JoinToken | None = None, ca_sha256: str = "") -> Pairing:
        plain = RestClient(reactor, self.coordinator.address, None, answer_limit=PAIRING_ANSWER_LIMIT)
        made = Pairing(reactor, plain, self.folder, Role.AGENT, ca_sha256=ca_sha256, token=token)
        self.pairings.append(made)
        return made

    async def token(self, uses: int = 1) -> JoinToken:
        return (await self.coordinator.tokens.create(60, uses))[0]

    @property
    def sent(self) -> bytes:
        """All that the machine has sent."""
        return b"".join(asked.path.encode() + asked.body for asked in self.coordinator.fake.asked)

    async def stop(self) -> None:
        for pairing in self.pairings:
            await pairing.close()
        await self.coordinator.stop()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.stop()))


@ensure
async def test_a_token_lets_in_and_does_not_travel(machine: Machine) -> None:
    token = await machine.token()
    pairing = machine.pairing(token)
    assert (await pairing.start("ws1")).approved
    assert await pairing.poll() is not None
    assert token.id.encode() in machine.sent
    assert token.secret.hex().encode() not in machine.sent


@ensure
async def test_without_a_token_the_request_waits_and_a_token_may_follow(machine: Machine) -> None:
    token = await machine.token()
    first = await machine.pairing().start("ws1")
    assert (first.approved, first.needs_token) == (False, True)
    second = await machine.pairing(token).start("ws1")
    assert (second.code, second.resumed, second.approved) == (first.code, True, True)
    assert machine.coordinator.calls.count("POST /pair") == 1


@ensure
async def test_a_token_that_is_no_good_is_told_and_nothing_kept(machine: Machine) -> None:
    token = await machine.token()
    await machine.coordinator.tokens.revoke(token.id)
    with pytest.raises(ProblemError) as caught:
        await machine.pairing(token).start("ws1")
    assert caught.value.problem.kind is Kind.WRONG_TOKEN
    assert read_pending(machine.folder) is None
    await machine.pairing().start("ws1")
    with pytest.raises(ProblemError):
        await machine.pairing(token).start("ws1")  # while that one waits: it is gone then, too
    assert (await machine.pairing(await machine.token()).start("ws1")).approved


@pytest.mark.parametrize("impostor", ["knows no token", "echoes the proof"])
@ensure
async def test_who_lets_a_machine_in_without_knowing_its_token_is_no_coordinator(
    machine: Machine, impostor: str
) -> None:
    """It has a CA of its own, and approves whoever comes: only the token tells."""
    token = await machine.token()
    theirs = machine.coordinator.pairings

    def answer(shown: Any, transcript: bytes) -> bytes:
        return b"" if impostor == "knows no token" else shown.proof

    theirs._policy = "open"
    theirs._tokens = type("Tokens", (), {"answer": staticmethod(answer)})()  # type: ignore[assignment]
    with pytest.raises(PairingError, match="is not the coordinator that made the join token"):
        await machine.pairing(token).start("ws1")
    assert not (machine.folder / PENDING_FILE).exists()
    assert not (machine.folder / "cert.pem").exists()


@ensure
async def test_a_token_of_another_coordinator_is_refused(machine: Machine) -> None:
    other = JoinTokens(MemoryLedger(), b"o" * 32, time.time, secrets.token_bytes)
    token, _ = await other.create(60, 1)
    with pytest.raises(ProblemError, match="did not make this join token"):
        await machine.pairing(token).start("ws1")


@ensure
async def test_with_a_pin_all_but_the_ca_certificate_goes_over_tls(machine: Machine) -> None:
    pin = certificate_sha256(machine.coordinator.authority.certificate)
    pairing = machine.pairing(await machine.token(), pin)
    assert (await pairing.start("ws1")).approved
    assert await pairing.poll() is not None
    assert machine.coordinator.calls[:2] == ["GET /ca.pem", "POST /pair"]
    assert machine.coordinator.secure == [False, True, True, True]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (lambda pem: b"", "shows no CA certificate"),
        (lambda pem: pem.replace(b"\n", b"x\n"), "shows no CA certificate"),
        (lambda pem: b"x" * (PAIRING_ANSWER_LIMIT + 1), "an answer of more than"),
    ],
)
@ensure
async def test_what_is_no_ca_certificate_ends_the_pairing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, given: Callable[[bytes], bytes], error: str
) -> None:
    pem = machine.coordinator.authority.certificate_pem
    machine.coordinator.fake.handler = lambda asked: Answer(given(pem), kind="application/x-pem-file")
    with pytest.raises((PairingError, Unreachable), match=error):
        await machine.pairing(ca_sha256=hashlib.sha256(pem).hexdigest()).start("ws1")
    assert machine.coordinator.calls == ["GET /ca.pem"]


@ensure
async def test_the_right_ca_certificate_from_one_who_has_not_its_key(machine: Machine, tmp_path: Path) -> None:
    """A man in the middle passes the CA certificate on, and answers with a TLS of his own."""
    other = PairingCoordinator(tmp_path / "other", policy="token")
    other.fake.handler = lambda asked: Answer(machine.coordinator.authority.certificate_pem)
    plain = RestClient(reactor, other.address, None)
    pin = certificate_sha256(machine.coordinator.authority.certificate)
    pairing = Pairing(reactor, plain, machine.folder, Role.AGENT, ca_sha256=pin, token=await machine.token())
    with pytest.raises(Unreachable, match="is not the coordinator"):
        await pairing.start("ws1")
    assert other.calls == ["GET /ca.pem"], "nothing was sent to it"
    await pairing.close()
    await other.stop()
