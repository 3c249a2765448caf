"""The files of jobs on a machine that only has ssh: put together here, then sent as one tar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from ...home import private_folder
from ...wire.link import Start
from ..executors import ExecutorError, Task
from ..fetch import Abandoned, BlobFetcher, InThread
from ..workspace import Workspace, WorkspaceError, Workspaces, is_kept
from .commands import Ended, run
from .connection import Connections, Program
from .ender import SshEnder, folder_of
from .header import is_staged
from .scripts import REMOVE, UNPACK

_SEND_S = 3600.0
_REMOVE_S = 5.0
"""A client waits for that; what takes longer is done later."""
_LOOK_S = 0.5


class SshWorkspaces(Workspaces):
    """Makes workspaces in *folder* for jobs on the other side."""

    def __init__(
        self,
        folder: Path,
        fetcher: BlobFetcher,
        in_thread: InThread,
        program: Program,
        connections: Connections,
        ender: SshEnder,
        machine: str,
    ) -> None:
        super().__init__(folder, Path("/"), fetcher, in_thread, elsewhere=True)
        self.program = program
        self.connections = connections
        self.ender = ender
        self.machine = machine

    def of(self, start: Start, wanted: Callable[[], bool]) -> Workspace:
        """Return the workspace of a job."""
        return _SshWorkspace(self, start, wanted)

    async def clear(self, uuid: str) -> None:
        """Remove what is left of a job, there too."""
        if not is_kept(self.folder, uuid):
            await self.remove_there(uuid)
        await super().clear(uuid)

    async def remove_there(self, uuid: str) -> None:
        """Remove what is left there of the job *uuid*, now or with what its ender has left for later."""
        if self.ender.has_left(uuid):
            return
        try:
            await run(self.program, self.connections, REMOVE, folder_of(uuid, self.machine), _REMOVE_S)
        except (ExecutorError, Ended) as error:
            self.ender.later(uuid, str(error))


class _SshWorkspace(Workspace):
    _all: SshWorkspaces
    _sent = False

    async def prepare(self) -> Task:
        task = await super().prepare()
        if task.files is None and not is_staged(task):
            return task
        if is_staged(task):
            content = task.script if task.script is not None else (task.command.shell or "").encode()
            await self._all.in_thread(self._write, content)
        self._sent = True
        try:
            await self._send()
        except ExecutorError as error:
            self._sent = False
            raise WorkspaceError(str(error)) from error
        except Ended as error:
            raise WorkspaceError(f"its files can't be put in place there: {error}") from error
        return task

    async def _send(self) -> None:
        """Send the job's folder. Raises ExecutorError and Ended, and Abandoned once the job isn't wanted any more."""
        reactor = self._all.program.reactor
        where = folder_of(self._start.uuid, self._all.machine)
        sending = Deferred.fromCoroutine(
            run(self._all.program, self._all.connections, UNPACK, where, _SEND_S, str(self._folder))
        )
        looking = LoopingCall(lambda: None if self._wanted() else sending.cancel())
        looking.clock = reactor
        looking.start(_LOOK_S, now=False)
        try:
            await sending
        except CancelledError as error:
            raise Abandoned from error
        finally:
            looking.stop()

    async def remove(self) -> None:
        await super().remove()
        if self._sent and not (self._start.keep_files and self._start.files is not None):
            await self._all.remove_there(self._start.uuid)

    def _write(self, content: bytes) -> None:
        path = private_folder(self._folder) / "command"
        path.write_bytes(content)
        path.chmod(0o700)
