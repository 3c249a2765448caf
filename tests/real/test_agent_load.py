"""Many jobs at once and many deaths: an agent leaves no descriptor, process or file behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import psutil

from clustersh.address import parse_address
from clustersh.frontend.blocking import _connect as connect

from .programs import Cluster, Home, end, eventually
from .test_main_job import detach

JOBS = 200
RESTARTS = int(os.environ.get("CLUSTERSH_RESTARTS", "8"))
FEW_FILES = 256
"""Less than 200 jobs need."""


def ended(cluster: Cluster) -> list[dict[str, object]]:
    answer = cluster.sh("history", "--limit", str(2 * max(JOBS, RESTARTS)), "--json")
    assert answer.status == 0, answer
    return [job for job in answer.json["jobs"] if job["status"] not in ("requested", "running")]


def processes_of(home: Home) -> list[int]:
    """Return the processes of the jobs of *home*'s agent."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            environ = process.environ()
            if "CLUSTERSH_JOB" in environ and environ.get("HOME") == str(home.path.parent):
                found.append(process.pid)
    return found


def request_runs(cluster: Cluster, commands: list[str]) -> None:
    """Ask for all of *commands* over one connection, waiting for none."""
    connection = connect(parse_address(cluster.address), cluster.client.path / "client")
    for number, command in enumerate(commands):
        body = json.dumps({"target": "ws1", "command": {"shell": command}})
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"load-{number}"}
        connection.request("POST", "/v1/runs", body, headers)
        response = connection.getresponse()
        content = response.read()
        assert response.status in (200, 202), content
    connection.close()


def files_in(folder: Path) -> set[str]:
    """Return the agent's files but its jobs'."""
    paths = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {path for path in paths if not path.startswith("jobs/") and path not in ("status.json", "journal.old")}


def test_two_hundred_jobs_at_once_need_no_configuration_and_leave_nothing(own_cluster: Cluster, tmp_path: Path) -> None:
    cluster = own_cluster
    end(cluster.agent_process)
    cluster.agent.before = ("prlimit", f"--nofile={FEW_FILES}:4096")
    cluster.restart_agent()
    assert cluster.sh("run", "ws1", "ulimit -Sn; ulimit -Hn").out.split() == [str(FEW_FILES), "4096"]
    agent = psutil.Process(cluster.agent_process.pid)
    before, files = agent.num_fds(), files_in(cluster.agent.path / "agent")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    request_runs(cluster, [f"cat {gate}; echo {number}; exit 0" for number in range(JOBS)])
    eventually(lambda: f"{JOBS} running" in cluster.agent.run("clusteragent", "status").out, what=cluster.logs())
    assert agent.num_fds() >= before + 2 * JOBS
    os.close(os.open(gate, os.O_WRONLY))
    eventually(lambda: len(ended(cluster)) == JOBS + 1, what=cluster.logs())
    assert {job["status"] for job in ended(cluster)} == {"completed"}
    eventually(lambda: agent.num_fds() <= before, what=f"{before} descriptors again, not {agent.num_fds()}")
    assert agent.children(recursive=True) == []
    assert processes_of(cluster.agent) == []
    assert files_in(cluster.agent.path / "agent") <= files | {"work", "blobs/incoming"}


def test_an_agent_without_descriptors_refuses_jobs_and_still_ends_those_it_has(own_cluster: Cluster) -> None:
    cluster = own_cluster
    end(cluster.agent_process)
    cluster.agent.before = ("prlimit", "--nofile=40:40")
    cluster.restart_agent()
    agent = psutil.Process(cluster.agent_process.pid)
    before = agent.num_fds()
    request_runs(cluster, ["head -c 100000 /dev/zero; sleep 300 & sleep 301"] * 15)
    refused = eventually(lambda: ended(cluster), what=cluster.logs())
    assert all("Too many open files" in job["reason"] for job in refused), refused
    for job in cluster.sh("history", "--json").json["jobs"]:
        if job["status"] == "running":
            cluster.sh("cancel", job["uuid"])
    eventually(lambda: len(ended(cluster)) == 15, what=cluster.logs())
    # Of those that started some may find no descriptor for the file that keeps their output.
    short = [job for job in ended(cluster) if job["status"] != "cancelled"]
    assert {job["status"] for job in short} <= {"not-started", "failed"}
    assert any(job["status"] == "not-started" for job in short)
    assert all("Too many open files" in job["reason"] for job in short), short
    assert processes_of(cluster.agent) == []
    eventually(lambda: agent.num_fds() <= before)
    assert cluster.sh("run", "ws1", "echo alive").out == "alive\n"
    assert "Traceback" not in cluster.logs()


def test_an_agent_that_is_killed_again_and_again_leaves_nothing(own_cluster: Cluster, tmp_path: Path) -> None:
    cluster = own_cluster
    (tmp_path / "data").write_text("x" * 1000)
    cluster.agent.environ["TMPDIR"] = str(tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    files: set[str] = set()
    descriptors: list[int] = []
    for number in range(RESTARTS):
        uuid = detach(cluster, "--file", str(tmp_path / "data"), "ws1", f"echo {number}; setsid sleep 300 & sleep 301")
        eventually(lambda uuid=uuid: cluster.sh("cat", "ws1", uuid).out.strip() != "", what=cluster.logs())  # type: ignore[misc]
        assert len(processes_of(cluster.agent)) >= 2
        end(cluster.agent_process, signal.SIGKILL)
        cluster.restart_agent()
        assert cluster.until_job(uuid, "interrupted")["duration_s"] > 0
        eventually(lambda: not processes_of(cluster.agent), what=f"the processes of {number} are gone")
        eventually(lambda: not any((cluster.agent.path / "agent" / "work").iterdir()))
        descriptors.append(psutil.Process(cluster.agent_process.pid).num_fds())
        files = files or files_in(cluster.agent.path / "agent")
        assert files_in(cluster.agent.path / "agent") <= files
    assert max(descriptors) - min(descriptors) <= 2, descriptors
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [job["status"] for job in ended(cluster)] == ["interrupted"] * RESTARTS
    assert "Traceback" not in cluster.logs()


def test_a_start_that_fails_late_is_one_error_and_exit_status_1(own_cluster: Cluster) -> None:
    end(own_cluster.agent_process)
    blobs = own_cluster.agent.path / "agent" / "blobs"
    blobs.rename(blobs.with_name("away"))
    blobs.touch()
    answer = own_cluster.agent.run("clusteragent")
    assert answer.status == 1, answer
    assert re.findall("^ERROR: .*$", answer.err, re.MULTILINE) == [f"ERROR: can't use the folder {blobs}: File exists"]
    assert "Traceback" not in answer.err
    blobs.unlink()
    own_cluster.restart_agent()


def test_a_store_that_is_wiped_under_a_running_agent_goes_on(own_cluster: Cluster) -> None:
    folder = own_cluster.agent.path / "agent"
    uuid = detach(own_cluster, "ws1", "echo before; while [ ! -e go ]; do sleep 0.1; done; echo after; rm go")
    eventually(lambda: own_cluster.sh("cat", "ws1", uuid).out == "before\n")
    for path in sorted((folder / "jobs").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "jobs").rmdir()
    (folder / "journal").unlink()
    (own_cluster.agent.path.parent / "go").touch()
    assert "No such file" in own_cluster.until_job(uuid, "failed")["reason"]  # its output is gone: nobody has it whole
    assert own_cluster.sh("run", "ws1", "seq 100000 | tail -1").out == "100000\n"
    end(own_cluster.agent_process, signal.SIGKILL)
    own_cluster.restart_agent()
    assert own_cluster.sh("run", "ws1", "echo alive").out == "alive\n"
    assert "Traceback" not in own_cluster.logs()
