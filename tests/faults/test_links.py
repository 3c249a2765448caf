"""The links cut, slow, delayed and silent while commands run: nothing is lost, nothing runs twice."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ..real.programs import Home, eventually, log_in
from .proxy import Proxy, free_port
from .services import AGENT_CONFIG, FaultyCluster, faulty_cluster, user_home, workplace
from .steps import Steps, times_run

AGENT, CLIENT = "agent", "client"
SILENT = {"up": "stall-up", "down": "stall-down", "both": "stall", "lost": "lose"}
"""Machines, and how their links fall silent."""
NOTICED_S = 30.0
"""Seconds in which a link that carries nothing any more must be noticed."""
SLACK_S = 5.0
"""For a machine that has much else to do."""
LINES = 60_000
MANY_LINES = 1_300_000


@dataclass
class Linked:
    """A cluster whose agent, and whose client *far*, reach the coordinator through *proxy*."""

    cluster: FaultyCluster
    far: Home
    proxy: Proxy

    def add_agent(self, name: str) -> Home:
        """Enroll and start the agent of another machine, through its own front."""
        home = user_home(self.cluster.folder, name, AGENT_CONFIG)
        assert home.run("clusteragent", "enroll", f"http://{self.proxy.address(name)}", "--name", name).status == 0
        home.start("clusteragent")
        return home


@pytest.fixture(scope="module")
def linked() -> Iterator[Linked]:
    proxies: list[Proxy] = []

    def through(address: str) -> str:
        back = int(address.rpartition(":")[2])
        proxies.append(Proxy({front: free_port() for front in (AGENT, CLIENT, *SILENT)}, back))
        return proxies[0].address(AGENT)

    try:
        with workplace() as folder, faulty_cluster(folder, through=through) as cluster:
            far = user_home(folder, "far")
            log_in(cluster.coordinator, far, proxies[0].address(CLIENT), "far@away")
            yield Linked(cluster, far, proxies[0])
            far.stop()
            cluster.check_alive()
    finally:
        for proxy in proxies:
            proxy.stop()


@pytest.fixture(autouse=True)
def well_again(linked: Linked) -> Iterator[None]:
    yield
    for front in (AGENT, CLIENT):
        linked.proxy.tell("well", front)
    linked.cluster.until_status("ws1", "online")


@pytest.fixture
def steps(linked: Linked) -> Steps:
    return Steps(linked.cluster.folder_of_jobs())


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(timeout=90)
    return process.returncode, out, err


def numbers(first: int, last: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(first, last + 1))


FORMS = [("--full",), ("--full", "--follow"), ("--limit", "1MB")]


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
@pytest.mark.parametrize("front", [AGENT, CLIENT])
def test_a_link_cut_in_mid_command_loses_nothing(linked: Linked, steps: Steps, front: str, form: tuple[str]) -> None:
    half = LINES // 2
    command = steps.shell(f"seq {half}", f"seq {half + 1} {LINES}", "echo end >&2")
    waiting = linked.far.open("clustersh", "run", *form, "ws1", command)
    steps.until(1)
    linked.proxy.tell("cut", front)
    steps.go(1)
    steps.until(2)
    linked.proxy.tell("cut", front)
    steps.go(2)
    assert ended(waiting) == (0, numbers(1, LINES), b"end\n"), linked.cluster.logs()
    steps.check_ran_once(linked.cluster)


@pytest.mark.parametrize("front", [AGENT, CLIENT])
def test_a_command_that_ends_while_its_link_is_down(linked: Linked, steps: Steps, front: str) -> None:
    waiting = linked.far.open(
        "clustersh", "run", "ws1", steps.shell("echo begun", "echo done", f"touch {steps.folder}/over")
    )
    steps.until(1)
    with linked.proxy.wrong("refuse", front):
        if front == AGENT:
            linked.cluster.until_status("ws1", "offline")
        steps.go(1)
        steps.go(2)
        eventually((steps.folder / "over").exists)
        time.sleep(1.0)  # for attempts that fail
    assert ended(waiting) == (0, b"begun\ndone\n", b""), linked.cluster.logs()
    steps.check_ran_once(linked.cluster)


@pytest.mark.parametrize("front", [AGENT, CLIENT])
def test_what_is_fed_is_fed_once_over_a_cut_link(linked: Linked, steps: Steps, front: str) -> None:
    fed = numbers(1, LINES)
    (steps.folder / "fed").write_bytes(fed)
    with (steps.folder / "fed").open("rb") as stdin:
        command = steps.shell("read first", "head -c 100000", "cat")
        waiting = linked.far.open("clustersh", "run", "--stdin", "--full", "ws1", command, stdin=stdin)
        for step in (1, 2):
            steps.until(step)
            linked.proxy.tell("cut", front)
            steps.go(step)
        assert ended(waiting) == (0, fed[2:], b""), linked.cluster.logs()
    steps.check_ran_once(linked.cluster)


@pytest.mark.parametrize(("what", "number"), [("delay", 0.1), ("slow", 200e3)])
@pytest.mark.parametrize("front", [AGENT, CLIENT])
def test_a_slow_or_far_link_carries_everything(
    linked: Linked, steps: Steps, front: str, what: str, number: float
) -> None:
    links = linked.cluster.logs().count("ws1 is online")
    with linked.proxy.wrong(what, front, number):
        steps.go(1)
        answer = linked.far.sh("run", "--full", "ws1", steps.shell(f"seq {LINES}", "echo end >&2"))
        assert (answer.status, answer.out.encode(), answer.err) == (0, numbers(1, LINES), "end\n")
        fed = linked.far.sh("run", "--stdin", "ws1", "cat", stdin=numbers(1, 2000))
        assert (fed.status, fed.out.encode()) == (0, numbers(1, 2000))
    assert linked.cluster.logs().count("ws1 is online") == links, "no link was dropped"


def test_a_start_that_comes_late_is_refused(linked: Linked, steps: Steps) -> None:
    with linked.proxy.wrong("stall-down", AGENT):
        answer = linked.cluster.sh("run", "ws1", steps.shell("echo done"))
        assert answer.status == 123 and "did not confirm the start" in answer.err, answer
        uuid = linked.cluster.newest_run()
        assert f"clustersh wait {uuid}" in answer.err
    waited = linked.cluster.sh("wait", uuid)
    assert waited.status == 125 and "the start came too late" in waited.err, waited
    assert (times_run(steps.folder / "counter"), linked.cluster.outcomes(uuid)) == (0, ["not-started"])


def test_links_that_fall_silent_are_noticed_and_lose_nothing(linked: Linked) -> None:
    cluster, homes = linked.cluster, {name: linked.add_agent(name) for name in SILENT}
    for name in SILENT:
        cluster.until_status(name, "online")
    work = {name: Steps(cluster.folder_of_jobs()) for name in (*SILENT, CLIENT)}
    shells = {name: steps.shell("echo begun", "echo done") for name, steps in work.items()}
    runs = {name: cluster.client.open("clustersh", "run", name, shells[name]) for name in SILENT}
    uuid = cluster.sh("run", "--detach", "ws1", shells[CLIENT]).out.strip()
    runs[CLIENT] = linked.far.open("clustersh", "wait", uuid)
    for steps in work.values():
        steps.until(1)
    eventually(lambda: linked.proxy.tell("count", CLIENT) == 1)

    began = time.monotonic()
    for name, how in (*SILENT.items(), (CLIENT, "lose")):
        linked.proxy.tell(how, name)
    for steps in work.values():
        steps.go(1)
    noticed: dict[str, float] = {}

    def note(who: str, now: bool) -> None:
        if now:
            noticed.setdefault(who, time.monotonic() - began)

    def look() -> bool:
        machines = cluster.client.statuses()
        for name in ("up", "down", "both"):
            note(f"the coordinator, of {name}", machines.get(name) == "offline")
            note(f"{name} itself", has_problem(homes[name]))
        note("the lost one, which has another link", cluster.logs().count("lost is online") == 2)
        note("the client, which asked again", runs[CLIENT].poll() is not None)
        return len(noticed) == 8

    eventually(look, NOTICED_S + SLACK_S, "all noticed", every=0.2)
    assert max(noticed.values()) < NOTICED_S + SLACK_S, noticed
    for name in SILENT:
        linked.proxy.tell("well", name)
    for name, process in runs.items():
        assert ended(process) == (0, b"begun\ndone\n", b""), (name, cluster.logs())
        assert times_run(work[name].folder / "counter") == 1
    for record in cluster.records():
        if record["is"] == "run":
            assert len(cluster.outcomes(record["uuid"])) == 1
    for home in homes.values():
        home.stop()


def has_problem(agent: Home) -> bool:
    return bool(json.loads((agent.path / "agent" / "status.json").read_bytes())["problem"])


def printed(linked: Linked) -> str:
    """Have a large output printed; return its uuid once it is stored."""
    uuid = linked.cluster.sh("run", "--detach", "ws1", f"seq {MANY_LINES}").out.strip()
    linked.cluster.until_job(uuid, "completed")
    return uuid


def begun(linked: Linked, *words: str) -> tuple[subprocess.Popen[bytes], bytes]:
    """Start to read an output; return the command in the middle of it, and the first bytes that came."""
    reading = linked.far.open("clustersh", "cat", *words)
    assert reading.stdout is not None
    return reading, os.read(reading.stdout.fileno(), 2)


@pytest.mark.parametrize("words", [("--stdout",), ("--tail", "1300000"), ("--length", "9000000")], ids=" ".join)
def test_a_connection_cut_while_an_output_is_read_loses_nothing(linked: Linked, words: tuple[str, ...]) -> None:
    uuid = printed(linked)
    with linked.proxy.wrong("slow", CLIENT, 8e6):
        reading, first = begun(linked, "ws1", uuid, *words)
        linked.proxy.tell("cut", CLIENT)
        status, rest, err = ended(reading)
    assert (status, err) == (0, b""), linked.cluster.logs()
    assert first + rest == numbers(1, MANY_LINES)[: 9_000_000 if "--length" in words else None]


def test_every_reader_is_told_of_a_machine_that_goes_offline(linked: Linked) -> None:
    uuid = printed(linked)
    with linked.proxy.wrong("slow", AGENT, 1e6):
        readings = [begun(linked, "ws1", uuid) for _ in range(3)]
        linked.proxy.tell("refuse", AGENT)
        for reading, first in readings:
            status, rest, err = ended(reading)
            assert status == 123, (err, linked.cluster.logs())
            assert err.startswith(b"ERROR: ws1 is offline"), err
            assert numbers(1, MANY_LINES).startswith(first + rest)
    linked.cluster.until_status("ws1", "online")
