"""Who clients and machines are in a tailnet, with the real programs in a network of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..installing.hosts import why_not
from ..tailscale_double import Tailscale
from .programs import Home, eventually, log_in, make_home

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
KNOWN, TAGGED, STRANGE = "100.64.0.2", "100.64.0.3", "100.64.0.4"


class Net:
    """A network namespace with some addresses, a coordinator in it, and its stand-in for Tailscale.

    Who connects to one of the addresses comes from it, too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._name = f"clustersh-tailnet-{os.getpid()}"
        self.before = ("ip", "netns", "exec", self._name)
        self.tailscale = Tailscale(folder / "tailscale")
        self.tailscale.know(KNOWN, "user")
        self.tailscale.know(TAGGED, "tagged")
        self.homes: list[Home] = []
        self._ip("netns", "add", self._name)
        try:
            self._ip("-n", self._name, "link", "set", "lo", "up")
            for address in (KNOWN, TAGGED, STRANGE):
                self._ip("-n", self._name, "addr", "add", f"{address}/32", "dev", "lo")
            self.coordinator = self.home("coordinator")
            self.coordinator.environ.update(self.tailscale.environ(os.environ["PATH"]))
        except BaseException:
            self.stop()
            raise

    def home(self, name: str) -> Home:
        made = make_home(self.folder, name)
        made.before = self.before
        self.homes.append(made)
        return made

    def start(self, config: str = "") -> None:
        self.coordinator.path.mkdir()
        (self.coordinator.path / "config.toml").write_text(config)
        self.coordinator.start("clusterd", "--listen", "*:0")
        self.port = self.coordinator.address().rpartition(":")[2]

    def stop(self) -> None:
        for home in reversed(self.homes):
            home.stop()
        self._ip("netns", "delete", self._name)

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    made = Net(tmp_path)
    yield made
    made.stop()


def test_clients_and_machines_are_noted_and_discovered(net: Net) -> None:
    net.start()
    machine, client, local = net.home("machine"), net.home("client"), net.home("local")
    for home, address, name in ((machine, KNOWN, "web"), (local, "127.0.0.1", "here")):
        enrolled = home.run("clusteragent", "enroll", f"{address}:{net.port}", "--name", name)
        assert enrolled.status == 0, enrolled
    machine.start("clusteragent")
    log_in(net.coordinator, client, f"{TAGGED}:{net.port}")
    # From within the network: what this process asks doesn't get there.
    eventually(lambda: client.sh("machines", "--json").json["machines"][1]["status"] == "online")
    here, web = client.sh("machines", "--json").json["machines"]
    assert web["tailnet"] == {"login": "joshua@example.com", "node": "web01.tail1234.ts.net"}
    assert here["tailnet"] is None
    assert not [call for call in net.tailscale.calls if "127.0.0.1" in call]
    (listed,) = net.coordinator.run("clusterd", "clients", "--json").json["clients"]
    assert listed["tailnet"] == {"login": "tagged-devices", "node": "ci.tail1234.ts.net"}
    assert "tagged-devices on ci.tail1234.ts.net" in net.coordinator.run("clusterd", "clients").out
    audit = net.coordinator.run("clusterd", "audit").out
    assert audit.count("joshua@example.com on web01.tail1234.ts.net") == 1, "once, not at each link"
    # The program reports hub as the coordinator's own node.
    found = client.sh("discover", "--json").json
    assert {node["name"]: node["machine"] for node in found["nodes"]}["web01"] == "web"
    assert f"https://hub.tail1234.ts.net:{net.port}/install.sh" in found["line"]
    assert "--pinnedpubkey" in found["line"] and "TOKEN" not in found["line"]


def test_the_tailnet_may_be_required(net: Net) -> None:
    net.start("[enrollment]\ntailnet_only = true\n")
    for number, address in enumerate(("127.0.0.1", STRANGE)):
        refused = net.home(f"refused-{number}")
        for program, words in (("clusteragent", ("enroll",)), ("clustersh", ("login",))):
            done = refused.run(program, *words, f"{address}:{net.port}", "--name", "web")
            assert done.status == 125, done
            error, hint = done.err.splitlines()
            assert error == (
                f"ERROR: this coordinator lets in its tailnet alone, and its Tailscale doesn't know who is at {address}"
            )
            fix = f"tailscale whois {STRANGE}" if address == STRANGE else "have Tailscale run here (tailscale up)"
            assert hint.startswith("hint: ") and fix in hint
    assert net.coordinator.run("clusterd", "pending", "--json").json == {"pending": []}
    welcome = net.home("welcome")
    assert welcome.run("clusteragent", "enroll", f"{KNOWN}:{net.port}", "--name", "web").status == 0
    client = net.home("client")
    log_in(net.coordinator, client, f"{KNOWN}:{net.port}")


def test_a_program_that_hangs_delays_an_enrollment_for_seconds_only(net: Net) -> None:
    net.tailscale.hang()
    net.start()
    machine = net.home("machine")
    done = machine.run("clusteragent", "enroll", f"{KNOWN}:{net.port}", "--name", "web")
    assert done.status == 0, done
    assert done.seconds < 20
    assert [call for call in net.tailscale.calls if call.startswith("whois")], "it was asked"
