from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from clustersh.cli.console import Console
from clustersh.cli.invocation import Invocation, Signals, StdinReader
from clustersh.cli.program import supervise
from clustersh.frontend import client
from clustersh.frontend.commands import choose

from .coordinator_double import Double, serve


class Caller:
    """Calls ``clustersh`` as a shell would, its output into files."""

    def __init__(self, folder: Path, reactor: Any) -> None:
        self.folder = folder
        self.reactor = reactor
        self.environ = {"HOME": str(folder)}
        self.signals = Signals(lambda number: None)
        self.stdin = os.open(os.devnull, os.O_RDONLY)
        self._out = (folder / "out").open("w+b")
        self._err = (folder / "err").open("w+b")

    def invocation(self, *words: str) -> Invocation:
        out, err = self._out.fileno(), self._err.fileno()
        return Invocation(
            program="clustersh",
            argv=words,
            cwd=self.folder,
            environ=self.environ,
            home=self.folder / "home",
            console=Console.on(out, err, self.environ, deferToThread),
            stdin=StdinReader(self.stdin, deferToThread),
            signals=self.signals,
            in_thread=deferToThread,
            now=lambda: 1795170667.0,  # 2026-11-20T10:31:07Z
        )

    async def __call__(self, *words: str) -> int:
        invocation = self.invocation(*words)
        return await supervise(invocation, lambda reactor: choose(invocation)(reactor), self.reactor)

    @property
    def out(self) -> bytes:
        return (self.folder / "out").read_bytes()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def merge(self) -> None:
        """Make stderr go where stdout goes, in append mode, as ``>file 2>&1``."""
        self._err.close()
        self._out.close()
        self._out = (self.folder / "out").open("a+b")
        self._err = self._out

    def close(self) -> None:
        self._out.close()
        self._err.close()
        os.close(self.stdin)


@pytest.fixture
def double() -> Iterator[Double]:
    from twisted.internet import reactor

    yield Double(reactor)


@pytest.fixture
def caller(tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    yield from calling(tmp_path, double, monkeypatch)


def calling(tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    """Yield a caller who is logged in at *double*."""
    from twisted.internet import reactor

    port, stop = serve(reactor, double)
    folder = tmp_path / "home" / "client"
    folder.mkdir(parents=True)
    (folder / "login.json").write_text(f'{{"coordinator": "127.0.0.1:{port}"}}')
    # Plain HTTP: what is tested here lies above TLS.
    monkeypatch.setattr(client, "load_client_policy", lambda folder: None)
    called = Caller(tmp_path, reactor)
    yield called
    called.close()
    pytest_twisted.blockon(stop())


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, content: bytes = b"", mode: int = 0o644) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        return path

    return write
