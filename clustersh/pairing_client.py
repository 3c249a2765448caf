"""The asking side of a pairing: `clustersh login` and `clusteragent enroll`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from .address import Address
from .rest_client import RestClient
from .trust.credentials import Credentials
from .trust.identity import Role
from .trust.pairing import PairingCode


class Started(msgspec.Struct, frozen=True):
    """A pairing under way: what to show. *host* is where to run the approval, as the coordinator says."""

    code: PairingCode
    host: str
    name: str
    resumed: bool


class Pairing:
    """One program's pairing, kept in *folder* until it is done, so that asking again gives the same code.

    Raises TrustError (a message for people), ProblemError and Unreachable.
    """

    def __init__(
        self,
        client: RestClient,
        address: Address,
        folder: Path,
        role: Role,
        *,
        ca_sha256: str = "",
        clock: Callable[[], float],
    ) -> None:
        raise NotImplementedError

    async def start(self, name: str) -> Started:
        """Ask to be *name*, or take up what was asked before and is still pending."""
        raise NotImplementedError

    async def poll(self, wait_s: float = 0.0) -> Credentials | None:
        """Return the verified credentials, saved in the folder, once approved; None while pending (up to *wait_s*)."""
        raise NotImplementedError

    async def wait(self) -> Credentials:
        """Poll until approved."""
        raise NotImplementedError
