"""The Debian package: built, installed, used and purged for real, in a root file system of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clustersh import __version__

from ..conftest import ROOT
from ..real.programs import eventually
from .roots import Root, isolated_root, possible

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not possible(), reason="needs root, Linux and Debian's tools: dpkg-deb, and namespaces to install in"
    ),
    pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs the system's Python"),
]
BOOKKEEPING = re.compile(
    r"/var/lib/dpkg/|/var/log/dpkg\.log|/var/cache/debconf/|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|"
    r"/etc/\.pwd\.lock$|/var/log/(faillog|lastlog)$"
)
"""What dpkg, useradd and userdel themselves write."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deb")
    built = subprocess.run(
        [sys.executable, ROOT / "packaging" / "debian" / "build.py", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    [path] = folder.glob("*.deb")
    assert built.stdout == f"{path}\n"
    return path


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    with isolated_root(tmp_path) as made:
        yield made


def test_dpkg_reads_the_package_and_it_holds_what_it_should(package: Path) -> None:
    said = subprocess.run(["dpkg-deb", "-I", package], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^ Package: clustersh\n Version: {re.escape(__version__)}$", said, re.MULTILINE)
    assert re.search(r"^ Depends: python3\.\d+, ", said, re.MULTILINE)
    listed = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=5) for line in listed.splitlines()]
    assert {line[1] for line in lines} == {"root/root"}
    names = {line[5].removeprefix(".").partition(" -> ")[0] for line in lines}
    assert {
        "/usr/bin/clusterd",
        "/usr/bin/clusteragent",
        "/usr/bin/clustersh",
        "/usr/lib/systemd/system/clusterd.service",
        "/usr/lib/systemd/system/clusteragent.service",
        "/usr/share/bash-completion/completions/clustersh",
        "/usr/share/zsh/vendor-completions/_clustersh",
        "/usr/share/fish/vendor_completions.d/clustersh.fish",
    } <= names
    assert [name for name in names if not name.startswith("/usr/") and name not in ("/",)] == []


def test_nothing_in_it_names_the_place_where_it_was_built(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", package, tmp_path], check=True)
    scripts = [path for path in (tmp_path / "usr/lib/clustersh/bin").iterdir() if not path.is_symlink()]
    assert {path.name for path in scripts} >= {"clusterd", "clusteragent", "clustersh", "twistd"}
    assert {path.read_text().splitlines()[0] for path in scripts} == {"#!/usr/lib/clustersh/bin/python"}
    named = subprocess.run(
        ["grep", "-rlaE", "clustersh-deb-[a-z0-9_]{8}|/tree/usr/lib", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert named.stdout == ""


def test_it_is_installed_runs_and_is_purged_without_a_trace(package: Path, root: Root) -> None:
    before = root.changed()
    root.put(package, "/tmp/clustersh.deb")
    installed = root.run("dpkg", "-i", "/tmp/clustersh.deb")
    assert installed.returncode == 0 and "systemctl enable --now clusterd" in installed.stdout, installed
    for program in ("clusterd", "clusteragent", "clustersh"):
        assert root.check(program, "--version") == f"{program} {__version__}\n"
    assert root.check("stat", "-c", "%U:%G %a", "/var/lib/clustersh") == "clusterd:clusterd 700\n"
    assert root.check("getent", "passwd", "clusterd").endswith(":/var/lib/clustersh:/usr/sbin/nologin\n")
    if shutil.which("systemd-analyze"):
        for unit in ("clusterd", "clusteragent"):
            verified = root.run("systemd-analyze", "verify", "--man=no", f"/usr/lib/systemd/system/{unit}.service")
            assert [line for line in verified.stderr.splitlines() if unit in line] == []
    listening = runs_as_clusterd(root)
    assert listening.count(":") == 1
    assert root.run("dpkg", "-i", "/tmp/clustersh.deb").returncode == 0  # over itself
    root.check("dpkg", "--purge", "clustersh")
    left = {path for path in root.changed() - before if not BOOKKEEPING.search(path)}
    assert left == set()
    assert root.run("getent", "passwd", "clusterd").returncode != 0
    assert root.run("ls", "/usr/lib/clustersh").returncode != 0


def test_a_system_service_runs_as_a_user_of_its_own(package: Path, root: Root) -> None:
    """Nothing manages services in there: twistd does it, as whom the service is for."""
    root.put(package, "/tmp/clustersh.deb")
    root.check("dpkg", "-i", "/tmp/clustersh.deb")
    root.check("userdel", "clusterd")
    root.check("rm", "-r", "/var/lib/clustersh")
    root.check(
        "sh",
        "-c",
        "mkdir -m 700 /var/lib/clustersh && printf '[coordinator]\nlisten = \"127.0.0.1:0\"\n' "
        "> /var/lib/clustersh/config.toml",
    )
    refused = root.run("clusterd", "service", "install", "--system")
    assert refused.returncode == 125 and "holds that user's state" in refused.stderr, refused
    root.check("chown", "-R", "clusterd:", "/var/lib/clustersh")
    installed = root.check("clusterd", "service", "install", "--system")
    assert "Installed clusterd as a system service (pidfile): /etc/clustersh/start-clusterd" in installed
    state = json.loads(root.run("clusterd", "service", "status", "--system", "--json").stdout)
    assert (state["running"], state["user"]) == (True, "clusterd")
    assert root.check("stat", "-c", "%U", f"/proc/{state['pid']}") == "clusterd\n"
    assert root.check("stat", "-c", "%U %a", "/var/lib/clustersh/coordinator") == "clusterd 700\n"
    assert root.check("stat", "-c", "%U %a", "/etc/clustersh/start-clusterd") == "root 755\n"
    home = ("env", "HOME=/nonexistent")
    nobody = root.run("setpriv", "--reuid=nobody", "--clear-groups", *home, "clusterd", "approve", "00000000")
    assert nobody.returncode == 125
    assert (
        "hint: sudo -u clusterd env CLUSTERSH_HOME=/var/lib/clustersh /usr/bin/clusterd approve 00000000"
        in nobody.stderr
    )
    root.check("clusterd", "service", "uninstall", "--system")
    assert root.run("ls", f"/proc/{state['pid']}", "/etc/clustersh", "/var/lib/clustersh/coordinator/log").stdout == ""
    # Purging the package leaves the state of an agent that was installed by the one line.
    root.check("sh", "-c", "mkdir /opt/clustersh /var/lib/clustersh-agent && touch /opt/clustersh/has-clusteragent")
    root.check("dpkg", "--purge", "clustersh")
    kept = root.run("ls", "-d", "/var/lib/clustersh-agent", "/var/lib/clustersh").stdout
    assert kept == "/var/lib/clustersh-agent\n"


def runs_as_clusterd(root: Root) -> str:
    """Run the coordinator as the package's user for a moment; return its address."""
    as_clusterd = ("setpriv", "--reuid=clusterd", "--regid=clusterd", "--clear-groups", "--")
    home = "CLUSTERSH_HOME=/var/lib/clustersh"
    daemon = ("twistd", "--pidfile=/var/lib/clustersh/pid", "--logfile=/var/lib/clustersh/log")
    root.check(*as_clusterd, "env", home, f"/usr/lib/clustersh/bin/{daemon[0]}", *daemon[1:], "clusterd", "--port=0")
    eventually(lambda: "listens" in root.run("cat", "/var/lib/clustersh/log").stdout)
    assert root.check("env", home, *as_clusterd, "clusterd", "pending").startswith("name")
    said = root.check("cat", "/var/lib/clustersh/coordinator/run.json")
    pid = root.check("cat", "/var/lib/clustersh/pid")
    root.check("kill", pid)
    eventually(lambda: root.run("kill", "-0", pid).returncode != 0)
    return re.findall(r'"address":"([^"]+)"', said)[0]
