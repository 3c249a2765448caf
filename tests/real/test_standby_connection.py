"""The standby's way to the coordinator: open while it stands by, and replaced where it leads nowhere any more."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ..faults.proxy import Proxy, free_port
from .programs import Cluster, end, eventually
from .standbys import Standby

FRONT = "client"
ANSWERED_S = 15.0
"""What a command may take on a busy machine; one that waits for a lost connection takes 30."""

TIMES = {
    "idle": "kept_connections.TRUSTED_S = 0.0",
    "in use": "kept_connections.TRUSTED_S = 3600.0",
    "brisk": """\
kept_connections.TRUSTED_S = 0.05
    kept_connections.KEPT_S = 2.0
    kept_connections.PATIENCE_S = 1.5
    keeping.ASK_EVERY_S = 0.2
    standby.LOOK_EVERY_S = 0.1""",
}
"""What a standby takes its connection for soon after a command; one that is brisk asks all the time."""
MODULE = """\
import sys
if "clustersh.frontend.standby.main" in sys.orig_argv:
    from clustersh import kept_connections
    from clustersh.frontend.standby import keeping, standby
    {}
"""
"""Python imports it at its start."""


@pytest.fixture(scope="module")
def proxy(standing: Cluster) -> Iterator[Proxy]:
    """What stands between the client and its coordinator."""
    made = Proxy({FRONT: free_port()}, int(standing.address.rpartition(":")[2]))
    login = standing.client.path / "client" / "login.json"
    login.write_text(json.dumps({**json.loads(login.read_text()), "coordinator": made.address(FRONT)}))
    yield made
    made.stop()


@pytest.fixture(scope="module", params=["idle"])
def far(
    standing: Cluster, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Standby]:
    """A standby that is connected through *proxy*, with other TIMES."""
    standing.sh("standby", "stop")
    folder = tmp_path_factory.mktemp("times")
    (folder / "sitecustomize.py").write_text(MODULE.format(TIMES[request.param]))
    standing.client.environ["PYTHONPATH"] = str(folder)
    yield Standby(standing)
    del standing.client.environ["PYTHONPATH"]
    standing.sh("standby", "stop")


@pytest.fixture(autouse=True)
def well_again(far: Standby, proxy: Proxy) -> None:
    """Begin with a way that is open, and one connection."""
    proxy.tell("well", FRONT)
    assert far.client.sh("whoami").status == 0
    eventually(lambda: len(connections(far)) == 1, what="one connection")


brisk = pytest.mark.parametrize("far", ["brisk"], indirect=True)
idle_or_not = pytest.mark.parametrize("far", ["idle", "in use"], indirect=True)


def connections(standby: Standby) -> set[int]:
    """Return the ports from which it is connected to its coordinator."""
    found = psutil.Process(standby.pid).net_connections("tcp")
    return {each.laddr.port for each in found if each.status == psutil.CONN_ESTABLISHED}


def idle_s(standby: Standby) -> float:
    state = eventually(standby.state, what="what the standby says of itself")  # at once only where it isn't busy
    assert state["pid"] == standby.pid
    return float(state["idle_s"])


def errors_of(standby: Standby) -> str:
    return "".join(path.read_text() for path in standby.folder.glob("*.log"))


@idle_or_not
@pytest.mark.parametrize("words", [("machines",), ("groups", "add", "lost", "ws1")])
def test_one_that_is_lost_holds_up_no_command(
    standing: Cluster, far: Standby, proxy: Proxy, words: tuple[str, ...]
) -> None:
    before, calls = connections(far), far.calls
    proxy.tell("lose", FRONT)
    answer = standing.sh(*words)
    assert (answer.status, answer.err) == (0, "")
    assert answer.seconds < ANSWERED_S
    assert far.calls == calls + 1
    assert len(connections(far)) == 1 and not connections(far) & before


@pytest.mark.parametrize(
    ("far", "how"), [("idle", "lose"), ("in use", "lose"), ("in use", "lose-down")], indirect=["far"]
)
def test_a_run_that_finds_it_lost_happens_once(
    standing: Cluster, far: Standby, proxy: Proxy, tmp_path: Path, how: str
) -> None:
    """Also where it came through, and its answer is what was lost."""
    count, calls = tmp_path / "count", far.calls
    proxy.tell(how, FRONT)
    answer = standing.sh("run", "ws1", f"echo x | tee -a {count}")
    assert (answer.status, answer.out, answer.err) == (0, "x\n", "")
    assert answer.seconds < ANSWERED_S
    assert count.read_text() == "x\n"
    assert far.calls == calls + 1


@idle_or_not
def test_one_that_is_lost_under_a_run_holds_up_no_other_command(
    standing: Cluster, far: Standby, proxy: Proxy, tmp_path: Path
) -> None:
    count, go_on = tmp_path / "count", tmp_path / "go"
    waiting = standing.client.open(
        "clustersh", "run", "ws1", f"echo x >> {count}; until [ -e {go_on} ]; do sleep 0.05; done"
    )
    try:
        eventually(lambda: count.exists() and count.read_text())
        assert standing.sh("whoami").status == 0
        proxy.tell("lose", FRONT)
        for words in (("machines",), ("run", "ws1", f"echo y >> {count}")):
            answer = standing.sh(*words)
            assert (answer.status, answer.err) == (0, "")
            assert answer.seconds < ANSWERED_S
        assert waiting.poll() is None
    finally:
        go_on.touch()
        end(waiting, signal.SIGKILL)
    assert count.read_text() == "x\ny\n"


@brisk
def test_it_is_open_as_long_as_the_standby_stands_by(standing: Cluster, far: Standby) -> None:
    before = connections(far)
    eventually(lambda: idle_s(far) > 6, what="three times as long as a connection is kept that nobody asks")
    assert connections(far) == before and len(before) == 1
    assert standing.sh("run", "ws1", "echo x").out == "x\n"
    assert before <= connections(far)  # a command that comes while that one answers a question has another


@brisk
@pytest.mark.parametrize("how", ["lose", "cut"])
def test_one_that_is_lost_is_replaced_before_somebody_needs_it(far: Standby, proxy: Proxy, how: str) -> None:
    before, calls = connections(far), far.calls
    proxy.tell(how, FRONT)
    after = eventually(lambda: connections(far) - before, what="another connection")
    eventually(lambda: connections(far) == after, what="the end of the lost one")
    assert far.calls == calls


@brisk
@pytest.mark.parametrize("how", ["refuse", "stall"])
def test_a_coordinator_that_is_away_is_no_trouble(standing: Cluster, far: Standby, proxy: Proxy, how: str) -> None:
    process = psutil.Process(far.pid)
    with proxy.wrong(how, FRONT):
        used, began = sum(process.cpu_times()[:2]), time.monotonic()
        eventually(lambda: idle_s(far) > 3, what="several questions")
        took = time.monotonic() - began
        assert sum(process.cpu_times()[:2]) - used < took / 2
    eventually(lambda: len(connections(far)) == 1, what="a connection")
    assert standing.sh("run", "ws1", "echo x").out == "x\n"
    assert errors_of(far) == ""
