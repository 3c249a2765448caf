"""Hosts with a network, a name, users and a root file system of their own, and nothing else within reach."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clustersh.coordinator.own_wheel import pack_installed
from clustersh.trust.identity import SERVER_NAME

from ..real.programs import eventually
from ..services.roots import ENVIRON, Root, isolated_root

PYTHON = "/usr/bin/python3"
USER = "ann"
PLACES = ("/home", "/root/.config", "/root/.local", "/tmp", "/run", "/var", "/etc", "/opt", "/usr/local")


class Host:
    """One host; *root* is its file system, and the namespaces it is in."""

    def __init__(self, name: str, address: str, root: Root) -> None:
        self.name = name
        self.address = address
        self.root = root

    def words(self, line: str, user: str = USER, **environ: str) -> list[str | Path]:
        """Return the command that has bash read *line* as *user* would have typed it."""
        home = "/root" if user == "root" else f"/home/{user}"
        seen = {**ENVIRON, "HOME": home, "USER": user, "SHELL": "/bin/bash", **environ}
        drop = () if user == "root" else ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
        variables = [f"{name}={value}" for name, value in seen.items()]
        return self.root.words(*drop, "env", "-i", *variables, "bash", "-c", f"cd; {line}")

    def type(self, line: str, user: str = USER, **environ: str) -> subprocess.CompletedProcess[str]:
        """Type *line* and wait for its end."""
        return subprocess.run(
            self.words(line, user, **environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def check(self, line: str, user: str = USER, **environ: str) -> str:
        """As `type`, of a line that has to succeed: return what it printed."""
        ran = self.type(line, user, **environ)
        assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}\n{self.log(user)}"
        return ran.stdout

    def log(self, user: str = USER) -> str:
        """Return the end of the installer's log."""
        home = "/root" if user == "root" else f"/home/{user}"
        return self.root.run("tail", "-n30", f"{home}/.local/share/clustersh/install.log").stdout

    def files(self) -> set[str]:
        """Return every path, folders included, in the places where a program may leave something."""
        return set(self.root.run("find", *PLACES, "-xdev").stdout.splitlines())

    def link(self, state: str) -> None:
        """Set the link to the others ``up`` or ``down``."""
        self.root.check("ip", "link", "set", "eth0", state)

    def processes(self) -> str:
        """Return the command lines of all processes of the user."""
        return self.root.run("ps", "-u", USER, "-o", "args=").stdout


class Network:
    """A switch; whatever is plugged in reaches the others and nothing else."""

    def __init__(self, prefix: str, folder: Path, stack: contextlib.ExitStack) -> None:
        self._prefix = prefix
        self._folder = folder
        self._stack = stack
        self._switch = self._namespace("switch")
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")

    def host(self, name: str, number: int, *, more: str = "", read_only: bool = True) -> Host:
        """Plug in a new host; *more* are lines of shell that make it, with its root in ``$root``."""
        namespace, address, port = self._namespace(name), f"10.77.0.{number}", f"port{number}"
        _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")
        _ip("-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", device, "up")
        place = self._folder / name
        place.mkdir()
        lines = [
            f"root={shlex.quote(str(place / 'root'))}",
            f"hostname {name}",
            "printf '127.0.0.1 localhost\\n10.77.0.1 hub\\n' > $root/etc/hosts",
            ": > $root/etc/resolv.conf",
            "rm -rf $root/etc/pip.conf $root/etc/xdg/pip",
            f"chroot $root useradd --create-home --shell /bin/bash {USER}",
            "chmod 1777 $root/tmp",
            more,
        ]
        if read_only:
            lines += ["mount --bind $root/usr $root/usr", "mount -o remount,bind,ro $root/usr"]
        within = ("ip", "netns", "exec", namespace)
        root = self._stack.enter_context(isolated_root(place, within=within, more="\n".join(lines)))
        return Host(name, address, root)

    def _namespace(self, name: str) -> str:
        full = f"{self._prefix}-{name}"
        _ip("netns", "add", full)
        self._stack.callback(_ip, "netns", "delete", full)
        return full


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """Make a network; it is gone at the end, with every host in it."""
    with contextlib.ExitStack() as stack:
        yield Network(f"clustersh{os.getpid()}", folder, stack)


class Hub:
    """The coordinator's host, and the lines that its service printed: for machines, and for clients."""

    def __init__(self, host: Host, lines: list[str]) -> None:
        self.host = host
        self.machine_line, self.client_line = lines

    url = "http://hub:5672"

    def sh(self, words: str, status: int = 0) -> str:
        """Run `clustersh` there, and see that it ends with *status*."""
        ran = self.host.type(f"clusterd/bin/clustersh {words}")
        assert ran.returncode == status, f"{words}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def job(self, uuid: str) -> dict[str, Any]:
        """Return the job as history tells it."""
        jobs = json.loads(self.sh("history --json"))["jobs"]
        return next(dict(job) for job in jobs if job["uuid"] == uuid)

    def invitation(self, *words: str) -> str:
        """Return the line for untrusted networks."""
        return str(json.loads(self.admin(f"invite --address hub --json {shlex.join(words)}"))["line"])

    def admin(self, words: str) -> str:
        """Run `clusterd` there."""
        return self.host.check(f"clusterd/bin/clusterd {words}")

    def restart(self) -> None:
        """Start the coordinator anew, with whatever its package holds now."""
        self.admin("service uninstall")
        self.admin("service install")

    def set_policy(self, policy: str) -> None:
        """Have the coordinator let machines in by that `[enrollment] policy`."""
        config = f"[enrollment]\npolicy = '{policy}'"
        self.host.check(f"echo {shlex.quote(config)} > ~/.config/clustersh/config.toml")
        self.restart()

    def until_status(self, machine: str, status: str) -> None:
        """Wait until the coordinator shows *machine* so."""
        eventually(lambda: self.status_of(machine) == status, 90, f"{machine} {status}", every=0.2)

    def status_of(self, machine: str) -> str:
        """Return how the coordinator shows *machine* to the user there; "" where it knows none of that name.

        Asked again and again, a program each time would take the processor from those that are waited for.
        """
        certificates = "--cacert ca.pem --cert cert.pem --key key.pem --connect-to ::localhost:5672"
        asked = f"cd .config/clustersh/client && curl -fsS {certificates} https://{SERVER_NAME}/v1/machines"
        machines = json.loads(self.host.check(asked))["machines"]
        return next((each["status"] for each in machines if each["name"] == machine), "")


def make_hub(net: Network, wheels: Path) -> Hub:
    """Install the coordinator from its package, as a service, and log a user in there."""
    bind = f"mkdir $root/tmp/wheels; mount --bind {shlex.quote(str(wheels))} $root/tmp/wheels"
    host = net.host("hub", 1, more=bind)
    pip = "clusterd/bin/python -m pip --disable-pip-version-check --no-cache-dir install --quiet --no-compile"
    host.check(f"{PYTHON} -m venv clusterd && {pip} --no-index --find-links /tmp/wheels clustersh")
    host.check("clusterd/bin/clusterd wheelhouse fill", PIP_NO_INDEX="1", PIP_FIND_LINKS="/tmp/wheels")
    installed = host.check("clusterd/bin/clusterd service install")
    hub = Hub(host, [line.partition("with:")[2].strip() for line in installed.splitlines() if "join with:" in line])
    asked = hub.sh("login localhost --no-wait --name ann@hub")
    hub.admin(f"approve {asked.partition('clusterd approve ')[2].split()[0]}")
    hub.sh("whoami")
    return hub


def fetch_wheels(folder: Path) -> Path:
    """Fetch all that clustersh needs with the machines' Python; its own wheel is there too."""
    own = pack_installed()
    needs = [each for each in own.requires if ";" not in each]
    words = ("-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--python-version", python_version())
    subprocess.run([sys.executable, *words, "--dest", folder, *needs], check=True, capture_output=True)
    (folder / own.name).write_bytes(own.content)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


def python_version() -> str:
    """Return the version of the machines' Python, such as 3.11; "" where there is none that will do."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2] if sys.version_info >= (3, 11) else '')"
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return ""


def why_not() -> str:
    """Return why hosts can't be made here; "" where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux, and root: it makes network namespaces"
    missing = [each for each in ("ip", "unshare", "nsenter", "setpriv", "useradd", "curl") if not shutil.which(each)]
    if missing:
        return f"needs {', '.join(missing)}"
    if not python_version():
        return f"needs {PYTHON} >= 3.11 with venv (Debian: apt install python3-venv)"
    made = subprocess.run(["ip", "netns", "add", f"try{os.getpid()}"], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"can't make network namespaces: {made.stderr.strip()}"
    _ip("netns", "delete", f"try{os.getpid()}")
    return ""


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {shlex.join(words)}: {done.stderr}"
