"""A cluster of real services as a user other than root, and what tests of faults do to it and ask of it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..real.clusters import Homes
from ..real.programs import Cluster, Home, eventually, stand_by
from .users import as_user, give

AGENT_CONFIG = '[agent]\nreconnect_max = "1s"\nenvironment = "service"\nreserve = 0\n'
COORDINATOR_CONFIG = "[coordinator]\nreserve = 0\n"


@contextmanager
def workplace() -> Iterator[Path]:
    """Make a folder of the user's, and take it away in the end."""
    with tempfile.TemporaryDirectory(prefix="clustersh-faults-", ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield give(path)


def user_home(folder: Path, name: str, config: str = "") -> Home:
    """Return a home of the user's in *folder*."""
    give(make_folder(folder / name))
    state = make_folder(folder / name / "state")
    state.chmod(0o700)
    (state / "config.toml").write_text(config)
    (state / "config.toml").chmod(0o600)
    give(state / "config.toml")
    give(state)
    return Home(state, folder / name / "log", before=as_user())


def make_folder(path: Path) -> Path:
    """Make *path* unless it is there (a file system of its own, say)."""
    path.mkdir(exist_ok=True)
    return path


@dataclass
class Held:
    """A command that runs until it is let go, and the client that waits for it."""

    uuid: str
    client: subprocess.Popen[bytes]
    go: Path

    def let_go(self) -> None:
        """Have the command print `done` and end."""
        self.go.touch()

    def answer(self) -> tuple[int, bytes, bytes]:
        """Return what its client got: exit status, stdout and stderr."""
        out, err = self.client.communicate(timeout=90)
        return self.client.returncode, out, err


@dataclass
class FaultyCluster(Cluster):
    """A cluster whose services can be told where to die: see clustersh/faultpoints.py."""

    folder: Path
    never: list[Path] = field(default_factory=list)
    """Files that refused commands would have made."""

    def arm(self, home: Home, point: str) -> None:
        """Have *home*'s service die when it gets to *point* the next time."""
        (faults_of(home) / point).touch()

    def until_settled(self) -> None:
        """Wait until the agent knows that the coordinator has every end that it told of."""
        journal = self.agent.path / "agent" / "journal"

        def left() -> set[str]:
            said = re.findall(r'"is":"(ended|acknowledged)","uuid":"([^"]+)"', journal.read_text())
            return {uuid for what, uuid in said if what == "ended"} - {uuid for what, uuid in said if what != "ended"}

        eventually(lambda: not left(), what=self.logs())

    def disarm(self) -> None:
        """Take away what was armed and never reached."""
        for home in (self.coordinator, self.agent):
            for point in faults_of(home).iterdir():
                point.unlink()

    def records(self, uuid: str = "") -> list[dict[str, Any]]:
        """Return the ledger's records as they are on the disk, those about *uuid* only where it is given."""
        lines = b"".join(path.read_bytes() for path in self.ledger_files()).splitlines()
        return [record for record in map(json.loads, lines) if uuid in ("", record.get("uuid"))]

    def ledger_files(self) -> list[Path]:
        """Return the ledger's files, oldest first."""
        return sorted((self.coordinator.path / "coordinator" / "ledger").glob("*.jsonl"))

    def newest_run(self) -> str:
        """Return the uuid of the run that was recorded last."""
        return str([record["uuid"] for record in self.records() if record["is"] == "run"][-1])

    def outcomes(self, uuid: str) -> list[str]:
        """Return the states of every outcome that the ledger has of the run."""
        return [record["outcome"]["state"] for record in self.records(uuid) if record["is"] == "ended"]

    def until_dead(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the service to die of the point that was armed."""
        assert process.wait(30) == -signal.SIGKILL, self.logs()

    def folder_of_jobs(self) -> Path:
        """Return a new folder that jobs may write to."""
        return give(Path(tempfile.mkdtemp(dir=self.folder)))

    def hold(self, meanwhile: str = "sleep 0.02") -> Held:
        """Start a command that does *meanwhile* again and again until it is let go; return when it runs."""
        folder = self.folder_of_jobs()
        command = f"touch {folder}/begun; until [ -e {folder}/go ]; do {meanwhile}; done; echo done"
        client = self.client.open("clustersh", "run", "ws1", command)
        eventually((folder / "begun").exists, what=self.logs())
        uuid = self.newest_run()
        self.until_job(uuid, "running")
        return Held(uuid, client, folder / "go")

    def check_refused(self, reason: str) -> str:
        """A run is refused with *reason*, or not started for it: the answer says so, and it never runs. Return it."""
        marker = self.folder_of_jobs() / "ran"
        # Longer than what may be left of a file's last page.
        command = f"touch {marker} # {'x' * 8192}"
        answer = self.sh("run", "ws1", command)
        assert answer.status == 125, answer
        assert re.search(rf"^ERROR: .*{re.escape(reason)}", answer.err), answer
        assert "hint: " in answer.err
        assert not marker.exists()
        self.never.append(marker)
        return command

    def check_alive(self) -> None:
        """Everything works: a command runs, and the ledger's chain holds."""
        self.until_status("ws1", "online")
        answer = self.sh("run", "ws1", "echo alive")
        assert (answer.status, answer.out) == (0, "alive\n"), (answer, self.logs())
        verified = self.coordinator.run("clusterd", "audit", "verify")
        assert verified.status == 0, verified
        assert "Traceback" not in self.logs(), self.logs()
        assert not [marker for marker in self.never if marker.exists()]


def faults_of(home: Home) -> Path:
    """Return where the points are armed at which *home*'s service dies."""
    return Path(home.environ["CLUSTERSH_FAULTS"])


@contextmanager
def faulty_cluster(
    folder: Path,
    *,
    coordinator_config: str = COORDINATOR_CONFIG,
    agent_config: str = AGENT_CONFIG,
    through: Callable[[str], str] = str,
    prepare: Callable[[Home], object] = id,
    before: Callable[[Home], tuple[str, ...]] = lambda home: (),
    number: int = 0,
) -> Iterator[FaultyCluster]:
    """Start a coordinator and the agent of ws1, with a logged-in client.

    The agent's way to an address is *through* it; *prepare* is given each home before anything runs there, and
    *before* gives the words that start the programs of a service's home, after those that change the user. With
    another *number*, its coordinator has another CA.
    """
    homes = coordinator, agent, client = Homes(
        user_home(folder, "coordinator", coordinator_config),
        user_home(folder, "agent", agent_config),
        user_home(folder, "client"),
    )
    for home in homes:
        prepare(home)
    homes.let_in(number)
    for home in homes:
        for path in home.path.rglob("*"):
            give(path)
    for home in (coordinator, agent):
        home.environ["CLUSTERSH_FAULTS"] = str(give(make_folder(home.log.parent / "faults")))
        home.before += before(home)
    try:
        coordinator_process = coordinator.start("clusterd", "--listen", "127.0.0.1:0")
        address = coordinator.address()
        homes.tell(through(address), address)
        agent_process = agent.start("clusteragent")
        stand_by(client)
        cluster = FaultyCluster(*homes, coordinator_process, agent_process, address, folder)
        cluster.until_status("ws1", "online")
        yield cluster
    finally:
        homes.stop()
