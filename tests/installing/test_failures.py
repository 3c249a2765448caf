"""Whatever goes wrong: one clear line, nothing half-installed, and a second run that succeeds."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..real.programs import end
from .hosts import PYTHON, USER, Host, Hub, Network

pytestmark = pytest.mark.timeout(600)
DATA = f"/home/{USER}/.local/share/clustersh"
RUNNING = "cat ~/.config/clustersh/agent/run.json"
LEFT = {f"/home/{USER}/{path}" for path in (".local", ".local/share")} | {
    f"{DATA}{path}" for path in ("", "/versions", "/made", "/lock", "/install.log")
}
"""What a run that failed may leave: its log, and what the log is in."""
LOGS = {f"{DATA}/lock", f"{DATA}/install.log"}


@pytest.fixture(scope="session")
def bare(net: Network) -> Host:
    return net.host("db2", 20)


@pytest.fixture(scope="session")
def prepared(net: Network, hub: Hub) -> Host:
    """A host with a client on it, so that the version is there already."""
    host = net.host("db3", 21)
    host.check(hub.client_line)
    return host


@pytest.fixture(params=["bare", "prepared"])
def host(request: pytest.FixtureRequest, hub: Hub) -> Iterator[Host]:
    """A host without an agent, before and after."""
    host: Host = request.getfixturevalue(request.param)
    before = host.files()
    yield host
    host.check(f"{hub.machine_line} -s -- --uninstall")
    assert {path for path in host.files() - before - LOGS if not path.endswith("/dropin.cache")} == set()
    assert host.processes() == ""


def on(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("host", [name], indirect=True)


def fails(host: Host, line: str, pattern: str, *, status: int | None = None, **environ: str) -> str:
    """See that *line* fails with one error that *pattern* is for, and leaves nothing but its log; return its words."""
    before = host.files()
    ran = host.type(line, **environ)
    assert ran.returncode == status if status else ran.returncode, ran
    errors = [each for each in ran.stderr.splitlines() if each.startswith("ERROR: ")]
    assert len(errors) == 1 and re.fullmatch(f"ERROR: {pattern}", errors[0]), ran
    assert "Traceback" not in ran.stderr and ran.stdout == ""
    assert host.files() - before - LEFT == set()
    return ran.stderr


def joins(host: Host, line: str, name: str = "db2") -> None:
    assert host.check(line) == f"{name} has joined hub:5672 and is online; commands run as {USER}.\n"


RELAY = Path(__file__).with_name("relay.py").read_text()


@contextmanager
def in_between(host: Host, path: str, what: str) -> Iterator[str]:
    """Run what hands the coordinator's answers on, but does *what* to those for *path*; yield the line through it."""
    words = f"exec {PYTHON} -c {shlex.quote(RELAY)} {path} {what}"
    relay = subprocess.Popen(host.words(words), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert relay.stdout is not None and relay.stdout.readline() == b"ready\n"
        yield "curl -sS http://127.0.0.1:5001/install.sh | bash"
    finally:
        host.root.run("pkill", "-u", USER, "-f", "BaseHTTPRequestHandler")
        end(relay)


def cut_off_or_changed(host: Host) -> None:
    before = host.files()
    with in_between(host, "/install.sh", "cut") as line:
        said = fails(host, line, "the installer did not arrive whole: run the line again", status=2)
        assert "curl: (18)" in said
    assert host.files() == before
    for what in ("cut", "change"):
        with in_between(host, "/packages/clustersh", what) as line:
            said = fails(host, line, "can't install from the coordinator's wheelhouse")
            assert f"hint: log: {DATA}/install.log" in said
            log = host.check(f"cat {DATA}/install.log")
            assert re.search("DO NOT MATCH|IncompleteRead|incomplete", log), log


def full_disk(hub: Hub, host: Host) -> None:
    share = f"/home/{USER}/.local/share"
    for options, pattern in (
        ("size=20m", r"there is too little room on the disk of \S+: (19|20) MiB, and 150 are needed"),
        ("size=400m,nr_inodes=400", r"can't make a venv in \S+"),
        ("size=400m,nr_inodes=2500", r"can't install from the coordinator's wheelhouse"),
    ):
        mounted = f"mount -t tmpfs -o {options},mode=700,uid={host.check('id -u').strip()} none {share}"
        host.check(mounted, "root")
        try:
            said = fails(host, hub.machine_line, pattern)
            assert "free some space" in said, said
        finally:
            host.check(f"umount {share}; rm -rf /run/mount", "root")


def no_python(hub: Hub, host: Host) -> None:
    host.check("mkdir programs; ln -s $(type -P bash curl df mkdir mktemp rm rmdir sort id) programs")
    line = f"PATH=$HOME/programs; {hub.machine_line}"
    said = fails(host, line, r"no Python >= 3\.11 with venv was found", status=1)
    assert "hint: Debian, Ubuntu: apt install python3-venv" in said
    host.check("rm -r programs")


def no_coordinator(hub: Hub, host: Host) -> None:
    host.check("curl -fsS http://hub:5672/install.sh > script")
    host.link("down")
    try:
        ran = host.type(f"set -o pipefail; {hub.machine_line}")
        assert ran.returncode == 7 and "curl: (7)" in ran.stderr
        fails(host, "bash script", "can't reach the coordinator at hub:5672")
    finally:
        host.link("up")
    host.check("rm script")


@on("bare")
def test_after_whatever_kept_it_from_arriving_an_installation_succeeds(hub: Hub, host: Host) -> None:
    no_python(hub, host)
    cut_off_or_changed(host)
    full_disk(hub, host)
    no_coordinator(hub, host)
    joins(host, hub.machine_line)


@on("prepared")
def test_a_name_that_is_taken(hub: Hub, host: Host) -> None:
    hub.host.check("CLUSTERSH_HOME=~/other clusterd/bin/clusteragent enroll localhost --name taken")
    said = fails(host, f"{hub.machine_line} -s -- --name taken", "the name taken belongs to another key")
    [line] = re.findall("^hint: this one is free: (.*)$", said, re.MULTILINE)
    assert line == "curl -fsS http://hub:5672/install.sh | bash -s -- --name taken-2"
    assert "clusterd forget taken" in said
    joins(host, line, "taken-2")


@on("prepared")
def test_a_coordinator_that_goes_away_before_the_machine_is_in(hub: Hub, host: Host) -> None:
    host.check("curl -fsS http://hub:5672/install.sh > script")
    host.link("down")
    try:
        fails(host, "bash script", "there is no route to hub:5672")
    finally:
        host.link("up")
    joins(host, "bash script", "db3")
    host.check("rm script")


@on("bare")
def test_options_that_do_not_exist(hub: Hub, host: Host) -> None:
    said = fails(host, f"{hub.machine_line} -s -- --nmae db1", "there is no option '--nmae'", status=1)
    assert said.splitlines()[-1] == (
        "hint: the options: --name NAME, --user, --system, --uninstall, --run-as USER, --no-service"
    )
    fails(host, f"{hub.machine_line} -s -- --name", "--name needs a value", status=1)
    assert DATA not in host.files()


KILLED_AT = (
    f"-d {DATA}/versions",
    f"-e $(echo {DATA}/versions/*/pyvenv.cfg)",
    f"-d $(echo {DATA}/versions/*/lib/python*/site-packages/twisted)",
    f"-e $(echo {DATA}/versions/*/wheel.sha256)",
    "-e ~/.config/clustersh/config.toml",
    "-e ~/.config/clustersh/agent/key.pem",
    "-e ~/.config/clustersh/agent/agent.json",
    f"-L {DATA}/current",
    "-e ~/.config/clustersh/agent/start",
    "-e ~/.config/clustersh/agent/run.json",
)
"""What there is when an installer is killed. The next one finds that, and comes at least as far."""


def killed_at(host: Host, line: str, condition: str) -> bool:
    """Kill an installer, and all that it started, as soon as *condition* is true; return whether it was still at it."""
    script = f"""
        setsid bash -c {shlex.quote(line)} >/dev/null 2>&1 & pid=$!
        exec 3<> <(:)  # to wait at without starting a program, which is to leave the processor to the installer
        until test {condition} 2>/dev/null; do kill -0 $pid 2>/dev/null || break; read -rt 0.002 -u 3; done
        kill -KILL -- -$pid; wait $pid; echo $?
    """
    return host.check(script).strip() == "137"


@on("bare")
def test_an_installer_that_is_killed_at_any_step(hub: Hub, host: Host) -> None:
    killed = [
        condition
        for condition in KILLED_AT
        if host.type(f"test {condition}").returncode != 0 and killed_at(host, hub.machine_line, condition)
    ]
    # On a busy machine a kill may come a step late, so that the next step is behind it.
    assert len(killed) >= len(KILLED_AT) - 3, killed
    joins(host, hub.machine_line)
    assert len(host.check(f"ls -d {DATA}/versions/* {DATA}/install.*/ 2>/dev/null || true").split()) == 1
    assert hub.sh("run db2 id -un") == f"{USER}\n"
    uninstall = f"{hub.machine_line} -s -- --uninstall"
    assert killed_at(host, uninstall, "! -e ~/.config/clustersh/agent/agent.json")
    host.check(uninstall)
    assert hub.status_of("db2") == ""


@on("bare")
def test_an_upgrade_that_fails_goes_back_and_one_that_does_not_goes_on(hub: Hub, host: Host) -> None:
    joins(host, hub.machine_line)
    first = host.check(f"readlink {DATA}/current")
    module = "clusterd/lib/python*/site-packages/clustersh/agent/service.py"
    hub.host.check(f"cp {module} kept")
    try:
        hub.host.check(f"echo 'raise SystemExit(3)' >> {module}")
        hub.restart()
        fails(host, hub.machine_line, "clusteragent did not start.*")
        assert host.check(f"readlink {DATA}/current") == first
        hub.until_status("db2", "online")
        hub.host.check(f"cp kept {module}; echo '# changed' >> {module}")
        hub.restart()
        joins(host, hub.machine_line)
        assert host.check(f"readlink {DATA}/current") != first
        assert (
            host.check(f"tail -n1 {DATA}/current/lib/python*/site-packages/clustersh/agent/service.py") == "# changed\n"
        )
        running = host.check(RUNNING)
        assert len(host.check(f"ls -d {DATA}/versions/*").split()) == 2
        joins(host, hub.machine_line)
        assert host.check(RUNNING) == running
    finally:
        hub.host.check(f"mv kept {module}")
        hub.restart()
