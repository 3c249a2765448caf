"""Kept connections, and what goes over them, with a stand-in for ssh: what nobody uses or wants any more is ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from clustersh.agent.executors import Task
from clustersh.agent.executors.bash import LONGEST_ARGUMENT
from clustersh.agent.fetch import Abandoned
from clustersh.agent.process import ProcessListener, SpawnError
from clustersh.agent.ssh.commands import Ended, run
from clustersh.agent.ssh.connection import MAX_SESSIONS, Connections, Program
from clustersh.agent.ssh.reach import SshReach
from clustersh.agent.ssh.workspace import SshWorkspaces
from clustersh.wire.jobs import Outcome, State

from .jobs_support import StoredBlobs, gone, new_uuid, start

pytestmark = pytest.mark.real
STAND_IN = """\
#!/bin/sh
case " $* " in *" ControlMaster=yes "*) echo clustersh-ready; exec sed -u s/^/clustersh-ready/ ;; esac
echo "$*" >>{folder}/commands
[ -e {folder}/ends ] || exec sleep 301
"""


@pytest.fixture
def connections(tmp_path: Path) -> Connections:
    (tmp_path / "ssh").write_text(STAND_IN.format(folder=tmp_path))
    (tmp_path / "ssh").chmod(0o700)
    program = Program(reactor, str(tmp_path / "ssh"), os.environb, tmp_path, "here")
    return Connections(program, "nas", lambda said: None)


COMMANDS = {"sed": ["sed", "-u", "s/^/clustersh-ready/"], "sleep": ["sleep", "301"]}


def running(name: str) -> list[int]:
    """Return the stand-ins that this process started and that are *name* by now; other tests have some of that name."""
    found = []
    for each in psutil.Process().children(recursive=True):
        try:
            if each.cmdline() == COMMANDS[name] and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
        except psutil.NoSuchProcess:
            continue
    return found


async def until_running(name: str, number: int) -> list[int]:
    deadline = time.monotonic() + 60
    while len(found := running(name)) != number:
        assert time.monotonic() < deadline, f"there are {found}"
        await deferLater(cast(Any, reactor), 0.01)
    return found


@pytest_twisted.ensureDeferred
async def test_connections_that_nothing_goes_over_are_ended_but_for_one(connections: Connections) -> None:
    taken = [await connections.take() for _ in range(MAX_SESSIONS + 1)]
    first, second = taken[0], taken[-1]
    assert set(taken) == {first, second}
    await until_running("sed", 2)
    for _ in range(3):
        connections.close_idle()
    assert second.usable, "a command goes over it"
    for each in taken:
        each.leave()
    connections.close_idle()
    assert second.usable, "it was of use a moment ago"
    connections.close_idle()
    taken = [await connections.take() for _ in range(MAX_SESSIONS + 1)]
    assert set(taken) >= {first} and second not in taken, "nothing goes over what is being closed"
    assert len(await until_running("sed", 2)) == 2
    connections.close()
    await until_running("sed", 0)


@pytest_twisted.ensureDeferred
async def test_what_takes_too_long_is_ended_with_all_that_it_started(connections: Connections, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    running_it = Deferred.fromCoroutine(run(connections._program, connections, "true", "x", 3.0, str(tmp_path)))
    (sending,) = await until_running("sleep", 1)
    with pytest.raises(Ended, match="it did not end within 3 seconds"):
        await running_it
    await gone(sending)
    connections.close()
    await until_running("sed", 0)


@pytest_twisted.ensureDeferred
async def test_the_files_of_a_job_that_is_not_wanted_any_more_are_not_sent_on(
    connections: Connections, tmp_path: Path
) -> None:
    wanted = ["so far"]
    blobs: Any = StoredBlobs(tmp_path / "blobs")
    ender: Any = None
    program = connections._program
    spaces = SshWorkspaces(tmp_path / "work", blobs, deferToThread, program, connections, ender, "nas")
    sending = Deferred.fromCoroutine(spaces.of(start(":" * (LONGEST_ARGUMENT + 1)), lambda: bool(wanted)).prepare())
    (pid,) = await until_running("sleep", 1)
    wanted.clear()
    with pytest.raises(Abandoned):
        await sending
    await gone(pid)
    connections.close()
    await until_running("sed", 0)


@pytest_twisted.ensureDeferred
async def test_a_job_that_does_not_start_leaves_its_place(connections: Connections, tmp_path: Path) -> None:
    program = connections._program
    reach = SshReach(program, deferToThread, tmp_path, "nas", "nas", 0.1)
    for way in ("abandoned", "no ssh") * (MAX_SESSIONS + 1):
        message = start("true")
        launch = await reach.launcher.ready(message, Task(message.command, tmp_path, tmp_path, uuid=message.uuid))
        if way == "abandoned":
            launch.abandon()
        else:
            with pytest.raises(SpawnError):
                launch._replace(argv=[b"/no/such"]).spawn(ProcessListener())
    assert len(await until_running("sed", 1)) == 1
    reach.close()
    await until_running("sed", 0)


@pytest_twisted.ensureDeferred
async def test_that_it_is_reached_no_more_is_told_at_once_with_the_reason(
    connections: Connections, tmp_path: Path
) -> None:
    refuses = "#!/bin/sh\necho 'ssh: connect to host nas port 22: Connection refused' >&2; exit 255\n"
    reach = SshReach(connections._program, deferToThread, tmp_path, "nas", "nas", 0.1)
    told: list[str] = []
    reach.reached.watch(lambda: told.append(reach.reached.problem))

    async def until_told(*what: str) -> None:
        deadline = time.monotonic() + 60
        while told != list(what):
            assert time.monotonic() < deadline, told
            await deferLater(cast(Any, reactor), 0.01)
        told.clear()

    assert reach.reached.problem == "", "nobody has tried"
    await reach.connect()
    assert told == [], "nothing has changed"
    (first,) = await until_running("sed", 1)
    os.kill(first, signal.SIGKILL)
    await until_told("ssh nas: the connection was lost", "")
    (second,) = await until_running("sed", 1)
    (tmp_path / "ssh").write_text(refuses)
    os.kill(second, signal.SIGKILL)
    await until_told("ssh nas: the connection was lost")
    assert await reach.measure(0) is None, "it is tried again, some time"
    await until_told("ssh nas: nothing listens on nas port 22")
    (tmp_path / "ssh").write_text(STAND_IN.format(folder=tmp_path))
    await reach.connect()
    await until_told("")
    reach.close()
    await until_running("sed", 0)
    assert told == [], "it was let go of"


class Listener(ProcessListener):
    """Waits for the outcome of a job."""

    def __init__(self) -> None:
        self.outcome: Deferred[Outcome] = Deferred()

    def gone(self, outcome: Outcome) -> None:
        self.outcome.callback(outcome)


@pytest_twisted.ensureDeferred
async def test_no_variable_of_a_job_is_one_of_its_ssh(connections: Connections, tmp_path: Path) -> None:
    reach = SshReach(connections._program, deferToThread, tmp_path, "nas", "nas", 0.1)
    message = start("true", env={"SSH_AUTH_SOCK": "s3cret"})
    task = Task(message.command, tmp_path, tmp_path, uuid=message.uuid, env=message.env)
    listener = Listener()
    (await reach.launcher.ready(message, task)).spawn(listener)
    (ssh,) = await until_running("sleep", 1)
    assert "s3cret" not in str(psutil.Process(ssh).environ())
    reach.close()
    os.kill(ssh, signal.SIGKILL)
    outcome = await listener.outcome
    assert outcome.state is State.INTERRUPTED and "ended once it can be reached" in str(outcome.reason)
    await until_running("sed", 0)


@pytest.mark.parametrize("keep", [False, True])
@pytest_twisted.ensureDeferred
async def test_what_can_not_be_ended_now_is_ended_later_over_the_same_connection(
    keep: bool, connections: Connections, tmp_path: Path
) -> None:
    uuid = new_uuid()
    reach = SshReach(connections._program, deferToThread, tmp_path, "nas", "nas", 0.1)
    await reach.connect()
    reach._ender.later(uuid, "it takes too long")
    if keep:
        (tmp_path / "work" / uuid).mkdir(parents=True)
        (tmp_path / "work" / uuid / "keep").touch()
    (tmp_path / "ends").touch()
    await reach.measure(0)
    while reach._ender.has_left(uuid):
        await deferLater(cast(Any, reactor), 0.01)
    assert len(running("sed")) == 1
    assert ("rm -rf" in (tmp_path / "commands").read_text()) != keep
    reach.close()
    await until_running("sed", 0)
