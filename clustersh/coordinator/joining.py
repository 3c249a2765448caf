"""What lets machines and clients in, put together: join tokens, pairings, adoptions, and the codes that admins type."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path
from typing import Any

from ..config import EnrollmentConfig
from ..trust.authority import Authority
from .adoption import Adoptions
from .api import Api
from .approvals import Approvals
from .fleet import Fleet
from .index import Index
from .ledger import Ledger
from .own_secret import own_secret
from .pairing import Pairings
from .policy.overrides import Overrides
from .policy.policy import Policy
from .refusals import Refusals
from .registry import Registry
from .rest_adopt import AdoptCalls
from .rest_pairing import PairingCalls
from .rest_tokens import TokenCalls
from .tokens import JoinTokens
from .whois import TailnetRule


class Joining:
    """The parts; *host* is where codes are typed."""

    def __init__(
        self,
        reactor: Any,
        folder: Path,
        config: EnrollmentConfig,
        ledger: Ledger,
        registry: Registry,
        authority: Authority,
        refusals: Refusals,
        overrides: Overrides,
        tailnet: TailnetRule,
        host: str,
    ) -> None:
        self._policy = config.policy
        self._authority = authority
        self._registry = registry
        self._tokens = JoinTokens(ledger, own_secret(folder, "token.key"), time.time, secrets.token_bytes)
        ledger.subscribe(self._tokens.follow)
        self._pairings = Pairings(
            registry,
            authority.certificate_der,
            reactor,
            secrets.token_bytes,
            refusals,
            policy=config.policy,
            tokens=self._tokens,
            host=host,
            tailnet=tailnet,
        )
        self.approvals = Approvals(self._pairings, overrides, reactor, refusals)

    async def load(self, index: Index) -> None:
        """Read what there was before."""
        await self._tokens.load(index)

    def add_to(self, api: Api, fleet: Fleet, policy: Policy) -> None:
        """Add the calls; agents of *fleet* adopt, for clients that *policy* lets use them."""
        PairingCalls(self._pairings, self._authority.certificate_pem).add_to(api)
        TokenCalls(self._tokens, self._policy).add_to(api)
        adoptions = Adoptions(self._registry, fleet, self._tokens, self._pairings, socket.gethostname, policy)
        AdoptCalls(adoptions).add_to(api)
