"""Calls that need no certificate: health, the CA certificate, login and enrollment."""

from __future__ import annotations

from .. import __version__
from ..wire.pairing import PairOffer, PairProgress, PairReveal, PairStart
from ..wire.rest import Health
from .api import Answer, Api
from .http import Request, wait_seconds
from .pairing import Pairings

PEM = "application/x-pem-file"


class PairingCalls:
    """``/health``, ``/ca.pem`` and ``/pair``."""

    def __init__(self, pairings: Pairings, ca_pem: bytes) -> None:
        self._pairings = pairings
        self._ca_pem = ca_pem

    def add_to(self, api: Api) -> None:
        """Add the calls."""
        api.add_open("GET", "/health", self.health)
        api.add_open("GET", "/ca.pem", self.ca)
        api.add_open("POST", "/pair", self.start, PairStart)
        api.add_open("POST", "/pair/<id_>", self.reveal, PairReveal)
        api.add_open("GET", "/pair/<id_>", self.progress)

    async def health(self, request: Request) -> Health:
        return Health("clusterd", __version__)

    async def ca(self, request: Request) -> Answer:
        return Answer(self._ca_pem, content_type=PEM)

    async def start(self, request: Request, body: PairStart) -> PairOffer:
        return self._pairings.start(body, request.peer)

    async def reveal(self, request: Request, id_: str, body: PairReveal) -> PairProgress:
        return await self._pairings.reveal(id_, body)

    async def progress(self, request: Request, id_: str) -> PairProgress:
        return await request.unless_gone(self._pairings.progress(id_, wait_seconds(request)))
