"""``clustersh discover``, with a coordinator's answers and a stand-in for Tailscale's program here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from clustersh.frontend.discover import match
from clustersh.tailscale import parse_status
from clustersh.tailscale_program import shown
from clustersh.wire.link import Facts
from clustersh.wire.rest import Carrier, Machine, Machines
from clustersh.wire.tailnet import TailnetNode, TailnetState, TailnetView

from ..tailscale_double import STATES, Tailscale
from .conftest import Caller
from .coordinator_double import Double

ensure = pytest_twisted.ensureDeferred
LINE, POWERSHELL = "curl https://hub.tail1234.ts.net:5672/install.sh | bash", "powershell -File $f"
NODES = shown(parse_status(STATES["running"]))
MACHINES = (
    Machine("web", "id1", "linux/amd64", "online", address="100.64.0.2", facts=Facts(hostname="elsewhere")),
    Machine("box", "id2", "linux/amd64", "online", address="127.0.0.1", facts=Facts(hostname="HUB.example.com")),
    Machine("other", "id3", "linux/amd64", "online", address="192.168.1.9", facts=Facts(hostname="other")),
)


class Coordinator:
    """What the double answers: *state* is its Tailscale's."""

    def __init__(self, double: Double) -> None:
        self.state, self.nodes, self.policy, self.problem = TailnetState.RUNNING, NODES, "open", ""
        self.asked: list[dict[str, str]] = []
        double.answers["GET /v1/tailnet"] = self.tailnet
        double.answers["GET /v1/machines"] = lambda query: Machines(MACHINES)

    def tailnet(self, query: dict[str, str]) -> TailnetView:
        self.asked.append(query)
        nodes = self.nodes if self.state is TailnetState.RUNNING else ()
        return TailnetView("hub", self.state, self.problem, nodes, LINE, POWERSHELL, self.policy)


@pytest.fixture
def coordinator(double: Double, caller: Caller) -> Coordinator:
    caller.environ["PATH"] = "/nowhere"
    return Coordinator(double)


@pytest.fixture
def tailscale(tmp_path: Path, caller: Caller, coordinator: Coordinator) -> Tailscale:
    made = Tailscale(tmp_path / "tailscale")
    caller.environ.update(made.environ(os.environ["PATH"]))
    return made


@ensure
async def test_the_coordinators_tailnet_with_its_machines_and_the_lines(
    caller: Caller, coordinator: Coordinator
) -> None:
    assert await caller("discover") == 0, caller.err
    assert caller.out.decode() == (
        "node   | os      | status                     | machine\n"
        "=======|=========|============================|========\n"
        "hub    | linux   | online                     | box\n"
        "laptop | windows | offline (last seen 2h ago) | -\n"
        "new01  | linux   | online                     | -\n"
        "phone  | iOS     | offline                    | -\n"
        "web01  | linux   | online                     | web\n"
        f"\nTo add a node (Linux, macOS), run there:\n{LINE}\n"
        f"\nTo add a node (Windows), run there:\n{POWERSHELL}\n"
    )
    assert caller.err == ""
    (query,) = coordinator.asked
    assert query["address"].startswith("127.0.0.1:")


@ensure
async def test_as_json(caller: Caller, coordinator: Coordinator) -> None:
    assert await caller("discover", "--json") == 0
    found = json.loads(caller.out)
    assert {node["name"]: node["machine"] for node in found["nodes"]} == {
        "hub": "box",
        "laptop": None,
        "new01": None,
        "phone": None,
        "web01": "web",
    }
    (laptop,) = [node for node in found["nodes"] if node["name"] == "laptop"]
    assert (laptop["online"], laptop["last_seen"]) == (False, "2026-11-20T08:30:07.500Z")
    assert (found["host"], found["line"], found["policy"]) == ("hub", LINE, "open")


@pytest.mark.parametrize(
    ("policy", "words"),
    [("token", "clusterd invite --token"), ("approve", "clusterd approve CODE"), ("open", "")],
)
@ensure
async def test_what_an_admin_has_to_do_is_said(
    caller: Caller, coordinator: Coordinator, policy: str, words: str
) -> None:
    coordinator.policy = policy
    assert await caller("discover") == 0
    assert (words in caller.err) if words else caller.err == ""


@ensure
async def test_where_nobody_is_left_no_line_is_shown(caller: Caller, coordinator: Coordinator) -> None:
    coordinator.nodes = tuple(node for node in NODES if node.name in ("hub", "web01", "phone"))
    coordinator.policy = "token"
    assert await caller("discover") == 0
    assert "curl" not in caller.out.decode() and caller.err == ""


@pytest.mark.parametrize("options", [(), ("--here",)])
@ensure
async def test_this_hosts_tailscale_is_asked(
    caller: Caller, coordinator: Coordinator, tailscale: Tailscale, options: tuple[str, ...]
) -> None:
    coordinator.state = TailnetState.MISSING
    coordinator.nodes = ()
    assert await caller("discover", "--json", *options) == 0, caller.err
    found = json.loads(caller.out)
    assert (found["host"], len(found["nodes"])) == ("this host", 5)
    assert tailscale.calls == ["status --json"]


@ensure
async def test_here_asks_here_although_the_coordinator_knows(
    caller: Caller, coordinator: Coordinator, tailscale: Tailscale
) -> None:
    tailscale.be("alone")
    assert await caller("discover", "--json", "--here") == 0
    assert [node["name"] for node in json.loads(caller.out)["nodes"]] == ["hub"]


@pytest.mark.parametrize(
    ("state", "message", "hint"),
    [
        ("stopped", "Tailscale is stopped on this host", "tailscale up"),
        ("logged out", "Tailscale is logged out on this host", "tailscale login"),
        ("unapproved", "this host waits to be let into its tailnet", "approves it"),
        ("starting", "Tailscale is only starting on this host", "try again"),
        ("no service", "Tailscale's service does not run on this host", "systemctl start tailscaled"),
        ("odd", "Tailscale can't be asked on this host: tailscale status --json: it is in a state", "tailscale status"),
    ],
)
@ensure
async def test_each_state_here_is_one_error_with_its_hint(
    caller: Caller, coordinator: Coordinator, tailscale: Tailscale, state: str, message: str, hint: str
) -> None:
    tailscale.be(state)
    assert await caller("discover", "--here") == 125
    error, help_ = caller.err.splitlines()
    assert error.startswith(f"ERROR: {message}")
    assert help_.startswith("hint: ") and hint in help_
    assert caller.out == b""


@pytest.mark.parametrize("state", [each for each in TailnetState if each is not TailnetState.RUNNING])
@ensure
async def test_where_neither_can_be_asked_both_are_said(
    caller: Caller, coordinator: Coordinator, state: TailnetState
) -> None:
    coordinator.state, coordinator.problem = state, "tailscale status --json: it failed"
    assert await caller("discover", "--json") == 125
    error, first, second = caller.err.splitlines()
    assert error.startswith("ERROR: ") and "hub" in error
    assert first.startswith("hint: ")
    assert second.startswith("hint: or: Tailscale is not installed on this host")
    assert json.loads(caller.out)["error"]["type"] == "unavailable"


def node(name: str, *addresses: str) -> TailnetNode:
    return TailnetNode(name, f"{name}.ts.net", addresses, "linux", online=True)


def machine(name: str, address: str, hostname: str = "", gateway: str = "") -> Machine:
    carrier = Carrier(gateway, name) if gateway else None
    facts = Facts(hostname=hostname)
    return Machine(name, name, "linux/amd64", "online", address=address, facts=facts, carrier=carrier)


@pytest.mark.parametrize(
    ("machines", "found"),
    [
        ((machine("a", "fd7a::1"),), [("web", "a"), ("web-1", None)]),
        ((machine("WEB", "10.0.0.1"),), [("web", "WEB"), ("web-1", None)]),
        ((machine("x", "10.0.0.1", "Web.example.com"),), [("web", "x"), ("web-1", None)]),
        ((machine("web", "100.64.0.2"),), [("web", None), ("web-1", "web")]),
        ((machine("web", "100.64.0.2"), machine("y", "10.0.0.1", "web")), [("web", "y"), ("web-1", "web")]),
        ((), [("web", None), ("web-1", None)]),
        ((machine("web", "10.0.0.1"), machine("zeta", "10.0.0.2", "web")), [("web", "web"), ("web-1", None)]),
        ((machine("x", "10.0.0.1", "web"), machine("y", "10.0.0.2", "web")), [("web", None), ("web-1", None)]),
        ((machine("a", "fd7a::1"), machine("b", "100.64.0.2")), [("web", "a"), ("web-1", "b")]),
        ((machine("a", "fd7a::1"), machine("z", "fd7a::1", gateway="a")), [("web", "a"), ("web-1", None)]),
        ((machine("a", "fd7a::1"), machine("web-1", "fd7a::1", gateway="a")), [("web", "a"), ("web-1", "web-1")]),
    ],
)
def test_the_address_that_a_machine_linked_from_says_more_than_names(machines: Any, found: Any) -> None:
    nodes = (node("web-1", "100.64.0.2"), node("web", "100.64.0.1", "fd7a::1"))
    assert [(each.name, each.machine) for each in match(nodes, machines)] == found


@ensure
async def test_nodes_of_one_name_are_told_apart_and_a_name_alone_is_no_match(
    caller: Caller, coordinator: Coordinator
) -> None:
    shared = TailnetNode("web01", "web01.other.ts.net", ("100.64.9.9",), "linux", online=True)
    mine = TailnetNode("web01", "web01.mine.ts.net", ("fd7a:115c:a1e0::77",), "linux", online=False)
    coordinator.nodes = (shared, mine)
    assert await caller("discover") == 0
    rows = caller.out.decode().splitlines()[2:4]
    assert [row.split(" | ")[0].strip() for row in rows] == ["web01.mine.ts.net", "web01.other.ts.net"]
    assert [row.split(" | ")[-1] for row in rows] == ["-", "-"], "which of them the machine web01 is, nobody knows"


@ensure
async def test_names_from_the_tailnet_can_not_steer_the_terminal(caller: Caller, coordinator: Coordinator) -> None:
    odd = "\x1b[2J\u202eevil\nfake | row"
    coordinator.nodes = (TailnetNode(odd, f"{odd}.ts.net", (), "\x1b]0;x\x07", online=True),)
    assert await caller("discover") == 0
    told = caller.out.decode()
    assert told.splitlines()[2].startswith("\\x1b[2J\\u202eevil\\nfake | row | \\x1b]0;x\\x07 | online | -")
    assert not set(told) & {"\x1b", "\x07", "\u202e"}
