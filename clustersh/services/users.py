"""Whom a system service runs as: that user is there, has the state directory, and can reach the program."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from .commands import Commands
from .errors import ServiceError, cannot
from .spec import Scope, Spec, owner_of

_NOBODY = (-1, -1)
"""What stands for the ids of a user who is only to be made: nothing is theirs."""


def account(user: str) -> tuple[int, int] | None:
    """Return the ids of *user* and its group; None where there is no such user."""
    if sys.platform == "win32":
        return None
    import pwd

    try:
        found = pwd.getpwnam(user)
    except KeyError:
        return None
    return found.pw_uid, found.pw_gid


@contextlib.contextmanager
def acting_as(spec: Spec) -> Iterator[None]:
    """Look into the state of a system service, or clear up there, as its user.

    Its commands may have put links there, which root would follow to whatever they lead to.
    """
    ids = account(spec.user)
    if sys.platform == "win32" or spec.scope is Scope.USER or ids is None or ids[0] == 0 or os.geteuid() != 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(ids[1])
    os.seteuid(ids[0])
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def prepare(spec: Spec, commands: Commands) -> None:
    """See that the user of a system service is there and has its state directory. Raises ServiceError."""
    if sys.platform == "win32":
        return
    if make := making(spec):
        commands.run(*make)
    ids = account(spec.user)
    if ids is None:
        raise ServiceError(f"the user {spec.user} was made, and can't be looked up", kind="internal")
    check(spec)
    _give_folder(spec, *ids)


def making(spec: Spec) -> tuple[str, ...]:
    """Return the command that makes a system service's user; none where that is there. Raises ServiceError."""
    if sys.platform == "win32" or account(spec.user) is not None:
        return ()
    if spec.user != spec.program.system_user:
        raise ServiceError(f"there is no user called {spec.user}", kind="bad-request")
    name, home = spec.user, str(spec.home)
    if shutil.which("useradd"):
        nologin = shutil.which("nologin", path="/usr/sbin:/sbin:/usr/bin:/bin") or "/bin/false"
        return ("useradd", "--system", "--user-group", "--no-create-home", "-d", home, "-s", nologin, name)
    if shutil.which("adduser") and sys.platform == "linux":  # busybox
        return ("adduser", "-S", "-D", "-H", "-h", home, "-s", "/sbin/nologin", name)
    raise ServiceError(
        f"there is no user called {name}, and nothing here to make one with (useradd)",
        (f"make it, or name another: {spec.program.name} service install --system --run-as USER",),
        kind="bad-request",
    )


def check(spec: Spec) -> None:
    """Raise ServiceError where a system service's user can't reach the program, or its state is somebody else's."""
    if sys.platform == "win32":
        return
    uid, gid = account(spec.user) or _NOBODY
    _check_reach(spec, uid, gid)
    folder = spec.home
    try:
        others = folder.exists() and folder.stat().st_uid != uid and any(folder.iterdir())
    except OSError as error:
        raise cannot("use", folder, error) from error
    if others:
        raise ServiceError(
            f"{folder} belongs to {owner_of(folder)}, and holds that user's state",
            (f"--run-as {owner_of(folder)}, or give it away: chown -R {spec.user}: {folder}",),
            kind="storage",
        )


def programs(executable: Path) -> set[Path]:
    """Return what has to be read to run *executable*, a program of a venv: itself, and the real Python."""
    real = Path(os.path.realpath(executable))
    return {executable, real, Path(os.path.realpath(real.with_name("python")))}


def unreachable(spec: Spec, path: Path, folder: Path) -> ServiceError:
    """Return the error that says that *folder* keeps the service's user from *path*, and the way out of it."""
    hint = (
        "install it where everyone can read it: python3 -m venv /opt/clustersh && /opt/clustersh/bin/pip install "
        f"clustersh; then: /opt/clustersh/bin/{spec.program.name} service install --system"
    )
    return ServiceError(f"{spec.user} can't run {path}: {folder} is closed to it", (hint,), kind="bad-request")


def _check_reach(spec: Spec, uid: int, gid: int) -> None:
    """Raise ServiceError where the service's user can't start the program, because of where it is."""
    for path in programs(spec.executable):
        closed = next((folder for folder in reversed(path.parents) if not _open_to(folder, uid, gid)), None)
        if closed is not None:
            raise unreachable(spec, path, closed)


def _open_to(folder: Path, uid: int, gid: int) -> bool:
    try:
        held = folder.stat()
    except FileNotFoundError:
        return True  # that is another matter, and starting it will tell
    except OSError:
        return False
    enter = stat.S_IXUSR if held.st_uid == uid else stat.S_IXGRP if held.st_gid == gid else stat.S_IXOTH
    return uid == 0 or bool(held.st_mode & enter)


def _give_folder(spec: Spec, uid: int, gid: int) -> None:
    folder = spec.home
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != uid:
            os.chown(folder, uid, gid, follow_symlinks=False)
        folder.chmod(0o700)
    except OSError as error:
        raise cannot("use", folder, error) from error
