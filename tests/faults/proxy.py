"""The proxy that stands between programs, as tests hold it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from ..real.programs import end


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Proxy:
    """The proxy's process; *fronts* names its ports, *back* is the coordinator's."""

    def __init__(self, fronts: dict[str, int], back: int) -> None:
        self.fronts = fronts
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("tcp_proxy.py"), *(f"{port}:{back}" for port in fronts.values())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == b"ready\n"

    def address(self, front: str) -> str:
        return f"127.0.0.1:{self.fronts[front]}"

    def tell(self, what: str, front: str, number: float = 0.0) -> int:
        """Do *what* (see tcp_proxy.py) to *front*, and return how many connections it has."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(f"{what} {self.fronts[front]} {number}\n".encode())
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    @contextlib.contextmanager
    def wrong(self, what: str, front: str, number: float = 0.0) -> Iterator[None]:
        """Do *what* to *front* for as long as this lasts."""
        self.tell(what, front, number)
        try:
            yield
        finally:
            self.tell("well", front)

    def stop(self) -> None:
        end(self._process)
