"""Each call has an example in docs/rest.md, which gives what it shows; its table has every type of problem."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from clustersh.trust import keys
from clustersh.trust.identity import Role
from clustersh.trust.pairing import PairingCode, commitment, make_request, new_nonce, transcript_hash
from clustersh.wire.codec import encode_json
from clustersh.wire.pairing import PairOffer, PairReveal, PairStart
from clustersh.wire.problems import STATUS

from ..conftest import ROOT
from ..real.programs import Cluster, make_home

PAGE = (ROOT / "docs" / "rest.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(
    r"^### `(?P<call>[^`]+)`\n(?:(?!^###).)*?```sh\n(?P<script>.*?)```\n```(?P<kind>\w+)\n(?P<shown>.*?)```",
    re.MULTILINE | re.DOTALL,
)
ROW = re.compile(r"^\| (\d{3}) \| `([a-z-]+)` \| .+ \|$", re.MULTILINE)
SCRIPT = b"hostname\nread -r line\n"


class Example(NamedTuple):
    call: str
    script: str
    kind: str
    shown: str


EXAMPLES = [Example(**found.groupdict()) for found in EXAMPLE.finditer(PAGE)]


def test_every_type_of_problem_is_in_the_table_and_no_other() -> None:
    assert {(int(status), kind) for status, kind in ROW.findall(PAGE)} == {
        (status, kind.value) for kind, status in STATUS.items()
    }


def fits(found: Any, shown: Any) -> bool:
    """Whether *found* has the keys and kinds of values of what is *shown*; null and an empty list stand for any."""
    if found is None or shown is None:
        return True
    if isinstance(shown, dict):
        return (
            isinstance(found, dict)
            and found.keys() == shown.keys()
            and all(fits(found[name], value) for name, value in shown.items())
        )
    if isinstance(shown, list):
        return isinstance(found, list) and all(not shown or any(fits(each, one) for one in shown) for each in found)
    numbers = (int, float)
    return type(found) is type(shown) or (type(found) in numbers and type(shown) in numbers)


class Terminal:
    """A folder where examples are run one after the other, and the variables that they use."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._environ = {
            **cluster.client.environment(),
            "COORDINATOR": cluster.address,
            "MACHINE": "ws1",
            "SHA256": hashlib.sha256(SCRIPT).hexdigest(),
        }
        (setup,) = re.findall(r"^## How to call\n.*?```sh\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
        self.run(setup)
        for role, home in (("admin", cluster.coordinator), ("agent", cluster.agent)):
            text = (folder / f"{role}.curl").read_text()
            (folder / f"{role}.curl").write_text(text.replace(str(cluster.client.path), str(home.path)))

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", script],
            cwd=self._folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done
        return done.stdout.decode()

    def start(self, **request: Any) -> None:
        """Have a run that the next examples are about."""
        wait = "wait=0" if request.get("stdin") else "wait=30"
        body = encode_json({"target": "ws1", **request}).decode()
        answer = self.run(
            f"curl -K frontend.curl --json '{body}' --header 'Idempotency-Key: {len(body)}' --header 'Prefer: {wait}'"
            " https://coordinator.clustersh.internal/v1/runs"
        )
        self._environ["UUID"] = json.loads(answer)["uuid"]

    def begin_pairing(self) -> None:
        self._key, self._nonce = keys.generate(), new_nonce()
        self._request = make_request(self._key, "old@laptop", Role.FRONTEND)
        start = PairStart(Role.FRONTEND.value, self._request, commitment(self._nonce))
        (self._folder / "start.json").write_bytes(encode_json(start))
        (self._folder / "reveal.json").write_bytes(encode_json(PairReveal(self._nonce)))

    def go_on_pairing(self, answer: str) -> None:
        offer = msgspec.json.decode(answer, type=PairOffer)
        hashed = transcript_hash(Role.FRONTEND, self._request, offer.ca, self._nonce, offer.nonce)
        self._environ.update(PAIRING=offer.id, CODE=PairingCode.of(hashed).code)

    def enroll_leaver(self) -> None:
        leaver = make_home(self._folder, "leaver")
        assert leaver.run("clusteragent", "enroll", f"http://{self._cluster.address}", "--name", "ws9").status == 0
        text = (self._folder / "agent.curl").read_text()
        (self._folder / "leaving.curl").write_text(text.replace(str(self._cluster.agent.path), str(leaver.path)))

    def enroll_another(self) -> None:
        spare = make_home(self._folder, "spare")
        assert spare.run("clusteragent", "enroll", f"http://{self._cluster.address}", "--name", "ws7").status == 0


def test_every_example_gives_what_it_shows(cluster: Cluster, tmp_path: Path) -> None:
    terminal = Terminal(cluster, tmp_path)
    waits = {"command": {"shell": "cat"}, "stdin": True}
    before: dict[str, Callable[[], None]] = {
        "POST /pair": terminal.begin_pairing,
        "GET /v1/runs/{id}": lambda: terminal.start(command={"shell": "echo hello; echo oh >&2"}),
        "PUT /v1/jobs/{machine}/{id}/stdin": lambda: terminal.start(**waits),
        "GET /v1/jobs/{machine}/{uuid}/blobs/{sha256}": lambda: terminal.start(
            command={"script": {"sha256": hashlib.sha256(SCRIPT).hexdigest(), "size": len(SCRIPT)}}, stdin=True
        ),
        "POST /v1/admin/forget": terminal.enroll_another,
        "POST /v1/leave": terminal.enroll_leaver,
    }
    after: dict[str, Callable[[str], None]] = {"POST /pair": terminal.go_on_pairing}
    for example in EXAMPLES:
        before.get(example.call, lambda: None)()
        answer = terminal.run(example.script)
        after.get(example.call, lambda answer: None)(answer)
        if example.kind == "json":
            assert fits(json.loads(answer), json.loads(example.shown)), (example.call, answer)
        else:
            assert answer.splitlines()[0].startswith(example.shown.splitlines()[0]), (example.call, answer)
    described = json.loads(terminal.run("curl -K frontend.curl https://coordinator.clustersh.internal/v1/openapi.json"))
    calls = {f"{method.upper()} {path}" for path, methods in described["paths"].items() for method in methods}
    assert {example.call for example in EXAMPLES} == calls
    names = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names)) == len(calls)
