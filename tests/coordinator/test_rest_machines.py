"""`GET /v1/machines`, over a real door."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from clustersh.coordinator.key_book import Key
from clustersh.coordinator.links import Seen
from clustersh.coordinator.rest_machines import MachineCalls, Notes
from clustersh.coordinator.vitals import VitalsBook
from clustersh.frontend import complete
from clustersh.frontend.state import LOGIN_FILE, Login, client_folder
from clustersh.home import private_folder, write_json
from clustersh.rest_client import ANSWER_LIMIT
from clustersh.tailscale import Node
from clustersh.trust.credentials import Credentials
from clustersh.trust.identity import Role
from clustersh.wire.link import AskVitals, Facts, Vitals, VitalsReport
from clustersh.wire.rest import RunRequest

from .conftest import Front, Reply
from .world import JOSHUA, TRUE, Agent, World

ensure = pytest_twisted.ensureDeferred
SAID = Vitals(cpu=10.0, memory=20.0, disk_root=30.0, disk_home=None)


class FixedTailnet:
    def __init__(self) -> None:
        self.found: dict[str, Node] = {}

    async def nodes(self) -> Mapping[str, Node]:
        return self.found


class Place:
    """A coordinator with its machines web01 and web02, and the call to list them."""

    def __init__(self, world: World, front: Front) -> None:
        self.world = world
        self.front = front
        self.tailnet = FixedTailnet()
        self.book = VitalsBook(world.clock, world.fleet, world.table.running)
        world.fleet.on_vitals = self.book.said
        notes = Notes(lambda machine_id: ("web",), lambda machine_id: {"gpu": "yes"}, lambda vitals: vitals.cpu / 100)
        tailnet: Any = self.tailnet
        MachineCalls(world.registry, world.targets, world.fleet, self.book, tailnet, notes).add_to(front.api)

    async def agent(self, name: str) -> Agent:
        return await self.world.agent(name)

    async def reply(self, query: str = "") -> Reply:
        return await self.front.call("GET", f"/v1/machines{query}", Role.FRONTEND)

    async def machines(self, query: str = "") -> list[dict[str, Any]]:
        reply = await self.reply(query)
        assert reply.status == 200, reply
        return list(reply.json["machines"])


@pytest.fixture
def place(front: Front, tmp_path: Path) -> Iterator[Place]:
    world = World(tmp_path / "world")

    async def open_it() -> None:
        await world.load()
        for name in ("web01", "web02"):
            await world.join(name)

    pytest_twisted.blockon(Deferred.fromCoroutine(open_it()))
    yield Place(world, front)
    pytest_twisted.blockon(Deferred.fromCoroutine(world.stop()))


@ensure
async def test_what_is_known_of_a_machine_is_told(place: Place) -> None:
    agent = await place.agent("web01")
    agent.link.round_trip_s = 0.0123456
    place.world.fleet.received(agent.link, VitalsReport(SAID))
    place.world.clock.advance(7.0)
    place.tailnet.found = {"192.0.2.1": Node("web01", "web01.tail1234.ts.net", ("192.0.2.1",), True, "relayed")}
    web01, web02 = await place.machines()
    assert web01["status"] == "online"
    assert web01["vitals"] == {
        "cpu": 10.0, "memory": 20.0, "disk_root": 30.0, "disk_home": None, "jobs": 0, "uptime_s": 0.0, "load": None,
        "on_battery": None,
    }  # fmt: skip
    assert (web01["vitals_age_s"], web01["latency_ms"], web01["score"]) == (7.0, 12.35, 0.1)
    assert web01["tailscale"] == {"name": "web01", "online": True, "path": "relayed"}
    assert (web01["groups"], web01["labels"]) == (["web"], {"gpu": "yes"})
    unknown = ("vitals", "vitals_age_s", "latency_ms", "score", "last_seen")
    assert (web02["status"], [web02[each] for each in unknown]) == ("offline", [None] * 5)
    place.tailnet.found = {"192.0.2.9": Node("other", "", ("192.0.2.9",), True)}
    assert [each["tailscale"] for each in await place.machines()] == [None, None]


@ensure
async def test_of_a_machine_that_its_gateway_does_not_reach_nothing_old_is_told(place: Place) -> None:
    agent = await place.agent("web01")
    agent.link.round_trip_s = 0.01
    place.world.fleet.received(agent.link, VitalsReport(SAID))
    agent.pulse("ssh web01: the connection was lost")
    web01, web02 = await place.machines()
    assert (web01["status"], web01["unreached"]) == ("unreachable", "ssh web01: the connection was lost")
    assert [web01[each] for each in ("vitals", "vitals_age_s", "latency_ms", "score")] == [None] * 4
    assert web02["unreached"] is None
    agent.pulse()
    assert (await place.machines())[0]["vitals"]["cpu"] == 10.0


@ensure
async def test_only_those_of_a_target(place: Place) -> None:
    assert [each["name"] for each in await place.machines("?target=web02")] == ["web02"]
    assert (await place.reply("?target=web03")).problem == "unknown-machine"
    assert (await place.reply("?fresh=perhaps")).problem == "bad-request"


@ensure
async def test_fresh_asks_the_machines_first(place: Place) -> None:
    agent = await place.agent("web01")
    sent = agent.sent.append

    def answers(message: Any) -> None:
        sent(message)
        if isinstance(message, AskVitals):
            place.world.clock.callLater(
                0.0, place.world.fleet.received, agent.link, VitalsReport(SAID, message.request)
            )

    agent.link.send = answers
    assert [each["vitals"] for each in await place.machines("?fresh=false")] == [None, None]
    assert agent.count(AskVitals) == 0
    waiting = Deferred.fromCoroutine(place.machines("?target=web01&fresh=true"))
    while not agent.count(AskVitals):
        await place.reply("?target=web02")
    place.world.clock.advance(0.0)
    [web01] = await waiting
    assert web01["vitals"]["cpu"] == 10.0


@ensure
async def test_jobs_are_no_fewer_than_those_that_are_known_to_run(place: Place) -> None:
    agent = await place.agent("web01")
    uuid = await place.world.requests.take(JOSHUA, "key", RunRequest("web01", TRUE.command))
    agent.started(uuid)
    place.world.fleet.received(agent.link, VitalsReport(SAID))
    web01, _ = await place.machines()
    assert web01["vitals"]["jobs"] == 1
    agent.ended(uuid)
    await place.world.over(uuid)
    web01, _ = await place.machines()
    assert web01["vitals"]["jobs"] == 0


FACTS = Facts(
    "linux/amd64", "web00001.rack-12.example.net", "deploy", "/home/deploy", "3.13.1", "linux", "amd64", "debian-13",
    "6.12.48+deb13-amd64", 64, 256 << 30,
)  # fmt: skip


@ensure
async def test_of_five_thousand_machines_all_is_told_and_the_tab_key_asks_for_their_names_only(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, front = place.world, place.front
    world.targeting.calls(world.policy).add_to(front.api)
    world.targets.new_wait = True
    for number in range(5000):
        name, id_, key = f"web{number:05}", f"0193a0e2-7c40-7a01-8e52-{number:012}", f"{number:064x}"
        machine = Key(key, Role.AGENT, name, id_, "2001:db8::1", "2026-11-20T10:31:07.412Z", new=number == 4995)
        world.registry._book.enter(machine)
        world.fleet.seen[machine.id] = Seen(1.8e9, FACTS, "0.1.0", "2001:db8::1")
    reply = await place.reply()
    assert len(reply.json["machines"]) == 5002 and reply.json["machines"][1]["facts"]["cpus"] == 64
    assert len(reply.content) < ANSWER_LIMIT / 8, "there is room for ten times as many, with labels"
    assert len(reply.content) > complete._ANSWER_LIMIT / 2, "they are as large as real ones"
    home = tmp_path / "home"
    folder = private_folder(client_folder(private_folder(home)))
    own, certificate = front.credentials(Role.FRONTEND, "ann@box")
    Credentials(own, certificate, front.authority.certificate).save(folder)
    write_json(folder / LOGIN_FILE, Login(f"127.0.0.1:{front.port}"))
    monkeypatch.setattr(complete, "WITHIN_S", 60.0)
    monkeypatch.setattr(complete, "_ANSWER_LIMIT", 512 << 10)
    said: list[str] = []
    caller: Any = SimpleNamespace(home=home, console=SimpleNamespace(out_now=said.append))
    assert await deferToThread(complete.CompleteStart(caller, ("machines", "web0499")).at_once) == 0
    assert "".join(said).split() == [f"web{number:05}" for number in range(4990, 5000)]
    said.clear()
    await deferToThread(complete.CompleteStart(caller, ("machines", "@online,web0")).at_once)
    assert len("".join(said).split()) == 5002
