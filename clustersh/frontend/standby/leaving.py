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

AT_MOST = 4
"""Standbys of one user: each sandbox, time zone and state directory has its own."""
_KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "TZ", "XDG_RUNTIME_DIR", "SYSTEMROOT"),
    *("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "PYTHONCOERCECLOCALE"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "__PYVENV_LAUNCHER__"),
)
"""What says where Python, its modules and the state are, and how names are encoded; nothing that a command looks at."""


def leave(where: Place, environ: Mapping[str, str]) -> None:
    """Start a standby, where none runs and one is wanted. Raises OSError; whatever it is, there just is none then."""
    if not where.fits or not sys.executable or not _wanted(Path(where.home)):
        return
    _make_folder(where)
    if _others(where) >= AT_MOST:
        return
    lock = take_lock(where.lock)
    if lock is None:
        return
    os.set_inheritable(lock, True)
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)
    streams = [null, (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    left_open = [(os.POSIX_SPAWN_CLOSE, number) for number in _inherited() if number > 2 and number != lock]
    kept = {name: environ[name] for name in _KEPT if name in environ} | {"CLUSTERSH_HOME": where.home}
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
    """Whether it is this user who is logged in, did not say "off", and hands down nothing that slows or ends it."""
    login = home / "client" / LOGIN_FILE
    if not login.exists() or login.stat().st_uid != os.geteuid() or _restrained():
        return False
    with contextlib.suppress(FileNotFoundError):
        if b"standby" in (home / "config.toml").read_bytes():
            from ...config import load

            return load(home).client.standby > 0
    return True


def _restrained() -> bool:
    """Whether this process has little priority, or limits that can't be lifted and may end a standby."""
    import resource

    if os.getpriority(os.PRIO_PROCESS, 0) > 0:
        return True
    if sys.platform == "linux" and os.sched_getscheduler(0) != os.SCHED_OTHER:
        return True
    ending = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_DATA)
    return any(resource.getrlimit(limit)[1] != resource.RLIM_INFINITY for limit in ending)


def _others(where: Place) -> int:
    """Return how many other standbys this user has; what ended ones left is removed."""
    count = 0
    for name in os.listdir(where.folder):
        path = f"{where.folder}/{name}"
        if not name.endswith(".lock") or path == where.lock:
            continue
        lock = take_lock(path)
        if lock is None:
            count += 1
            continue
        socket = path.removesuffix(".lock")
        for left in (socket, f"{socket}.log", path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left)
        os.close(lock)
    return count


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
