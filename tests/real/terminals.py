"""A command on a terminal of its own: what it draws, frame by frame, and keys and sizes for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

from .programs import BIN, PATIENCE_S, Home


class OnTerminal:
    """`clustersh` with *words*, the leader of a session whose terminal this is the other end of."""

    def __init__(self, home: Home, *words: str, columns: int = 120, lines: int = 30) -> None:
        self._master, slave = pty.openpty()
        self.resize(columns, lines)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", BIN / "clustersh", *words],
            env=home.environment({"TERM": "xterm-256color"}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        home.services.append(self.process)
        self.seen = ""

    def resize(self, columns: int, lines: int) -> None:
        """Change the terminal's size, of which its programs are told."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Type *keys*."""
        os.write(self._master, keys.encode())

    def read(self, seconds: float) -> bool:
        """Take in what comes in that time; return whether anything did. At the end of the program there is nothing."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
            data = os.read(self._master, 65536)
            self.seen += data.decode()
            return bool(data)
        return False

    def until(self, *words: str, after: int = 0) -> str:
        """Wait for the last whole frame to hold all *words*; return it. *after*: frames that don't count."""
        deadline = time.monotonic() + PATIENCE_S
        while not (len(self.frames) > after and all(word in self.frames[-1] for word in words)):
            assert time.monotonic() < deadline and self.process.poll() is None, self.seen
            self.read(0.1)
        return self.frames[-1]

    @property
    def frames(self) -> list[str]:
        """The whole frames that were drawn, without what steers the terminal."""
        drawn = self.seen.split("\x1b[H")[1:]
        return [each.partition("\x1b[J")[0].replace("\x1b[K", "") for each in drawn if "\x1b[J" in each]

    def end(self) -> int:
        """Wait for the program's end; return its exit status."""
        status = self.process.wait(PATIENCE_S)
        while self.read(0.1):
            pass
        os.close(self._master)
        return status
