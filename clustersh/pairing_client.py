"""The asking side of a pairing: `clustersh login` and `clusteragent enroll`.

The key is made once and kept, so that asking again keeps the name. What was asked waits in ``pending.json`` until it is
answered, so that asking again while it is pending gives the same code.
"""

from __future__ import annotations

import contextlib
import hmac
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from .home import HomeError, private_folder, read_json, write_json
from .pinning import check_pin, over_tls
from .rest_client import RestClient, Unreachable
from .trust import keys
from .trust.credentials import CERTIFICATE_FILE, KEY_FILE, Credentials, check_validity
from .trust.errors import MissingCredentialsError, PairingError
from .trust.identity import Identity, Role
from .trust.pairing import NONCE_BYTES, PairingCode, commitment, make_request, new_nonce, transcript_hash
from .trust.tokens import JoinToken
from .wire.pairing import PENDING_S, PairOffer, PairProgress, PairReveal, PairStart, PairStatus, TokenProof
from .wire.problems import Kind, ProblemError
from .wire.rest import MAX_WAIT_S

PENDING_FILE = "pending.json"
_RETRY_S = 1.0


class Pending(msgspec.Struct, frozen=True):
    """``pending.json``: all that the code is made of, but not the key."""

    address: str
    role: Role
    name: str
    id: str
    host: str
    request: bytes
    ca: bytes
    client_nonce: bytes
    server_nonce: bytes

    @property
    def code(self) -> PairingCode:
        """What the admin types, and the digits to compare."""
        return PairingCode.of(self.transcript)

    @property
    def transcript(self) -> bytes:
        """The hash of all that both ends have seen."""
        return transcript_hash(self.role, self.request, self.ca, self.client_nonce, self.server_nonce)


class Started(msgspec.Struct, frozen=True):
    """A pairing under way: what to show. *host* is where to run the approval, as the coordinator says.

    *approved*: nobody needs to be asked (an open enrollment, or it was approved in the meantime). *needs_token*: a
    machine is let in there by a join token, or by somebody who types the code after all.
    """

    code: PairingCode
    host: str
    name: str
    resumed: bool
    approved: bool
    needs_token: bool = False


class PairingEndedError(PairingError):
    """The request is gone: refused, or not approved in time. Asking again makes a new code."""


def read_pending(folder: Path) -> Pending | None:
    """Return what is still to be answered; None where nothing is, or it can't be read."""
    with contextlib.suppress(HomeError):
        return read_json(folder / PENDING_FILE, Pending)
    return None


def forget_pending(folder: Path) -> None:
    """Ask no more for what was asked."""
    (folder / PENDING_FILE).unlink(missing_ok=True)


class Pairing:
    """One program's pairing with the coordinator of *client* (plain HTTP or TLS), kept in *folder* until it is done.

    *ca_sha256* (hex, or empty) pins the CA certificate: then all of it goes over TLS. A *token* must let this program
    in, and proves the coordinator to it. *now* is the wall clock. Raises TrustError, whose message is for people,
    ProblemError and Unreachable.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        client: RestClient,
        folder: Path,
        role: Role,
        *,
        ca_sha256: str = "",
        token: JoinToken | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._client = client
        self._folder = folder
        self._role = role
        self._pin = ca_sha256.replace(":", "").lower()
        self._token = token
        self._now = now

    async def start(self, name: str) -> Started:
        """Ask to be called *name*, or take up what was asked before and is still pending."""
        kept = read_pending(self._folder)
        if kept is not None and (kept.address, kept.role, kept.name) == (self._address, self._role, name):
            self._check_pin(_read_ca(kept.ca))
            with contextlib.suppress(PairingEndedError):
                progress = await (self._progress(kept, 0) if self._token is None else self._reveal(kept))
                return _started(kept, progress, resumed=True)
        try:
            return await self._ask(name)
        except ProblemError as error:
            if error.problem.kind is not Kind.UNTRUSTED:
                raise
        # This key was revoked there, or its machine forgotten: whoever has a new one is asked about anew.
        for path in (self._folder / CERTIFICATE_FILE, self._folder / KEY_FILE):
            path.unlink(missing_ok=True)
        return await self._ask(name)

    async def poll(self, wait_s: float = 0.0) -> Credentials | None:
        """Return the verified credentials once approved; None while pending (up to *wait_s*).

        They are not kept yet: see `keep`. Raises PairingEndedError where the request is gone.
        """
        pending = read_pending(self._folder)
        if pending is None:
            raise PairingEndedError("nothing was asked of the coordinator")
        progress = await self._progress(pending, min(wait_s, MAX_WAIT_S))
        if progress.status is not PairStatus.APPROVED:
            return None
        return self._verified(pending, progress)

    async def wait(self) -> Credentials:
        """Poll until approved, through short failures of the network; then as `poll`."""
        deadline = self._reactor.seconds() + PENDING_S
        while True:
            try:
                credentials = await self.poll(MAX_WAIT_S)
            except Unreachable:
                if self._reactor.seconds() > deadline:
                    raise
                await deferLater(self._reactor, _RETRY_S)
                continue
            if credentials is not None:
                return credentials

    def keep(self, credentials: Credentials) -> None:
        """Save *credentials*, in place of older ones.

        Call `forget_pending` when all else that belongs to them is saved: until then it can be done again.
        """
        # Never an old certificate beside another coordinator's CA.
        (self._folder / CERTIFICATE_FILE).unlink(missing_ok=True)
        credentials.save(self._folder)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    @property
    def _address(self) -> str:
        return self._client.address.netloc

    async def _ask(self, name: str) -> Started:
        request = make_request(self._key(), name, self._role)
        nonce = new_nonce()
        start = PairStart(self._role.value, request, commitment(nonce))
        offer = await (await self._way()).call("POST", "/pair", start, answer=PairOffer)
        self._check_pin(_read_ca(offer.ca))
        if len(offer.nonce) != NONCE_BYTES:
            raise PairingError(f"the coordinator's nonce has {len(offer.nonce)} bytes, not {NONCE_BYTES}")
        pending = Pending(self._address, self._role, name, offer.id, offer.host, request, offer.ca, nonce, offer.nonce)
        progress = await self._reveal(pending)
        if self._role is Role.FRONTEND and progress.status is not PairStatus.PENDING:
            raise PairingError(
                f"what answers at {self._address} let {name} in before anybody could type the code: "
                "no coordinator does that, so nothing was kept"
            )
        write_json(self._folder / PENDING_FILE, pending)
        return _started(pending, progress, resumed=False)

    async def _reveal(self, pending: Pending) -> PairProgress:
        """Reveal our nonce, and show that we have the token. It may be done again."""
        token = self._token
        proof = None if token is None else TokenProof(token.id, token.proof(pending.transcript))
        revealed = PairReveal(pending.client_nonce, proof)
        client = await self._way()
        with self._ends(pending):
            progress = await client.call("POST", _path(pending.id), revealed, answer=PairProgress)
        if token is not None and not hmac.compare_digest(progress.token_proof, token.answer(pending.transcript)):
            forget_pending(self._folder)
            raise PairingError(
                f"{self._address} is not the coordinator that made the join token: it can't prove that it knows it"
            )
        return progress

    async def _progress(self, pending: Pending, wait_s: float) -> PairProgress:
        client = await self._way()
        with self._ends(pending):
            return await client.call("GET", _path(pending.id), answer=PairProgress, wait_s=wait_s)

    @contextlib.contextmanager
    def _ends(self, pending: Pending) -> Iterator[None]:
        """Raise PairingEndedError where the coordinator doesn't have *pending* any more."""
        try:
            yield
        except ProblemError as error:
            if error.problem.kind is not Kind.UNKNOWN_PAIRING:
                raise
            forget_pending(self._folder)
            raise PairingEndedError(
                f"the coordinator did not let {pending.name} in: refused, or not approved within 10 minutes"
            ) from error

    async def _way(self) -> RestClient:
        """Return how to call the coordinator: over TLS where its CA is pinned."""
        if self._pin and not self._client.secure:
            plain, self._client = self._client, await over_tls(self._reactor, self._client, self._pin)
            await plain.close()
        return self._client

    def _key(self) -> EllipticCurvePrivateKey:
        private_folder(self._folder)
        path = self._folder / KEY_FILE
        try:
            return keys.load(path)
        except MissingCredentialsError:
            key = keys.generate()
            keys.save(path, key)
            return key

    def _check_pin(self, ca: x509.Certificate) -> None:
        if self._pin:
            check_pin(ca, self._pin, self._address)

    def _verified(self, pending: Pending, progress: PairProgress) -> Credentials:
        """Return the credentials that *progress* brings, or raise TrustError: what came must be what was asked for."""
        key, ca = self._key(), _read_ca(pending.ca)
        self._check_pin(ca)
        try:
            certificate = x509.load_der_x509_certificate(progress.certificate)
            certificate.verify_directly_issued_by(ca)
            own = certificate.public_key() == key.public_key()
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise _impostor("it isn't signed by the CA that the code was made of") from error
        if not own:
            raise _impostor("it is for another key")
        identity = Identity.from_certificate(certificate)
        if (identity.role, identity.name) != (pending.role, pending.name):
            raise _impostor(f"it is for {identity.role} {identity.name!r}, not for {pending.role} {pending.name!r}")
        check_validity(certificate, datetime.fromtimestamp(self._now(), UTC), "the certificate that came")
        return Credentials(key, certificate, ca)


def _path(pairing: str) -> str:
    return f"/pair/{quote(pairing, safe='')}"


def _started(pending: Pending, progress: PairProgress, *, resumed: bool) -> Started:
    approved = progress.status is PairStatus.APPROVED
    return Started(pending.code, pending.host, pending.name, resumed, approved, progress.needs_token)


def _read_ca(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PairingError("what answers there shows no CA certificate: it is no coordinator") from error


def _impostor(found: str) -> PairingError:
    return PairingError(f"the certificate that came is not the one that was asked for ({found}): nothing was kept")
