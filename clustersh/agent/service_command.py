"""``clusteragent service``: the agent as a service of this machine."""

from __future__ import annotations

from ..cli.commands import Start
from ..cli.invocation import Invocation
from ..config import load
from ..services import AGENT, Spec, State
from ..services import program as service_program
from .state import load_identity


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``service``."""
    role = service_program.Role(AGENT, lambda spec: load(spec.home).agent.grace, _check, _told)
    return service_program.prepare(invocation, arguments, role)


def _check(spec: Spec) -> None:
    """Raise HomeError where the agent would end at once: it is not enrolled."""
    load_identity(spec.folder)


def _told(spec: Spec, state: State) -> tuple[str, ...]:
    return (f"Commands run as {state.user}.",)
