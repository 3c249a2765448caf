"""`clustersh machines`: targets, the health table at any width, and looking at it again and again."""

from __future__ import annotations

import json
import signal
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from clustersh.frontend import health, health_watch
from clustersh.wire.link import Vitals
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import Carrier, Machine, Machines
from clustersh.wire.tailnet import Tailscale

from .conftest import Caller
from .coordinator_double import Double

ensure = pytest_twisted.ensureDeferred
NOW = 1795170667.0
SAID = Vitals(cpu=20.4, memory=35.0, disk_root=12.0, disk_home=81.6, jobs=2)
WEB01 = Machine(
    "web01", "1", "linux/amd64", "online", version="0.1.0", groups=("prod", "web"), vitals=SAID, vitals_age_s=0.2,
    score=0.28, latency_ms=1.234, tailscale=Tailscale("web01", online=True, path="direct"),
)  # fmt: skip
WEB02 = Machine(
    "web02", "2", "linux/amd64", "offline", last_seen="2026-11-20T08:11:07Z", version="0.1.0", vitals=SAID, score=0.28,
    tailscale=Tailscale("web02", online=False),
)  # fmt: skip
NEW = Machine("mac", "3", "", "online", new=True, vitals=Vitals(3.0, 4.0), latency_ms=123.4, tailscale=None)


def table(width: int | None, *machines: Machine) -> list[str]:
    return health.render(machines, NOW, width).splitlines()


def titles(width: int | None, *machines: Machine) -> list[str]:
    return [title.strip() for title in table(width, *machines)[0].split("|")]


def test_the_health_table_tells_what_is_known_and_of_the_offline_nothing_old() -> None:
    header, rule, *rows = table(None, WEB01, WEB02, NEW)
    assert [cell.strip() for cell in header.split("|")] == [
        *("name", "groups", "status", "latency", "tailscale", "score", "cpu", "memory", "disk", "jobs", "version")
    ]
    assert rule.startswith("======|==========|") and len(rule) == max(map(len, rows)) + 2
    assert [[cell.strip() for cell in row.split("|")] for row in rows] == [
        ["web01", "prod,web", "online", "1.2 ms", "online, direct", "0.28", "20%", "35%", "82%", "2", "0.1.0"],
        ["web02", "-", "offline (last seen 2h ago)", "-", "offline", "-", "-", "-", "-", "-", "0.1.0"],
        ["mac", "-", "online (new)", "123 ms", "-", "-", "3%", "4%", "-", "0", "-"],
    ]


def test_why_a_machine_is_unreachable_is_told_and_takes_a_terminals_width_only_to_a_point() -> None:
    why = "ssh nas: nas.example.net port 22 can't be reached from gate: no route to host"
    nas = Machine("nas", "4", "", "unreachable", last_seen="2026-11-20T08:11:07Z", unreached=why)
    assert f"unreachable ({why})" in table(None, nas)[2]
    assert "unreachable (ssh nas: nas.example.net port 22" in table(100, WEB01, nas)[3]
    assert titles(100, WEB01, nas)[-1] == titles(100, WEB01, WEB02)[-1]


def test_which_gateway_carries_a_machine_has_a_column_where_one_is_carried() -> None:
    nas = msgspec.structs.replace(NEW, name="nas", carrier=Carrier("gateway-1", "joshua@nas.lan"))
    _, _, *rows = table(None, WEB01, nas)
    at = titles(None, WEB01, nas).index("via")
    assert [row.split("|")[at].strip() for row in rows] == ["-", "gateway-1"]
    assert "via" not in titles(None, WEB01, NEW)


def test_without_tailscale_there_is_no_column_for_it() -> None:
    assert "tailscale" in titles(None, WEB01, NEW)
    assert "tailscale" not in titles(None, NEW)


def test_narrow_terminals_lose_columns_before_cells_are_cut() -> None:
    everything = before = titles(None, WEB01, WEB02)
    for width in range(150, 19, -1):
        lines = table(width, WEB01, WEB02)
        assert max(map(len, lines)) <= width, (width, lines)
        left = titles(width, WEB01, WEB02)
        assert len(left) <= len(before), "a column came back"
        if len(left) > 2:
            assert "offline (last seen 2h ago)" in lines[3]
        before = left
    assert len(before) == 2 and table(20, WEB01)[2].startswith("web01")
    gone = [title for title in everything if title not in titles(100, WEB01, WEB02)]
    assert gone == ["tailscale", "version"]
    assert titles(80, WEB01, WEB02) == ["name", "status", "score", "cpu", "memory", "disk", "jobs"]


def test_many_groups_take_a_terminals_width_only_to_a_point() -> None:
    many = msgspec.structs.replace(WEB01, groups=tuple(f"group{number}" for number in range(30)))
    assert "group29" in table(None, many)[2]
    assert "groups" in titles(160, many)


def test_names_can_not_steer_the_terminal() -> None:
    odd = msgspec.structs.replace(WEB01, version="1\x1b[2J", groups=("a\nb",))
    assert "1\\x1b[2J" in table(None, odd)[2] and "a\\nb" in table(None, odd)[2] and len(table(None, odd)) == 3


@ensure
async def test_targets_and_the_long_form(caller: Caller, double: Double) -> None:
    double.answers["GET /v1/machines"] = lambda query: Machines((WEB01,))
    assert await caller("machines", "@web", "-x", "web02,web03") == 0
    assert double.queries[-1] == {"target": "@web", "exclude": "web02,web03"}
    assert caller.out.decode().splitlines()[2] == "web01 | linux/amd64 | online"
    assert await caller("machines", "-l") == 0
    assert double.queries[-1] == {"fresh": "true"}
    assert caller.out.decode().splitlines()[-1].endswith("| 20% | 35%    | 82%  | 2    | 0.1.0")
    before = len(caller.out)
    assert await caller("machines", "--long", "web01", "--exclude", "web02", "--json") == 0
    assert double.queries[-1] == {"target": "web01", "exclude": "web02", "fresh": "true"}
    [told] = json.loads(caller.out[before:])["machines"]
    assert (told["vitals"]["memory"], told["score"], told["tailscale"]["path"]) == (35.0, 0.28, "direct")


@ensure
async def test_a_target_that_is_wrong_is_told(caller: Caller, double: Double) -> None:
    double.refuse = ProblemError(Kind.UNKNOWN_GROUP, "there is no group @wbe", hint="did you mean @web?")
    assert await caller("machines", "--watch", "@wbe") == 125
    assert caller.err == "ERROR: there is no group @wbe\nhint: did you mean @web?\n"


class Watched:
    """A coordinator whose answers the test makes, and `machines --watch` on it with its output in a file."""

    def __init__(self, caller: Caller, double: Double) -> None:
        self.caller = caller
        self.double = double
        self.status: Deferred[int] | None = None

    def start(self, *words: str) -> None:
        self.status = Deferred.fromCoroutine(self.caller("machines", "--watch", *words))

    async def until(self, what: Any) -> None:
        while not what():
            assert self.status is not None and not self.status.called, (self.caller.out, self.caller.err)
            await deferLater(self.caller.reactor, 0.01)

    async def end(self, number: int) -> int:
        assert self.status is not None
        self.caller.signals.deliver(number)
        return await self.status


@pytest.fixture
def watched(caller: Caller, double: Double, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(health_watch, "EVERY_S", 0.05)
    monkeypatch.setattr(health_watch, "LEAST_REST_S", 0.01)
    double.answers["GET /v1/machines"] = lambda query: Machines((WEB01,))
    return Watched(caller, double)


@ensure
async def test_piped_one_table_follows_the_other(watched: Watched) -> None:
    watched.start("web01")
    await watched.until(lambda: watched.caller.out.count(b"web01 |") >= 3)
    assert await watched.end(signal.SIGINT) == 0
    assert b"\x1b" not in watched.caller.out
    assert {query["target"] for query in watched.double.queries} == {"web01"}
    tables = watched.caller.out.decode().split("\n\n")
    assert {each.strip() for each in tables} == {"\n".join(table(None, WEB01))}


@ensure
async def test_piped_json_is_a_document_a_line(watched: Watched) -> None:
    watched.start("--json")
    await watched.until(lambda: watched.caller.out.count(b"\n") >= 3)
    assert await watched.end(signal.SIGTERM) == 128 + signal.SIGTERM
    for line in watched.caller.out.splitlines():
        assert json.loads(line)["machines"][0]["name"] == "web01"


@ensure
async def test_a_coordinator_that_is_away_is_told_once_and_waited_for(watched: Watched) -> None:
    watched.start()
    await watched.until(lambda: b"web01 |" in watched.caller.out)
    watched.double.refuse = ProblemError(Kind.UNAVAILABLE, "the coordinator begins")
    calls = len(watched.double.calls)
    await watched.until(lambda: len(watched.double.calls) >= calls + 4)
    assert watched.caller.err == "ERROR: the coordinator begins\n"
    before = len(watched.caller.out)
    watched.double.refuse = None
    await watched.until(lambda: len(watched.caller.out) > before)
    assert await watched.end(signal.SIGINT) == 0


@ensure
async def test_what_no_waiting_mends_ends_it(watched: Watched) -> None:
    watched.start()
    await watched.until(lambda: b"web01 |" in watched.caller.out)
    watched.double.refuse = ProblemError(Kind.UNKNOWN_MACHINE, "no machine is called 'web01'")
    assert watched.status is not None and await watched.status == 125
    assert watched.caller.err == "ERROR: no machine is called 'web01'\n"


@ensure
async def test_a_signal_ends_it_while_it_asks(watched: Watched) -> None:
    watched.double.answers["GET /v1/machines"] = lambda query: None  # never answered
    watched.start()
    await watched.until(lambda: watched.double.calls)
    assert await watched.end(signal.SIGINT) == 0
    assert watched.caller.out == b""
