"""Where nothing manages services: real ones in the background, installed, shown and removed without rights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..faults.services import AGENT_CONFIG, user_home, workplace
from ..faults.users import USER, as_user
from ..real.programs import PATIENCE_S, Home, Result, end, eventually, log_in

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="launchd and Windows' task scheduler are always there"),
    pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd manages services here"),
]
LOOPBACK = "[coordinator]\nlisten = '127.0.0.1:0'\n"


@pytest.fixture
def place() -> Iterator[Path]:
    with workplace() as folder:
        yield folder


@pytest.fixture
def coordinator(place: Path) -> Iterator[Home]:
    home = user_home(place, "coordinator", LOOPBACK)
    yield home
    remove(home, "clusterd")


@pytest.fixture
def agent(place: Path, coordinator: Home) -> Iterator[Home]:
    """The home of an agent that is enrolled; the coordinator runs as a service too."""
    assert coordinator.run("clusterd", "service", "install").status == 0
    home = user_home(place, "agent", AGENT_CONFIG)
    enrolled = home.run("clusteragent", "enroll", address_of(coordinator), "--name", "ws1")
    assert enrolled.status == 0, enrolled
    yield home
    remove(home, "clusteragent")


def remove(home: Home, program: str) -> None:
    home.run(program, "service", "uninstall")
    home.stop()


def service(home: Home, program: str, *words: str) -> Result:
    """Install, show or remove the service; what is said of it is never a traceback."""
    result = home.run(program, "service", *words)
    assert "Traceback" not in result.err
    return result


def pid_of(home: Home, program: str) -> int:
    return int(service(home, program, "status", "--json").json["pid"])


def address_of(home: Home) -> str:
    return str(eventually(lambda: home.running("coordinator"))["address"])


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def files_of(home: Home, service_folder: str) -> set[str]:
    """Return what is in the service's folder, without what its jobs left."""
    folder = home.path / service_folder
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if not name.startswith(("jobs/", "ledger/"))}


def test_an_installed_agent_serves_in_the_background_and_leaves_no_file(
    coordinator: Home, agent: Home, place: Path
) -> None:
    foreground = agent.start("clusteragent")
    eventually(lambda: agent.run("clusteragent", "status").status == 0)
    beside = service(agent, "clusteragent", "install")
    assert beside.status == 125 and "runs already (process" in beside.err, beside
    assert foreground.poll() is None
    end(foreground)
    before = files_of(agent, "agent")

    script = agent.path / "agent" / "start"
    write, start = service(agent, "clusteragent", "install", "--dry-run", "--json").json["would"]
    assert (write["do"], write["what"], start) == ("write", str(script), {"do": "run", "what": str(script)})
    assert not script.exists()
    installed = service(agent, "clusteragent", "install")
    assert installed.status == 0, installed
    assert script.read_text() == write["content"]
    assert str(script) in installed.out and f"Commands run as {USER}." in installed.out
    assert f"crontab -e, and the line  @reboot {script}" in installed.err
    shown = service(agent, "clusteragent", "status")
    assert shown.status == 0 and "runs:     yes" in shown.out and "at boot:  no" in shown.out
    pid = pid_of(agent, "clusteragent")
    assert (agent.path / "agent" / "twistd.pid").read_text() == str(pid)
    assert os.getsid(pid) != os.getsid(0) and Path(f"/proc/{pid}").stat().st_uid in (USER, os.getuid())

    client = user_home(place, "client")
    log_in(coordinator, client, address_of(coordinator))
    eventually(lambda: agent.run("clusteragent", "status").status == 0)
    answer = client.sh("run", "ws1", "umask; pwd")
    assert answer.out.split() == ["0022", str(agent.path.parent)], answer

    would = service(agent, "clusteragent", "uninstall", "--dry-run", "--json").json["would"]
    assert would[:2] == [{"do": "run", "what": f"kill -s TERM {pid}"}, {"do": "remove", "what": str(script)}]
    assert alive(pid) and script.exists()
    removed = service(agent, "clusteragent", "uninstall")
    assert removed.status == 0 and "Removed the service" in removed.out, removed
    assert not alive(pid)
    assert service(agent, "clusteragent", "status").status == 1
    assert files_of(agent, "agent") - {"jobs", "status.json"} == before - {"jobs", "status.json"}
    again = service(agent, "clusteragent", "uninstall")
    assert (again.status, again.out) == (0, "There is no service clusteragent (pidfile, user).\n")


def test_a_coordinator_that_is_installed_twice_goes_on_undisturbed(coordinator: Home) -> None:
    assert service(coordinator, "clusterd", "install").status == 0
    port = address_of(coordinator).rpartition(":")[2]
    pid = pid_of(coordinator, "clusterd")
    second = service(coordinator, "clusterd", "install")
    assert second.status == 0
    assert second.out.splitlines()[-2:] == [
        f"Machines join with:  curl http://127.0.0.1:{port}/install.sh | bash",
        f"Clients join with:   curl http://127.0.0.1:{port}/install_client.sh | bash",
    ]
    assert pid_of(coordinator, "clusterd") == pid
    by_hand = start_by_hand(coordinator)
    assert by_hand.returncode == 1
    assert f"in use by process {pid}" in by_hand.stderr and by_hand.stderr.count("ERROR") == 1
    assert coordinator.run("clusterd", "pending").status == 0
    assert service(coordinator, "clusterd", "uninstall").status == 0
    assert not alive(pid)


def start_by_hand(home: Home) -> subprocess.CompletedProcess[str]:
    """Run the script that starts the coordinator, as the machine's start would."""
    return subprocess.run(
        [*as_user(), home.path / "coordinator" / "start"],
        env=home.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_pidfile_that_names_another_process_by_now_is_not_believed(coordinator: Home) -> None:
    assert service(coordinator, "clusterd", "install").status == 0
    killed = pid_of(coordinator, "clusterd")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: not alive(killed))
    dead = service(coordinator, "clusterd", "status")
    assert dead.status == 1 and "runs:     no" in dead.out
    innocent = subprocess.Popen([*as_user(), "sleep", "300"])
    try:
        pidfile = coordinator.path / "coordinator" / "twistd.pid"
        assert pidfile.read_text() == str(killed)
        pidfile.write_text(str(innocent.pid))
        assert start_by_hand(coordinator).returncode == 0
        eventually(lambda: coordinator.running("coordinator"))
        assert pid_of(coordinator, "clusterd") != innocent.pid
        assert service(coordinator, "clusterd", "uninstall").status == 0
        assert innocent.poll() is None
    finally:
        end(innocent)


def test_what_is_dead_already_is_removed_without_a_trace(coordinator: Home) -> None:
    assert service(coordinator, "clusterd", "install").status == 0
    pid = pid_of(coordinator, "clusterd")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid))
    assert service(coordinator, "clusterd", "uninstall").status == 0
    assert not {"start", "twistd.pid", "log"} & files_of(coordinator, "coordinator")


def test_what_does_not_come_up_says_why_and_is_taken_away_again(coordinator: Home) -> None:
    (coordinator.path / "config.toml").write_text("[coordinator]\nlisten = '203.0.113.1:5672'\n")
    failed = service(coordinator, "clusterd", "install")
    assert failed.status == 125
    assert failed.err.startswith("ERROR: clusterd did not start: ") and "203.0.113.1" in failed.err, failed
    assert not {"start", "twistd.pid", "log"} & files_of(coordinator, "coordinator")
    assert service(coordinator, "clusterd", "status").status == 1


def test_an_agent_that_is_not_enrolled_is_not_installed(place: Path) -> None:
    home = user_home(place, "fresh")
    refused = service(home, "clusteragent", "install")
    assert refused.status == 125 and "not enrolled" in refused.err and "clusteragent enroll" in refused.err
    assert list(home.path.rglob("start")) == []
    assert service(home, "clusteragent", "install", "--no-start").status == 0
    assert (home.path / "agent" / "start").exists()
    assert service(home, "clusteragent", "uninstall").status == 0
    assert list((home.path / "agent").iterdir()) == []


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(coordinator: Home) -> None:
    folder = coordinator.path / "coordinator"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=4k,mode=700,uid={USER}", "none", folder], check=True)
    try:
        (folder / "filler").write_bytes(b"x" * 4096)
        full = service(coordinator, "clusterd", "install")
        assert full.status == 125
        assert full.err.splitlines()[0] == f"ERROR: can't write {folder / 'start'}: No space left on device"
        assert full.err.splitlines()[1:] == ["hint: free space there, then the same again"]
        assert files_of(coordinator, "coordinator") == {"filler"}
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_fills_up_at_the_start_is_said_in_one_line(coordinator: Home) -> None:
    """The script could still be written; what the service needs then can't be."""
    blocked = coordinator.path / "coordinator"
    blocked.mkdir(mode=0o700)
    os.chown(blocked, *(USER, USER) if os.geteuid() == 0 else (os.getuid(), os.getgid()))
    (blocked / "twistd.pid").mkdir()
    failed = service(coordinator, "clusterd", "install")
    assert failed.status == 125 and failed.err.startswith("ERROR: clusterd did not start: "), failed
    assert "start" not in files_of(coordinator, "coordinator")


def test_a_state_directory_of_someone_elses_is_said_with_its_owner(place: Path) -> None:
    home = user_home(place, "closed", LOOPBACK)
    home.path.chmod(0o500)
    try:
        refused = service(home, "clusterd", "install")
        assert refused.status == 125
        assert refused.err.startswith("ERROR: can't ") and "Permission denied" in refused.err, refused
    finally:
        home.path.chmod(0o700)


def test_a_system_service_is_roots_to_install(place: Path) -> None:
    home = user_home(place, "mine")
    refused = service(home, "clusterd", "install", "--system")
    if os.geteuid() == 0 or as_user():
        assert (refused.status, refused.err.splitlines()[0]) == (
            125,
            "ERROR: a system service is root's to install and remove",
        )
    assert "hint: the same with sudo" in refused.err
