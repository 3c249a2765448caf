"""Commands on a machine that only has ssh: each by an ``ssh`` of its own, over a connection that is kept."""

from __future__ import annotations

import secrets
from functools import partial

from zope.interface import implementer

from ...wire.jobs import Outcome, State
from ..ssh import scripts
from ..ssh.connection import Connections, word
from ..ssh.conversation import MARK_BEGINS, Conversation
from ..ssh.ender import SshEnder, folder_of
from ..ssh.header import Place, header
from . import ExecutorError, IElsewhere, ISpeaking, Task
from .choice import OF_ADOPTED


@implementer(IElsewhere, ISpeaking)
class Ssh:
    """Runs commands of *machine* over *connections*; *ender* ends there what they leave.

    The files that they need are there already (agent.ssh.workspace).
    """

    name = OF_ADOPTED

    def __init__(self, connections: Connections, ender: SshEnder, machine: str) -> None:
        self._connections = connections
        self._ender = ender
        self._machine = machine
        self._prepared: dict[str, Conversation] = {}
        """Of the jobs that are about to start."""

    async def prepare(self, task: Task) -> None:
        """Have a connection with room for the job. Raises ExecutorError."""
        mark = MARK_BEGINS.decode() + secrets.token_hex(16)
        line = header(mark, task, Place(self._machine, folder_of(task.uuid, self._machine)))
        connection = await self._connections.take()
        lost = partial(self._lost, task.uuid)
        self._prepared[task.uuid] = Conversation(connection, mark.encode(), line, task.asked_cwd or "its home", lost)

    def writes(self, task: Task) -> bool:
        """It writes nothing here."""
        return False

    def argv(self, task: Task) -> list[bytes]:
        """Return the words of the ssh for *task*."""
        name = scripts.NAME.format(uuid=task.uuid, machine=self._machine)
        return self._prepared[task.uuid].connection.argv(f"exec sh -c {word(scripts.JOB)} {name}")

    def conversation(self, task: Task) -> Conversation:
        """Return what speaks with that ssh."""
        return self._prepared.pop(task.uuid)

    async def end(self, uuid: str) -> None:
        """End all of the job there. Raises ExecutorError where that can't be now; then it is done later."""
        if not await self._ender.end(uuid):
            raise ExecutorError("what runs on there is ended once it can be reached")

    async def _lost(self, uuid: str, begun: bool, status: int | None, said: str) -> Outcome:
        """The connection of a job was lost before its end was told: end it there, and say what is known."""
        destination = self._connections.destination
        last = (said.strip().splitlines() or [""])[-1][:300]
        if not begun and "refused by peer" in said:
            why = f"ssh {destination}: it allows too few sessions on a connection (MaxSessions in its sshd_config)"
            return Outcome(State.NOT_STARTED, reason=why)
        if not begun and status not in (None, 255):
            return Outcome(State.NOT_STARTED, reason=f"ssh {destination}: its shell ended: {last or f'exit {status}'}")
        ended = await self._ender.end(uuid)
        then = "what it left there was ended" if ended else "what runs on there is ended once it can be reached"
        return Outcome(State.INTERRUPTED, reason=f"ssh {destination}: the connection was lost; {then}")
