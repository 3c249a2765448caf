"""Machines join by the line that the coordinator printed, over a network of their own and nothing else."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from .hosts import USER, Host, Hub, Network

pytestmark = pytest.mark.timeout(600)
NAMES = ("db1", "web1", "web2")
CONFIG = "# The link comes back soon.\n[agent]\nreconnect_max = '2s'"
RUNNING = "cat ~/.config/clustersh/agent/run.json"


def on_each(hosts: list[Host], act: Callable[[Host], str]) -> list[str]:
    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(act, hosts))


@pytest.fixture(scope="module")
def machines(net: Network, hub: Hub) -> list[Host]:
    return [net.host(name, number) for number, name in enumerate(NAMES, 2)]


def test_machines_join_work_lose_their_link_are_repaired_and_leave_no_file(hub: Hub, machines: list[Host]) -> None:
    for host in machines:
        host.check(f"mkdir -p ~/.config/clustersh; echo {shlex.quote(CONFIG)} > ~/.config/clustersh/config.toml")
    before = [host.files() for host in machines]
    line = hub.machine_line
    assert line == "curl http://hub:5672/install.sh | bash"
    joined = [f"{name} has joined hub:5672 and is online; commands run as {USER}.\n" for name in NAMES]
    assert on_each(machines, lambda host: host.check(line)) == joined
    for host in machines:
        assert hub.status_of(host.name) == "online"
        said = hub.sh(f"run {host.name} 'hostname; id -un; pwd; touch /usr/x 2>&1'", status=1)
        assert said.split()[:3] == [host.name, USER, f"/home/{USER}"] and "Read-only file system" in said

    running = hub.sh(f"run --detach {NAMES[0]} 'sleep 3; echo still here'").strip()
    processes = [host.check(RUNNING) for host in machines]
    for host in machines:
        host.link("down")
    assert [host.type(f"curl -sS {hub.url}/install.sh").returncode for host in machines] == [7, 7, 7]
    for host in machines:
        hub.until_status(host.name, "offline")
    for host in machines:
        host.link("up")
    for host in machines:
        hub.until_status(host.name, "online")
    assert hub.sh(f"wait {running}") == "still here\n"

    long = [hub.sh(f"run --detach {name} 'sleep 300'").strip() for name in NAMES]
    assert on_each(machines, lambda host: host.check(line)) == joined
    assert [host.check(RUNNING) for host in machines] == processes
    assert [hub.job(uuid)["status"] for uuid in long] == ["running"] * 3

    gone = [f"{name} has left, and clusteragent is removed.\n" for name in NAMES]
    assert on_each(machines, lambda host: host.check(f"{line} -s -- --uninstall")) == gone
    for host, files in zip(machines, before, strict=True):
        assert host.files() - files == set()
        assert host.processes() == ""
        assert host.check("cat ~/.config/clustersh/config.toml") == f"{CONFIG}\n"
        assert hub.status_of(host.name) == ""
    nothing = f"There is no installation in /home/{USER}/.local/share/clustersh.\n"
    assert machines[0].check(f"{line} -s -- --uninstall") == nothing
    assert machines[0].files() - before[0] == set()


def test_a_client_and_an_agent_share_an_installation_and_leave_one_by_one(hub: Hub, machines: list[Host]) -> None:
    host = machines[0]
    before = host.files()
    asked = host.check(hub.client_line)
    assert asked.startswith(f"clustersh is installed: /home/{USER}/.local/bin/clustersh\n")
    hub.admin(f"approve {asked.partition('clusterd approve ')[2].split()[0]}")
    program = "~/.local/bin/clustersh"
    assert host.check(f"{program} machines").startswith("name ")
    hub.set_policy("token")
    refused = host.type(f"{hub.machine_line} -s -- --name shared")
    assert refused.stderr.splitlines()[-3:] == [
        "ERROR: the coordinator at hub:5672 lets machines in by a join token, and none was given",
        "hint: on hub: clusterd token create; then here: "
        "curl -fsS http://hub:5672/install.sh | CLUSTERSH_TOKEN=... bash -s -- --name shared",
        f"hint: log: /home/{USER}/.local/share/clustersh/install.log",
    ]
    token = hub.admin("token create").strip()
    pinned = hub.invitation().replace("| bash", f"| CLUSTERSH_TOKEN={token} bash")
    assert "--pinnedpubkey" in pinned and token in pinned
    assert host.check(f"{pinned} -s -- --name shared") == (
        f"shared has joined hub:5672 and is online; commands run as {USER}.\n"
    )
    assert len(host.check("ls -d ~/.local/share/clustersh/versions/*").split()) == 1
    assert json.loads(hub.admin("token list --json"))["tokens"][0]["used"] == 1
    hub.set_policy("open")
    hub.until_status("shared", "online")
    look = "id -un; env | grep -c TOKEN; grep -c TOKEN /proc/$PPID/environ; true"
    assert host.check(f"{program} run shared {shlex.quote(look)}").split() == [USER, "0", "0"]
    host.check(f"{hub.machine_line} -s -- --uninstall")
    assert host.check("ls ~/.local/bin") == "clustersh\n"
    assert hub.status_of("shared") == ""
    assert "Already logged in" in host.check(hub.client_line)
    host.check(hub.machine_line)
    host.check(f"{hub.client_line} -s -- --uninstall")
    assert hub.status_of(host.name) == "online"
    assert host.check("ls ~/.local/bin").split() == ["clusteragent", "clustersh"]
    host.check(f"{hub.machine_line} -s -- --uninstall")
    assert host.files() - before == set()


def test_the_systems_installation_runs_as_whom_it_is_told(net: Network, hub: Hub) -> None:
    host = net.host("sys1", 9, read_only=False)
    before = host.files()
    refused = host.type(f"{hub.machine_line} -s -- --system")
    assert refused.returncode == 1 and "ERROR: --system is for root" in refused.stderr
    said = host.check(f"{hub.machine_line} -s -- --system --run-as {USER}", "root")
    assert said == f"sys1 has joined hub:5672 and is online; commands run as {USER}.\n"
    assert hub.sh("run sys1 'id -un; pwd'").split() == [USER, f"/home/{USER}"]
    assert host.root.check("stat", "-c", "%U %a", "/var/lib/clustersh-agent") == f"{USER} 700\n"
    assert host.root.check("readlink", "/usr/local/bin/clusteragent") == "/opt/clustersh/current/bin/clusteragent\n"
    assert "clusteragent " in host.check("/usr/local/bin/clusteragent --version")
    host.check(f"{hub.machine_line} -s -- --system --uninstall", "root")
    assert host.files() - before == set()
    assert hub.status_of("sys1") == ""
