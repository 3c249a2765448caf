"""Who calls, and whether they may: certificate, trusted list, role, and where they call from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from ..config import Network
from ..trust.errors import CertificateError
from ..trust.identity import Identity, Role, fingerprint
from ..trust.tls import peer_certificate
from ..wire.problems import Kind, ProblemError
from .addresses import IpAddress, is_near, is_own_host, is_within
from .refusals import Refusals


class Caller(NamedTuple):
    """Who makes a request: what the certificate says, the SHA-256 (hex) of its key, and the peer's address."""

    identity: Identity
    fingerprint: str
    address: str


class Trusted(Protocol):
    """The trusted list."""

    def check(self, identity: Identity, fingerprint: str) -> Identity:
        """Return whom that key stands for now. Raises ProblemError UNTRUSTED unless it is trusted."""


class Connection(Protocol):
    """The connection that a request came over."""

    @property
    def secure(self) -> bool:
        """Whether it is TLS."""

    @property
    def peer(self) -> IpAddress:
        """The other end's address."""

    @property
    def local(self) -> IpAddress:
        """This end's address."""

    @property
    def certified(self) -> tuple[Identity, str] | None:
        """Whom the peer's certificate names, and its key's fingerprint; None without one. Raises CertificateError."""


def read_certificate(transport: object) -> tuple[Identity, str] | None:
    """Return what `Connection.certified` tells of *transport*."""
    certificate = peer_certificate(transport)
    return None if certificate is None else (Identity.from_certificate(certificate), fingerprint(certificate))


class Gate:
    """Admits callers or raises ProblemError, and has the refused ones counted.

    An admin calls from this host or from *admin_from*; strangers from near addresses or from *strangers_from*.
    """

    def __init__(
        self,
        trusted: Trusted,
        refusals: Refusals,
        *,
        admin_from: Sequence[Network] = (),
        strangers_from: Sequence[Network] = (),
    ) -> None:
        self._trusted = trusted
        self._admin_from = admin_from
        self._strangers_from = strangers_from
        self.refusals = refusals

    def admit(self, connection: Connection, roles: Collection[Role]) -> Caller:
        """Return who calls, if that is a trusted key with one of *roles*."""
        try:
            return self._admit(connection, roles)
        except ProblemError as refused:
            self.refusals.note(str(connection.peer), refused.problem.title)
            raise

    def admit_stranger(self, connection: Connection) -> None:
        """Raise ProblemError unless the peer's address may use what needs no certificate."""
        if not is_near(connection.peer, self._strangers_from):
            self.refusals.note(str(connection.peer), "address not allowed")
            raise ProblemError(
                Kind.ADDRESS_NOT_ALLOWED,
                f"this coordinator answers strangers from near addresses only, not from {connection.peer}",
                hint=f'on the coordinator, in config.toml: [enrollment] allow = ["{connection.peer}"]',
            )

    def _admit(self, connection: Connection, roles: Collection[Role]) -> Caller:
        if not connection.secure:
            raise plain_http()
        try:
            certified = connection.certified
        except CertificateError as error:
            raise ProblemError(Kind.UNTRUSTED, str(error)) from error
        if certified is None:
            raise ProblemError(Kind.NO_CERTIFICATE, "this call needs a client certificate", hint="run: clustersh login")
        identity, key = certified
        identity = self._trusted.check(identity, key)
        if identity.role not in roles:
            wanted = " or ".join(sorted(roles))
            raise ProblemError(Kind.WRONG_ROLE, f"this call is for the role {wanted}; the caller is {identity.role}")
        if identity.role is Role.ADMIN:
            self._check_admin_address(connection)
        return Caller(identity, key, str(connection.peer))

    def _check_admin_address(self, connection: Connection) -> None:
        peer = connection.peer
        if not is_own_host(peer, connection.local) and not is_within(peer, self._admin_from):
            raise ProblemError(
                Kind.ADDRESS_NOT_ALLOWED,
                f"an admin calls from the coordinator's own host, not from {peer}",
                hint=f'on the coordinator, in config.toml: [coordinator] admin_from = ["{peer}"]',
            )


def plain_http() -> ProblemError:
    """The refusal of a call that needs TLS."""
    return ProblemError(
        Kind.PLAIN_HTTP,
        "plain HTTP serves only what a machine needs before it has a certificate",
        hint="call it over https on the same port, with a client certificate: clustersh login gets one",
    )
