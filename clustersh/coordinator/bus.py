"""The bus: how messages reach the agents, and who is told what their links bring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from twisted.internet.defer import Deferred

from ..wire.link import (
    Adopt,
    Adopted,
    AskHosts,
    AskVitals,
    Chunk,
    Ended,
    FromCoordinator,
    Hello,
    HostList,
    Read,
    Started,
    Stdin,
    StdinTaken,
    VitalsReport,
    Witnesses,
    WitnessList,
)
from .registry import Key

Question: TypeAlias = Read | Stdin | Witnesses | AskVitals | Adopt | AskHosts
Answer: TypeAlias = Chunk | StdinTaken | WitnessList | VitalsReport | Adopted | HostList


class Bus(Protocol):
    """How messages reach an agent, wherever its link ends."""

    def epoch(self, machine_id: str) -> int | None:
        """The epoch of the machine's link; None where it has none."""

    def clock(self, machine_id: str) -> float:
        """What the agent's clock says now, or a little less. Only for a machine that has a link."""

    def send(self, machine_id: str, message: FromCoordinator) -> bool:
        """Send *message*; False where the machine has no link."""

    def ask(self, machine_id: str, question: Callable[[int], Question]) -> Deferred[Answer]:
        """Send the question made for a request number; fires with its answer, fails with ProblemError."""


class LinkEvents(Protocol):
    """Who is told what the links bring."""

    async def linking(self, machine: Key, hello: Hello, epoch: int) -> FromCoordinator:
        """Return the Welcome for a machine that came; nothing is sent to it before."""

    def started(self, machine_id: str, message: Started) -> None:
        """A job was acknowledged."""

    def ended(self, machine_id: str, message: Ended) -> Deferred[None] | None:
        """A job has an outcome. What is returned fires once the report is dealt with, if that takes long."""
