"""The services of a soak, each behind its own way to the coordinator, and what breaks and mends them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ...real.programs import PATIENCE_S, Home, end, log_in, make_home
from ..proxy import Proxy, free_port
from ..users import as_user, give
from .plan import Fault

MACHINES = ("ws1", "ws2")
SERVICES = ("coordinator", *MACHINES)
CLIENTS = "clients"
CLIENTS_LINK = "clients-link"
LINKS = (*(f"{machine}-link" for machine in MACHINES), CLIENTS_LINK)
_AGENT = '[agent]\nreconnect_max = "1s"\ngrace = "1s"\n'
_CLIENT = '[client]\nretry_for = "10m"\n'


class SoakCluster:
    """A coordinator, two agents and a client in *folder*, every way to the coordinator through the proxy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.proxy = Proxy({link: free_port() for link in LINKS}, self.port)
        self.homes = {name: self._make_home(name) for name in (*SERVICES, CLIENTS)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.died: list[str] = []
        try:
            self._begin()
        except BaseException:
            self.stop()
            raise

    def _make_home(self, name: str) -> Home:
        home = make_home(self.folder, name)
        give(home.path.parent)
        temporary = home.path.parent / "tmp"
        temporary.mkdir()
        give(temporary)
        home.before = (*as_user(), "env", f"TMPDIR={temporary}")
        home.path.mkdir(mode=0o700)
        give(home.path)
        if name != "coordinator":
            (home.path / "config.toml").write_text(_CLIENT if name == CLIENTS else _AGENT)
        return home

    def _begin(self) -> None:
        self.start("coordinator")
        for machine in MACHINES:
            address = f"http://{self.proxy.address(f'{machine}-link')}"
            enrolled = self.homes[machine].run("clusteragent", "enroll", address, "--name", machine)
            assert enrolled.status == 0, enrolled
            self.start(machine)
        clients = self.homes[CLIENTS]
        log_in(self.homes["coordinator"], clients, self.proxy.address(CLIENTS_LINK))
        self.until_online()

    # -- the services

    def start(self, service: str) -> None:
        """Start *service*; the coordinator is up when this returns, an agent begins to be."""
        home = self.homes[service]
        if service == "coordinator":
            self.processes[service] = home.start("clusterd", "--listen", f"127.0.0.1:{self.port}")
            home.address()
        else:
            self.processes[service] = home.start("clusteragent")

    def end(self, service: str, how: signal.Signals) -> None:
        """End *service*; one that had ended already is remembered in `died`."""
        process = self.processes[service]
        if process.poll() is not None:
            self.died.append(f"{service} had ended by itself ({process.returncode})")
        end(process, how)
        self.homes[service].services.remove(process)

    def until_online(self) -> None:
        """Wait for every machine."""
        if not settle(lambda: all(self.status_of(machine) == "online" for machine in MACHINES), 2 * PATIENCE_S):
            ends = (f"{name}: ...{self.homes[name].log.read_text()[-1000:]}" for name in SERVICES)
            raise AssertionError("\n".join(("not every machine came back", *ends)))

    def status_of(self, machine: str) -> str:
        return self.homes[CLIENTS].statuses().get(machine, "")

    def is_linked(self, machine: str) -> bool:
        """Whether the machine's agent says that it has a link."""
        with contextlib.suppress(OSError, ValueError):
            said = json.loads((self.homes[machine].path / "agent" / "status.json").read_bytes())
            return said["pid"] == self.processes[machine].pid and not said["problem"]
        return False

    # -- faults

    def inject(self, fault: Fault, sleep: Callable[[float], None]) -> None:
        """Break what *fault* says, wait, and mend it."""
        if fault.target in LINKS:
            self.proxy.tell(fault.how, fault.target, 0.05)
            if fault.seconds:
                sleep(fault.seconds)
                self.proxy.tell("well", fault.target)
        elif fault.how == "freeze":
            self.processes[fault.target].send_signal(signal.SIGSTOP)
            sleep(fault.seconds)
            self.processes[fault.target].send_signal(signal.SIGCONT)
        else:
            self.end(fault.target, signal.SIGKILL if fault.how == "kill" else signal.SIGTERM)
            sleep(fault.seconds)
            self.start(fault.target)

    def stop(self) -> None:
        """End everything."""
        for home in reversed(self.homes.values()):
            home.stop()
        self.proxy.stop()


def descriptors(pid: int) -> list[str]:
    """Return what the open files of *pid* are."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(descriptor.readlink()))
    return found


def resident(pid: int) -> int:
    """Return the resident memory of *pid* in bytes."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def marked_processes(uuids: set[str]) -> list[str]:
    """Return the processes that carry the mark of one of the jobs *uuids*."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environ = (folder / "environ").read_bytes().split(b"\0")
            mark = next((entry for entry in environ if entry.startswith(b"CLUSTERSH_JOB=")), b"")
            if mark.partition(b"=")[2].decode() in uuids:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{folder.name} {command}")
    return found


def settle(look: Callable[[], bool], seconds: float) -> bool:
    """Whether *look* comes true within *seconds*."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
