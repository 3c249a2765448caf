"""The real programs, as processes of their own in a home of their own, and ways to wait for what they do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clustersh.address import parse_address
from clustersh.frontend import blocking
from clustersh.wire.rest import JSON

from ..conftest import ROOT

T = TypeVar("T")
PATIENCE_S = 30.0
LOOK_S = 0.03
"""Between two questions to a coordinator."""
ANSWER_S = 10.0
"""For the answer to one."""
BIN = Path(sys.executable).parent


def eventually(look: Callable[[], T], seconds: float = PATIENCE_S, what: str = "", every: float = 0.01) -> T:
    """Return what *look* returns once that is true; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come true in {seconds} s: {what or look}")
        time.sleep(every)


@dataclass
class Result:
    """How a command ended."""

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def err(self) -> str:
        return self.stderr.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


@dataclass
class Home:
    """One state directory and the programs that run in it; *environ* is theirs, *before* the words that start them."""

    path: Path
    log: Path
    environ: dict[str, str] = field(default_factory=dict)
    services: list[subprocess.Popen[bytes]] = field(default_factory=list)
    before: tuple[str, ...] = ()
    runtime: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="clustersh-")))
    """Where sockets are: a Unix socket's path is short, and pytest's are long."""

    def start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a program in the background; what it says goes to the log."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*self.before, BIN / program, *words],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.services.append(process)
        return process

    def open(self, program: str, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start a command whose streams the test holds."""
        process = subprocess.Popen(
            [*self.before, BIN / program, *words],
            env=self.environment(),
            stdin=streams.get("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.services.append(process)
        return process

    def run(
        self,
        program: str,
        *words: str | bytes,
        stdin: bytes | None = None,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        seconds: float = 60.0,
    ) -> Result:
        """Run a command to its end."""
        began = time.monotonic()
        done = subprocess.run(
            [*self.before, BIN / program, *words],
            env=self.environment(environ or {}),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=seconds,
            cwd=cwd,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def sh(self, *words: str | bytes, **options: Any) -> Result:
        """Run `clustersh` with *words*."""
        return self.run("clustersh", *words, **options)

    def ask(self, path: str) -> dict[str, Any]:
        """Return what the coordinator answers this home's client to a GET; {} where it doesn't.

        For what is asked again and again: a program each time takes the processor from those that are waited for.
        """
        with contextlib.suppress(*blocking.FAILURES):
            connection = blocking.connect(self.path, ANSWER_S)
            if connection is not None:
                with contextlib.closing(connection):
                    return blocking.get(connection, path, dict[str, Any]) or {}
        return {}

    def statuses(self) -> dict[str, str]:
        """Return each machine's status, as the coordinator tells this home's client."""
        return {each["name"]: each["status"] for each in self.ask("/v1/machines").get("machines", [])}

    def jobs(self) -> list[dict[str, Any]]:
        """Return the newest jobs, as the coordinator tells this home's client."""
        return list(self.ask("/v1/jobs").get("jobs", []))

    def approve(self, code: str) -> None:
        """Let in whoever shows *code*, as `clusterd approve` does; by that itself where only it gets there."""
        with contextlib.suppress(OSError):
            folder, address = self.path / "coordinator" / "admin", parse_address(self.address())
            connection = blocking.connect_blocking(address, folder, connect_s=ANSWER_S, answer_s=ANSWER_S)
            with contextlib.closing(connection):
                connection.request("POST", "/v1/admin/approve", json.dumps({"code": code}), {"Content-Type": JSON})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                return
        approved = self.run("clusterd", "approve", code)
        assert approved.status == 0, approved

    @property
    def stands_by(self) -> bool:
        """Whether commands leave a standby behind, and use it."""
        return self.environment()["CLUSTERSH_STANDBY"] != "off"

    def standby(self) -> dict[str, Any]:
        """Wait until a standby takes calls; return what it says of itself."""
        look = lambda: self.sh("standby", "--json").json["state"]  # noqa: E731
        return dict(eventually(look, what="a standby"))

    def address(self) -> str:
        """Wait for this home's coordinator and return its address."""
        running = eventually(lambda: self.running("coordinator"), what=f"a coordinator: {self.log.read_text()}")
        return str(running["address"])

    def running(self, service: str) -> dict[str, Any]:
        """Return a service's run.json once it has announced itself, {} before."""
        with contextlib.suppress(OSError, ValueError):
            said = json.loads((self.path / service / "run.json").read_bytes())
            if said.get("address"):
                return dict(said)
        return {}

    def stop(self) -> None:
        """End every program that is left."""
        if (self.runtime / "clustersh").exists():
            self.sh("standby", "stop")
        shutil.rmtree(self.runtime, ignore_errors=True)
        for process in reversed(self.services):
            end(process)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return what the programs of this home see."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.path.parent),
            "SHELL": "/bin/bash",
            "CLUSTERSH_HOME": str(self.path),
            # A command in a network of its own is in a mount namespace of its own too: it never finds a standby.
            "CLUSTERSH_STANDBY": "off" if self.before else os.environ.get("CLUSTERSH_TEST_STANDBY", "off"),
            "XDG_RUNTIME_DIR": str(self.runtime),
            **self.environ,
            **(more or {}),
        }


def end(process: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> int:
    """End *process* if it runs, and return how it ended."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return process.returncode


@dataclass
class Cluster:
    """A coordinator, the agent of one machine called ws1, and a client that is logged in."""

    coordinator: Home
    agent: Home
    client: Home
    coordinator_process: subprocess.Popen[bytes]
    agent_process: subprocess.Popen[bytes]
    address: str

    def sh(self, *words: str | bytes, **options: Any) -> Result:
        return self.client.sh(*words, **options)

    def restart_agent(self) -> None:
        self.agent_process = self.agent.start("clusteragent")
        self.until_status("ws1", "online")

    def restart_coordinator(self) -> None:
        self.coordinator_process = self.coordinator.start("clusterd", "--listen", self.address)
        self.coordinator.address()

    def until_status(self, machine: str, status: str) -> None:
        eventually(lambda: self.status_of(machine) == status, what=f"{machine} {status}\n{self.logs()}", every=LOOK_S)

    def status_of(self, machine: str) -> str:
        return self.client.statuses().get(machine, "")

    def job(self, uuid: str) -> dict[str, Any]:
        """Return the job as history tells it."""
        jobs = self.sh("history", "--json").json["jobs"]
        return next(dict(job) for job in jobs if job["uuid"] == uuid)

    def until_job(self, uuid: str, *states: str) -> dict[str, Any]:
        def there() -> dict[str, Any]:
            return next((job for job in self.client.jobs() if job["uuid"] == uuid and job["status"] in states), {})

        return eventually(there, what=f"{uuid} {states}", every=LOOK_S)

    def logs(self) -> str:
        return "".join(home.log.read_text() for home in (self.coordinator, self.agent) if home.log.exists())

    def stop(self) -> None:
        for home in (self.client, self.agent, self.coordinator):
            home.stop()


def plugin_example(interface: str) -> str:
    """Return the example of docs/plugins.md that provides *interface*."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text("utf-8"), re.DOTALL)
    (example,) = [example for example in examples if f"@implementer(IPlugin, {interface})" in example]
    return str(example)


def drop_in(folder: Path, **modules: str) -> dict[str, str]:
    """Put plugins into a folder, and return the variables by which a program finds them."""
    plugins = folder / "dropped-in" / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    for name, content in modules.items():
        (plugins / f"{name}.py").write_text(content)
    return {"PYTHONPATH": str(folder / "dropped-in")}


def make_home(folder: Path, name: str) -> Home:
    """Return a home in *folder*, with nothing in it."""
    (folder / name).mkdir(parents=True)
    return Home(folder / name / "state", folder / name / "log")


def log_in(coordinator: Home, client: Home, address: str, name: str = "joshua@mba", *options: str) -> None:
    """Log *client* in, with the approval of an admin."""
    asking = client.open("clustersh", "login", f"http://{address}", "--name", name, *options)
    assert asking.stdout is not None
    told = b""
    while not (code := re.search(rb"clusterd approve (\w+)\s", told)):
        more = os.read(asking.stdout.fileno(), 4096)
        assert more, asking.communicate()
        told += more
    coordinator.approve(code[1].decode())
    out, err = asking.communicate(timeout=PATIENCE_S)
    assert asking.returncode == 0, (told, out, err)
    client.services.remove(asking)
    stand_by(client)


def stand_by(client: Home) -> None:
    """Have a logged-in client's standby take calls, where its commands leave one behind."""
    if client.stands_by:
        assert client.sh("whoami").status == 0
        client.standby()
