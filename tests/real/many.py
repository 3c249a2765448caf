"""Several real agents on this host, each with a home and a name of its own, beside a coordinator and a client."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clustersh.frontend.blocking import connect

from .programs import LOOK_S, PATIENCE_S, Home, Result, end, eventually, log_in, make_home


@dataclass
class Fleet:
    """A coordinator, agents by their machines' names, and a client that is logged in."""

    coordinator: Home
    client: Home
    coordinator_process: subprocess.Popen[bytes]
    agents: dict[str, Home] = field(default_factory=dict)
    agent_processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    address: str = ""

    def sh(self, *words: str | bytes, **options: Any) -> Result:
        """Run `clustersh` with *words*."""
        return self.client.sh(*words, **options)

    def call(
        self, method: str, path: str, body: Any = None, *, wait_s: float = 0, key: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Make a REST call as the client; return its status and what it answers."""
        connection = connect(self.client.path, wait_s + PATIENCE_S)
        assert connection is not None
        headers = {"Content-Type": "application/json", "Prefer": f"wait={wait_s}"}
        try:
            headers |= {"Idempotency-Key": key} if key else {}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def statuses(self) -> dict[str, str]:
        """Return each machine's status by its name."""
        return self.client.statuses()

    def until(self, status: str, names: Iterable[str]) -> None:
        """Wait until all of *names* have that status."""
        wanted = set(names)

        def there() -> bool:
            return wanted <= {name for name, now in self.statuses().items() if now == status}

        eventually(there, what=f"{wanted} {status}\n{self.logs()}", every=LOOK_S)

    def start_agents(self, *names: str) -> None:
        """Start the agents of these machines (all of them if none is said), and wait until they are online."""
        for name in names or tuple(self.agents):
            self.agent_processes[name] = self.agents[name].start("clusteragent")
        self.until("online", names or self.agents)

    def stop_agent(self, name: str, how: int = signal.SIGTERM) -> None:
        """End one agent with the signal *how*, and wait until its machine is offline."""
        end(self.agent_processes[name], how)
        self.until("offline", [name])

    def restart_coordinator(self, how: int = signal.SIGTERM) -> None:
        """End the coordinator with the signal *how*, if it runs, and start it again where it was."""
        end(self.coordinator_process, how)
        self.coordinator_process = self.coordinator.start("clusterd", "--listen", self.address)
        self.coordinator.address()

    def logs(self) -> str:
        """Return what the services said."""
        homes = (self.coordinator, *self.agents.values())
        return "".join(home.log.read_text() for home in homes if home.log.exists())

    def stop(self) -> None:
        """End every program."""
        for home in (self.client, *self.agents.values(), self.coordinator):
            home.stop()


def make_fleet(
    folder: Path,
    names: Iterable[str],
    new_machines: str = "use",
    environ: Mapping[str, str] | None = None,
    configure: Callable[[str, Home], None] = lambda name, agent: None,
) -> Fleet:
    """Start the real programs, all agents at once, and let them in; the client is logged in.

    *environ* is the coordinator's beside what all have; *configure* is called with each machine's name and new home.
    """
    coordinator, client = (make_home(folder, name) for name in ("coordinator", "client"))
    coordinator.environ.update(environ or {})
    coordinator.path.mkdir()
    (coordinator.path / "config.toml").write_text(f'[enrollment]\nnew_machines = "{new_machines}"\n')
    fleet = Fleet(coordinator, client, coordinator.start("clusterd", "--listen", "127.0.0.1:0"))
    try:
        fleet.address = coordinator.address()
        for name in names:
            fleet.agents[name] = make_home(folder, f"agent-{name}")
            configure(name, fleet.agents[name])
        words = ("enroll", f"http://{fleet.address}", "--name")
        enrolling = [agent.open("clusteragent", *words, name) for name, agent in fleet.agents.items()]
        log_in(coordinator, client, fleet.address)
        for each in enrolling:
            out, err = each.communicate(timeout=60)
            assert each.returncode == 0, (out, err)
        fleet.start_agents()
    except BaseException:
        fleet.stop()
        raise
    return fleet
