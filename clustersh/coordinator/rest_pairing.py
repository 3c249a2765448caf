"""Calls that need no certificate: health, the CA certificate, login and enrollment."""

from __future__ import annotations

from .. import __version__
from ..wire.pairing import PairOffer, PairProgress, PairReveal, PairStart
from ..wire.problems import Kind
from ..wire.rest import Health
from .api import Api
from .http import Request, wait_seconds
from .pairing import Pairings
from .routes import WAIT, Answer

PEM = "application/x-pem-file"


class PairingCalls:
    """``/health``, ``/ca.pem`` and ``/pair``."""

    def __init__(self, pairings: Pairings, ca_pem: bytes) -> None:
        self._pairings = pairings
        self._ca_pem = ca_pem

    def add_to(self, api: Api) -> None:
        """Add the calls."""
        refused = (Kind.RATE_LIMITED, Kind.NAME_TAKEN, Kind.UNTRUSTED, Kind.UNAVAILABLE)
        api.add_open("GET", "/health", self.health)
        api.add_open("GET", "/ca.pem", self.ca, answers={200: (PEM,)})
        api.add_open("POST", "/pair", self.start_pairing, PairStart, problems=refused)
        api.add_open(
            "POST",
            "/pair/<pairing>",
            self.reveal,
            PairReveal,
            problems=(*refused, Kind.ADDRESS_NOT_ALLOWED, Kind.UNKNOWN_PAIRING, Kind.WRONG_TOKEN, Kind.STORAGE),
        )
        api.add_open("GET", "/pair/<pairing>", self.pairing, headers=(WAIT,), problems=(Kind.UNKNOWN_PAIRING,))

    async def health(self, request: Request) -> Health:
        """Say that the coordinator runs, and its version."""
        return Health("clusterd", __version__)

    async def ca(self, request: Request) -> Answer:
        """Give the CA certificate."""
        return Answer(self._ca_pem, content_type=PEM)

    async def start_pairing(self, request: Request, body: PairStart) -> PairOffer:
        """Begin a login or an enrollment."""
        return self._pairings.start(body, request.peer, request.peer_port)

    async def reveal(self, request: Request, pairing: str, body: PairReveal) -> PairProgress:
        """Reveal the nonce that the commitment was made of; the code is fixed then."""
        return await self._pairings.reveal(pairing, body)

    async def pairing(self, request: Request, pairing: str) -> PairProgress:
        """Tell how far a pairing is, after waiting for the approval as long as asked."""
        return await request.unless_gone(self._pairings.progress(pairing, wait_seconds(request)))
