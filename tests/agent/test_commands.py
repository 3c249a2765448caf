"""``clusteragent enroll`` and ``status``, against real pairings."""

from __future__ import annotations

import os

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from clustersh.agent.main import choose
from clustersh.agent.state import AgentIdentity, StatusFile, load_identity
from clustersh.cli.console import Console
from clustersh.cli.invocation import Invocation, Signals, StdinReader
from clustersh.cli.program import supervise
from clustersh.home import ServiceLock, write_json
from clustersh.pairing_client import PENDING_FILE
from clustersh.trust.tls import load_client_policy

from ..pairing_coordinator import PairingCoordinator

ensure = pytest_twisted.ensureDeferred


class Caller:
    """Calls ``clusteragent`` as a shell would, its output into files."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.agent = folder / "home" / "agent"
        self._files = [(folder / name).open("w+b") for name in ("out", "err")]

    async def __call__(self, *words: str) -> int:
        out, err = (file.fileno() for file in self._files)
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            invocation = Invocation(
                program="clusteragent",
                argv=words,
                cwd=self.folder,
                environ={},
                home=self.folder / "home",
                console=Console(out, err, {}, deferToThread),
                stdin=StdinReader(null, deferToThread),
                signals=Signals(lambda number: None),
                in_thread=deferToThread,
            )
            return await supervise(invocation, lambda reactor: choose(invocation)(reactor), reactor)
        finally:
            os.close(null)

    def said(self, name: str) -> str:
        """Return what was printed since this was last asked."""
        file = self._files[("out", "err").index(name)]
        file.seek(0)
        text = file.read().decode()
        file.seek(0)
        file.truncate()
        return text

    def close(self) -> None:
        for file in self._files:
            file.close()


@pytest.fixture
def caller(tmp_path):
    caller = Caller(tmp_path)
    yield caller
    caller.close()


@pytest.fixture
def coordinator(tmp_path, request):
    coordinator = PairingCoordinator(tmp_path / "ca", policy=getattr(request, "param", "open"))
    yield coordinator
    pytest_twisted.blockon(Deferred.fromCoroutine(coordinator.stop()))


@ensure
async def test_open_enrollment_needs_nobody(caller, coordinator):
    assert await caller("enroll", coordinator.address.netloc, "--name", "WS1") == 0
    assert caller.said("out") == f"Enrolled as ws1, with the coordinator at {coordinator.address.netloc}.\n"
    assert caller.said("err") == ""
    assert load_identity(caller.agent) == AgentIdentity(coordinator.address.netloc, "ws1", "id-1")
    load_client_policy(caller.agent)
    assert not (caller.agent / PENDING_FILE).exists()


@ensure
async def test_enrolling_again_changes_nothing_unless_told(caller, coordinator):
    netloc = coordinator.address.netloc
    await caller("enroll", netloc, "--name", "ws1")
    caller.said("out")
    assert await caller("enroll", "--json") == 0
    assert msgspec.json.decode(caller.said("out")) == {
        "machine": "ws1",
        "id": "id-1",
        "coordinator": netloc,
        "again": True,
    }
    assert await caller("enroll", netloc, "--name", "other") == 125
    assert "--again replaces that" in caller.said("err")
    assert await caller("enroll", "--again", "--name", "other") == 0
    assert load_identity(caller.agent).machine == "other"


@pytest.mark.parametrize("coordinator", ["approve"], indirect=True)
@ensure
async def test_an_enrollment_that_wants_a_yes_waits_for_it(caller, coordinator):
    enrolled = Deferred.fromCoroutine(caller("enroll", coordinator.address.netloc, "--name", "ws1"))
    asked = ""
    while "clusterd approve" not in asked:
        await deferLater(reactor, 0.01)
        asked += caller.said("err")
    code = asked.partition("clusterd approve ")[2].split()[0]
    await coordinator.approve(code)
    assert await enrolled == 0
    assert load_identity(caller.agent).machine == "ws1"


@ensure
async def test_a_name_that_anothers_key_holds(caller, coordinator, tmp_path):
    await caller("enroll", coordinator.address.netloc, "--name", "ws1")
    (tmp_path / "second").mkdir()
    second = Caller(tmp_path / "second")
    assert await second("enroll", coordinator.address.netloc, "--name", "ws1") == 125
    assert "belongs to another key" in second.said("err")
    second.close()


@ensure
async def test_enroll_without_an_address_asks_for_one(caller):
    assert await caller("enroll") == 125
    assert "which coordinator?" in caller.said("err")
    assert await caller("enroll", "http://a/b") == 125


@ensure
async def test_a_coordinator_that_is_another_than_pinned(caller, coordinator):
    assert await caller("enroll", coordinator.address.netloc, "--ca", "00" * 32) == 125
    assert "is not the coordinator that --ca names" in caller.said("err")


@ensure
async def test_status_of_a_machine_that_is_not_enrolled(caller):
    assert await caller("status") == 125
    assert "is not enrolled" in caller.said("err")


@ensure
async def test_status_says_whether_it_runs_and_is_connected(caller):
    caller.agent.mkdir(parents=True, mode=0o700)
    write_json(caller.agent / "agent.json", AgentIdentity("10.0.0.5:5672", "ws1", "id-1"))
    assert await caller("status") == 1
    assert "the agent does not run" in caller.said("out")
    lock, status = ServiceLock(caller.agent), StatusFile(caller.agent)
    lock.take()
    assert await caller("status") == 1
    assert "only begun" in caller.said("out")
    status.write("connection refused", 0)
    assert await caller("status") == 1
    assert "not connected: connection refused" in caller.said("out")
    status.write("", 2)
    assert await caller("status") == 0
    assert "jobs:        2 running\n" in caller.said("out")
    assert await caller("status", "--json") == 0
    assert msgspec.json.decode(caller.said("out")) == {
        "machine": "ws1",
        "coordinator": "10.0.0.5:5672",
        "running": True,
        "connected": True,
        "problem": "",
        "jobs": 2,
        "pid": os.getpid(),
    }
    lock.release()
