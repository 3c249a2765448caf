"""What this machine says of itself."""

from __future__ import annotations

import os
import platform
import socket
import sys
from pathlib import Path

import psutil

from ..home import user_name
from ..wire.link import Facts

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_SYSTEMS = {"win32": "windows"}


def gather(user_home: Path, executor: str) -> Facts:
    """Return the facts of this machine and of the user that commands run as, by the *executor* of that name."""
    machine = platform.machine().lower()
    system, architecture = _SYSTEMS.get(sys.platform, sys.platform), ARCHITECTURES.get(machine, machine)
    return Facts(
        platform=f"{system}/{architecture}",
        hostname=socket.gethostname(),
        user=user_name(),
        # A path may be no Unicode, which a message can't hold.
        home=os.fsencode(user_home).decode(errors="backslashreplace"),
        python=platform.python_version(),
        os=system,
        arch=architecture,
        distribution=_distribution(),
        kernel=platform.release(),
        cpus=os.cpu_count() or 0,
        memory=psutil.virtual_memory().total,
        executor=executor,
    )


def _distribution() -> str:
    """Return what is installed here, like ``debian-13``, ``macos-15.1`` or ``windows-11``; "" where it isn't said."""
    if sys.platform == "win32":
        return _joined("windows", platform.release())
    if sys.platform == "darwin":
        return _joined("macos", platform.mac_ver()[0])
    try:
        release = platform.freedesktop_os_release()
    except (OSError, UnicodeDecodeError):
        return ""
    return _joined(release.get("ID", ""), release.get("VERSION_ID", ""))


def _joined(name: str, version: str) -> str:
    return f"{name}-{version}" if name and version else name
