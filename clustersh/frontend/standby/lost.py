"""What to say of a call whose standby was lost, where doing it again here could do it twice, or lose a signal."""

from __future__ import annotations

from typing import NoReturn

from ...cli.errors import UNCERTAIN, CliError
from ...cli.invocation import Invocation
from .launcher import Launcher


def tell(invocation: Invocation, launcher: Launcher) -> NoReturn:
    """Raise what is known."""
    command = next(iter(invocation.argv), "")
    invocation.json = "--json" in invocation.argv and not launcher.printed
    if command == "run":
        hint = f"the same clustersh run with --key {launcher.key} gives its result, and never runs it twice"
    else:
        hint = f"look before you repeat it: clustersh {command} may have been done"
    raise CliError(
        launcher.lost,
        (hint, "clustersh standby shows whether one runs; CLUSTERSH_STANDBY=off goes around it"),
        status=UNCERTAIN,
        kind="unavailable",
        started=None,
    )
