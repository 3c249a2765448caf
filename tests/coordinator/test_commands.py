"""``clusterd`` against a running service, and where there is none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.usage import UsageError

from clustersh.address import parse_address
from clustersh.cli.console import Console
from clustersh.cli.errors import CliError
from clustersh.cli.errors import UsageError as CliUsageError
from clustersh.cli.invocation import Invocation, Signals, StdinReader
from clustersh.cli.program import supervise
from clustersh.config import Config, parse_listen
from clustersh.coordinator import admin_client
from clustersh.coordinator.audit_command import since_when
from clustersh.coordinator.audit_text import describe
from clustersh.coordinator.commands import choose
from clustersh.coordinator.plugin import Options
from clustersh.coordinator.records import (
    Enrolled,
    Forgotten,
    JobEnded,
    MachineRef,
    Renamed,
    Repaired,
    RunRequested,
    TokenCreated,
    TokenRevoked,
)
from clustersh.coordinator.service import CoordinatorService, make_service
from clustersh.home import read_running
from clustersh.pairing_client import Pairing
from clustersh.rest_client import RestClient
from clustersh.trust.identity import Role
from clustersh.wire.jobs import Command, Outcome, State
from clustersh.wire.units import parse_timestamp

NOW = parse_timestamp("2026-11-20T10:00:00Z")
UUID = "01992f3e-0000-7000-8000-0000c41f9a02"


async def in_thread(function: Any) -> Any:
    return await deferToThread(function)


class Terminal:
    """Runs commands and keeps what they print."""

    def __init__(self, folder: Path, home: Path, environ: dict[str, str] | None = None) -> None:
        self.home = home
        self.environ = environ or {}
        self._paths = (folder / "out", folder / "err")

    def invocation(self, words: Sequence[str], out: int, err: int) -> Invocation:
        return Invocation(
            program="clusterd",
            argv=words,
            cwd=self.home,
            environ=self.environ,
            home=self.home,
            console=Console.on(out, err, {}, in_thread),
            stdin=StdinReader(0, in_thread),
            signals=Signals(lambda number: None),
            in_thread=in_thread,
            now=lambda: NOW,
        )

    async def run(self, *words: str) -> tuple[int, str, str]:
        with self._paths[0].open("wb") as out, self._paths[1].open("wb") as err:
            invocation = self.invocation(words, out.fileno(), err.fileno())
            status = await supervise(invocation, choose(invocation), reactor)
        return status, self._paths[0].read_text(), self._paths[1].read_text()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[CoordinatorService]:
    made = make_service(reactor, tmp_path / "home", Config(), parse_listen("127.0.0.1:0"))
    made.startService()
    pytest_twisted.blockon(made._starting)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(stopped(made)))


async def stopped(service: CoordinatorService) -> None:
    await service.stopService()


@pytest.fixture
def terminal(service: CoordinatorService, tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, tmp_path / "home")


async def ask_to_join(terminal: Terminal, tmp_path: Path, role: Role, name: str) -> tuple[Pairing, Any, RestClient]:
    running = read_running(terminal.home / "coordinator")
    assert running is not None
    address = parse_address(running.address)
    client = RestClient(reactor, address, None)
    pairing = Pairing(reactor, client, tmp_path / name, role)
    return pairing, await pairing.start(name), client


@pytest_twisted.ensureDeferred
async def test_an_invitation_may_carry_a_join_token(terminal: Terminal) -> None:
    status, out, _ = await terminal.run("invite", "--token", "2h", "--address", "hub")
    assert status == 0
    (token,) = set(re.findall(r"CLUSTERSH_TOKEN=(\S+) bash", out))
    assert f"$env:CLUSTERSH_TOKEN = '{token}'" in out
    (listed,) = json.loads((await terminal.run("token", "list", "--json"))[1])["tokens"]
    assert (listed["id"], listed["uses"]) == (token.partition("-")[0], 1)
    assert "CLUSTERSH_TOKEN" not in (await terminal.run("invite", "--address", "hub"))[1]
    with pytest.raises(CliUsageError):
        await terminal.run("invite", "--token", "--client")
    with pytest.raises(CliUsageError):
        await terminal.run("invite", "--dry-run")


@pytest_twisted.ensureDeferred
async def test_from_login_to_revocation(terminal: Terminal, tmp_path: Path) -> None:
    _, started, client = await ask_to_join(terminal, tmp_path, Role.FRONTEND, "ann@mba")
    status, out, _ = await terminal.run("pending")
    assert (status, out.splitlines()[0].split(" | ")[0].strip()) == (0, "name")
    assert "ann@mba | frontend | 127.0.0.1" in out
    assert started.code.code not in out
    status, out, err = await terminal.run("approve", "00000000" if started.code.code != "00000000" else "00000001")
    assert (status, out) == (125, "")
    assert err.startswith("ERROR: no pending request has this code")
    assert "clustersh logout" in err
    status, out, _ = await terminal.run("approve", started.code.code)
    assert status == 0
    assert out.splitlines()[0] == "Allowed ann@mba (frontend) from 127.0.0.1."
    assert f"check: {started.code.check}" in out
    status, out, _ = await terminal.run("clients", "--json")
    (known,) = json.loads(out)["clients"]
    assert (known["name"], known["revoked"]) == ("ann@mba", None)
    assert await terminal.run("revoke", "ann@mba") == (0, "Revoked ann@mba.\n", "")
    status, out, _ = await terminal.run("clients")
    assert "revoked 20" in out
    status, _, err = await terminal.run("revoke", "bob@mba")
    assert (status, err.splitlines()[0]) == (125, "ERROR: no client is called 'bob@mba'")
    await client.close()


@pytest_twisted.ensureDeferred
async def test_machines_and_forget(terminal: Terminal, tmp_path: Path) -> None:
    pairing, _, client = await ask_to_join(terminal, tmp_path, Role.AGENT, "ws1")
    assert await pairing.poll() is not None
    status, out, _ = await terminal.run("machines")
    assert (status, out.splitlines()[2].split(" | ")[0].strip()) == (0, "ws1")
    assert await terminal.run("forget", "ws1") == (0, "Forgot ws1.\n", "")
    status, out, _ = await terminal.run("machines", "--json")
    assert json.loads(out) == {"machines": []}
    await client.close()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["create", "ab" * 6], "revoke, and only that, takes a token's id"),
        (["revoke"], "revoke, and only that, takes a token's id"),
        (["list", "--uses", "2"], "--ttl and --uses go with create"),
        (["create", "--uses", "0"], "a token is for 1 to 100000 machines"),
        (["create", "--ttl", "0"], "a token is good for at least 1 second and at most 366 days"),
        (["create", "--ttl", "5"], "argument --ttl"),
        (["make"], "takes create, list or revoke, not 'make'"),
        ([], "arguments are required"),
    ],
)
def test_token_arguments_that_make_no_sense(tmp_path: Path, words: list[str], error: str) -> None:
    with pytest.raises(CliUsageError, match=error):
        choose(Terminal(tmp_path, tmp_path).invocation(("token", *words), 1, 2))


@pytest_twisted.ensureDeferred
async def test_tokens(terminal: Terminal) -> None:
    status, out, err = await terminal.run("token", "create", "--ttl", "90s", "--uses", "3")
    id_ = out.partition("-")[0]
    assert status == 0 and len(out) == 54
    assert err.startswith("hint: lets 3 machines in until ") and 'policy is "open": no machine is asked for' in err
    status, listed, _ = await terminal.run("token", "list")
    assert f"{id_} | usable | 0 of 3 | " in listed and out.strip() not in listed
    assert await terminal.run("token", "revoke", out.strip()) == (0, f"Revoked the token {id_}.\n", "")
    status, _, err = await terminal.run("token", "revoke", id_, "--json")
    assert (status, err.splitlines()[0]) == (125, f"ERROR: the token {id_} was revoked already")


@pytest_twisted.ensureDeferred
async def test_audit(terminal: Terminal, tmp_path: Path) -> None:
    pairing, _, client = await ask_to_join(terminal, tmp_path, Role.AGENT, "ws1")
    await pairing.poll()
    status, out, _ = await terminal.run("audit")
    assert status == 0
    assert "| enrolled | ws1" in out
    status, out, _ = await terminal.run("audit", "--machine", "ws1", "--json")
    assert [record["name"] for record in json.loads(out)["records"]] == ["ws1"]
    status, out, _ = await terminal.run("audit", "verify")
    assert (status, out.startswith("the chain is whole: ")) == (0, True)
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_changed_ledger_is_found(terminal: Terminal) -> None:
    (ledger,) = (terminal.home / "coordinator" / "ledger").glob("*.jsonl")
    ledger.write_bytes(ledger.read_bytes().replace(b"first start", b"later start"))
    status, out, err = await terminal.run("audit", "verify")
    assert (status, out) == (1, "")
    assert err.startswith("ERROR: the ledger is broken at record ")


@pytest_twisted.ensureDeferred
async def test_no_service_is_one_clear_error(tmp_path: Path) -> None:
    for home in (tmp_path / "nowhere", tmp_path):
        (tmp_path / "coordinator").mkdir(exist_ok=True)
        status, out, err = await Terminal(tmp_path, home).run("pending")
        assert (status, out) == (125, "")
        assert err.startswith(f"ERROR: no coordinator is running on the state in {home / 'coordinator'}\nhint: ")
        assert "clusterd" in err


@pytest.mark.parametrize("environ", [{}, {"CLUSTERSH_HOME": "/var/lib/clustersh"}])
def test_another_user_s_state_names_the_sudo_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    folder = tmp_path / "coordinator"
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)
    monkeypatch.setattr(admin_client, "_owner", lambda path: "clusterd")
    terminal = Terminal(tmp_path, tmp_path, environ)
    with pytest.raises(CliError) as caught:
        admin_client.check_readable(folder, terminal.invocation(("approve", "1a2b3c4d"), 1, 2))
    setting = "env CLUSTERSH_HOME=/var/lib/clustersh " if environ else ""
    assert caught.value.hints == (f"sudo -u clusterd {setting}clusterd approve 1a2b3c4d",)
    program = tmp_path / "bin" / "clusterd"
    program.parent.mkdir()
    program.touch(0o700)
    terminal.environ["PATH"] = str(program.parent)
    with pytest.raises(CliError) as caught:
        admin_client.check_readable(folder, terminal.invocation(("pending",), 1, 2))
    assert caught.value.hints == (f"sudo -u clusterd {setting}{program} pending",)


@pytest_twisted.ensureDeferred
async def test_the_installed_service_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_client, "SERVICE_HOME", tmp_path)
    monkeypatch.setattr(admin_client, "_owner", lambda path: "clusterd")
    _, _, err = await Terminal(tmp_path, tmp_path / "nowhere").run("approve", "1a2b3c4d")
    assert f"hint: sudo -u clusterd env CLUSTERSH_HOME={tmp_path} clusterd approve 1a2b3c4d\n" in err


@pytest.mark.parametrize("code", ["1a2b3c4", "1a2b3c4d5", "zzzzzzzz", "\udcff"])
def test_what_can_be_no_code_is_not_counted_as_a_wrong_one(tmp_path: Path, code: str) -> None:
    with pytest.raises(CliUsageError, match=r"is no code|is not UTF-8"):
        choose(Terminal(tmp_path, tmp_path).invocation(("approve", code), 1, 2))


def test_since_is_a_time_or_an_age() -> None:
    assert since_when("2h", NOW) == "2026-11-20T08:00:00.000Z"
    assert since_when("2026-11-20T10:31:07+01:00", NOW) == "2026-11-20T09:31:07.000Z"
    for text in ("yesterday", "2026-11-20T10:31:07", "2"):
        with pytest.raises(CliUsageError):
            since_when(text, NOW)


def test_records_in_words() -> None:
    run = RunRequested(
        UUID, "ann@mba", "c", "k", "d", "ws*", (MachineRef("ws1", "1"), MachineRef("ws2", "2")), Command(shell="ls -la")
    )
    assert describe(run) == ("run c41f9a02", "ann@mba", "ws1 ws2", "ls -la")
    ended = JobEnded(UUID, "ws1", "1", Outcome.exited(2), duration_s=12, started="2026-11-20T10:00:00Z")
    assert describe(ended) == ("ended c41f9a02", "", "ws1", "failed (exit 2) after 12s")
    lost = JobEnded(UUID, "ws1", "1", Outcome(State.LOST, reason="machine forgotten"))
    assert describe(lost).details == "lost (machine forgotten)"
    assert describe(JobEnded(UUID, "ws1", "1", Outcome(State.CANCELLED, signal=15))).details == "cancelled (signal 15)"
    enrolled = Enrolled("agent", "ws1", "1", "f" * 64, "10.0.0.1", "open")
    assert describe(enrolled).details == "agent from 10.0.0.1, approved by open, key ffffffffffffffff"
    token = "ab" * 6
    enrolled = Enrolled("agent", "ws1", "1", "f" * 64, "10.0.0.1", "token", token)
    assert describe(enrolled).details == f"agent from 10.0.0.1, approved by token {token}, key ffffffffffffffff"
    renamed = Renamed("agent", "db1", "1", "f" * 64, "10.0.0.1", "admin", "ws1")
    assert describe(renamed) == ("renamed", "db1", "", "was ws1; agent from 10.0.0.1, approved by admin")
    assert describe(Forgotten("ws1", "1", "f" * 64, "itself")).details == "by itself, key ffffffffffffffff"
    until = "2026-11-20T11:00:00Z"
    assert describe(TokenCreated(token, 1, until)) == (f"token {token}", "", "", f"for 1 machine until {until}")
    assert describe(TokenRevoked(token)) == (f"token {token}", "", "", "revoked")
    assert describe(Repaired("1.jsonl", 7, "1.jsonl.cut")).what == "repaired"


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ([], "*:5672"),
        (["--port", "7000"], "*:7000"),
        (["--listen", "127.0.0.1:0"], "127.0.0.1:0"),
        (["--listen", "[::1]:1", "--port", "2"], "[::1]:2"),
    ],
)
def test_where_the_options_say_to_listen(words: list[str], where: str) -> None:
    options = Options()
    options.parseOptions(words)
    assert options.listen(Config()) == where


@pytest.mark.parametrize("words", [["--port", "70000"], ["--port", "x"], ["--listen", "a b"]])
def test_options_that_make_no_sense(words: list[str]) -> None:
    with pytest.raises(UsageError):
        Options().parseOptions(words)
