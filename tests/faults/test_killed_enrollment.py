"""kill -9 of a coordinator while a join token is used: the use is counted exactly once, with the machine it let in."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..real.programs import Home, Result, eventually
from .services import faults_of, make_folder, user_home
from .users import give


@dataclass
class Coordinator:
    """A coordinator that lets machines in by a token, and can be told where to die."""

    folder: Path
    home: Home
    address: str

    def enroll(self, name: str, token: str) -> Result:
        environ = {"CLUSTERSH_TOKEN": token}
        return self.machine(name).run("clusteragent", "enroll", self.address, "--name", name, environ=environ)

    def machine(self, name: str) -> Home:
        """Return the same home for a name each time: its key is kept there."""
        folder = self.folder / name
        return (
            Home(folder / "state", folder / "log", before=self.home.before)
            if folder.exists()
            else user_home(self.folder, name)
        )

    def restart(self) -> None:
        self.home.start("clusterd", "--listen", self.address)
        eventually(lambda: self.home.running("coordinator").get("pid") == self.home.services[-1].pid)

    def records(self) -> list[dict[str, Any]]:
        files = sorted((self.home.path / "coordinator" / "ledger").glob("*.jsonl"))
        return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]

    def uses(self, token: str) -> list[str]:
        """Return whom the token let in, by the ledger."""
        return [str(each["name"]) for each in self.records() if each.get("token") == token[:12] and "name" in each]

    def used(self, token: str) -> tuple[str, int]:
        listed = self.home.run("clusterd", "token", "list", "--json").json["tokens"]
        return next((each["status"], each["used"]) for each in listed if each["id"] == token[:12])


@pytest.fixture
def coordinator(place: Path) -> Iterator[Coordinator]:
    home = user_home(place, "coordinator", '[enrollment]\npolicy = "token"\n[coordinator]\nreserve = 0\n')
    home.environ["CLUSTERSH_FAULTS"] = str(give(make_folder(home.log.parent / "faults")))
    home.start("clusterd", "--listen", "127.0.0.1:0")
    try:
        yield Coordinator(place, home, home.address())
    finally:
        home.stop()


@pytest.mark.parametrize("point", ["ledger-written", "ledger-synced"])
def test_a_use_is_counted_once_although_the_coordinator_dies_of_it(coordinator: Coordinator, point: str) -> None:
    token = str(coordinator.home.run("clusterd", "token", "create", "--json", "--uses", "1").json["token"])
    (faults_of(coordinator.home) / point).touch()
    cut_off = coordinator.enroll("ws1", token)
    assert coordinator.home.services[-1].wait(30) == -signal.SIGKILL
    assert cut_off.status == 125 and "was lost before its answer" in cut_off.err, cut_off
    coordinator.restart()
    recorded = coordinator.uses(token)
    assert coordinator.used(token)[1] == len(recorded) <= 1
    other = coordinator.enroll("ws2", token) if recorded else None
    assert other is None or (other.status == 125 and "is used up" in other.err), other
    again = coordinator.enroll("ws1", token)
    assert again.status == 0, (again, coordinator.home.log.read_text())
    assert (coordinator.uses(token), coordinator.used(token)) == (["ws1"], ("used-up", 1))
    names = [each["name"] for each in coordinator.home.run("clusterd", "machines", "--json").json["machines"]]
    assert names == ["ws1"]
    verified = coordinator.home.run("clusterd", "audit", "verify")
    assert verified.status == 0, verified


def test_a_token_is_there_after_the_kill_or_was_never_shown(coordinator: Coordinator) -> None:
    (faults_of(coordinator.home) / "ledger-synced").touch()
    created = coordinator.home.run("clusterd", "token", "create", "--json")
    assert coordinator.home.services[-1].wait(30) == -signal.SIGKILL
    assert created.status != 0 and "token" not in created.json, created
    coordinator.restart()
    listed = coordinator.home.run("clusterd", "token", "list", "--json").json["tokens"]
    assert [each["status"] for each in listed] == ["usable"]
    assert coordinator.home.run("clusterd", "token", "revoke", listed[0]["id"]).status == 0
