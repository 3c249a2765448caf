"""Wall clocks that jump, each machine's by itself, while services run and between their starts."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator

import pytest

from ..real.programs import Home, end, eventually
from .services import FaultyCluster, faulty_cluster, user_home, workplace
from .wall_clock import HOUR, LIBRARY, YEAR, WallClock, tidy_up

if LIBRARY is None:
    pytest.skip("needs libfaketime (Debian: faketime)", allow_module_level=True)

JUMPS = [5 * HOUR, -5 * HOUR]


class Clocks:
    """The wall clocks of a cluster's three machines."""

    def __init__(self) -> None:
        self.of: dict[str, WallClock] = {}

    def install(self, home: Home) -> None:
        self.of[home.log.parent.name] = WallClock(home)

    def set(self, ahead: float, *names: str) -> None:
        """Set those clocks, all of them where none is named."""
        for name in names or self.of:
            self.of[name].set(ahead)


@pytest.fixture(scope="module")
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture(scope="module")
def cluster(clocks: Clocks) -> Iterator[FaultyCluster]:
    try:
        with workplace() as folder, faulty_cluster(folder, prepare=clocks.install) as made:
            yield made
            made.check_alive()
    finally:
        tidy_up()


@pytest.fixture(autouse=True)
def right_again(clocks: Clocks) -> Iterator[None]:
    yield
    clocks.set(0.0)


@pytest.mark.parametrize("ahead", JUMPS)
@pytest.mark.parametrize("who", ["coordinator", "agent", "client"])
def test_a_command_goes_on_while_a_clock_jumps(cluster: FaultyCluster, clocks: Clocks, who: str, ahead: float) -> None:
    folder = cluster.folder_of_jobs()
    command = f"echo begun; touch {folder}/begun; until [ -e {folder}/go ]; do sleep 0.02; done; sleep 1; echo done"
    waiting = cluster.client.open("clustersh", "run", "--timeout", "1m", "ws1", command)
    eventually((folder / "begun").exists)
    links = cluster.logs().count("ws1 is online")
    clocks.set(ahead, who)
    (folder / "go").touch()
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out) == (0, b"begun\ndone\n"), (err, cluster.logs())
    uuid = cluster.newest_run()
    assert cluster.outcomes(uuid) == ["completed"]
    assert 1.0 <= cluster.job(uuid)["duration_s"] < 30
    assert cluster.logs().count("ws1 is online") == links, "the link stayed"


@pytest.mark.parametrize("ahead", JUMPS)
def test_a_time_out_is_kept_when_the_clocks_jump(cluster: FaultyCluster, clocks: Clocks, ahead: float) -> None:
    begun = cluster.folder_of_jobs() / "begun"
    waiting = cluster.client.open("clustersh", "run", "--timeout", "2s", "ws1", f"touch {begun}; sleep 300")
    eventually(begun.exists)
    clocks.set(ahead)
    _, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, err) == (124, b"ERROR: command timed out after 2 seconds\n")
    assert 2.0 <= cluster.job(cluster.newest_run())["duration_s"] < 30


def test_what_was_recorded_stays_in_order_when_the_clocks_jump(cluster: FaultyCluster, clocks: Clocks) -> None:
    """Both ways, while the services run and between their starts."""
    before = len(cluster.records())
    for ahead in (5 * HOUR, -15 * HOUR):
        end(cluster.coordinator_process)
        clocks.set(ahead)
        cluster.restart_coordinator()
        cluster.until_status("ws1", "online")
        assert cluster.sh("run", "ws1", f"echo {ahead}").out == f"{ahead}\n"
        clocks.set(ahead - HOUR, "coordinator")
        assert cluster.sh("run", "ws1", f"exit 3 # {ahead}").status == 3
    records = cluster.records()[before:]
    times = [record["time"] for record in records]
    assert times != sorted(times), "the clocks did jump"
    asked = [record["uuid"] for record in records if record["is"] == "run"]
    assert [cluster.outcomes(uuid) for uuid in asked] == 2 * [["completed"], ["failed"]]
    assert asked == sorted(set(asked)), "each uuid is greater than all before"
    listed = [job["uuid"] for job in cluster.sh("history", "--json").json["jobs"]]
    assert listed[: len(asked)] == asked[::-1], "and so the history is in the order of the ledger"
    assert cluster.sh("cat", "ws1", asked[0]).out == f"{5 * HOUR}\n"
    verified = cluster.coordinator.run("clusterd", "audit", "verify", "--witness")
    assert verified.status == 0 and "witnesses agree, from: ws1" in verified.out, verified


@pytest.mark.parametrize("ahead", JUMPS)
def test_a_killed_agent_whose_clock_jumps_knows_how_long_its_job_ran(
    cluster: FaultyCluster, clocks: Clocks, ahead: float
) -> None:
    uuid = cluster.sh("run", "--detach", "ws1", "sleep 300").out.strip()
    began = time.monotonic()
    journal = cluster.agent.path / "agent" / "journal"
    # What process it is may be written down a little later than that it runs.
    eventually(lambda: re.search(rf'"is":"process","uuid":"{uuid}"', journal.read_text()))
    time.sleep(1.0)
    end(cluster.agent_process, signal.SIGKILL)
    clocks.set(ahead, "agent")
    cluster.restart_agent()
    assert 1.0 <= cluster.until_job(uuid, "interrupted")["duration_s"] <= time.monotonic() - began
    assert cluster.outcomes(uuid) == ["interrupted"]


@pytest.mark.parametrize("ahead", JUMPS)
def test_a_code_is_good_for_ten_minutes_whatever_the_clock_says(
    cluster: FaultyCluster, clocks: Clocks, ahead: float
) -> None:
    name = "ann@later" if ahead > 0 else "ann@earlier"
    other = user_home(cluster.folder, name)
    asked = other.sh("login", f"http://{cluster.address}", "--name", name, "--no-wait")
    assert asked.status == 0, asked
    clocks.set(ahead, "coordinator")
    approved = cluster.coordinator.run("clusterd", "approve", asked.out.split("clusterd approve ")[1].split()[0])
    assert approved.status == 0, approved
    assert other.sh("machines").status == 0


def test_when_a_machine_was_last_seen_is_never_in_the_future(cluster: FaultyCluster, clocks: Clocks) -> None:
    end(cluster.agent_process)
    cluster.until_status("ws1", "offline")
    for ahead, said in ((5 * HOUR, "5h"), (-5 * HOUR, r"0\.\ds")):
        clocks.set(ahead, "coordinator")
        answer = cluster.sh("run", "ws1", "true")
        assert answer.status == 125 and re.search(rf"ws1 is offline \(last seen {said} ago\)", answer.err), answer
    clocks.set(0.0)
    cluster.restart_agent()


@pytest.mark.parametrize(("ahead", "said"), [(20 * YEAR, r"cert\.pem expired on"), (-20 * YEAR, r": set the clock")])
def test_a_client_with_a_clock_beyond_its_certificate_is_told_so(
    cluster: FaultyCluster, clocks: Clocks, ahead: float, said: str
) -> None:
    clocks.set(ahead, "client")
    answer = cluster.sh("run", "ws1", "true")
    assert answer.status == 125
    assert "this machine's clock says" in answer.err and re.search(said, answer.err), answer


@pytest.mark.parametrize("ahead", [20 * YEAR, -20 * YEAR])
def test_an_agent_with_a_clock_beyond_its_certificate_says_so_and_comes_back(
    cluster: FaultyCluster, clocks: Clocks, ahead: float
) -> None:
    clocks.set(ahead, "agent")
    end(cluster.coordinator_process)
    cluster.restart_coordinator()
    eventually(lambda: "this machine's clock says" in status_of(cluster.agent), what=cluster.logs())
    clocks.set(0.0)
    cluster.until_status("ws1", "online")


@pytest.mark.parametrize("ahead", [20 * YEAR, -20 * YEAR])
def test_where_the_coordinator_refuses_certificates_its_clock_is_suspected_too(
    cluster: FaultyCluster, clocks: Clocks, ahead: float
) -> None:
    clocks.set(ahead, "coordinator")
    answer = cluster.sh("run", "ws1", "true")
    # Its answer to the certificate may be lost with the connection: then the request may have got through.
    assert answer.status in (125, 123), answer
    assert "does not accept this program's certificate" in answer.err
    assert "hint: if a clock is wrong, here or there, set it" in answer.err, answer


def status_of(agent: Home) -> str:
    return agent.run("clusteragent", "status").out
