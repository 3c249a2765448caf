"""Executors from a folder of plugins: commands in a container, and plugins that fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .containers import Containers
from .many import Fleet, make_fleet
from .programs import Home, drop_in, end, eventually, make_home, plugin_example

BROKEN = """
from twisted.plugin import IPlugin
from zope.interface import implementer
from clustersh.agent.executors import IExecutor

@implementer(IPlugin, IExecutor)
class Broken:
    name = "broken"

    def writes(self, task):
        return False

    def argv(self, task):
        return 1 / 0

broken = Broken()
"""
OTHERS = {
    "no_python": "this is no Python\n",
    "fails": "raise RuntimeError('not today')\n",
    "leaves": "import sys\nsys.exit(3)\n",
    "interrupts": "raise KeyboardInterrupt\n",
    "takes_a_name": BROKEN.replace('"broken"', '"bash"').replace("broken = ", "bash_too = "),
}
"""Plugins that can't be had, each in a module of its own."""
EXECUTORS = {"app": "docker-exec", "broken": "broken", "missing": "no-such", "wrong": "ssh"}


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    made = Containers(tmp_path_factory.mktemp("docker"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, containers: Containers) -> Iterator[Fleet]:
    """Machines, each with an executor of its own."""
    folder = tmp_path_factory.mktemp("executors")
    found = drop_in(folder, docker_exec=plugin_example("IElsewhere"), broken=BROKEN, **OTHERS)
    found["PATH"] = f"{containers.bin}:{os.environ['PATH']}"

    def configure(name: str, agent: Home) -> None:
        agent.environ.update(found)
        agent.path.mkdir()
        config = f'[agent]\nenvironment = "service"\nexecutor = "{EXECUTORS[name]}"\ngrace = "1s"\n'
        (agent.path / "config.toml").write_text(config)

    made = make_fleet(folder, EXECUTORS, configure=configure)
    yield made
    made.stop()


def test_the_documented_executor_runs_commands_in_the_container(fleet: Fleet, containers: Containers) -> None:
    told = {each["name"]: each["facts"]["executor"] for each in fleet.sh("machines", "--json").json["machines"]}
    assert told == EXECUTORS, "the coordinator judges commands by it"
    words = ("--env", "SECRET=s3cret", "--cwd", "/usr", "--stdin")
    line = "pwd; echo $SECRET; cat; echo ${CLUSTERSH_MACHINE-none}; echo err >&2; exit 7"
    done = fleet.sh("run", *words, "app", line, stdin=b"in\n")
    assert (done.status, done.out, done.err) == (7, "/usr\ns3cret\nin\nnone\n", "err\n")
    assert "s3cret" not in str(containers.asked)
    assert fleet.sh("run", "app", "--", "printf", "%s|", "a b", "$HOME").out == "a b|$HOME|"
    assert fleet.sh("run", "--script", "-", "app", stdin=b"echo from a script\n").out == "from a script\n"


def test_a_place_that_is_not_there_starts_nothing_and_says_so(fleet: Fleet, containers: Containers) -> None:
    containers.running = False
    try:
        done = fleet.sh("run", "app", "true")
    finally:
        containers.running = True
    assert done.status == 125
    assert "the container app does not run" in done.err


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "pid"


def runs(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_a_timeout_ends_what_runs_elsewhere(fleet: Fleet, pid_file: Path) -> None:
    done = fleet.sh("run", "--timeout", "2s", "app", f"echo $$ >{pid_file}; echo begun; sleep 600")
    assert (done.status, done.out) == (124, "begun\n"), done
    assert not runs(pid_file)


def test_what_a_killed_agent_left_elsewhere_is_ended(fleet: Fleet, pid_file: Path) -> None:
    started = fleet.sh("run", "--detach", "app", f"echo $$ >{pid_file}; exec sleep 600")
    eventually(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), what=started.err)
    end(fleet.agent_processes["app"], signal.SIGKILL)
    assert runs(pid_file)
    fleet.start_agents("app")
    eventually(lambda: not runs(pid_file), what=fleet.logs())
    waited = fleet.sh("wait", started.out.strip())
    assert "the agent restarted" in waited.err


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ("broken", "the executor 'broken' failed: ZeroDivisionError: division by zero"),
        ("missing", "this machine has no executor 'no-such'"),
        ("wrong", "[agent] executor can't be 'ssh': that runs the commands of machines that are adopted"),
    ],
)
def test_a_plugin_that_fails_is_named_and_its_agent_goes_on(fleet: Fleet, machine: str, reason: str) -> None:
    for _ in range(2):
        done = fleet.sh("run", machine, "true")
        assert done.status == 125
        assert reason in done.err.splitlines()[0], done
    assert fleet.statuses()[machine] == "online"
    job = fleet.sh("history", machine, "--json").json["jobs"][0]
    assert (job["status"], job["reason"].startswith(reason)) == ("not-started", True)


def test_the_log_names_what_can_not_be_had(fleet: Fleet) -> None:
    log = fleet.agents["missing"].log.read_text()
    assert "no command can run: this machine has no executor 'no-such'" in log
    assert "there are: bash, broken, docker-exec, powershell" in log
    for name in ("no_python", "not today"):
        assert name in log
    assert "an executor is left out, there is a bash already" in log


@pytest.fixture
def folder_agent(fleet: Fleet, tmp_path: Path) -> Iterator[Home]:
    """A machine without an agent as yet, which has a folder of plugins of its own; they know where to write."""
    agent = make_home(tmp_path, "agent-own")
    agent.path.mkdir()
    agent.environ["RAN"] = str(tmp_path / "ran")
    yield agent
    agent.stop()
    fleet.coordinator.run("clusterd", "forget", "own")


RAN = "import os, pathlib\npathlib.Path(os.environ['RAN']).write_text('as the agent')\n"


def join(fleet: Fleet, agent: Home, executor: str) -> None:
    (agent.path / "config.toml").write_text(f'[agent]\nenvironment = "service"\nexecutor = "{executor}"\n')
    enrolled = agent.run("clusteragent", "enroll", fleet.address, "--name", "own")
    assert enrolled.status == 0, enrolled
    agent.start("clusteragent")
    fleet.until("online", ["own"])


@pytest.mark.parametrize("part", [".", "planted.py"])
def test_of_a_folder_that_everybody_can_write_to_nothing_is_run(
    fleet: Fleet, folder_agent: Home, tmp_path: Path, part: str
) -> None:
    folder_agent.environ.update(drop_in(tmp_path, planted=RAN + BROKEN))
    plugins = tmp_path / "dropped-in" / "twisted" / "plugins"
    (plugins / part).chmod(0o777)
    join(fleet, folder_agent, "broken")
    refused = fleet.sh("run", "own", "true")
    assert refused.status == 125 and "this machine has no executor 'broken'" in refused.err
    assert not (tmp_path / "ran").exists() and not (plugins / "dropin.cache").exists()
    why = f"plugins in {plugins} are left out, everybody can write there: chmod o-w {plugins / part}"
    assert why in folder_agent.log.read_text()


@pytest.mark.parametrize("how", ["odd", "leaving"])
def test_a_folder_that_can_not_be_looked_through_keeps_no_agent_from_serving(
    fleet: Fleet, folder_agent: Home, tmp_path: Path, how: str
) -> None:
    folder_agent.environ.update(drop_in(tmp_path, broken=BROKEN))
    plugins = tmp_path / "dropped-in" / "twisted" / "plugins"
    error = {"odd": "ValueError", "leaving": "SystemExit"}[how]
    lines = ("class Odd:", f"    def __conform__(self, interface): raise {error}('odd one')", "odd = Odd()")
    (plugins / "odd.py").write_text("\n".join(lines) + "\n")
    join(fleet, folder_agent, "broken")
    refused = fleet.sh("run", "own", "true")
    assert refused.status == 125 and "this machine has no executor 'broken'" in refused.err
    assert f"plugins in {plugins} can't be looked for" in folder_agent.log.read_text()
