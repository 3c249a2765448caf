"""This machine's own root file system, copied on write: what is installed there never reaches the real one."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ..real.programs import end

ENVIRON = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
_MAKE = """
mount -t tmpfs none {place}
mkdir {place}/upper {place}/work {place}/root
mount -t overlay overlay -o lowerdir=/,upperdir={place}/upper,workdir={place}/work {place}/root
mount --rbind /dev {place}/root/dev
mount -t proc proc {place}/root/proc
mount -t tmpfs none {place}/root/tmp
mount -t tmpfs none {place}/root/run
{more}
echo ready
sleep infinity & wait  # and so take leave of whatever ends in here
"""


class Root:
    """An isolated root: a mount and a process namespace, whose first process is *first*."""

    def __init__(self, place: Path, first: int) -> None:
        self._place = place
        self._first = first

    def run(self, *words: str | Path, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command in there as root, with a clean environment."""
        return subprocess.run(
            self.words(*words),
            env=ENVIRON,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def words(self, *words: str | Path) -> list[str | Path]:
        """Return the whole command line that runs *words* in there."""
        return [*self._enter(), "chroot", self._place / "root", *words]

    def check(self, *words: str | Path) -> str:
        """As `run`, of a command that has to succeed: return what it printed."""
        ran = self.run(*words)
        assert ran.returncode == 0, f"{words}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def put(self, source: Path, target: str) -> None:
        """Copy a file in there."""
        with source.open("rb") as content:
            words = [*self._enter(), "tee", f"{self._place}/root{target}"]
            subprocess.run(words, stdin=content, stdout=subprocess.DEVNULL, check=True)

    def changed(self) -> set[str]:
        """Return the path of every file that differs from this machine's own, what was removed included."""
        listed = subprocess.run(
            [
                *self._enter(),
                "find",
                self._place / "upper",
                "-mindepth",
                "1",
                "-not",
                "-type",
                "d",
                "-printf",
                "/%P\\n",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return set(listed.stdout.splitlines())

    def _enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--target={self._first}", "--mount", "--pid", "--net", "--uts")


@contextlib.contextmanager
def isolated_root(place: Path, *, within: tuple[str, ...] = (), more: str = "") -> Iterator[Root]:
    """Make a root; whatever still runs in there ends with it.

    *within* are words to start it with (a network of its own), *more* lines of shell that make it complete.
    """
    script = _MAKE.format(place=shlex.quote(str(place)), more=more)
    holder = subprocess.Popen(
        [*within, "unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
        [first] = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        yield Root(place, int(first))
    finally:
        end(holder, signal.SIGKILL)


def possible() -> bool:
    """Whether a root can be isolated and Debian packages be installed in it here."""
    return os.geteuid() == 0 and all(map(shutil.which, ("unshare", "nsenter", "dpkg-deb", "useradd")))
