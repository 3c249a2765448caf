"""What the tests of running jobs share: a machine without a coordinator, and jobs on it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from clustersh.agent.environment import for_job
from clustersh.agent.executors import IExecutor
from clustersh.agent.executors.bash import Bash
from clustersh.agent.executors.chosen import Chosen, Everywhere
from clustersh.agent.launch import Launcher
from clustersh.agent.runner import Machinery, Runner
from clustersh.agent.tree import TreeEnder, boot_id
from clustersh.agent.workspace import Workspaces
from clustersh.blobs import BlobStore
from clustersh.wire.ids import UuidMaker
from clustersh.wire.jobs import Command
from clustersh.wire.link import Start, Witness
from clustersh.wire.output import Stream

new_uuid = UuidMaker(lambda: time.time_ns() // 1_000_000)
WITNESS = Witness(1, "00" * 32)
GRACE_S = 0.3


def start(shell: str | None = None, **more) -> Start:
    command = more.pop("command", None) or Command(shell=shell)
    fields = {"epoch": 1, "start_by": 1e12, "uuid": new_uuid(), "client": "anna@mba", "witness": WITNESS}
    return Start(**{**fields, "command": command, **more})


class Kept:
    """Output kept in memory."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Stream, bytes]] = []
        self.waiters: list[tuple[bytes, Deferred[None]]] = []
        self.pressure = None
        self.cut = None

    def write(self, stream: Stream, data: bytes) -> None:
        self.pieces.append((stream, data))
        for waiter in list(self.waiters):
            if waiter[0] in self.stdout:
                self.waiters.remove(waiter)
                waiter[1].callback(None)

    @property
    def stdout(self) -> bytes:
        return b"".join(data for stream, data in self.pieces if stream is Stream.STDOUT)

    @property
    def stderr(self) -> bytes:
        return b"".join(data for stream, data in self.pieces if stream is Stream.STDERR)

    async def shows(self, text: bytes) -> None:
        """Wait until *text* is in stdout."""
        if text not in self.stdout:
            waiter: Deferred[None] = Deferred()
            self.waiters.append((text, waiter))
            await waiter


class StoredBlobs:
    """A fetcher whose coordinator has nothing: only what is in the cache."""

    def __init__(self, folder: Path) -> None:
        self.cache = BlobStore(folder, 1 << 30)

    async def fetch(self, uuid, blob, wanted) -> None:
        self.cache.path(blob.sha256)


class RunningJob:
    def __init__(self, machinery: Machinery, message: Start) -> None:
        self.output = Kept()
        self.marks = []

        def writer(pressure, cut):
            self.output.pressure, self.output.cut = pressure, cut
            return self.output

        self.runner = Runner(machinery, message, writer)
        self.uuid = message.uuid
        self.done = Deferred.fromCoroutine(self.runner.run(self.marks.append))


class Host:
    """One machine that jobs run on."""

    def __init__(
        self, folder: Path, machine: str = "ws1", grace: float = GRACE_S, executor: IExecutor | None = None
    ) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.ender = TreeEnder(reactor, deferToThread, grace)
        self.blobs = StoredBlobs(folder / "blobs")
        chosen = Chosen(reactor, deferToThread, executor or Bash.find(os.environ))
        self.workspaces = Workspaces(folder / "work", self.home, self.blobs, deferToThread, elsewhere=chosen.elsewhere)
        self.machinery = Machinery(
            reactor,
            Launcher(reactor, chosen, lambda message: for_job(os.environb, message.uuid, machine, message.env)),
            self.workspaces,
            Everywhere(chosen, self.ender) if chosen.elsewhere else self.ender,
            machine,
            boot_id(),
        )

    def job(self, shell: str | None = None, **more) -> RunningJob:
        return RunningJob(self.machinery, start(shell, **more))

    async def run(self, shell: str | None = None, **more):
        """Run a job to its end; return (outcome, its output)."""
        job = self.job(shell, **more)
        result = await job.done
        return result.outcome, job.output


def alive(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


async def gone(pid: int) -> None:
    """Wait until the process is gone; the test's own time limit ends it else."""
    while alive(pid):
        await deferLater(reactor, 0.01)
