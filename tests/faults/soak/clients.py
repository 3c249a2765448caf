"""The clients of a soak: raw requests over kept connections for volume, whole `clustersh run` processes for realism."""

from __future__ import annotations

import base64
import http.client
import json
import random
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from clustersh.trust.identity import SERVER_NAME
from clustersh.wire.jobs import Command, State
from clustersh.wire.rest import Run, RunRequest, to_bytes

from .cluster import CLIENTS, CLIENTS_LINK, SoakCluster
from .plan import Kind, Work

RETRY_FOR_S = 180.0
_OUTSTANDING = 8
_AFTER_NOTHING_S = 0.3
"""A machine that is offline says so at once: this leaves time for what does run."""
NOTHING_RAN = 125
INTERRUPTED = 130
_UNREAD = b"ERROR: the command's output can't be read now: "
"""Said of a machine that went offline before its output was fetched; the command's own exit status is kept."""
_HINT = re.compile(rb"hint: still running, clustersh wait [0-9a-f-]{36}\n")


@dataclass
class Told:
    """What clients were told about one piece of work."""

    work: Work
    uuids: set[str] = field(default_factory=set)
    states: set[str] = field(default_factory=set)
    nothing_ran: bool = False
    acknowledged: bool = False


class Memory:
    """What all clients were told, and what was wrong with it. For several threads."""

    def __init__(self, folder: Path, noise: bytes) -> None:
        self.folder = folder
        self.noise = noise
        self.told: dict[str, Told] = {}
        self.missing: list[str] = []
        self.given_up: list[str] = []
        self.compared = Counter[str]()

    def begin(self, work: Work) -> Told:
        return self.told.setdefault(work.id, Told(work))

    def heard(self, told: Told, run: Run) -> None:
        """A client was answered with *run*."""
        told.uuids.add(run.uuid)
        told.acknowledged = True
        for job in run.jobs:
            if not job.status.ended:
                continue
            told.states.add(job.status.value)
            if job.exit_code is not None and not job.truncated:
                self.compare(told.work, to_bytes(job.stdout), to_bytes(job.stderr), "the answer's")

    def compare(self, work: Work, stdout: bytes, stderr: bytes, whose: str) -> None:
        """A client was given all of these streams of a command that ended by itself."""
        self.compared[whose] += 1
        for name, found, wanted in zip(("stdout", "stderr"), (stdout, stderr), work.expected(self.noise), strict=True):
            if found != wanted:
                self.missing.append(f"{work.id}: {whose} {name} has {len(found)} bytes, not the {len(wanted)} printed")


class RawClient:
    """One thread with one kept connection, asking for work until *take* has none left."""

    def __init__(self, cluster: SoakCluster, memory: Memory, take: Callable[[], Work | None]) -> None:
        folder = cluster.homes[CLIENTS].path / "client"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_verify_locations(folder / "ca.pem")
        self._context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._port = cluster.proxy.fronts[CLIENTS_LINK]
        self._memory = memory
        self._take = take
        self._connection: http.client.HTTPConnection | None = None
        self._waiting: deque[Told] = deque()

    def run(self) -> None:
        while (work := self._take()) is not None:
            told = self._memory.begin(work)
            self._attempt(told, lambda told=told: self._request(told))  # type: ignore[misc]
            if work.kind is Kind.CANCELLED and told.acknowledged:
                self._attempt(told, lambda told=told: self._cancel(told))  # type: ignore[misc]
            if told.states & {State.NOT_STARTED.value}:
                time.sleep(_AFTER_NOTHING_S)
            if not told.states and told.acknowledged:
                self._waiting.append(told)
            if len(self._waiting) > _OUTSTANDING:
                self._look(self._waiting.popleft())
        while self._waiting:
            self._look(self._waiting.popleft())
        self._hang_up()

    def _request(self, told: Told) -> None:
        work = told.work
        asked = RunRequest(
            target=work.machine, command=Command(shell=work.shell(self._memory.folder)), timeout_s=work.timeout_s
        )
        headers = {"Idempotency-Key": work.id, "Prefer": f"wait={0 if work.waits else 5}"}
        self._memory.heard(told, self._call("POST", "/v1/runs", asked, headers, Run))

    def _cancel(self, told: Told) -> None:
        self._call("POST", f"/v1/runs/{next(iter(told.uuids))}/cancel", {}, {}, dict[str, Any])

    def _look(self, told: Told) -> None:
        path = f"/v1/runs/{next(iter(told.uuids))}"
        self._attempt(told, lambda: self._memory.heard(told, self._call("GET", path, None, {"Prefer": "wait=5"}, Run)))

    def _attempt(self, told: Told, call: Callable[[], None]) -> None:
        """Do *call* until it is answered, as a client does that has an idempotency key."""
        deadline = time.monotonic() + RETRY_FOR_S
        delay = 0.05
        while True:
            try:
                call()
            except (OSError, http.client.HTTPException) as error:
                self._hang_up()
                if time.monotonic() > deadline:
                    self._memory.given_up.append(f"{told.work.id}: {type(error).__name__}: {error}")
                    return
                time.sleep(random.uniform(delay / 2, delay))
                delay = min(2 * delay, 1.0)
            else:
                return

    def _call(self, method: str, path: str, body: object, headers: dict[str, str], answer: Any) -> Any:
        if self._connection is None:
            self._connection = self._connect()
        content = None if body is None else msgspec.json.encode(body)
        self._connection.request(method, path, content, {"Content-Type": "application/json", **headers})
        response = self._connection.getresponse()
        received = response.read()
        if response.status == 503:
            raise ConnectionError("the coordinator is not ready")
        if response.status not in (200, 202):
            raise AssertionError(f"{method} {path}: {response.status} {received[:500]!r}")
        return msgspec.json.decode(received, type=answer)

    def _connect(self) -> http.client.HTTPConnection:
        plain = socket.create_connection(("127.0.0.1", self._port), 10.0)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        try:
            connection.sock = self._context.wrap_socket(plain, server_hostname=SERVER_NAME)
        except BaseException:
            plain.close()
            raise
        connection.sock.settimeout(20.0)
        return connection

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class ProgramClient:
    """One thread that starts `clustersh run` for each piece of work, until *take* has none left."""

    def __init__(self, cluster: SoakCluster, memory: Memory, take: Callable[[], Work | None]) -> None:
        self._home = cluster.homes[CLIENTS]
        self._memory = memory
        self._take = take
        self._sent = memory.folder / "sent"

    def run(self) -> None:
        while (work := self._take()) is not None:
            self._run(self._memory.begin(work))

    def _run(self, told: Told) -> None:
        work = told.work
        given = work.input(self._memory.noise)
        words = ["run", "--key", work.id, "--timeout", f"{work.timeout_s:.0f}s", *work.form]
        words += ["--file", str(self._sent)] if work.kind is Kind.FILES else []
        words += [] if given is None else ["--stdin"]
        stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
        process = self._home.open("clustersh", *words, work.machine, work.shell(self._memory.folder), stdin=stdin)
        cancel = threading.Timer(1.0, process.send_signal, (signal.SIGINT,))
        if work.kind is Kind.CANCELLED:
            cancel.start()
        try:
            out, err = process.communicate(given, timeout=RETRY_FOR_S + 60)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            self._memory.given_up.append(f"{work.id}: clustersh run did not end: {err[-300:]!r}")
        finally:
            cancel.cancel()
            self._home.services.remove(process)
        if b"Traceback" in err:
            self._memory.given_up.append(f"{work.id}: a traceback: {err[-500:]!r}")
        told.nothing_ran = process.returncode == NOTHING_RAN
        if process.returncode == -signal.SIGINT:
            return  # interrupted before the program was one
        if "--json" in work.form:
            self._judge_document(told, process.returncode, json.loads(out or b"{}"))
        elif process.returncode == work.exit_code and _UNREAD not in err:
            told.acknowledged = True
            self._memory.compare(work, out, _HINT.sub(b"", err), "clustersh's raw")

    def _judge_document(self, told: Told, status: int, said: dict[str, Any]) -> None:
        work = told.work
        uuid = said.get("uuid") or said.get("error", {}).get("uuid")
        if uuid:
            told.uuids.add(uuid)
            told.acknowledged = True
        if said.get("finished"):
            told.states.add(said["status"])
        if not said and status != INTERRUPTED:
            self._memory.given_up.append(f"{work.id}: exit {status} without a document")
        if said and status == said.get("exit_code") and not said["truncated"]:
            self._memory.compare(work, _bytes(said["stdout"]), _bytes(said["stderr"]), "clustersh's JSON")


def _bytes(stream: Any) -> bytes:
    return base64.b64decode(stream["base64"]) if isinstance(stream, dict) else str(stream).encode()
