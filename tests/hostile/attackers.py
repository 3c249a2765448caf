"""What attackers hold in the tests: real certificates, bare sockets, and WebSocket frames made by hand."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from clustersh.trust.identity import SERVER_NAME
from clustersh.wire import link
from clustersh.wire.jobs import Command
from tests.faults.services import user_home
from tests.real.programs import PATIENCE_S, Cluster, Home, eventually

BINARY, TEXT, CLOSE, PING = 2, 1, 8, 9


def address_of(cluster: Cluster) -> tuple[str, int]:
    host, _, port = cluster.address.rpartition(":")
    return host, int(port)


def tls_context(folder: Path | None, ca: Path) -> ssl.SSLContext:
    """Return a client's context that shows the key in *folder* (None: no certificate)."""
    context = ssl.create_default_context(cafile=str(ca))
    if folder is not None:
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def tls_socket(cluster: Cluster, folder: Path | None) -> ssl.SSLSocket:
    """Connect to the coordinator over TLS, showing the certificate in *folder*."""
    plain = socket.create_connection(address_of(cluster), PATIENCE_S)
    context = tls_context(folder, cluster.client.path / "client" / "ca.pem")
    return context.wrap_socket(plain, server_hostname=SERVER_NAME)


@dataclass
class Answer:
    """What a coordinator answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def problem(self) -> str:
        return str(json.loads(self.content)["type"])


def call(
    cluster: Cluster,
    folder: Path | None,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    *,
    plain: bool = False,
    source: str = "127.0.0.1",
) -> Answer:
    """Make one REST call; over plain HTTP from *source*."""
    connection = http.client.HTTPConnection(*address_of(cluster), timeout=PATIENCE_S, source_address=(source, 0))
    if not plain:
        connection.sock = tls_socket(cluster, folder)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def ask_for_run(cluster: Cluster, folder: Path, **asked: Any) -> Answer:
    """POST a run, waiting for its end."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": os.urandom(8).hex(), "Prefer": "wait=25"}
    return call(cluster, folder, "POST", "/v1/runs", json.dumps(asked).encode(), headers)


def masked_frame(payload: bytes, opcode: int = BINARY, *, final: bool = True, claimed: int | None = None) -> bytes:
    """Return a WebSocket frame; *claimed* is the length that its header tells, instead of the true one."""
    length = len(payload) if claimed is None else claimed
    head = bytes([(0x80 if final else 0) | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack(">H", length)
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", length)
    return head + b"\0\0\0\0" + payload


class RawLink:
    """A link to the coordinator that sends whatever it is told to."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._socket = tls_socket(cluster, folder)
        self._buffer = b""
        self._socket.sendall(
            f"GET {link.PATH} HTTP/1.1\r\nHost: coordinator\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {link.SUBPROTOCOL}\r\n\r\n".encode()
        )
        head = self._until(b"\r\n\r\n")
        self.status = int(head.split(b" ")[1])

    def send(self, message: link.FromAgent) -> None:
        self.frame(link.encode(message))

    def frame(self, payload: bytes, opcode: int = BINARY, *, final: bool = True, claimed: int | None = None) -> None:
        """Send what `masked_frame` makes."""
        self.raw(masked_frame(payload, opcode, final=final, claimed=claimed))

    def raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Return the next frame's opcode and payload; CLOSE and nothing where the connection is cut."""
        try:
            opcode, length = self._take(2)
            if length == 126:
                (length,) = struct.unpack(">H", self._take(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self._take(8))
            return opcode & 15, self._take(length)
        except (ConnectionError, ssl.SSLError):
            return CLOSE, b""

    def next(self) -> link.FromCoordinator:
        """Return the next message, whatever pings come before it."""
        while True:
            opcode, payload = self.receive()
            assert opcode != CLOSE, f"the coordinator closed: {payload!r}"
            if opcode == BINARY:
                return link.decode_from_coordinator(payload)

    def until_closed(self) -> tuple[int, str]:
        """Return the code and the reason of the close; (0, "") where the connection was cut."""
        while True:
            opcode, payload = self.receive()
            if opcode == CLOSE:
                return (int.from_bytes(payload[:2], "big"), payload[2:].decode()) if payload else (0, "")

    def hello(self, store: str = "mallory-store") -> link.Welcome:
        self.send(link.Hello("0.1.0", os.urandom(4).hex(), store, time.clock_gettime(time.CLOCK_BOOTTIME)))
        welcome = self.next()
        assert isinstance(welcome, link.Welcome)
        return welcome

    def close(self) -> None:
        self._socket.close()

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(mark)
        return head

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._fill()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _fill(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError
        self._buffer += data


@dataclass
class Mallory:
    """A machine that was let in and lies: its home, and a link of its own making."""

    cluster: Cluster
    home: Home

    @property
    def folder(self) -> Path:
        return self.home.path / "agent"

    def link(self) -> RawLink:
        return RawLink(self.cluster, self.folder)

    @contextlib.contextmanager
    def linked(self) -> Iterator[RawLink]:
        """A link after its hello."""
        made = self.link()
        try:
            made.hello()
            yield made
        finally:
            made.close()


def make_mallory(cluster: Cluster, folder: Path, name: str = "mallory") -> Mallory:
    """Enroll another machine for real; no agent runs for it."""
    home = user_home(folder, name)
    enrolled = home.run("clusteragent", "enroll", f"http://{cluster.address}", "--name", name)
    assert enrolled.status == 0, enrolled
    return Mallory(cluster, home)


def start_job(cluster: Cluster, linked: RawLink, machine: str = "mallory") -> link.Start:
    """Have the client ask for a run on *machine*, and return what its link was sent."""
    thread = threading.Thread(target=cluster.sh, args=("run", machine, "--detach", "true"))
    thread.start()
    while not isinstance(message := linked.next(), link.Start):
        pass
    linked.send(link.Started(message.uuid))
    thread.join()
    assert message.command == Command(shell="true")
    return message


def rss(pid: int) -> int:
    """Return a process's resident memory in bytes."""
    return int(psutil.Process(pid).memory_info().rss)


@dataclass
class Watched:
    """What the coordinator went through: its memory before and after, and another client's slowest request."""

    before: int
    after: int = 0
    slowest_s: float = 0.0
    requests: int = 0

    @property
    def grown_mib(self) -> float:
        return (self.after - self.before) / 2**20


@contextlib.contextmanager
def watched(cluster: Cluster, what: str) -> Iterator[Watched]:
    """Measure the coordinator's memory around an attack, and another client's requests meanwhile."""
    pid = cluster.coordinator_process.pid
    seen = Watched(rss(pid))
    stop = threading.Event()
    failures: list[BaseException] = []

    def ask_on() -> None:
        try:
            while not stop.is_set():
                began = time.monotonic()
                assert call(cluster, cluster.client.path / "client", "GET", "/v1/machines").status == 200
                seen.slowest_s = max(seen.slowest_s, time.monotonic() - began)
                seen.requests += 1
                stop.wait(0.02)
        except BaseException as error:
            failures.append(error)

    other = threading.Thread(target=ask_on)
    other.start()
    try:
        yield seen
    finally:
        stop.set()
        other.join()
    seen.after = rss(pid)
    assert not failures, failures
    print(
        f"{what}: coordinator {seen.before / 2**20:.0f} -> {seen.after / 2**20:.0f} MiB, "
        f"another client's slowest of {seen.requests} requests {seen.slowest_s * 1000:.0f} ms"
    )


def still_serves(cluster: Cluster) -> None:
    """The honest machine and client go on as if nothing had been."""
    done = cluster.sh("run", "ws1", "echo fine")
    assert (done.status, done.stdout) == (0, b"fine\n"), done


def log_lines(cluster: Cluster, text: str) -> list[str]:
    """Return the coordinator's log lines that hold *text*."""
    return [line for line in cluster.coordinator.log.read_text().splitlines() if text in line]


def until_logged(cluster: Cluster, text: str, look: Callable[[list[str]], bool] = bool) -> list[str]:
    return eventually(lambda: found if look(found := log_lines(cluster, text)) else None, what=f"a log line: {text}")
