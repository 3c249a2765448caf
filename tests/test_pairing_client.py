"""The asking side of a pairing against the coordinator's real pairings, over real sockets."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from clustersh.pairing_client import PENDING_FILE, Pairing, PairingEndedError, forget_pending, read_pending
from clustersh.rest_client import RestClient, Unreachable
from clustersh.trust import keys
from clustersh.trust.authority import Authority
from clustersh.trust.credentials import Credentials
from clustersh.trust.errors import CertificateError, PairingError, TrustError
from clustersh.trust.identity import Identity, Role, certificate_sha256, fingerprint
from clustersh.trust.tls import load_client_policy
from clustersh.wire.pairing import PENDING_S, PairProgress, PairStatus
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import Whoami

from .fake_coordinator import FakeCoordinator, later, reactor
from .pairing_coordinator import PairingCoordinator

NAME = "joshua@mba"


class Setting:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "client"
        self.clock = Clock()
        self.coordinator = PairingCoordinator(folder / "ca", self.clock)
        self.client = RestClient(reactor, self.coordinator.address, None)

    def pairing(self, role: Role = Role.FRONTEND, **options: Any) -> Pairing:
        return Pairing(reactor, self.client, self.folder, role, **options)

    async def stop(self) -> None:
        await self.client.close()
        await self.coordinator.stop()


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.stop()))


@pytest_twisted.ensureDeferred
async def test_a_login_from_start_to_mutual_tls(setting: Setting) -> None:
    pairing = setting.pairing()
    started = await pairing.start(NAME)
    assert (started.host, started.name, started.resumed, started.approved) == ("ws1", NAME, False, False)
    assert await pairing.poll() is None
    waiting = Deferred.fromCoroutine(pairing.wait())
    approved = await setting.coordinator.approve(started.code.code)
    assert (approved.check, approved.name) == (started.code.check, NAME)
    credentials = await waiting
    assert not (setting.folder / "cert.pem").exists()
    pairing.keep(credentials)
    forget_pending(setting.folder)
    assert sorted(path.name for path in setting.folder.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert approved.fingerprint == fingerprint(credentials.certificate)
    client = RestClient(reactor, setting.coordinator.address, load_client_policy(setting.folder))
    assert (await client.call("GET", "/v1/whoami", answer=Whoami)).name == NAME
    await client.close()


@pytest_twisted.ensureDeferred
async def test_asking_again_while_pending_gives_the_same_code(setting: Setting) -> None:
    first = await setting.pairing().start(NAME)
    again = await setting.pairing().start(NAME)
    assert again == msgspec.structs.replace(first, resumed=True)
    assert setting.coordinator.calls.count("POST /pair") == 1
    pending = setting.folder / PENDING_FILE
    assert stat.S_IMODE(pending.stat().st_mode) == 0o600
    assert b"PRIVATE" not in pending.read_bytes()
    await setting.coordinator.approve(first.code.code)
    third = await setting.pairing().start(NAME)
    assert (third.code, third.approved) == (first.code, True)


@pytest_twisted.ensureDeferred
async def test_another_name_is_another_request_of_the_same_key(setting: Setting) -> None:
    first = await setting.pairing().start(NAME)
    other = await setting.pairing().start("joshua@other")
    assert other.code != first.code
    key = keys.load(setting.folder / "key.pem")
    await setting.coordinator.approve(other.code.code)
    credentials = await setting.pairing().wait()
    assert credentials.key.private_numbers() == key.private_numbers()
    assert Identity.from_certificate(credentials.certificate).name == "joshua@other"


@pytest_twisted.ensureDeferred
async def test_an_expired_request_ends_and_asking_again_begins_anew(setting: Setting) -> None:
    first = await setting.pairing().start(NAME)
    setting.clock.advance(PENDING_S + 1)
    with pytest.raises(PairingEndedError, match="not approved within 10 minutes"):
        await setting.pairing().poll()
    assert read_pending(setting.folder) is None
    second = await setting.pairing().start(NAME)
    assert second.code != first.code
    setting.clock.advance(PENDING_S + 1)
    third = await setting.pairing().start(NAME)  # found to be gone while asking again
    assert (third.resumed, third.code != second.code) == (False, True)


@pytest_twisted.ensureDeferred
async def test_nothing_asked_is_nothing_to_wait_for(setting: Setting) -> None:
    with pytest.raises(PairingEndedError):
        await setting.pairing().poll()


@pytest_twisted.ensureDeferred
async def test_what_the_coordinator_refuses_is_told(setting: Setting) -> None:
    setting.coordinator.taken[Role.FRONTEND, NAME] = "another key"
    with pytest.raises(ProblemError) as taken:
        await setting.pairing().start(NAME)
    assert taken.value.problem.kind is Kind.NAME_TAKEN
    assert "--name" in taken.value.problem.hint
    assert read_pending(setting.folder) is None
    for _ in range(9):
        with pytest.raises(ProblemError):
            await setting.pairing().start(NAME)
    with pytest.raises(ProblemError) as limited:
        await setting.pairing().start(NAME)
    assert limited.value.problem.kind is Kind.RATE_LIMITED


@pytest_twisted.ensureDeferred
async def test_an_open_enrollment_is_approved_at_once(tmp_path: Path, setting: Setting) -> None:
    coordinator = PairingCoordinator(tmp_path / "open", policy="open")
    client = RestClient(reactor, coordinator.address, None)
    pairing = Pairing(reactor, client, tmp_path / "agent", Role.AGENT)
    assert (await pairing.start("ws1")).approved
    credentials = await pairing.poll()
    assert credentials is not None
    assert Identity.from_certificate(credentials.certificate).role is Role.AGENT
    await client.close()
    await coordinator.stop()


@pytest_twisted.ensureDeferred
async def test_the_pinned_ca_is_demanded_before_anything_is_revealed(setting: Setting) -> None:
    right = certificate_sha256(setting.coordinator.authority.certificate)
    colons = ":".join(right[at : at + 2] for at in range(0, 64, 2)).upper()
    started = await setting.pairing(ca_sha256=colons).start(NAME)
    with pytest.raises(PairingError, match="not the coordinator that --ca names") as caught:
        await setting.pairing(ca_sha256="0" * 64).start(NAME)
    assert right in str(caught.value)
    with pytest.raises(PairingError, match="--ca"):
        await setting.pairing(ca_sha256="0" * 64).start("joshua@other")
    assert setting.coordinator.calls.count("POST /pair") == 1
    assert len([call for call in setting.coordinator.calls if call.startswith("POST /pair/")]) == 1
    await setting.coordinator.approve(started.code.code)
    with pytest.raises(PairingError, match="--ca"):
        await setting.pairing(ca_sha256="0" * 64).poll()


def _certificate(authority: Authority, key: Any, identity: Identity, when: datetime | None = None) -> bytes:
    return authority.issue(identity, key, when or datetime.now(UTC)).public_bytes(Encoding.DER)


def _of_another_ca(setting: Setting, own: Any) -> bytes:
    other = Authority.create(setting.folder.parent / "other", datetime.now(UTC))
    return _certificate(other, own, Identity(Role.FRONTEND, NAME, "x"))


def _for_another_key(setting: Setting, own: Any) -> bytes:
    key = keys.generate().public_key()
    return _certificate(setting.coordinator.authority, key, Identity(Role.FRONTEND, NAME, "x"))


def _of_another_role(setting: Setting, own: Any) -> bytes:
    return _certificate(setting.coordinator.authority, own, Identity(Role.AGENT, NAME, "x"))


def _of_another_name(setting: Setting, own: Any) -> bytes:
    return _certificate(setting.coordinator.authority, own, Identity(Role.FRONTEND, "eve@mba", "x"))


@pytest.mark.parametrize(
    ("forge", "complaint"),
    [
        (_of_another_ca, "isn't signed by the CA"),
        (_for_another_key, "for another key"),
        (_of_another_role, "for agent"),
        (_of_another_name, "eve@mba"),
        (lambda setting, own: b"no certificate", "isn't signed"),
        (lambda setting, own: b"", "isn't signed"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_was_not_asked_for_is_not_kept(
    setting: Setting, forge: Callable[[Setting, Any], bytes], complaint: str
) -> None:
    await setting.pairing().start(NAME)
    forged = forge(setting, keys.load(setting.folder / "key.pem").public_key())
    setting.coordinator.fake.handler = lambda asked: PairProgress(PairStatus.APPROVED, NAME, forged)
    with pytest.raises(TrustError, match=complaint):
        await setting.pairing().poll()
    assert not (setting.folder / "cert.pem").exists()


@pytest_twisted.ensureDeferred
async def test_a_clock_in_the_past_is_named(setting: Setting) -> None:
    started = await setting.pairing().start(NAME)
    await setting.coordinator.approve(started.code.code)
    with pytest.raises(CertificateError, match="set the clock"):
        await setting.pairing(now=lambda: 86400.0).poll()


@pytest_twisted.ensureDeferred
async def test_a_stranger_that_is_no_coordinator(tmp_path: Path) -> None:
    fake = FakeCoordinator(tmp_path / "ca", lambda asked: {"id": "x", "ca": "AAAA", "nonce": "AAAA"})
    client = RestClient(reactor, fake.address, None)
    with pytest.raises(PairingError, match="no CA certificate"):
        await Pairing(reactor, client, tmp_path / "client", Role.FRONTEND).start(NAME)
    await client.close()
    await fake.stop()


@pytest_twisted.ensureDeferred
async def test_waiting_goes_on_through_a_lost_connection(setting: Setting) -> None:
    started = await setting.pairing().start(NAME)
    answer, lost = setting.coordinator.fake.handler, []

    def lose_twice(asked: Any) -> Any:  # twisted.web itself asks once more
        lost.append(asked)
        if len(lost) == 2:
            setting.coordinator.fake.handler = answer
        asked.request.transport.abortConnection()
        return Deferred()

    setting.coordinator.fake.handler = lose_twice
    waiting = Deferred.fromCoroutine(setting.pairing().wait())
    while len(lost) < 2:
        await later(0.01)
    await setting.coordinator.approve(started.code.code)
    assert Identity.from_certificate((await waiting).certificate).name == NAME


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_told_at_once(setting: Setting) -> None:
    await setting.coordinator.stop()
    with pytest.raises(Unreachable, match="refused"):
        await setting.pairing().start(NAME)


@pytest_twisted.ensureDeferred
async def test_keeping_never_leaves_an_old_certificate_with_a_new_ca(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairing = setting.pairing()
    started = await pairing.start(NAME)
    await setting.coordinator.approve(started.code.code)
    credentials = await pairing.wait()
    pairing.keep(credentials)

    def crash(self: Credentials, folder: Path) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(Credentials, "save", crash)
    with pytest.raises(OSError, match="power cut"):
        pairing.keep(credentials)
    assert not (setting.folder / "cert.pem").exists()
    monkeypatch.undo()
    again = await setting.pairing().poll()  # still there to be taken up
    assert again is not None
    assert again.certificate == credentials.certificate
