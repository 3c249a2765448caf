"""A stand-in for Docker: a ``docker`` program, and what runs its words, outside of that program's processes."""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_PROGRAM = """#!{python} -IS
import json, os, socket, sys
asked = socket.socket(socket.AF_UNIX)
asked.connect({path!r})
words = json.dumps({{"words": sys.argv[1:], "environ": dict(os.environ)}}).encode()
socket.send_fds(asked, [words], [0, 1, 2])
asked.shutdown(socket.SHUT_WR)
answer = asked.makefile().read()
sys.exit(int(answer or 1))
"""


class Containers:
    """What stands for Docker's service. *running* says whether its one container ``app`` runs; *asked* is what came.

    Commands get the variables that they were given by ``--env``, and none else: no mark but that of an executor.
    """

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.running = True
        self.asked: list[list[str]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(folder / "s"))
        self._door.listen(50)
        program = self.bin / "docker"
        program.write_text(_PROGRAM.format(python=sys.executable, path=str(folder / "s")))
        program.chmod(0o755)
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        """End it, and what runs."""
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                asker, _ = self._door.accept()
                threading.Thread(target=self._answer, args=(asker,), daemon=True).start()

    def _answer(self, asker: socket.socket) -> None:
        with asker:
            data, streams, _, _ = socket.recv_fds(asker, 1 << 20, 3)
            while piece := asker.recv(1 << 20):
                data += piece
            try:
                status = self._do(json.loads(data), streams)
            finally:
                for stream in streams:
                    os.close(stream)
            with contextlib.suppress(OSError):  # whoever asked is gone
                asker.sendall(str(status).encode())

    def _do(self, asked: Any, streams: array.array[int] | list[int]) -> int:
        self.asked.append(asked["words"])
        kind, *words = asked["words"]
        if kind == "inspect":
            assert words == ["--format", "{{.State.Running}}", "app"]
            os.write(streams[1], b"true\n" if self.running else b"false\n")
            return 0
        assert kind == "exec"
        environ, where = {"PATH": os.environ["PATH"]}, "/"
        while words[0].startswith("--"):
            option = words.pop(0)
            if option == "--env":
                name = words.pop(0)
                environ[name] = asked["environ"][name]
            elif option == "--workdir":
                where = words.pop(0)
            else:
                assert option == "--interactive"
        assert words.pop(0) == "app"
        process = subprocess.Popen(
            words, env=environ, cwd=where, stdin=streams[0], stdout=streams[1], stderr=streams[2], process_group=0
        )
        self._processes.append(process)
        status = process.wait()
        return status if status >= 0 else 128 - status
