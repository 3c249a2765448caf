"""The coordinator's side of a pairing: a stranger's request, and the eight digits by which an admin lets it in.

The rules are design section "The pairing code"; the code itself is `trust.pairing`.
"""

from __future__ import annotations

import enum
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..trust.errors import PairingError
from ..trust.identity import Role, fingerprint
from ..trust.pairing import NONCE_BYTES, PairingCode, PairingRequest, opens, read_request, transcript_hash
from ..wire.ids import client_name, machine_name
from ..wire.pairing import PENDING_S, PairOffer, PairProgress, PairReveal, PairStart, PairStatus
from ..wire.problems import Kind, ProblemError
from ..wire.rest import Approved, Pending
from .addresses import IpAddress
from .limits import RateLimit, source_of
from .refusals import Refusals
from .signals import Signal, wait_until

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

START_RATE, START_BURST = 1.0, 10.0
"""Requests a second, and at once, that one address may begin."""
ALL_RATE, ALL_BURST = 10.0, 100.0
"""The same for all of them together; were it no more, one address could keep everyone out."""
MAX_PENDING_EACH = 20
MAX_PENDING = 1000
WRONG_RATE, WRONG_BURST = 10 / 60, 10.0
"""Wrong codes a second, and at once, before all codes are refused for a while."""
_CODE = re.compile(r"[0-9a-f]{8}")
_NO_CODE = PairingCode("", "")
_EVERYONE = "everyone"


class Registrar(Protocol):
    """Who holds which name, and what makes a key trusted."""

    def holder(self, role: Role, name: str) -> str | None:
        """Return the fingerprint of the key that holds *name*, if one does."""

    def check_join(self, role: Role, name: str, fingerprint: str) -> None:
        """Raise ProblemError unless that key may join under that name."""

    async def register(
        self,
        role: Role,
        name: str,
        public_key: EllipticCurvePublicKey,
        fingerprint: str,
        address: str,
        approved_by: str,
    ) -> bytes:
        """Trust that key under that name and return its certificate (DER). Raises ProblemError."""


class _Stage(enum.Enum):
    STARTED = enum.auto()
    REVEALED = enum.auto()
    JOINING = enum.auto()
    APPROVED = enum.auto()


@dataclass
class _Pairing:
    id: str
    role: Role
    name: str
    request: PairingRequest
    request_der: bytes
    committed: bytes
    server_nonce: bytes
    address: IpAddress
    begun: float
    expires: float
    stage: _Stage = _Stage.STARTED
    client_nonce: bytes = b""
    code: PairingCode = _NO_CODE
    certificate: bytes = b""
    changed: Signal = field(default_factory=Signal)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.request.public_key)

    @property
    def awaits_approval(self) -> bool:
        return self.stage is _Stage.REVEALED


class Pairings:
    """Every pairing under way. *random* returns that many random bytes; *host* is where the approval is typed."""

    def __init__(
        self,
        registrar: Registrar,
        ca_der: bytes,
        clock: IReactorTime,
        random: Callable[[int], bytes],
        refusals: Refusals,
        *,
        policy: Literal["open", "approve"],
        host: str = "",
    ) -> None:
        self._log = Logger()
        self._registrar = registrar
        self._ca_der = ca_der
        self._clock = clock
        self._random = random
        self._refusals = refusals
        self._policy = policy
        self._host = host
        self._pairings: dict[str, _Pairing] = {}
        self._starts = RateLimit(clock.seconds, START_RATE, START_BURST)
        self._all_starts = RateLimit(clock.seconds, ALL_RATE, ALL_BURST)
        self._wrong = RateLimit(clock.seconds, WRONG_RATE, WRONG_BURST)
        self._closed_until = float("-inf")

    # -- the stranger's calls

    def start(self, asked: PairStart, address: IpAddress) -> PairOffer:
        """Take a request in and offer what it is answered with. Raises ProblemError."""
        self._limit(address)
        request, role, name = _read(asked)
        self._registrar.check_join(role, name, fingerprint(request.public_key))
        now = self._clock.seconds()
        pairing = _Pairing(
            id=self._random(16).hex(),
            role=role,
            name=name,
            request=request,
            request_der=asked.request,
            committed=asked.commitment,
            server_nonce=self._random(NONCE_BYTES),
            address=address,
            begun=now,
            expires=now + PENDING_S,
        )
        self._pairings[pairing.id] = pairing
        return PairOffer(pairing.id, self._ca_der, pairing.server_nonce, self._host)

    async def reveal(self, id_: str, revealed: PairReveal) -> PairProgress:
        """Take the stranger's nonce, once; from here on there is a code. Raises ProblemError."""
        pairing = self._pairing(id_)
        if pairing.stage is _Stage.STARTED:
            if not opens(pairing.committed, revealed.nonce):
                self._drop(pairing)
                self._refusals.note(str(pairing.address), "a pairing's nonce is not what was committed to")
                raise ProblemError(Kind.BAD_REQUEST, "the nonce is not the one that was committed to")
            self._make_code(pairing, revealed.nonce)
            if self._needs_no_code(pairing):
                await self._join(pairing, "open" if self._policy == "open" else "same key")
        elif not hmac.compare_digest(pairing.client_nonce, revealed.nonce):
            raise ProblemError(Kind.BAD_REQUEST, "another nonce was revealed before")
        return _progress(pairing)

    async def progress(self, id_: str, wait_s: float) -> PairProgress:
        """Return how far the pairing is, after at most *wait_s* seconds if it isn't approved. Raises ProblemError."""
        pairing = self._pairing(id_)
        await wait_until(self._clock, pairing.changed, lambda: not self._waits(pairing), wait_s)
        return _progress(self._pairing(id_))

    # -- the admin's

    def pending(self) -> list[Pending]:
        """Return who waits for an approval, oldest first, and never a code."""
        self._expire()
        now = self._clock.seconds()
        waiting = (pairing for pairing in self._pairings.values() if pairing.awaits_approval)
        return [
            Pending(pairing.name, pairing.role.value, str(pairing.address), round(now - pairing.begun, 3))
            for pairing in waiting
        ]

    async def approve(self, typed: str) -> Approved:
        """Let in whoever has the code *typed*. Raises ProblemError: WRONG_CODE, RATE_LIMITED, or why it can't be."""
        self._expire()
        self._check_not_closed()
        code = typed.strip().lower()
        matching = [pairing for pairing in self._pairings.values() if _has_code(pairing, code)]
        if len(matching) > 1:
            for pairing in matching:
                self._drop(pairing)
            raise ProblemError(
                Kind.WRONG_CODE,
                f"{len(matching)} requests have this code, so all of them were refused",
                hint="have the right one ask again",
            )
        if not matching:
            self._count_wrong()
            raise _wrong_code()
        (pairing,) = matching
        await self._approve(pairing)
        return Approved(pairing.name, pairing.role.value, str(pairing.address), pairing.fingerprint, pairing.code.check)

    # -- decisions

    def _limit(self, address: IpAddress) -> None:
        self._expire()
        source = source_of(address)
        waiting = [pairing for pairing in self._pairings.values() if pairing.stage is not _Stage.APPROVED]
        each = sum(source_of(pairing.address) == source for pairing in waiting)
        if each >= MAX_PENDING_EACH or len(waiting) >= MAX_PENDING:
            reason, hint = (
                "too many requests wait already",
                "clusterd approve the right one, or ask again in 10 minutes",
            )
        elif not self._starts.take(source) or not self._all_starts.take(_EVERYONE):
            reason, hint = "too many requests at once", "ask again in some seconds"
        else:
            return
        self._refusals.note(str(address), reason)
        raise ProblemError(Kind.RATE_LIMITED, reason, hint=hint)

    def _make_code(self, pairing: _Pairing, nonce: bytes) -> None:
        transcript = transcript_hash(pairing.role, pairing.request_der, self._ca_der, nonce, pairing.server_nonce)
        pairing.client_nonce = nonce
        pairing.code = PairingCode.of(transcript)
        pairing.stage = _Stage.REVEALED

    def _needs_no_code(self, pairing: _Pairing) -> bool:
        """Whether it is a machine, and any may enroll or this key holds that name already."""
        known = self._registrar.holder(pairing.role, pairing.name) == pairing.fingerprint
        return pairing.role is Role.AGENT and (known or self._policy == "open")

    async def _approve(self, pairing: _Pairing) -> None:
        if pairing.stage is _Stage.REVEALED:
            await self._join(pairing, "admin")
        elif pairing.stage is _Stage.JOINING:
            raise ProblemError(Kind.UNAVAILABLE, "this request is being approved already", hint="see: clusterd clients")

    async def _join(self, pairing: _Pairing, approved_by: str) -> None:
        pairing.stage = _Stage.JOINING
        try:
            pairing.certificate = await self._registrar.register(
                pairing.role,
                pairing.name,
                pairing.request.public_key,
                pairing.fingerprint,
                str(pairing.address),
                approved_by,
            )
        except BaseException:
            pairing.stage = _Stage.REVEALED
            raise
        pairing.stage = _Stage.APPROVED
        pairing.expires = self._clock.seconds() + PENDING_S
        pairing.changed.fire()
        self._log.info(
            "let in the {role} {name} from {address}, key {fingerprint} ({approved_by})",
            role=pairing.role.value,
            name=pairing.name,
            address=str(pairing.address),
            fingerprint=pairing.fingerprint,
            approved_by=approved_by,
        )

    def _check_not_closed(self) -> None:
        left = self._closed_until - self._clock.seconds()
        if left > 0:
            raise ProblemError(
                Kind.RATE_LIMITED, f"too many wrong codes: no code is taken for {left:.0f} s", hint="then try again"
            )

    def _count_wrong(self) -> None:
        self._refusals.note("the admin", "wrong code")
        if not self._wrong.take(_EVERYONE):
            self._closed_until = self._clock.seconds() + 60

    # -- the table

    def _pairing(self, id_: str) -> _Pairing:
        self._expire()
        pairing = self._pairings.get(id_)
        if pairing is None:
            raise ProblemError(
                Kind.UNKNOWN_PAIRING, "this request expired, or was refused", hint="ask again: a new code comes"
            )
        return pairing

    def _waits(self, pairing: _Pairing) -> bool:
        return pairing.stage is not _Stage.APPROVED and pairing.id in self._pairings

    def _expire(self) -> None:
        now = self._clock.seconds()
        for pairing in [pairing for pairing in self._pairings.values() if pairing.expires <= now]:
            self._drop(pairing)

    def _drop(self, pairing: _Pairing) -> None:
        self._pairings.pop(pairing.id, None)
        pairing.changed.fire()


def _read(asked: PairStart) -> tuple[PairingRequest, Role, str]:
    try:
        request = read_request(asked.request)
    except PairingError as error:
        raise ProblemError(Kind.BAD_REQUEST, str(error)) from error
    if request.role != asked.role:
        raise ProblemError(Kind.BAD_REQUEST, "the certificate request is for another role")
    if len(asked.commitment) != 32:
        raise ProblemError(Kind.BAD_REQUEST, "a commitment is a SHA-256: 32 bytes")
    try:
        name = machine_name(request.name) if request.role is Role.AGENT else client_name(request.name)
    except ValueError as error:
        raise ProblemError(Kind.BAD_REQUEST, str(error), hint="choose a name with --name") from error
    return request, request.role, name


def _has_code(pairing: _Pairing, code: str) -> bool:
    has_one = pairing.stage is not _Stage.STARTED
    return has_one and bool(_CODE.fullmatch(code)) and hmac.compare_digest(pairing.code.code, code)


def _progress(pairing: _Pairing) -> PairProgress:
    approved = pairing.stage is _Stage.APPROVED
    status = PairStatus.APPROVED if approved else PairStatus.PENDING
    return PairProgress(status, pairing.name, pairing.certificate)


def _wrong_code() -> ProblemError:
    return ProblemError(
        Kind.WRONG_CODE,
        "no pending request has this code: mistyped, expired, or somebody sits in between",
        hint="if that login reports success, it is talking to an impostor: run `clustersh logout` there",
    )
