"""``clusterd service``: the coordinator as a service of this machine, and how others join it then."""

from __future__ import annotations

import platform

from ..address import Address
from ..cli.commands import Start
from ..cli.invocation import Invocation
from ..config import Listen, load
from ..home import read_running
from ..services import COORDINATOR, Spec, State
from ..services import program as service_program
from .join_lines import plain_line


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``service``."""
    role = service_program.Role(COORDINATOR, lambda spec: 0.0, lambda spec: None, _told)
    return service_program.prepare(invocation, arguments, role)


def _told(spec: Spec, state: State) -> tuple[str, ...]:
    running = read_running(spec.folder)
    port = int(running.address.rpartition(":")[2]) if running is not None and running.address else None
    address = join_address(load(spec.home).coordinator.listen, port)
    return (
        f"Machines join with:  {plain_line(address)}",
        f"Clients join with:   {plain_line(address, client=True)}",
    )


def join_address(listen: Listen, port: int | None) -> Address:
    """Return where others find the coordinator: by this host's name, unless it listens on one address alone."""
    host = platform.node().lower() if listen.host in ("*", "0.0.0.0", "::") else listen.host  # noqa: S104
    return Address(host or "127.0.0.1", port or listen.port)
