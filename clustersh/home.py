"""Where state lives: private folders, atomic writes, and one lock a service.

Everything is under ``~/.config/clustersh`` (``$CLUSTERSH_HOME``): ``coordinator/``, ``agent/``, ``client/``
and one ``config.toml``. Folders are 0700 and files 0600, whatever the umask says.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from filelock import FileLock

T = TypeVar("T")
KEY_ENDINGS = ("key.pem", ".key")
"""How the names of private keys end."""


class HomeError(Exception):
    """The state directory can't be used; the message says why, *hint* what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def default_home(environ: Mapping[str, str]) -> Path:
    """Return the state directory: ``$CLUSTERSH_HOME``, else ``~/.config/clustersh``."""
    chosen = environ.get("CLUSTERSH_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(environ.get("HOME") or Path.home()) / ".config" / "clustersh"


def user_name() -> str:
    """Return the name of the user that this process runs as; "" where the user has none."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def private_folder(path: Path) -> Path:
    """Make *path* (and its parents, as private) and see that only its owner may enter it."""
    try:
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir(exist_ok=True, mode=0o700)
        path.mkdir(exist_ok=True, mode=0o700)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise HomeError(f"can't use the folder {path}: {error.strerror}") from error
    return path


def make_private(folder: Path, *, depth: int = 2) -> None:
    """Take from everything in *folder*, to *depth* levels, what its group and others may do; keys stay as they are.

    A key that was open to others may be known to them, so that is told where it is read instead. Deeper levels are
    behind these. Symlinks are not followed. Raises HomeError.
    """
    if os.name != "posix":
        return
    try:
        for entry in os.scandir(folder):
            if entry.is_symlink() or entry.name.endswith(KEY_ENDINGS):
                continue
            mode = entry.stat(follow_symlinks=False).st_mode
            if mode & 0o077 and stat.S_IFMT(mode) in (stat.S_IFREG, stat.S_IFDIR):
                Path(entry.path).chmod(mode & 0o700)
            if depth > 1 and stat.S_ISDIR(mode):
                make_private(Path(entry.path), depth=depth - 1)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HomeError(f"can't make {folder} private: {error.strerror}") from error


def write_private(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace *path* by *content* in one step: a reader sees the old or the new file, never half of one.

    With *durable* the content is on the disk when this returns.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    if durable:
        sync_folder(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what a service that was killed while it wrote ``run.json`` and the like left in *folder*, its own now."""
    with contextlib.suppress(OSError):
        for name in ("run.json", "status.json", "store.json"):
            for path in folder.glob(f".{name}.*"):
                path.unlink()


def sync_folder(path: Path) -> None:
    """Put the names in *path* on the disk (a file that was renamed there stays renamed)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: object, *, durable: bool = True) -> None:
    """Write *value* (anything msgspec encodes) to *path*, atomically and privately."""
    write_private(path, msgspec.json.encode(value) + b"\n", durable=durable)


def read_json(path: Path, kind: type[T]) -> T | None:
    """Read *path* as *kind*; None where there is no such file. Raises HomeError if it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HomeError(f"can't read {path}: {error.strerror}") from error
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise HomeError(f"{path} is damaged: {error}") from error


class RunningService(msgspec.Struct, frozen=True):
    """``run.json``: what a service says of itself to its own sub-commands."""

    pid: int
    address: str = ""
    version: str = ""


class ServiceLock:
    """The exclusive hold of one service on its folder, and its ``run.json``.

    The lock is the operating system's, so it ends with the process, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder)
        make_private(folder)
        self._lock: FileLock | None = None

    def take(self) -> None:
        """Take the lock or raise HomeError naming who holds it."""
        from filelock import FileLock, Timeout

        # Made only now: twistd goes into the background after it made the service, and a lock is of one process.
        self._lock = FileLock(self._folder / "lock", mode=0o600)
        try:
            self._lock.acquire(timeout=0.5)
        except Timeout:
            holder = read_running(self._folder)
            who = f"process {holder.pid}" if holder else "another process"
            raise HomeError(f"{self._folder} is in use by {who}", "stop that one first") from None
        except OSError as error:
            raise HomeError(f"can't lock {self._folder}: {error.strerror}") from error
        try:
            write_json(self._folder / "run.json", RunningService(pid=os.getpid()), durable=False)
        except OSError as error:
            self._lock.release()
            raise HomeError(f"can't write to {self._folder}: {error.strerror}") from error

    def announce(self, address: str, version: str) -> None:
        """Say in ``run.json`` that the service is up, and where."""
        running = RunningService(pid=os.getpid(), address=address, version=version)
        write_json(self._folder / "run.json", running, durable=False)

    def release(self) -> None:
        """Take ``run.json`` away and let go of the folder, if it was taken."""
        if self._lock is None or not self._lock.is_locked:
            return
        with contextlib.suppress(OSError):
            (self._folder / "run.json").unlink()
        self._lock.release()


def read_running(folder: Path) -> RunningService | None:
    """Return what the service in *folder* says of itself; None if it doesn't run."""
    try:
        running = read_json(folder / "run.json", RunningService)
    except HomeError:
        return None
    # What starts at this moment may hold the lock, and what is there be of one that was killed.
    return running if running is not None and _is_locked(folder) and _is_alive(running.pid) else None


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        import psutil

        return psutil.pid_exists(pid)
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0


def _is_locked(folder: Path) -> bool:
    try:
        # As FileLock would find out, whose import takes longer than what most commands are for.
        import fcntl

        with (folder / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except (ImportError, OSError):
        return _is_file_locked(folder)
    return False


def _is_file_locked(folder: Path) -> bool:
    """As `_is_locked`, on systems without flock, and in folders that don't have it."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
