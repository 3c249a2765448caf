"""Leaving a standby behind: a process that has nothing of the caller's but the lock that says it is the only one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from ..state import LOGIN_FILE
from .place import Place

_KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "XDG_RUNTIME_DIR", "CLUSTERSH_HOME", "SYSTEMROOT"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "__PYVENV_LAUNCHER__"),
)
"""What says where Python, its modules and the state are; nothing that a command looks at."""


def leave(where: Place, environ: Mapping[str, str]) -> None:
    """Start a standby, where none runs and one is wanted. Raises OSError; whatever it is, there just is none then."""
    if not where.fits or not sys.executable or not _wanted(Path(where.home)):
        return
    _make_folder(where)
    lock = take_lock(where.lock)
    if lock is None:
        return
    os.set_inheritable(lock, True)
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)
    streams = [null, (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    left_open = [(os.POSIX_SPAWN_CLOSE, number) for number in _inherited() if number > 2 and number != lock]
    kept = {name: environ[name] for name in _KEPT if name in environ}
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "clustersh.frontend.standby.main", str(lock)],
        kept,
        file_actions=[*streams, *left_open],
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        setsid=sys.platform == "linux",
    )


def _wanted(home: Path) -> bool:
    """Whether the user is logged in, and did not say "off"."""
    if not (home / "client" / LOGIN_FILE).exists() or os.getpriority(os.PRIO_PROCESS, 0) > 0:
        return False
    with contextlib.suppress(FileNotFoundError):
        if b"standby" in (home / "config.toml").read_bytes():
            from ...config import load

            return load(home).client.standby > 0
    return True


def _make_folder(where: Place) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(where.folder, 0o700)
    if not where.private:
        raise PermissionError(f"{where.folder} is open to others")


def take_lock(path: str) -> int | None:
    """Return a descriptor that holds the lock; None where a standby does."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _inherited() -> list[int]:
    """Return the descriptors that another program would get from this process."""
    found = list[int]()
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            if os.get_inheritable(int(name)):
                found.append(int(name))
    return found
