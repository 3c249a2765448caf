"""What the agent says of itself in its folder: who it is (``agent.json``) and how it is (``status.json``)."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ..address import Address, parse_address
from ..home import HomeError, read_json, write_json

IDENTITY_FILE = "agent.json"
STATUS_FILE = "status.json"


class AgentIdentity(msgspec.Struct, frozen=True):
    """``agent.json``: the coordinator's address (``host:port``), and the machine's name and id there.

    *before* is its name before the last change: the agent's processes may still be marked with it.
    """

    coordinator: str
    machine: str
    id: str
    before: str = ""

    @property
    def address(self) -> Address:
        """Where the coordinator is. Raises HomeError."""
        try:
            return parse_address(self.coordinator)
        except ValueError as error:
            raise HomeError(f"{IDENTITY_FILE} is damaged: {error}") from error


class AgentStatus(msgspec.Struct, frozen=True):
    """``status.json``, of the process *pid*: *problem* says why there is no link; empty with one."""

    pid: int
    problem: str
    jobs: int


class NotEnrolledError(HomeError):
    """This machine was never enrolled; the message says how."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"this machine is not enrolled (there is no {folder / IDENTITY_FILE})",
            "clusteragent enroll COORDINATOR-ADDRESS",
        )


def load_identity(folder: Path) -> AgentIdentity:
    """Read who this agent is. Raises NotEnrolledError, HomeError."""
    identity = read_json(folder / IDENTITY_FILE, AgentIdentity)
    if identity is None:
        raise NotEnrolledError(folder)
    return identity


class StatusFile:
    """Keeps ``status.json`` in *folder*; `write` is to be called now and then, and writes only what changed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATUS_FILE
        self._written: AgentStatus | None = None

    def write(self, problem: str, jobs: int) -> None:
        """Say how the agent is; blocks. Raises OSError."""
        status = AgentStatus(os.getpid(), problem, jobs)
        if status != self._written:
            write_json(self._path, status, durable=False)
            self._written = status

    def remove(self) -> None:
        """The agent stops."""
        self._path.unlink(missing_ok=True)
