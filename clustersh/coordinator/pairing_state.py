"""One pairing under way, as the coordinator keeps it, and the request that it begins with."""

from __future__ import annotations

import enum
import hmac
import re
from dataclasses import dataclass, field

from ..trust.errors import PairingError
from ..trust.identity import Role, fingerprint
from ..trust.pairing import PairingCode, PairingRequest, read_request, transcript_hash
from ..wire.ids import client_name, machine_name
from ..wire.pairing import PairStart
from ..wire.problems import Kind, ProblemError
from ..wire.tailnet import TailnetIdentity
from .addresses import IpAddress
from .signals import Signal

_CODE = re.compile(r"[0-9a-f]{8}")
_NO_CODE = PairingCode("", "")


class Stage(enum.Enum):
    """How far a pairing is."""

    STARTED = enum.auto()
    REVEALED = enum.auto()
    JOINING = enum.auto()
    APPROVED = enum.auto()


@dataclass
class PairingState:
    """What was asked, and how far it is."""

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
    port: int = 0
    stage: Stage = Stage.STARTED
    client_nonce: bytes = b""
    transcript: bytes = b""
    code: PairingCode = _NO_CODE
    certificate: bytes = b""
    identity: TailnetIdentity | None = None
    changed: Signal = field(default_factory=Signal)

    @property
    def fingerprint(self) -> str:
        """The key's."""
        return fingerprint(self.request.public_key)

    @property
    def awaits_approval(self) -> bool:
        """Whether it has a code, and nobody has typed it."""
        return self.stage is Stage.REVEALED

    def reveal(self, ca_der: bytes, nonce: bytes) -> None:
        """Take the stranger's *nonce*, which fixes the code."""
        self.client_nonce = nonce
        self.transcript = transcript_hash(self.role, self.request_der, ca_der, nonce, self.server_nonce)
        self.code = PairingCode.of(self.transcript)
        self.stage = Stage.REVEALED

    def has_code(self, code: str) -> bool:
        """Whether *code*, as typed, is this pairing's."""
        has_one = self.stage is not Stage.STARTED
        return has_one and bool(_CODE.fullmatch(code)) and hmac.compare_digest(self.code.code, code)


def read_start(asked: PairStart) -> tuple[PairingRequest, Role, str]:
    """Return who asks for what. Raises ProblemError where that makes no sense."""
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
