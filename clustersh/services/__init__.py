"""Services that start with the machine: what the operating system has for that, told to run ours.

`choose` returns the manager that fits: systemd, launchd, Windows' task scheduler, or, where there is none of them,
twistd in the background with a pidfile.
"""

from .choice import choose
from .errors import ServiceError
from .manager import Installed, Manager, Removed
from .spec import AGENT, COORDINATOR, Program, Scope, Spec, State, make_spec

__all__ = [
    "AGENT",
    "COORDINATOR",
    "Installed",
    "Manager",
    "Program",
    "Removed",
    "Scope",
    "ServiceError",
    "Spec",
    "State",
    "choose",
    "make_spec",
]
