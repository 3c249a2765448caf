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

from clustersh.agent.commands import choose
from clustersh.agent.state import AgentIdentity, StatusFile, load_identity
from clustersh.cli.console import Console
from clustersh.cli.invocation import Invocation, Signals, StdinReader
from clustersh.cli.program import supervise
from clustersh.home import ServiceLock, write_json
from clustersh.pairing_client import PENDING_FILE
from clustersh.trust.identity import certificate_sha256
from clustersh.trust.tls import load_client_policy

from ..pairing_coordinator import PairingCoordinator

ensure = pytest_twisted.ensureDeferred


class Caller:
    """Calls ``clusteragent`` as a shell would, its output into files."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.agent = folder / "home" / "agent"
        self.environ: dict[str, str] = {}
        self._files = [(folder / name).open("w+b") for name in ("out", "err")]

    async def __call__(self, *words: str) -> int:
        out, err = (file.fileno() for file in self._files)
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            invocation = Invocation(
                program="clusteragent",
                argv=words,
                cwd=self.folder,
                environ=self.environ,
                home=self.folder / "home",
                console=Console.on(out, err, {}, deferToThread),
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


@pytest.mark.parametrize("coordinator", ["token"], indirect=True)
@ensure
async def test_a_token_in_the_environment_lets_in(caller, coordinator):
    token, _ = await coordinator.tokens.create(60, 1)
    caller.environ["CLUSTERSH_TOKEN"] = f"{token.text}\n"
    assert await caller("enroll", coordinator.address.netloc, "--name", "ws1") == 0
    assert caller.said("out") == f"Enrolled as ws1, with the coordinator at {coordinator.address.netloc}.\n"
    assert coordinator.tokens.list()[0].used == 1
    for path in (path for path in caller.folder.rglob("*") if path.is_file()):
        assert token.secret.hex().encode() not in path.read_bytes(), path


@pytest.mark.parametrize("coordinator", ["token"], indirect=True)
@ensure
async def test_without_a_token_the_refusal_says_how_to_get_one_and_an_approval_works(caller, coordinator):
    netloc = coordinator.address.netloc
    assert await caller("enroll", netloc, "--name", "ws1") == 125
    said = caller.said("err")
    code = said.partition("clusterd approve ")[2].split()[0]
    assert said == (
        f"ERROR: the coordinator at {netloc} lets machines in by a join token, and none was given\n"
        f"hint: on ws1: clusterd token create; then here: CLUSTERSH_TOKEN=... clusteragent enroll {netloc}\n"
        f"hint: or on ws1: clusterd approve {code} (10 minutes); then here again: "
        f"clusteragent enroll {netloc} --name ws1\n"
    )
    await coordinator.approve(code)
    assert await caller("enroll", netloc, "--name", "ws1") == 0
    assert load_identity(caller.agent).machine == "ws1"


@pytest.mark.parametrize("coordinator", ["token"], indirect=True)
@ensure
async def test_a_token_that_is_no_good_is_one_error_without_the_token(caller, coordinator):
    token, _ = await coordinator.tokens.create(60, 1)
    for text, error in (
        (token.text[:-1], "CLUSTERSH_TOKEN: that is no join token"),
        (token.text[:-2] + ("00" if token.text[-2:] != "00" else "11"), "the coordinator did not make this join token"),
    ):
        caller.environ["CLUSTERSH_TOKEN"] = text
        assert await caller("enroll", coordinator.address.netloc, "--name", "ws1", "--json") == 125
        said = caller.said("err") + caller.said("out")
        assert said.startswith(f"ERROR: {error}"), said
        assert "clusterd token create" in said and text[13:] not in said


@ensure
async def test_the_configuration_says_which_coordinator_to_ask_and_its_ca(caller, coordinator):
    config = caller.folder / "home" / "config.toml"
    config.parent.mkdir()
    config.write_text(f'[join]\ncoordinator = "http://{coordinator.address.netloc}"\nca = "{"0" * 64}"\n')
    assert await caller("enroll", "--name", "ws1") == 125
    assert "is not the coordinator that --ca names (or [join] ca" in caller.said("err")
    right = certificate_sha256(coordinator.authority.certificate)
    assert await caller("enroll", "--name", "ws1", "--ca", right.upper()) == 0
    assert coordinator.secure == [False, False, True, True, True], "the pairing itself goes over TLS"
    assert load_identity(caller.agent).coordinator == coordinator.address.netloc


@ensure
async def test_a_name_beside_that_of_the_configuration_makes_no_sense(caller, coordinator):
    config = caller.folder / "home" / "config.toml"
    config.parent.mkdir()
    config.write_text('[agent]\nname = "db1"\n')
    assert await caller("enroll", coordinator.address.netloc, "--name", "ws1") == 125
    assert "config.toml says that this machine is called db1" in caller.said("err")
    assert await caller("enroll", coordinator.address.netloc) == 0, caller.said("err")
    assert load_identity(caller.agent).machine == "db1"


@ensure
async def test_the_host_name_is_folded_and_then_stays(caller, coordinator, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "WS-1.Example.ORG")
    assert await caller("enroll", coordinator.address.netloc) == 0
    assert load_identity(caller.agent).machine == "ws-1"
    monkeypatch.setattr("platform.node", lambda: "renamed")
    assert await caller("enroll", "--again") == 0
    assert load_identity(caller.agent).machine == "ws-1"


# -- leaving


@ensure
async def test_leaving_retires_the_machine_and_deletes_its_key(caller, coordinator):
    await caller("enroll", coordinator.address.netloc, "--name", "ws1")
    (caller.agent / "jobs").mkdir()
    caller.said("out")
    assert await caller("leave") == 0
    assert caller.said("out") == "ws1 has left; its key is deleted.\n"
    assert caller.said("err") == (
        f"hint: jobs and their outputs stay in {caller.agent}; to delete them: clusteragent leave --purge\n"
    )
    assert coordinator.taken == {}
    assert {path.name for path in caller.agent.iterdir()} == {"jobs", "lock"}
    assert await caller("leave", "--purge") == 0
    assert caller.said("out") == "Not enrolled; nothing to give up.\n"
    assert not caller.agent.exists()
    assert await caller("leave", "--json") == 0
    assert msgspec.json.decode(caller.said("out")) == {"machine": None, "retired": False, "kept": None}


@ensure
async def test_leaving_without_the_coordinator_has_to_be_forced(caller, coordinator):
    await caller("enroll", coordinator.address.netloc, "--name", "ws1")
    await coordinator.stop()
    assert await caller("leave") == 125
    said = caller.said("err")
    assert said.startswith("ERROR: the coordinator can't be told that ws1 leaves: nothing listens at")
    assert "clusteragent leave --force" in said and "clusterd forget ws1" in said
    assert load_identity(caller.agent).machine == "ws1"
    assert await caller("leave", "--force", "--purge") == 0
    assert "clusterd forget ws1" in caller.said("err")
    assert not caller.agent.exists()


@ensure
async def test_leaving_twice_goes_on_where_the_first_time_was_stopped(caller, coordinator):
    await caller("enroll", coordinator.address.netloc, "--name", "ws1")
    (caller.agent / "key.pem").unlink()
    assert await caller("leave", "--json") == 0
    out = caller.said("out").splitlines()[-1]
    assert msgspec.json.decode(out) == {"machine": "ws1", "retired": False, "kept": None}
    assert {path.name for path in caller.agent.iterdir()} == {"lock"}


@ensure
async def test_a_machine_that_was_forgotten_may_leave(caller, coordinator):
    await caller("enroll", coordinator.address.netloc, "--name", "ws1")
    coordinator.taken.clear()
    caller.said("out")
    assert await caller("leave", "--json") == 0
    assert msgspec.json.decode(caller.said("out")) == {"machine": "ws1", "retired": True, "kept": None}
    assert {path.name for path in caller.agent.iterdir()} == {"lock"}


@ensure
async def test_jobs_that_were_put_elsewhere_by_a_link_are_deleted_there(caller, coordinator, tmp_path):
    (tmp_path / "roomy").mkdir()
    caller.agent.parent.mkdir(exist_ok=True)
    caller.agent.symlink_to(tmp_path / "roomy")
    await caller("enroll", coordinator.address.netloc, "--name", "ws1")
    (tmp_path / "roomy" / "jobs").mkdir()
    assert await caller("leave", "--purge") == 0, caller.said("err")
    assert not caller.agent.is_symlink() and not (tmp_path / "roomy").exists()


@ensure
async def test_leaving_is_not_for_an_agent_that_runs(caller, coordinator):
    await caller("enroll", coordinator.address.netloc, "--name", "ws1")
    lock = ServiceLock(caller.agent)
    lock.take()
    assert await caller("leave", "--purge") == 125
    assert "stop the agent first" in caller.said("err")
    lock.release()
    assert load_identity(caller.agent).machine == "ws1"


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
async def test_status_waits_for_the_link(caller):
    caller.agent.mkdir(parents=True, mode=0o700)
    write_json(caller.agent / "agent.json", AgentIdentity("10.0.0.5:5672", "ws1", "id-1"))
    assert await caller("status", "--wait", "200ms") == 1
    assert "the agent does not run" in caller.said("out")
    waiting = Deferred.fromCoroutine(caller("status", "--wait", "60s"))
    lock, status = ServiceLock(caller.agent), StatusFile(caller.agent)
    lock.take()
    status.write("connection refused", 0)
    await deferLater(reactor, 0.3)
    assert not waiting.called
    status.write("", 0)
    assert await waiting == 0
    assert "link:        connected\n" in caller.said("out")
    lock.release()


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
