"""Which manager of services this system has."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from .commands import Commands
from .launchd import Launchd
from .manager import Manager
from .pidfile import Pidfile
from .spec import Scope
from .systemd import Systemd
from .tasks import Tasks
from .watch import Watch


def choose(
    environ: Mapping[str, str],
    scope: Scope,
    *,
    platform: str = sys.platform,
    root: Path = Path("/"),
    commands: Commands | None = None,
    watch: Watch | None = None,
    uid: int | None = None,
) -> Manager:
    """Return what manages services here, for *scope*."""
    uid = uid if uid is not None else _uid()
    commands = commands or Commands(_environment(environ, scope, root, uid))
    user_home = Path(environ.get("HOME") or Path.home())
    return _kind(platform, root)(commands, watch or Watch(), root=root, user_home=user_home, uid=uid)


def _kind(platform: str, root: Path) -> type[Manager]:
    if platform == "win32":
        return Tasks
    if platform == "darwin":
        return Launchd
    return Systemd if (root / "run/systemd/system").is_dir() else Pidfile


def _environment(environ: Mapping[str, str], scope: Scope, root: Path, uid: int) -> dict[str, str]:
    """Return what commands see: also where a user's manager is, which su and sudo leave out."""
    if scope is Scope.SYSTEM or "XDG_RUNTIME_DIR" in environ:
        return dict(environ)
    return {**environ, "XDG_RUNTIME_DIR": str(root / "run/user" / str(uid))}


def _uid() -> int:
    if sys.platform == "win32":
        import ctypes

        return 0 if ctypes.windll.shell32.IsUserAnAdmin() else 1
    return os.getuid()
