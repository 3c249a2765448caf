"""The coordinator's side of a pairing: a stranger's request, and the eight digits by which an admin lets it in.

The rules are design section "The pairing code"; the code itself is `trust.pairing`.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..trust.identity import Role, fingerprint
from ..trust.pairing import NONCE_BYTES, opens
from ..wire.pairing import PENDING_S, PairOffer, PairProgress, PairReveal, PairStart, PairStatus, TokenProof
from ..wire.problems import Kind, ProblemError
from ..wire.rest import Approved, Pending
from .addresses import IpAddress
from .limits import RateLimit, source_of
from .pairing_state import PairingState, Stage, read_start
from .records import Adoption
from .refusals import Refusals
from .signals import wait_until
from .tokens import JoinTokens
from .whois import NO_RULE, TailnetRule, outside

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

START_RATE, START_BURST = 1.0, 10.0
"""Requests a second, and at once, that one address may begin."""
ALL_RATE, ALL_BURST = 10.0, 100.0
"""The same for all of them together; were it no more, one address could keep everyone out."""
MAX_PENDING_EACH = 20
MAX_PENDING = 1000
WRONG_RATE, WRONG_BURST = 10 / 60, 10.0
"""Wrong codes a second, and at once, before codes are refused for a while; the same for each address's tokens."""
_EVERYONE = "everyone"


class Registrar(Protocol):
    """Who holds which name, and what makes a key trusted."""

    def holder(self, role: Role, name: str) -> str | None:
        """Return the fingerprint of the key that holds *name*, if one does."""

    def check_join(self, role: Role, name: str, fingerprint: str) -> None:
        """Raise ProblemError unless that key may join under that name."""

    def is_ais(self, role: Role, name: str, fingerprint: str) -> bool:
        """Whether that key is an AI agent's, or will be one under that name, whatever is said when it joins."""

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
        """Trust that key under that name and return its certificate (DER). Raises ProblemError."""


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
        policy: Literal["open", "token", "approve"],
        tokens: JoinTokens,
        host: str = "",
        tailnet: TailnetRule = NO_RULE,
    ) -> None:
        self._log = Logger()
        self._registrar = registrar
        self._ca_der = ca_der
        self._clock = clock
        self._random = random
        self._refusals = refusals
        self._policy = policy
        self._tokens = tokens
        self._host = host
        self._tailnet = tailnet
        self._pairings: dict[str, PairingState] = {}
        self._adopting: dict[str, tuple[str, Adoption]] = {}
        self._starts = RateLimit(clock.seconds, START_RATE, START_BURST)
        self._all_starts = RateLimit(clock.seconds, ALL_RATE, ALL_BURST)
        self._wrong_tokens = RateLimit(clock.seconds, WRONG_RATE, WRONG_BURST)

    # -- the stranger's calls

    def start(self, asked: PairStart, address: IpAddress, port: int = 0) -> PairOffer:
        """Take a request in and offer what it is answered with. Raises ProblemError."""
        self._limit(address)
        request, role, name = read_start(asked)
        self._registrar.check_join(role, name, fingerprint(request.public_key))
        now = self._clock.seconds()
        pairing = PairingState(
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
            port=port,
        )
        self._pairings[pairing.id] = pairing
        return PairOffer(pairing.id, self._ca_der, pairing.server_nonce, self._host)

    async def reveal(self, id_: str, revealed: PairReveal) -> PairProgress:
        """Take the stranger's nonce, once; from here on there is a code. Raises ProblemError."""
        pairing = self._pairing(id_)
        if pairing.stage is Stage.STARTED:
            if not opens(pairing.committed, revealed.nonce):
                self.drop(pairing)
                self._refusals.note(str(pairing.address), "a pairing's nonce is not what was committed to")
                raise ProblemError(Kind.BAD_REQUEST, "the nonce is not the one that was committed to")
            await self._identify(pairing)
            pairing.reveal(self._ca_der, revealed.nonce)
        elif not hmac.compare_digest(pairing.client_nonce, revealed.nonce):
            raise ProblemError(Kind.BAD_REQUEST, "another nonce was revealed before")
        answer = b"" if revealed.token is None else self._check_token(pairing, revealed.token)
        if pairing.awaits_approval and pairing.role is Role.AGENT:
            await self._let_in(pairing, revealed.token)
        return self._progress(pairing, answer)

    async def progress(self, id_: str, wait_s: float) -> PairProgress:
        """Return how far the pairing is, after at most *wait_s* seconds if it isn't approved. Raises ProblemError."""
        pairing = self._pairing(id_)
        await wait_until(self._clock, pairing.changed, lambda: not self._waits(pairing), wait_s)
        return self._progress(self._pairing(id_))

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

    def with_code(self, code: str) -> list[PairingState]:
        """Return those that have *code*."""
        self._expire()
        return [pairing for pairing in self._pairings.values() if pairing.has_code(code)]

    async def approve(self, pairing: PairingState, *, ai: bool = False, dry_run: bool = False) -> Approved:
        """Let *pairing* in, as an AI agent's client with *ai*; with *dry_run* only tell who it is.

        Raises ProblemError.
        """
        who = (pairing.role, pairing.name, pairing.fingerprint)
        if ai and pairing.role is not Role.FRONTEND:
            raise ProblemError(Kind.BAD_REQUEST, "--ai is for clients, and this is a machine", hint="leave it out")
        if pairing.stage is Stage.REVEALED:
            if dry_run:
                self._registrar.check_join(*who)
            else:
                await self._join(pairing, "admin", ai=ai)
        elif pairing.stage is Stage.JOINING:
            raise ProblemError(Kind.UNAVAILABLE, "this request is being approved already", hint="see: clusterd clients")
        elif ai and not self._registrar.is_ais(*who):
            raise ProblemError(
                Kind.BAD_REQUEST,
                f"{pairing.name} was let in already, and not as an AI agent's",
                hint=f"clusterd revoke {pairing.name}, and have it log in again",
            )
        words = (pairing.name, pairing.role.value, str(pairing.address), pairing.fingerprint, pairing.code.check)
        return Approved(*words, ai=ai or self._registrar.is_ais(*who))

    def drop(self, pairing: PairingState) -> None:
        """End *pairing*: it is refused, or too old."""
        self._pairings.pop(pairing.id, None)
        pairing.changed.fire()

    @contextlib.contextmanager
    def adopting(self, token: str, name: str, adoption: Adoption) -> Iterator[None]:
        """Have the machine that shows *token* let in as *name*, meanwhile, whatever the policy is."""
        self._adopting[token] = (name, adoption)
        try:
            yield
        finally:
            del self._adopting[token]

    # -- decisions

    def _limit(self, address: IpAddress) -> None:
        self._expire()
        source = source_of(address)
        waiting = [pairing for pairing in self._pairings.values() if pairing.stage is not Stage.APPROVED]
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

    async def _identify(self, pairing: PairingState) -> None:
        """Learn who asks, as far as Tailscale knows. Raises ProblemError where that has to be known, and isn't."""
        pairing.identity = await self._tailnet.identify(pairing.address, pairing.port)
        self._pairing(pairing.id)  # it may have expired meanwhile
        if self._tailnet.required and pairing.identity is None:
            self.drop(pairing)
            self._refusals.note(str(pairing.address), "not of the tailnet")
            raise outside(pairing.address)

    def _check_token(self, pairing: PairingState, shown: TokenProof) -> bytes:
        """Return the coordinator's own proof of the token that *shown* proves. Raises ProblemError; one try each."""
        source = source_of(pairing.address)
        answer = self._tokens.answer(shown, pairing.transcript)
        if answer is not None and self._wrong_tokens.left(source):
            return answer
        self.drop(pairing)
        if not self._wrong_tokens.take(source):
            self._refusals.note(str(pairing.address), "too many wrong join tokens")
            raise ProblemError(Kind.RATE_LIMITED, "too many wrong join tokens", hint="try again in a minute")
        self._refusals.note(str(pairing.address), "wrong join token")
        raise ProblemError(
            Kind.WRONG_TOKEN,
            "the coordinator did not make this join token",
            hint="mistyped, or another coordinator's? Get one there: clusterd token create",
        )

    async def _let_in(self, pairing: PairingState, shown: TokenProof | None) -> None:
        """Let a machine in that needs no code: this key holds that name, any may enroll, or it has a token."""
        if self._registrar.holder(pairing.role, pairing.name) == pairing.fingerprint:
            await self._join(pairing, "same key")
        elif shown is not None and shown.id in self._adopting:
            name, adoption = self._adopting[shown.id]
            if name != pairing.name:
                raise ProblemError(Kind.WRONG_TOKEN, f"this join token was made for {name}")
            with self._tokens.held(shown.id):
                await self._join(pairing, "adoption", shown.id, adoption)
        elif self._policy == "open":
            await self._join(pairing, "open")
        elif self._policy == "token" and shown is not None:
            try:
                with self._tokens.held(shown.id):
                    await self._join(pairing, "token", shown.id)
            except ProblemError as error:
                if error.problem.kind is Kind.WRONG_TOKEN:
                    self._refusals.note(str(pairing.address), "a join token that is no longer good")
                    self.drop(pairing)
                raise

    async def _join(
        self,
        pairing: PairingState,
        approved_by: str,
        token: str = "",
        adoption: Adoption | None = None,
        *,
        ai: bool = False,
    ) -> None:
        pairing.stage = Stage.JOINING
        try:
            pairing.certificate = await self._registrar.register(
                pairing.role,
                pairing.name,
                pairing.request.public_key,
                pairing.fingerprint,
                str(pairing.address),
                approved_by,
                token,
                adoption,
                ai=ai,
            )
        except BaseException:
            pairing.stage = Stage.REVEALED
            raise
        pairing.stage = Stage.APPROVED
        pairing.expires = self._clock.seconds() + PENDING_S
        pairing.changed.fire()
        if pairing.identity is not None:
            noting = Deferred.fromCoroutine(self._tailnet.note(pairing.fingerprint, pairing.identity))
            noting.addErrback(lambda failure: self._log.failure("a key's tailnet identity can't be noted", failure))
        self._log.info(
            "let in the {role} {name} from {address}, key {fingerprint} ({approved_by})",
            role=pairing.role.value,
            name=pairing.name,
            address=str(pairing.address),
            fingerprint=pairing.fingerprint,
            approved_by=approved_by,
        )

    # -- the table

    def _progress(self, pairing: PairingState, token_proof: bytes = b"") -> PairProgress:
        approved = pairing.stage is Stage.APPROVED
        return PairProgress(
            PairStatus.APPROVED if approved else PairStatus.PENDING,
            pairing.name,
            pairing.certificate,
            token_proof,
            needs_token=self._policy == "token" and pairing.role is Role.AGENT and not approved,
        )

    def _pairing(self, id_: str) -> PairingState:
        self._expire()
        pairing = self._pairings.get(id_)
        if pairing is None:
            raise ProblemError(
                Kind.UNKNOWN_PAIRING, "this request expired, or was refused", hint="ask again: a new code comes"
            )
        return pairing

    def _waits(self, pairing: PairingState) -> bool:
        return pairing.stage is not Stage.APPROVED and pairing.id in self._pairings

    def _expire(self) -> None:
        now = self._clock.seconds()
        for pairing in [pairing for pairing in self._pairings.values() if pairing.expires <= now]:
            self.drop(pairing)
