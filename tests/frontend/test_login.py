"""login, logout, whoami and the overview, against a coordinator that pairs for real."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from clustersh.coordinator.pairing import PENDING_S
from clustersh.trust.identity import Role, certificate_sha256
from clustersh.wire.jobs import State
from clustersh.wire.pairing import PairProgress
from clustersh.wire.rest import Job, JobPage, Machine

from ..fake_coordinator import Answer, later, reactor
from ..pairing_coordinator import PairingCoordinator
from .conftest import Caller

MACHINES = (
    Machine("ws1", "m1", "linux/amd64", "online"),
    Machine("ws2", "m2", "linux/amd64", "online"),
    Machine("mba", "m3", "darwin/arm64", "offline", "2026-11-20T08:31:07Z"),
)
UUID = "01992f3e-7c1a-7abc-8def-0123c41f9a02"


class World:
    """A coordinator and a caller's shell; output since the last look is `out` and `err`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.coordinator = PairingCoordinator(folder / "ca", self.clock)
        self.coordinator.machines = MACHINES
        self.address = self.coordinator.address
        self.shell = Caller(folder, reactor)
        self.shell.environ["USER"] = "Joshua"
        self.client = folder / "home" / "client"
        self._seen = [0, 0]

    def look(self) -> tuple[str, str]:
        found = self.shell.out.decode(), self.shell.err
        shown = found[0][self._seen[0] :], found[1][self._seen[1] :]
        self._seen = [len(found[0]), len(found[1])]
        return shown

    async def __call__(self, *words: str) -> tuple[int, str, str]:
        status = await self.shell(*words)
        return (status, *self.look())

    async def login(self, *words: str) -> tuple[int, str, str]:
        """Log in, with the approval given as soon as it is asked for."""
        running = Deferred.fromCoroutine(self.shell("login", str(self.address), *words))
        code = ""
        while not code and not running.called:
            await later(0.01)
            out, err = self.shell.out.decode()[self._seen[0] :], self.shell.err[self._seen[1] :]
            found = re.findall(r"clusterd approve ([0-9a-f]{8})", out + err)
            code = found[-1] if found else ""
        if code and not running.called:
            await self.coordinator.approve(code)
        return (await running, *self.look())

    async def stop(self) -> None:
        self.shell.close()
        await self.coordinator.stop()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("socket.gethostname", lambda: "MBA.local")
    monkeypatch.setattr(Caller, "invocation", _at_the_real_time(Caller.invocation))
    made = World(tmp_path)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.stop()))


def _at_the_real_time(invocation: Callable[..., Any]) -> Callable[..., Any]:
    """Certificates are made now, so the caller's clock has to be near."""
    import time

    def made(self: Caller, *words: str) -> Any:
        found = invocation(self, *words)
        found.now = time.time
        return found

    return made


@pytest_twisted.ensureDeferred
async def test_login_asks_waits_and_says_who_one_is(world: World) -> None:
    status, out, err = await world.login()
    asked, check, done = out.splitlines()
    assert re.fullmatch(r"To allow joshua@mba, run on ws1:  clusterd approve [0-9a-f]{8}   \(10 minutes\)", asked)
    assert re.search(r"check digits [0-9a-f]{4};", check)
    assert done == "Logged in as joshua@mba. 3 machines, 2 online. Try: clustersh machines"
    assert (status, err) == (0, "")
    assert stat.S_IMODE(world.client.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in world.client.iterdir()} == {0o600}
    assert not (world.client / "pending.json").exists()


@pytest_twisted.ensureDeferred
async def test_a_login_left_alone_is_taken_up_by_the_next_command(world: World) -> None:
    status, out, _ = await world("login", str(world.address), "--no-wait", "--name", "me@here")
    assert status == 0
    line = out.splitlines()[0]
    assert line.startswith("To allow me@here, run on ws1:  clusterd approve ")
    status, out, err = await world("machines")
    assert (status, out) == (125, "")
    assert err == f"ERROR: login not approved yet\nhint: {line}\n"
    again = await world("login", str(world.address), "--no-wait", "--name", "me@here")
    assert again[1].splitlines()[0] == line
    await world.coordinator.approve(line.split()[-3])
    status, out, err = await world("whoami")
    assert (status, err) == (0, "")
    assert out.startswith("me@here (frontend), key ")
    assert (await world("machines"))[0] == 0


@pytest_twisted.ensureDeferred
async def test_a_login_that_expires_or_is_refused(world: World) -> None:
    await world("login", str(world.address), "--no-wait")
    world.clock.advance(PENDING_S + 1)
    status, _, err = await world("machines")
    assert status == 125
    assert "not approved within 10 minutes" in err
    status, _, err = await world("machines")
    assert (status, err.splitlines()[0]) == (125, "ERROR: not logged in")
    world.coordinator.taken[Role.FRONTEND, "joshua@mba"] = "another key"
    status, _, err = await world("login", str(world.address))
    assert status == 125
    assert "belongs to another key" in err
    assert "--name" in err


@pytest_twisted.ensureDeferred
async def test_already_logged_in(world: World) -> None:
    await world.login()
    calls = len(world.coordinator.calls)
    status, out, err = await world("login")
    assert (status, err) == (0, "")
    assert out == f"Already logged in as joshua@mba at {world.address}; --again replaces that.\n"
    status, out, err = await world("login", "elsewhere")
    assert status == 125
    assert "clustersh login --again http://elsewhere:5672" in err
    assert len(world.coordinator.calls) == calls
    before = (world.client / "key.pem").read_bytes()
    status, out, _ = await world.login("--again")
    assert (status, out.splitlines()[-1][:24]) == (0, "Logged in as joshua@mba.")
    assert (world.client / "key.pem").read_bytes() == before  # else the name would be another key's


@pytest_twisted.ensureDeferred
async def test_the_name_that_was_asked_for_is_asked_for_again(world: World) -> None:
    asked = await world("login", str(world.address), "--no-wait", "--name", "ann@other")
    assert asked[1].startswith("To allow ann@other, ")
    assert await world("login", "--no-wait") == asked  # pending: the same code
    await world.login()
    status, out, _ = await world.login("--again")
    assert (status, out.splitlines()[-1][:23]) == (0, "Logged in as ann@other.")


@pytest.mark.parametrize(("count", "words"), [(1, "1 machine, "), (3, "3 machines, ")])
@pytest_twisted.ensureDeferred
async def test_whoami_counts_machines(world: World, count: int, words: str) -> None:
    world.coordinator.machines = MACHINES[:count]
    await world.login()
    assert f": {words}" in (await world("whoami"))[1]


@pytest_twisted.ensureDeferred
async def test_an_older_login_works_on_while_another_is_pending(world: World) -> None:
    await world.login()
    status, _, _ = await world("login", "--again", "--no-wait", "--name", "other@mba")
    assert status == 0
    assert (await world("whoami"))[1].startswith("joshua@mba ")


@pytest_twisted.ensureDeferred
async def test_logout_gives_the_name_up_and_deletes_the_key(world: World) -> None:
    await world.login()
    status, out, err = await world("logout")
    assert (status, list(world.client.iterdir())) == (0, [])
    assert (out, err) == ("Logged out; the key is deleted.\n", "")
    assert world.coordinator.taken == {}
    assert (await world("logout"))[1] == "Not logged in; nothing to do.\n"
    status, _, err = await world("whoami")
    assert (status, err.splitlines()[0]) == (125, "ERROR: not logged in")
    assert "clustersh login http://HOST:5672" in err


@pytest_twisted.ensureDeferred
async def test_logout_without_the_coordinator_says_how_to_free_the_name(world: World) -> None:
    await world.login()
    await world.coordinator.stop()
    status, out, err = await world("logout")
    assert (status, list(world.client.iterdir())) == (0, [])
    assert out == "Logged out; the key is deleted.\n"
    assert err == "hint: to free the name, run on 127.0.0.1: clusterd revoke joshua@mba\n"


@pytest_twisted.ensureDeferred
async def test_the_configuration_says_which_coordinator_to_ask_and_its_ca(world: World) -> None:
    config = world.folder / "home" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(f'[join]\ncoordinator = "{world.address.netloc}"\nca = "{"0" * 64}"\n')
    status, _, err = await world("login", "--no-wait")
    assert status == 125 and "is not the coordinator that --ca names (or [join] ca" in err, err
    right = certificate_sha256(world.coordinator.authority.certificate)
    config.write_text(f'[join]\ncoordinator = "{world.address.netloc}"\nca = "{right.upper()}"\n')
    status, out, _ = await world("login", "--no-wait")
    assert status == 0 and "clusterd approve " in out
    assert world.coordinator.calls[:3] == ["GET /ca.pem", "GET /ca.pem", "POST /pair"]
    assert world.coordinator.secure == [False, False, True, True], "the pairing itself goes over TLS"


@pytest_twisted.ensureDeferred
async def test_logout_gives_up_a_pending_login(world: World) -> None:
    await world("login", str(world.address), "--no-wait")
    await world("logout")
    assert list(world.client.iterdir()) == []


@pytest.mark.parametrize("right", [True, False])
@pytest_twisted.ensureDeferred
async def test_verify_asks_for_the_check_digits(world: World, right: bool) -> None:
    reading, writing = os.pipe()
    os.close(world.shell.stdin)
    world.shell.stdin = reading
    running = Deferred.fromCoroutine(world.shell("login", str(world.address), "--verify"))
    while b"approve" not in world.shell.out:
        await later(0.01)
    out = world.look()[0]
    assert "check digits" not in out
    approved = await world.coordinator.approve(out.split()[-3])
    os.write(writing, f"{approved.check if right else 'xxxx'}\n".encode())
    os.close(writing)
    status = await running
    out, err = world.look()
    assert "The check digits that clusterd approve shows: " in err
    if right:
        assert (status, out[:24]) == (0, "Logged in as joshua@mba.")
    else:
        assert status == 125
        assert "the check digits differ" in err
        assert not (world.client / "cert.pem").exists()
        assert not (world.client / "pending.json").exists()


@pytest_twisted.ensureDeferred
async def test_a_pinned_ca(world: World) -> None:
    status, _, err = await world("login", str(world.address), "--ca", "ab" * 32)
    assert status == 125
    assert "is not the coordinator that --ca names" in err
    pin = certificate_sha256(world.coordinator.authority.certificate)
    assert (await world.login("--ca", pin))[0] == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("login",), "which coordinator?"),
        (("login", "ws1/path"), "without a path"),
        (("login", "ws1", "--ca", "12"), "64 hex digits"),
        (("login", "ws1", "--name", "-"), "can't be a client's name"),
        (("login", "ws1", "--verify", "--no-wait"), "--verify"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_arguments_that_make_no_sense(world: World, words: tuple[str, ...], complaint: str) -> None:
    status, out, err = await world(*words)
    assert (status, out) == (125, "")
    assert complaint in err


@pytest_twisted.ensureDeferred
async def test_json_prints_one_document_each(world: World) -> None:
    status, out, _ = await world("login", str(world.address), "--no-wait", "--json")
    pending = json.loads(out)
    assert (status, pending["status"], pending["approve"]) == (0, "pending", f"clusterd approve {pending['code']}")
    await world.coordinator.approve(pending["code"])
    status, out, _ = await world.login("--json")
    assert json.loads(out) == {
        "status": "logged-in",
        "name": "joshua@mba",
        "coordinator": world.address.netloc,
        "machines": 3,
        "online": 2,
    }
    assert json.loads((await world("login", "--json"))[1])["status"] == "logged-in"
    assert json.loads((await world("whoami", "--json"))[1])["name"] == "joshua@mba"
    assert json.loads((await world("--json"))[1])["online"] == ["ws1", "ws2"]
    logged_out = {"logged_out": True, "name": "joshua@mba", "revoked": True}
    assert json.loads((await world("logout", "--json"))[1]) == logged_out
    assert json.loads((await world("whoami", "--json"))[1])["error"]["type"] == "no-certificate"


def a_job(command: str, status: State, **fields: Any) -> Job:
    return Job(UUID, "ws1", "joshua@mba", command, "", status, "2026-11-20T10:31:07Z", **fields)


@pytest_twisted.ensureDeferred
async def test_the_overview_fits_in_a_kilobyte(world: World) -> None:
    await world.login()
    long = "x" * 64
    world.coordinator.machines = tuple(
        Machine(f"{number:02}{long}"[:64], str(number), "linux/amd64", "online" if number % 2 else "offline")
        for number in range(60)
    )
    one = a_job("make \x1b[2J" + long * 9, State.RUNNING, started="2026-11-20T10:31:07Z")
    running = [msgspec.structs.replace(one, uuid=f"{UUID[:-2]}{number:02}") for number in range(20)]
    running[1:1] = [msgspec.structs.replace(running[0], machine=f"{number:02}{long}"[:64]) for number in range(60)]
    failed = a_job("false " + long, State.FAILED, exit_code=1, duration_s=3.0)
    world.coordinator.pages = {"status=running": JobPage(tuple(running)), "status=failed": JobPage((failed,))}
    status, out, err = await world()
    assert (status, err) == (0, "")
    assert len(out.encode()) < 1024
    assert "\x1b" not in out
    lines = out.splitlines()
    assert lines[1] == f"you: joshua@mba at {world.address}"
    assert [line.partition(":")[0] for line in lines[2:]] == [
        "online", "offline", "running", "running", "running", "last failure", "next", "next", "next",
    ]  # fmt: skip
    assert "and 18 more: clustersh history --status running" in out
    assert f"running: {running[0].uuid[-8:]} on [00-59]xxx" in out
    assert "failed (exit 1) after 3s" in out
    assert f"clustersh cat ws1 {UUID[-8:]}" in out


@pytest_twisted.ensureDeferred
async def test_the_overview_names_the_broken_hop(world: World) -> None:
    status, _, err = await world()
    assert (status, err.splitlines()[0]) == (125, "ERROR: not logged in")
    await world.login()
    world.coordinator.machines = ()
    out = (await world())[1]
    assert "online: none" in out
    assert "next: clusteragent enroll " in out
    await world.coordinator.stop()
    status, out, err = await world()
    assert (status, out) == (125, "")
    error, hint = err.splitlines()
    assert error.startswith("ERROR: the way to the coordinator is broken: nothing listens at 127.0.0.1:")
    assert "clusterd" in hint


@pytest_twisted.ensureDeferred
async def test_who_pretends_to_be_the_coordinator_is_noticed(world: World, tmp_path: Path) -> None:
    await world.login()
    other = PairingCoordinator(tmp_path / "impostor")
    (world.client / "login.json").write_bytes(msgspec.json.encode({"coordinator": other.address.netloc}))
    status, _, err = await world()
    await other.stop()
    assert status == 125
    assert "is not the coordinator that this program was paired with" in err
    assert f"clustersh login --again {other.address}" in err
    assert other.calls == []


@pytest_twisted.ensureDeferred
async def test_who_lets_a_client_in_before_its_code_could_be_typed_is_no_coordinator(world: World) -> None:
    pairings = world.coordinator.pairings
    reveal = pairings.reveal

    async def approve_at_once(*asked: Any) -> PairProgress:
        await reveal(*asked)
        [pairing] = pairings._pairings.values()
        await world.coordinator.approve(pairing.code.code)
        return await pairings.progress(pairing.id, 0.0)

    pairings.reveal = approve_at_once  # type: ignore[method-assign]
    status, out, err = await world("login", str(world.address))
    assert (status, out) == (125, "")
    assert "before anybody could type the code" in err and "nothing was kept" in err
    assert not (world.client / "pending.json").exists() and not (world.client / "cert.pem").exists()


@pytest_twisted.ensureDeferred
async def test_something_else_at_that_port(world: World) -> None:
    world.coordinator.fake.handler = lambda asked: Answer(b"<html>RabbitMQ</html>", kind="text/html")
    status, _, err = await world("login", str(world.address))
    assert status == 125
    assert "answers, but not as a coordinator does" in err


@pytest_twisted.ensureDeferred
async def test_a_user_without_a_name_has_a_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    del world.shell.environ["USER"]
    _, out, _ = await world("login", str(world.address), "--no-wait")
    assert out.startswith(f"To allow uid-{os.getuid()}@mba, ")
