"""A live coordinator for REST's tests, and callers of each role over real mutual TLS."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from clustersh.trust.identity import SERVER_NAME

from ..real.clusters import make_cluster
from ..real.programs import Cluster, Home, eventually, log_in, make_home
from ..real.sshd import Sshd, keep_from_ssh

FOLDERS = {"frontend": "client", "agent": "agent", "admin": "coordinator/admin"}
"""Where in its home each role's certificate is."""


class _InternalName(HTTPAdapter):
    """Verifies the coordinator by its internal name, whatever address reaches it."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, server_hostname=SERVER_NAME, assert_hostname=SERVER_NAME)


def session(folder: Path) -> requests.Session:
    """Return what calls with the certificate in *folder*."""
    made = requests.Session()
    made.mount("https://", _InternalName())
    made.verify = str(folder / "ca.pem")
    made.cert = (str(folder / "cert.pem"), str(folder / "key.pem"))
    made.trust_env = False
    return made


@dataclass
class Recorder:
    """A coordinator at *url*, whose one machine, ws1, runs nothing; *sessions* by role, "" without a certificate.

    "leaving" is a client that may be lost.

    *throwaway*: the bodies of the calls that end something.
    """

    url: str
    sessions: dict[str, requests.Session]
    record: Path
    coordinator: Home
    throwaway: dict[str, dict[str, str]]

    def commands(self) -> list[dict[str, Any]]:
        """Return the commands that reached the machine."""
        return [json.loads(line) for line in self.record.read_bytes().splitlines()]

    def add_group(self, name: str) -> None:
        """Have a group that holds the machine."""
        url = f"{self.url}/v1/groups/{name}/add"
        answer = self.sessions["frontend"].post(url, json={"target": "ws1"}, timeout=60)
        assert answer.status_code == 200, answer.text

    def start(self, key: str, **request: Any) -> dict[str, Any]:
        """Return the run of a request, once it has ended."""
        answer = self.sessions["frontend"].post(
            f"{self.url}/v1/runs",
            json={"target": "ws1", "command": {"shell": "true"}, **request},
            headers={"Idempotency-Key": key, "Prefer": "wait=30"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    folder = tmp_path_factory.mktemp("recorder")
    names = ("coordinator", "agent", "client", "other", "spare", "leaving")
    coordinator, agent, client, other, spare, leaving = homes = [make_home(folder, name) for name in names]
    coordinator.start("clusterd", "--listen", "127.0.0.1:0")
    agent.environ["RECORD"] = str(folder / "record")
    keep_from_ssh(agent)
    try:
        address = coordinator.address()
        for home, name in ((agent, "ws1"), (spare, "ws2")):
            assert home.run("clusteragent", "enroll", f"http://{address}", "--name", name).status == 0
        agent.start(sys.executable, str(Path(__file__).with_name("recording_agent.py")))
        log_in(coordinator, client, address)
        log_in(coordinator, other, address, "other@box")
        log_in(coordinator, leaving, address, "leaving@box")
        eventually(lambda: client.statuses().get("ws1") == "online", what=agent.log.read_text())
        of_role = {"frontend": client, "agent": agent, "admin": coordinator}
        sessions = {role: session(of_role[role].path / part) for role, part in FOLDERS.items()}
        sessions["leaving"] = session(leaving.path / "client")
        sessions[""] = session(client.path / "client")
        sessions[""].cert = None
        token = coordinator.run("clusterd", "token", "create", "--json").json["id"]
        throwaway = {
            "POST /v1/admin/revoke": {"name": "other@box"},
            "POST /v1/admin/forget": {"name": "ws2"},
            "POST /v1/admin/tokens/revoke": {"id": token},
        }
        yield Recorder(f"https://{address}", sessions, folder / "record", coordinator, throwaway)
    finally:
        for home in reversed(homes):
            home.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    server = Sshd(folder / "sshd", ["homelab-1"])
    server.start()
    try:
        made = make_cluster(folder, prepare=server.introduce)
        yield made
        made.stop()
    finally:
        server.stop()
