"""``clustersh whoami``: who the coordinator takes this user for."""

from __future__ import annotations

from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..cli.text import printable
from ..wire.rest import Whoami
from .client import connect


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``whoami``."""
    examples = ("clustersh whoami", "clustersh whoami --json")
    Parser("clustersh whoami", "Show who the coordinator takes this user for.", examples).read(invocation, arguments)
    return lambda reactor: whoami(reactor, invocation)


async def whoami(reactor: Any, invocation: Invocation) -> int:
    """Ask the coordinator."""
    client = await connect(reactor, invocation)
    known = await client.call("GET", "/v1/whoami", answer=Whoami)
    if invocation.json:
        await invocation.console.out(msgspec.json.encode(known) + b"\n")
        return 0
    machines = f"{known.machines} machine{'' if known.machines == 1 else 's'}, {known.online} online"
    lines = (
        f"{known.name} ({known.role}), key {known.fingerprint}",
        f"at {client.address} (clusterd {known.coordinator_version}): {machines}",
    )
    await invocation.console.out("".join(printable(line) + "\n" for line in lines))
    return 0
