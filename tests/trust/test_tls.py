"""Real handshakes over loopback."""

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, TLSVersion, VerificationError
from twisted.python.failure import Failure

from clustersh.trust import keys
from clustersh.trust.authority import Authority, server_credentials
from clustersh.trust.credentials import Credentials
from clustersh.trust.errors import CertificateError, MissingCredentialsError, TrustError
from clustersh.trust.identity import Identity, Role, fingerprint
from clustersh.trust.tls import (
    ClientPolicy,
    client_connection_creator,
    load_client_policy,
    peer_certificate,
    server_context_factory,
)

DAY = dt.timedelta(days=1)
WHO = Identity(Role.FRONTEND, "joshua@mba", "7")


class Greeter(Protocol):
    """The server's end: answers the first bytes with the peer's identity, ``stranger`` without one."""

    def dataReceived(self, data: bytes) -> None:
        certificate = peer_certificate(self.transport)
        who = "stranger" if certificate is None else Identity.from_certificate(certificate).uri
        self.transport.write(who.encode())
        self.transport.loseConnection()


class Caller(Protocol):
    """The client's end: fires *answered* with what came, or fails it with why nothing did."""

    def __init__(self) -> None:
        self.answered: Deferred[str] = Deferred()
        self.received = b""

    def connectionMade(self) -> None:
        self.transport.write(b"who am I?")

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure) -> None:
        if self.received:
            self.answered.callback(self.received.decode())
        else:
            self.answered.errback(reason)


async def ask(server_options: Any, creator: Any) -> str:
    """Connect *creator* to *server_options* and return the server's answer; raises why there was none."""
    listening = await SSL4ServerEndpoint(reactor, 0, server_options, interface="127.0.0.1").listen(
        Factory.forProtocol(Greeter)
    )
    try:
        plain = TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getHost().port)
        caller = await wrapClientTLS(creator, plain).connect(Factory.forProtocol(Caller))
        return await caller.answered
    finally:
        await listening.stopListening()


async def refusal(server_options: Any, creator: Any) -> str:
    """Return why no answer came, in OpenSSL's or service_identity's words."""
    with pytest.raises(Exception) as caught:
        await ask(server_options, creator)
    assert not isinstance(caught.value, ConnectionDone)
    return repr(caught.value)


def certified(authority: Authority, identity: Identity, now: dt.datetime, **how: Any) -> Credentials:
    key = keys.generate()
    certificate = authority.issue(identity, key.public_key(), now, **how)
    return Credentials(key, certificate, authority.certificate)


def creator_of(credentials: Credentials) -> Any:
    return client_connection_creator(credentials.ca, credentials.key, credentials.certificate)


@pytest.fixture
def server(tmp_path: Path, authority: Authority, now: dt.datetime) -> CertificateOptions:
    return server_context_factory(server_credentials(tmp_path / "coordinator", authority, now))


@pytest.fixture
def other_authority(tmp_path: Path, now: dt.datetime) -> Authority:
    return Authority.create(tmp_path / "other", now)


@pytest_twisted.ensureDeferred
async def test_without_a_certificate_one_connects_as_nobody(server: Any, authority: Authority) -> None:
    assert await ask(server, client_connection_creator(authority.certificate)) == "stranger"


@pytest_twisted.ensureDeferred
async def test_with_a_certificate_one_is_known(server: Any, authority: Authority, now: dt.datetime) -> None:
    creator = creator_of(certified(authority, WHO, now))
    assert await ask(server, creator) == WHO.uri
    assert await ask(server, creator) == WHO.uri


@pytest_twisted.ensureDeferred
async def test_a_client_of_another_ca_is_refused(
    server: Any, authority: Authority, other_authority: Authority, now: dt.datetime
) -> None:
    stranger = certified(other_authority, WHO, now)._replace(ca=authority.certificate)
    assert "alert" in await refusal(server, creator_of(stranger))


@pytest_twisted.ensureDeferred
async def test_a_server_of_another_ca_is_refused(server: Any, other_authority: Authority) -> None:
    creator = client_connection_creator(other_authority.certificate)
    assert "certificate verify failed" in await refusal(server, creator)


@pytest.mark.parametrize("role", [Role.FRONTEND, Role.AGENT, Role.ADMIN])
@pytest_twisted.ensureDeferred
async def test_a_clients_certificate_makes_no_server(authority: Authority, now: dt.datetime, role: Role) -> None:
    impostor = certified(authority, Identity(role, "coordinator.clustersh.internal", "1"), now)
    creator = client_connection_creator(authority.certificate)
    await refusal(server_context_factory(impostor), creator)


@pytest_twisted.ensureDeferred
async def test_the_servers_certificate_makes_no_client(
    server: Any, tmp_path: Path, authority: Authority, now: dt.datetime
) -> None:
    own = server_credentials(tmp_path / "coordinator", authority, now)
    assert "alert" in await refusal(server, creator_of(own))


@pytest_twisted.ensureDeferred
async def test_a_server_of_another_name_is_refused(
    authority: Authority, now: dt.datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clustersh.trust.authority.SERVER_NAME", "elsewhere.clustersh.internal")
    key = keys.generate()
    renamed = Credentials(key, authority.issue_server(key.public_key(), now), authority.certificate)
    with pytest.raises(VerificationError):
        await ask(server_context_factory(renamed), client_connection_creator(authority.certificate))


def expired(now: dt.datetime) -> dict[str, Any]:
    return {"now": now - 30 * DAY, "lifetime": DAY}


def not_yet_valid(now: dt.datetime) -> dict[str, Any]:
    return {"now": now + 30 * DAY}


@pytest.mark.parametrize("validity", [expired, not_yet_valid])
@pytest_twisted.ensureDeferred
async def test_a_client_outside_its_dates_is_refused(
    server: Any,
    authority: Authority,
    now: dt.datetime,
    validity: Callable[[dt.datetime], dict[str, Any]],
) -> None:
    assert "alert" in await refusal(server, creator_of(certified(authority, WHO, **validity(now))))


@pytest.mark.parametrize("validity", [expired, not_yet_valid])
@pytest_twisted.ensureDeferred
async def test_a_server_outside_its_dates_is_refused(
    authority: Authority, now: dt.datetime, validity: Callable[[dt.datetime], dict[str, Any]]
) -> None:
    stale = certified(authority, Identity(Role.SERVER, "coordinator", "1"), **validity(now))
    creator = client_connection_creator(authority.certificate)
    assert "certificate verify failed" in await refusal(server_context_factory(stale), creator)


@pytest_twisted.ensureDeferred
async def test_a_tls_1_2_client_is_refused(server: Any) -> None:
    old = CertificateOptions(lowerMaximumSecurityTo=TLSVersion.TLSv1_2)
    assert "alert protocol version" in await refusal(server, old)


@pytest_twisted.ensureDeferred
async def test_a_tls_1_2_server_is_refused(tmp_path: Path, authority: Authority, now: dt.datetime) -> None:
    own = server_credentials(tmp_path / "coordinator", authority, now)
    old = CertificateOptions(privateKey=own.key, certificate=own.certificate, lowerMaximumSecurityTo=TLSVersion.TLSv1_2)
    assert "version" in await refusal(old, client_connection_creator(authority.certificate))


class TestLoadClientPolicy:
    @pytest.fixture
    def folder(self, tmp_path: Path, authority: Authority, now: dt.datetime) -> Path:
        certified(authority, WHO, now).save(tmp_path / "client")
        return tmp_path / "client"

    @pytest_twisted.ensureDeferred
    async def test_it_serves_every_address_with_the_saved_files(self, server: Any, folder: Path) -> None:
        policy = load_client_policy(folder)
        assert policy.creatorForNetloc(b"10.0.0.7", 5672) is policy.creator
        assert await ask(server, policy.creatorForNetloc(b"joshua-ws1", 443)) == WHO.uri

    def test_loading_gives_what_was_saved(self, folder: Path, authority: Authority, now: dt.datetime) -> None:
        credentials = Credentials.load(folder, now)
        assert fingerprint(credentials.key.public_key()) == fingerprint(credentials.certificate)
        assert credentials.ca == authority.certificate
        if os.name == "posix":
            assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}

    @pytest.mark.parametrize("name", ["key.pem", "cert.pem", "ca.pem"])
    def test_a_missing_or_damaged_file_is_named(self, folder: Path, name: str) -> None:
        (folder / name).write_text("damaged")
        with pytest.raises(TrustError, match=rf"{name} is damaged"):
            load_client_policy(folder)
        (folder / name).unlink()
        with pytest.raises(MissingCredentialsError, match=name):
            load_client_policy(folder)

    @pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
    def test_a_loose_key_is_refused_with_the_chmod(self, folder: Path) -> None:
        (folder / "key.pem").chmod(0o644)
        with pytest.raises(TrustError, match=r"chmod 600 .*key\.pem"):
            load_client_policy(folder)

    def test_another_keys_certificate_is_refused(self, folder: Path) -> None:
        keys.save(folder / "key.pem", keys.generate())
        with pytest.raises(TrustError, match="another key"):
            load_client_policy(folder)

    def test_the_clock_is_blamed_where_it_is_at_fault(self, folder: Path, now: dt.datetime) -> None:
        with pytest.raises(CertificateError, match=r"clock says 1970-01-01 .* set the clock"):
            load_client_policy(folder, dt.datetime(1970, 1, 1, tzinfo=dt.UTC))
        with pytest.raises(CertificateError, match="expired on"):
            load_client_policy(folder, now + 4000 * DAY)


def test_a_plain_transport_has_no_peer_certificate() -> None:
    assert peer_certificate(object()) is None


def test_the_policy_is_what_agents_ask_for(authority: Authority) -> None:
    from twisted.web.iweb import IPolicyForHTTPS

    assert IPolicyForHTTPS.providedBy(ClientPolicy(client_connection_creator(authority.certificate)))
