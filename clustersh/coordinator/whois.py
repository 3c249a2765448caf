"""Who an address is in the tailnet, where the coordinator's host has Tailscale: asked of its program."""

from __future__ import annotations

import ipaddress
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeAlias

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..config import Network
from ..tailscale import parse_whois
from ..tailscale_program import TailscaleError, run
from ..wire.codec import WireError
from ..wire.problems import Kind, ProblemError
from ..wire.tailnet import TailnetIdentity
from .addresses import IpAddress, is_within

Identify: TypeAlias = Callable[[IpAddress, int], Awaitable[TailnetIdentity | None]]
"""Tells who is at an address and port; None where that isn't known."""
Note: TypeAlias = Callable[[str, TailnetIdentity], Coroutine[Any, Any, None]]
"""Records who the key with that fingerprint comes from."""
RUN_S = 3.0
"""Seconds that an enrollment may wait for it."""
MAX_AT_ONCE = 8
AGAIN_S, PAUSE_S = 3600.0, 10.0
"""Seconds between looks at one key: at the same address, and at another."""
TAILNET: tuple[Network, ...] = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
"""Where Tailscale gives addresses; any other is a LAN's or this host's."""


async def nobody(address: IpAddress, port: int) -> TailnetIdentity | None:
    """Know nobody."""
    return None


class TailnetRule(NamedTuple):
    """What tells who asks, what records it of a key's fingerprint, and whether it is *required*."""

    identify: Identify
    note: Note
    required: bool = False


async def _note_nothing(fingerprint: str, identity: TailnetIdentity) -> None:
    pass


NO_RULE = TailnetRule(nobody, _note_nothing)


def outside(address: IpAddress) -> ProblemError:
    """Return the refusal of somebody at *address* who isn't known to be in the tailnet."""
    if is_within(address, TAILNET):
        hint = f"on the coordinator's host, to see what Tailscale knows: tailscale whois {address}"
    else:
        hint = "have Tailscale run here (tailscale up), and name the coordinator's address in the tailnet"
    return ProblemError(
        Kind.ADDRESS_NOT_ALLOWED,
        f"this coordinator lets in its tailnet alone, and its Tailscale doesn't know who is at {address}",
        hint=hint,
    )


class Whois:
    """Asks ``tailscale whois``, of a few at once; beyond those nobody is known, rather than waited for."""

    _log = Logger()

    def __init__(self, reactor: Any, find: Callable[[], str | None] = lambda: shutil.which("tailscale")) -> None:
        self._reactor = reactor
        self._find = find
        self._asking = 0
        self._problem = ""

    async def __call__(self, address: IpAddress, port: int) -> TailnetIdentity | None:
        """Return who is at that address, if Tailscale knows. Raises nothing."""
        program = self._find() if is_within(address, TAILNET) and self._asking < MAX_AT_ONCE else None
        if program is None:
            return None
        where = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        self._asking += 1
        try:
            identity = parse_whois(await run(self._reactor, program, ("whois", "--json", where), RUN_S))
            self._problem = ""
        except (TailscaleError, WireError) as error:
            self._note(str(error))
            return None
        finally:
            self._asking -= 1
        return identity

    def _note(self, problem: str) -> None:
        """Log what went wrong, once for each kind."""
        if problem != self._problem:
            self._log.info("tailscale whois: {reason}", reason=problem)
        self._problem = problem


class Acquaintances:
    """Keeps up who clients and machines are, in the background: looks where a key comes from another address than
    before, or was last looked at an hour ago. *note* records what was found of a key's fingerprint.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Callable[[], float],
        identify: Identify,
        note: Note,
    ) -> None:
        self._clock = clock
        self._identify = identify
        self._note = note
        self._looked: dict[str, tuple[IpAddress, float]] = {}
        """Where each key was last, and when: at most as many as there are keys."""

    def rule(self, *, required: bool) -> TailnetRule:
        """Return the rule that pairings go by."""
        return TailnetRule(self._identify, self._note, required)

    def came(self, fingerprint: str, address: IpAddress, port: int) -> None:
        """A trusted key calls, or links, from there."""
        if not is_within(address, TAILNET):
            return
        before, at = self._looked.get(fingerprint, (None, float("-inf")))
        if self._clock() - at < (AGAIN_S if address == before else PAUSE_S):
            return
        self._looked[fingerprint] = (address, self._clock())
        looking = Deferred.fromCoroutine(self._look(fingerprint, address, port))
        looking.addErrback(lambda failure: self._log.failure("a key's tailnet identity can't be noted", failure))

    async def _look(self, fingerprint: str, address: IpAddress, port: int) -> None:
        identity = await self._identify(address, port)
        if identity is not None:
            await self._note(fingerprint, identity)
