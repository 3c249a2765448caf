"""What this machine says of itself."""

from __future__ import annotations

import os
import platform
import socket
import sys
from pathlib import Path

from ..home import user_name
from ..wire.link import Facts

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_SYSTEMS = {"win32": "windows"}


def gather(user_home: Path) -> Facts:
    """Return the facts of this machine and of the user that commands run as."""
    machine = platform.machine().lower()
    return Facts(
        platform=f"{_SYSTEMS.get(sys.platform, sys.platform)}/{_ARCHITECTURES.get(machine, machine)}",
        hostname=socket.gethostname(),
        user=user_name(),
        # A path may be no Unicode, which a message can't hold.
        home=os.fsencode(user_home).decode(errors="backslashreplace"),
        python=platform.python_version(),
    )
