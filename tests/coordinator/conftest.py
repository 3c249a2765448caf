"""A coordinator's front for tests: a real door with TLS on a free port, behind it whatever calls a test adds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from twisted.internet import defer, endpoints, protocol, reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from clustersh.config import parse_listen
from clustersh.coordinator.api import Api
from clustersh.coordinator.callers import Gate
from clustersh.coordinator.door import DoorFactory, listen
from clustersh.coordinator.http import Site
from clustersh.coordinator.refusals import Refusal, Refusals
from clustersh.trust import keys
from clustersh.trust.authority import Authority, server_credentials
from clustersh.trust.identity import Identity, Role
from clustersh.trust.tls import ClientPolicy, client_connection_creator, server_context_factory
from clustersh.wire.problems import Kind, ProblemError

from .world import World


class TrustedList:
    """Trusts every key but those in *revoked*."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    def check(self, identity: Identity, fingerprint: str) -> Identity:
        if identity.name in self.revoked:
            raise ProblemError(Kind.UNTRUSTED, f"the key of {identity.name} was revoked")
        return identity


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def problem(self) -> str:
        assert self.headers["content-type"] == "application/problem+json", self.content
        return str(self.json["type"])


@dataclass
class Front:
    """A listening door; `call` speaks HTTP to it, `raw` sends bytes."""

    authority: Authority
    api: Api
    trusted: TrustedList
    refused: list[Refusal]
    site: Site
    port: int
    certificates: dict[tuple[Role, str], tuple[EllipticCurvePrivateKey, x509.Certificate]] = field(default_factory=dict)

    def credentials(self, role: Role, name: str) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
        if (role, name) not in self.certificates:
            key = keys.generate()
            certificate = self.authority.issue(Identity(role, name, f"id-{role}"), key.public_key(), datetime.now(UTC))
            self.certificates[role, name] = (key, certificate)
        return self.certificates[role, name]

    def creator(self, role: Role | None, name: str = "ann@box") -> Any:
        own = self.credentials(role, name) if role else (None, None)
        return client_connection_creator(self.authority.certificate, *own)

    async def call(
        self,
        method: str,
        path: str,
        role: Role | None = None,
        *,
        name: str = "ann@box",
        plain: bool = False,
        **options: Any,
    ) -> Reply:
        agent = Agent(reactor, ClientPolicy(self.creator(role, name)), pool=HTTPConnectionPool(reactor, False))
        url = f"{'http' if plain else 'https'}://127.0.0.1:{self.port}{path}"
        response = await treq.request(method, url, agent=agent, **options)
        content = await response.content()
        headers = {key.decode().lower(): values[-1].decode() for key, values in response.headers.getAllRawHeaders()}
        return Reply(response.code, headers, content)

    async def raw(self, role: Role | None = None, *, host: str = "127.0.0.1") -> Wire:
        kind = endpoints.TCP6ClientEndpoint if ":" in host else endpoints.TCP4ClientEndpoint
        endpoint: Any = kind(reactor, host, self.port)
        if role:
            endpoint = endpoints.wrapClientTLS(self.creator(role), endpoint)
        wire: Wire = await endpoint.connect(protocol.Factory.forProtocol(Wire))
        return wire


class Wire(Protocol):
    """A connection that a test writes bytes to."""

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[None] = Deferred()
        self._waiting: list[tuple[bytes, Deferred[None]]] = []

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def cut(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]

    async def until(self, text: bytes) -> bytes:
        """Wait until *text* has come."""
        if text not in self.received:
            waiter: Deferred[None] = Deferred()
            self._waiting.append((text, waiter))
            await waiter
        return self.received

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for text, waiter in self._waiting:
            if text in self.received and not waiter.called:
                waiter.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(None)
        for _, waiter in self._waiting:
            if not waiter.called:
                waiter.errback(reason)


Opener = Callable[..., Front]


MakeWorld = Callable[[], World]


@contextmanager
def _worlds(folder: Path, **how: Any) -> Iterator[MakeWorld]:
    made: list[World] = []

    def one() -> World:
        made.append(World(folder, **how))
        return made[-1]

    yield one
    for world in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(world.stop()))


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    """Makes coordinators in one folder, each with what the one before left there."""
    with _worlds(tmp_path) as one:
        yield one


@pytest.fixture
def make_waiting_world(tmp_path: Path) -> Iterator[MakeWorld]:
    """As `make_world`; new machines wait until they are named."""
    with _worlds(tmp_path, new_machines="wait") as one:
        yield one


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "coordinator", datetime.now(UTC))


@pytest.fixture
def open_front(authority: Authority, tmp_path: Path) -> Iterator[Opener]:
    """Opens doors; *options* are the Gate's."""
    ports = []
    fronts = []

    def open_door(where: str = "127.0.0.1:0", **options: Any) -> Front:
        refused: list[Refusal] = []
        trusted = TrustedList()
        refusals = Refusals(reactor, refused.append)
        api = Api(Gate(trusted, refusals, **options))
        credentials = server_credentials(tmp_path / "coordinator", authority, datetime.now(UTC))
        site = Site(reactor, api)
        factory = DoorFactory(reactor, site, server_context_factory(credentials))
        opened = listen(reactor, parse_listen(where), factory)
        ports.extend(opened)
        fronts.append((refusals, factory))
        return Front(authority, api, trusted, refused, site, opened[0].getHost().port)

    yield open_door

    async def close() -> None:
        await defer.gatherResults([defer.maybeDeferred(port.stopListening) for port in ports])
        for refusals, _ in fronts:
            refusals.stop()

    pytest_twisted.blockon(defer.ensureDeferred(close()))


@pytest.fixture
def front(open_front: Opener) -> Front:
    return open_front()


async def pieces_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
