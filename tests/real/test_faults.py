"""What must hold when programs freeze, die and come back."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .programs import Cluster, end, eventually, log_in, make_home
from .test_main_job import detach, processes_of


def test_an_offline_machine_fails_at_once_and_is_never_queued_for(own_cluster: Cluster, tmp_path: Path) -> None:
    end(own_cluster.agent_process)
    own_cluster.until_status("ws1", "offline")
    touched = tmp_path / "touched"
    answer = own_cluster.sh("run", "ws1", f"touch {touched}")
    assert answer.status == 125
    assert re.match(r"ERROR: .*ws1 is offline \(last seen \S+ ago\)\nhint: ", answer.err), answer.err
    assert answer.seconds < 10
    listed = own_cluster.sh("machines").out
    assert re.search(r"ws1 +\| linux/\w+ +\| offline \(last seen .+\)", listed), listed
    uuid = own_cluster.sh("history", "ws1", "--json").json["jobs"][0]["uuid"]
    assert own_cluster.job(uuid)["status"] == "not-started"
    own_cluster.restart_agent()
    assert own_cluster.sh("run", "ws1", "true").status == 0
    assert not touched.exists()


def test_a_frozen_agent_that_wakes_does_not_run_what_was_given_up(own_cluster: Cluster, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    own_cluster.agent_process.send_signal(signal.SIGSTOP)
    answer = own_cluster.sh("run", "ws1", f"touch {touched}")
    assert answer.status == 123, answer
    uuid = re.search(r"[0-9a-f-]{36}", answer.err)
    assert uuid is not None and "did not" in answer.err
    own_cluster.agent_process.send_signal(signal.SIGCONT)
    job = own_cluster.until_job(uuid[0], "not-started")
    assert job["exit_code"] is None
    own_cluster.until_status("ws1", "online")
    assert own_cluster.sh("run", "ws1", "true").status == 0
    assert not touched.exists()


def test_an_agent_that_was_killed_finds_and_ends_what_it_left(own_cluster: Cluster) -> None:
    uuid = detach(own_cluster, "ws1", "echo so far; sleep 300 & sleep 301")
    eventually(lambda: len(processes_of(uuid)) >= 2)
    eventually(lambda: own_cluster.sh("cat", "ws1", uuid).out == "so far\n")
    time.sleep(0.3)  # the agent may keep output in memory for that long before it is on the disk
    end(own_cluster.agent_process, signal.SIGKILL)
    own_cluster.restart_agent()
    assert own_cluster.until_job(uuid, "interrupted")["reason"] == "the agent restarted"
    eventually(lambda: processes_of(uuid) == [])
    assert own_cluster.sh("cat", "ws1", uuid).out == "so far\n"
    assert "failed (agent restarted)" in own_cluster.sh("history", "ws1").out
    assert own_cluster.sh("history", "--status", "failed", "--json").json["jobs"][0]["uuid"] == uuid
    waited = own_cluster.sh("wait", uuid)
    assert waited.status == 123


def test_an_agent_that_stops_ends_its_jobs_and_says_so(own_cluster: Cluster) -> None:
    uuid = detach(own_cluster, "ws1", "trap '' TERM; echo running; setsid sleep 300 & sleep 301")
    eventually(lambda: len(processes_of(uuid)) >= 2)
    assert end(own_cluster.agent_process) in (0, -signal.SIGTERM)
    assert processes_of(uuid) == []
    assert own_cluster.until_job(uuid, "interrupted")["reason"] == "the agent stopped"


def test_a_client_waits_through_a_restart_of_the_coordinator(own_cluster: Cluster) -> None:
    process = own_cluster.client.open("clustersh", "run", "ws1", "sleep 3; echo survived")
    eventually(lambda: any(job["status"] == "running" for job in own_cluster.client.jobs()))
    end(own_cluster.coordinator_process, signal.SIGKILL)
    own_cluster.restart_coordinator()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"survived\n"), err
    records = own_cluster.coordinator.run("clusterd", "audit", "--json").json["records"]
    assert sum(record["is"] == "ended" for record in records) == 1


def test_a_client_that_dies_leaves_its_job_running(own_cluster: Cluster) -> None:
    process = own_cluster.client.open("clustersh", "run", "--key", "mine", "ws1", "sleep 2; echo done")
    eventually(own_cluster.client.jobs)
    end(process, signal.SIGKILL)
    [job] = own_cluster.sh("history", "--json").json["jobs"]
    assert own_cluster.sh("wait", job["uuid"]).out == "done\n"
    assert own_cluster.sh("run", "--key", "mine", "ws1", "sleep 2; echo done").out == "done\n"
    assert len(own_cluster.sh("history", "--json").json["jobs"]) == 1


def test_a_coordinator_that_is_gone_is_named(own_cluster: Cluster) -> None:
    end(own_cluster.coordinator_process)
    for words in (["run", "ws1", "true"], ["machines"], []):
        answer = own_cluster.sh(*words)
        assert answer.status == 125, answer
        assert own_cluster.address.rpartition(":")[2] in answer.err + answer.out
        assert "Traceback" not in answer.err


def test_a_revoked_client_and_a_forgotten_machine_are_cut_off(own_cluster: Cluster, tmp_path: Path) -> None:
    other = make_home(tmp_path, "other")
    log_in(own_cluster.coordinator, other, own_cluster.address, "ann@desk")
    process = other.open("clustersh", "run", "ws1", "sleep 300")
    eventually(own_cluster.client.jobs)
    assert own_cluster.coordinator.run("clusterd", "revoke", "ann@desk").status == 0
    _, err = process.communicate(timeout=30)
    assert process.returncode == 123 and b"revoked" in err, err
    refused = other.sh("machines")
    assert refused.status == 125 and "revoked" in refused.err and "login --again" in refused.err
    log_in(own_cluster.coordinator, other, own_cluster.address, "ann@desk", "--again")  # as that says: a new key
    uuid = own_cluster.sh("history", "--json").json["jobs"][0]["uuid"]
    assert own_cluster.coordinator.run("clusterd", "forget", "ws1").status == 0
    assert own_cluster.job(uuid)["status"] == "lost"
    assert own_cluster.sh("machines", "--json").json["machines"] == []
    assert own_cluster.sh("run", "ws1", "true").status == 125
    eventually(lambda: "enroll" in own_cluster.agent.log.read_text())
    other.stop()


def test_what_a_revoked_client_is_reading_ends_within_a_second(own_cluster: Cluster, tmp_path: Path) -> None:
    other = make_home(tmp_path, "other")
    log_in(own_cluster.coordinator, other, own_cluster.address, "ann@desk")
    uuid = detach(own_cluster, "ws1", "while echo tick; do sleep 0.05; done")
    credentials = other.path / "client"
    reading = subprocess.Popen(
        [
            *("curl", "--silent", "--no-buffer", "--cacert", credentials / "ca.pem"),
            *("--cert", credentials / "cert.pem", "--key", credentials / "key.pem"),
            *("--connect-to", f"::{own_cluster.address}"),
            f"https://coordinator.clustersh.internal/v1/jobs/ws1/{uuid}/output?stream=stdout&follow=true",
        ],
        stdout=subprocess.PIPE,
    )
    assert reading.stdout is not None and reading.stdout.readline() == b"tick\n"
    revoke = own_cluster.coordinator.open("clusterd", "revoke", "ann@desk")
    assert revoke.wait(30) == 0
    revoked = time.monotonic()
    reading.stdout.read()
    assert time.monotonic() - revoked < 1.0
    assert reading.wait(5) != 0, "and says that the answer is not whole"
    reading.stdout.close()
    own_cluster.sh("cancel", uuid)
    other.stop()


def test_names_are_kept_by_their_keys(own_cluster: Cluster, tmp_path: Path) -> None:
    other = make_home(tmp_path, "other")
    taken = other.run("clusteragent", "enroll", f"http://{own_cluster.address}", "--name", "ws1")
    assert taken.status != 0
    assert "ws1" in taken.err and "--name" in taken.err and "clusterd forget ws1" in taken.err
    client = other.sh("login", f"http://{own_cluster.address}", "--name", "joshua@mba", "--no-wait")
    assert client.status == 125 and "--name" in client.err
    other.stop()


def test_services_hold_their_homes(own_cluster: Cluster) -> None:
    for home, program in ((own_cluster.coordinator, "clusterd"), (own_cluster.agent, "clusteragent")):
        words = ["--listen", "127.0.0.1:0"] if program == "clusterd" else []
        second = home.run(program, *words)
        assert second.status == 1
        assert re.search(r"(?m)^ERROR: .*(in use by|runs already).*process \d+", second.err)
    assert own_cluster.sh("run", "ws1", "true").status == 0


def test_a_taken_port_is_named_with_its_holder(own_cluster: Cluster, tmp_path: Path) -> None:
    other = make_home(tmp_path, "other")
    answer = other.run("clusterd", "--listen", own_cluster.address)
    assert answer.status == 1
    assert str(own_cluster.coordinator_process.pid) in answer.err and "--port" in answer.err
    other.stop()


def test_a_bad_configuration_is_named(tmp_path: Path) -> None:
    home = make_home(tmp_path, "home")
    home.path.mkdir()
    (home.path / "config.toml").write_text('[agent]\nreconnect_max = "1 week"\n')
    for program in ("clusterd", "clusteragent"):
        answer = home.run(program)
        assert answer.status == 1, answer
        assert "config.toml" in answer.err and "reconnect_max" in answer.err and "1 week" in answer.err
        assert "Traceback" not in answer.err


@pytest.mark.parametrize("program", ["clustersh", "clusterd", "clusteragent"])
def test_what_was_never_set_up_says_what_to_do(tmp_path: Path, program: str) -> None:
    home = make_home(tmp_path, "home")
    words = {"clustersh": ["run", "ws1", "true"], "clusterd": ["approve", "12345678"], "clusteragent": ["status"]}
    answer = home.run(program, *words[program])
    assert answer.status in (1, 125)
    assert answer.err.startswith("ERROR: ") and "hint: " in answer.err and "Traceback" not in answer.err


def test_a_home_that_cannot_be_read_is_named(own_cluster: Cluster) -> None:
    login = own_cluster.client.path / "client" / "login.json"
    login.unlink()
    login.mkdir()
    for words in (["run", "--json", "ws1", "true"], ["machines", "--json"]):
        answer = own_cluster.sh(*words)
        assert (answer.status, answer.json["error"]["type"]) == (125, "storage")
        assert str(login) in answer.err
