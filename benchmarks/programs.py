"""What the benchmarks share: the real programs in homes of their own, how much they use, and a REST connection."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clustersh.address import parse_address
from clustersh.trust.identity import SERVER_NAME
from tests.real.programs import Home, end, eventually, log_in, make_home

from .tables import Unable

ROOT = Path(__file__).parent.parent
MIB = 1 << 20


@dataclass(eq=False)
class Cluster:
    """A coordinator, the agent of one machine called ws1, and a client that is logged in."""

    coordinator: Home
    agent: Home
    client: Home
    coordinator_pid: int
    agent_pid: int
    address: str

    @property
    def pids(self) -> tuple[int, int]:
        return self.coordinator_pid, self.agent_pid

    def rest(self) -> Rest:
        """Return a connection of the client's, kept alive."""
        return Rest(self.address, self.client.path / "client")


@contextlib.contextmanager
def started_cluster(
    folder: Path,
    environ: Mapping[str, str] | None = None,
    way_ms: float = 0.0,
    prepare: Callable[[Home], object] = lambda home: None,
) -> Iterator[Cluster]:
    """Start the real programs, both services with *environ*; the agent's link has *way_ms* more each way.

    *prepare* is given the agent's home first.
    """
    coordinator, agent, client = (make_home(folder, name) for name in ("coordinator", "agent", "client"))
    prepare(agent)
    with contextlib.ExitStack() as running:
        for home in (coordinator, agent, client):
            running.callback(home.stop)
        coordinator.environ.update(environ or {})
        server = coordinator.start("clusterd", "--listen", "127.0.0.1:0")
        address = coordinator.address()
        near = running.enter_context(delayed(address, way_ms)) if way_ms else address
        succeed(agent, "clusteragent", "enroll", f"http://{near}", "--name", "ws1")
        agent.environ.update(environ or {})
        worker = agent.start("clusteragent")
        log_in(coordinator, client, address)
        cluster = Cluster(coordinator, agent, client, server.pid, worker.pid, address)
        with contextlib.closing(cluster.rest()) as rest:
            eventually(lambda: online(rest), what="the agent online")
        yield cluster


def keep_standby(home: Home) -> None:
    """Have *home*'s commands go through a standby, as a user's do, and wait until it is there."""
    home.environ["CLUSTERSH_STANDBY"] = "on"
    succeed(home, "clustersh", "machines")
    home.standby()


def succeed(home: Home, *words: str) -> None:
    """Run a command in *home*. Raises Unable where it fails."""
    ran = home.run(*words)
    if ran.status:
        raise Unable(f"`{' '.join(words)}` exited {ran.status}: {ran.err.strip()}")


@contextlib.contextmanager
def delayed(address: str, way_ms: float) -> Iterator[str]:
    """Yield an address that leads to *address*, *way_ms* further away each way."""
    command = [sys.executable, "-m", "benchmarks.delay_proxy", address, str(way_ms)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        try:
            yield proxy.stdout.readline().strip()
        finally:
            proxy.terminate()


class Rest:
    """One kept-alive connection to the coordinator, over mutual TLS with the credentials in *folder*."""

    def __init__(self, address: str, folder: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(folder / "ca.pem")
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        plain = socket.create_connection(parse_address(address))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = http.client.HTTPConnection(address)
        self._connection.sock = context.wrap_socket(plain, server_hostname=SERVER_NAME)

    def get(self, path: str, wait_s: int = 0) -> Any:
        """GET *path* as JSON."""
        return json.loads(self.read(path, {"Prefer": f"wait={wait_s}"}))

    def read(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """GET *path* whole."""
        self._connection.request("GET", path, headers=dict(headers or {}))
        return self._answer().read()

    def open(self, path: str) -> http.client.HTTPResponse:
        """GET *path*; the caller reads the body."""
        self._connection.request("GET", path)
        return self._answer()

    def run(self, command: str, wait_s: int = 30, timeout_s: float = 300.0, target: str = "ws1") -> Any:
        """Ask for *command* on *target*, wait up to *wait_s* for its end, and return the run."""
        body = json.dumps({"target": target, "command": {"shell": command}, "timeout_s": timeout_s})
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": os.urandom(16).hex(),
            "Prefer": f"wait={wait_s}",
        }
        self._connection.request("POST", "/v1/runs", body, headers)
        return json.loads(self._answer().read())

    def wait(self, uuid: str, wait_s: int = 30) -> Any:
        """Wait for the end of a run and return it."""
        while True:
            run = self.get(f"/v1/runs/{uuid}", wait_s)
            if all(job["status"] not in ("requested", "running") for job in run["jobs"]):
                return run

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _answer(self) -> http.client.HTTPResponse:
        response = self._connection.getresponse()
        if response.status not in (200, 202):
            raise Unable(f"HTTP {response.status}: {response.read(4096)!r}")
        return response


def cpu_s(pids: Sequence[int]) -> float:
    """Return the seconds of CPU that these processes used, without their children's.

    By each process's own clock: what /proc tells comes in ticks of 10 ms, which is more than a job.
    """
    return sum(time.clock_gettime(_cpu_clock(pid)) for pid in pids)


def _cpu_clock(pid: int) -> int:
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise Unable(f"no CPU clock of process {pid}: {os.strerror(error)}")
    return clock.value


def memory(pid: int) -> dict[str, float]:
    """Return a process's memory in MiB: ``resident``, and ``unique`` to it."""
    found = {"Rss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0])
    return {"resident": found["Rss"] / 1024, "unique": (found["Private_Clean"] + found["Private_Dirty"]) / 1024}


class Peak:
    """The most resident memory (MiB) that processes had, beyond what they had at first."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._first = {pid: memory(pid)["resident"] for pid in pids}
        for pid in pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # begins its high-water mark anew

    def grown(self, pid: int) -> float:
        """Return how much *pid*'s high-water mark is above its beginning."""
        status = Path(f"/proc/{pid}/status").read_text()
        high = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        return max(0.0, high / 1024 - self._first[pid])


def timed(work: Any) -> float:
    """Return the seconds that calling *work* takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def restarted(cluster: Cluster, work: Callable[[], object]) -> float:
    """Stop the coordinator, do *work*, start it again; return the seconds until it listens. The agent comes back."""
    end(cluster.coordinator.services[0])
    cluster.coordinator.services.clear()
    work()
    began = time.perf_counter()
    server = cluster.coordinator.start("clusterd", "--listen", cluster.address)
    eventually(
        lambda: cluster.coordinator.running("coordinator").get("pid") == server.pid, 300, "the coordinator again"
    )
    seconds = time.perf_counter() - began
    cluster.coordinator_pid = server.pid
    with contextlib.closing(cluster.rest()) as rest:
        # Its pauses have grown while there was no coordinator.
        eventually(lambda: online(rest), 300, "the agent online again")
    return seconds


def online(rest: Rest) -> bool:
    """Whether ws1 has a link."""
    (machine,) = rest.get("/v1/machines?target=ws1")["machines"]
    return bool(machine["status"] == "online")
