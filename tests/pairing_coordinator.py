"""A coordinator that pairs and answers some calls: real pairings, certificates and sockets, a made-up registry."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from clustersh.coordinator.addresses import plain_address
from clustersh.coordinator.approvals import Approvals
from clustersh.coordinator.pairing import Pairings
from clustersh.coordinator.policy.overrides import Overrides
from clustersh.coordinator.records import Adoption, Enrolled
from clustersh.coordinator.refusals import Refusals
from clustersh.coordinator.tokens import JoinTokens
from clustersh.trust.identity import Identity, Role, fingerprint
from clustersh.wire.pairing import PairReveal, PairStart
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import Approved, JobPage, Machine, Machines, Whoami

from .fake_coordinator import Answer, Asked, FakeCoordinator, reactor
from .memory_ledger import MemoryLedger

NO_JOBS = JobPage(())


class PairingCoordinator:
    """`machines`, `pages` (by the query) and `taken` (name: fingerprint) are for the test to set.

    `secure` says of each call whether it came over TLS.
    """

    def __init__(self, folder: Path, clock: Any = reactor, policy: str = "approve") -> None:
        self.fake = FakeCoordinator(folder, self._handle)
        self.address = self.fake.address
        self.authority = self.fake.authority
        self.machines: tuple[Machine, ...] = ()
        self.secure: list[bool] = []
        self.pages: dict[str, JobPage] = {}
        self.taken: dict[tuple[Role, str], str] = {}
        self.refusals = Refusals(reactor)
        self.ledger = MemoryLedger()
        self.tokens = JoinTokens(self.ledger, b"k" * 32, time.time, secrets.token_bytes)
        self.ledger.followers.append(self.tokens.follow)
        self.pairings = Pairings(
            self,
            self.authority.certificate_der,
            clock,
            secrets.token_bytes,
            self.refusals,
            policy=policy,
            tokens=self.tokens,
            host="ws1",
        )
        self.approvals = Approvals(self.pairings, Overrides(clock, secrets.token_bytes), clock, self.refusals)

    def holder(self, role: Role, name: str) -> str | None:
        return self.taken.get((role, name))

    def check_join(self, role: Role, name: str, key: str) -> None:
        if self.taken.get((role, name), key) != key:
            raise ProblemError(Kind.NAME_TAKEN, f"the name {name} belongs to another key", hint="choose with --name")

    def is_ais(self, role: Role, name: str, key: str) -> bool:
        return False

    async def register(
        self,
        role: Role,
        name: str,
        public_key: Any,
        key: str,
        address: str,
        approved_by: str,
        token: str = "",
        adoption: Adoption | None = None,
        *,
        ai: bool = False,
    ) -> bytes:
        self.taken[role, name] = key
        await self.ledger.append(Enrolled(role.value, name, "id-1", key, address, approved_by, token))
        issued = self.authority.issue(Identity(role, name, "id-1"), public_key, datetime.now(UTC))
        return issued.public_bytes(Encoding.DER)

    async def approve(self, code: str) -> Approved:
        return await self.approvals.approve(code, "admin-1")

    async def stop(self) -> None:
        self.refusals.stop()
        await self.fake.stop()

    @property
    def calls(self) -> list[str]:
        return [f"{asked.method} {asked.path.partition('?')[0]}" for asked in self.fake.asked]

    async def _handle(self, asked: Asked) -> Any:
        self.secure.append(asked.request.isSecure())
        path, _, query = asked.path.partition("?")
        _, first, *rest = path.split("/")
        if first == "pair":
            return await self._pair(asked, rest)
        if path == "/ca.pem":
            return Answer(self.authority.certificate_pem, kind="application/x-pem-file")
        certificate = asked.request.transport.getPeerCertificate().to_cryptography()
        if path == "/v1/whoami":
            name, key = Identity.from_certificate(certificate).name, fingerprint(certificate)
            online = sum(machine.status == "online" for machine in self.machines)
            return Whoami(name, "frontend", "id-1", key, "0.1.0", len(self.machines), online)
        if path == "/v1/leave":
            if fingerprint(certificate) not in self.taken.values():
                raise ProblemError(Kind.UNTRUSTED, "the key was forgotten")
            self.taken = {held: key for held, key in self.taken.items() if key != fingerprint(certificate)}
            return Answer(status=204)
        if path == "/v1/machines":
            return Machines(self.machines)
        if path == "/v1/jobs":
            return next((page for part, page in self.pages.items() if part in query), NO_JOBS)
        raise ProblemError(Kind.NOT_FOUND, path)

    async def _pair(self, asked: Asked, rest: list[str]) -> Any:
        if not rest:
            start = msgspec.json.decode(asked.body, type=PairStart)
            return self.pairings.start(start, plain_address("127.0.0.1"))
        if asked.method == "POST":
            return await self.pairings.reveal(rest[0], msgspec.json.decode(asked.body, type=PairReveal))
        prefer = asked.request.getHeader("prefer") or "wait=0"
        return await self.pairings.progress(rest[0], float(prefer.removeprefix("wait=")))
