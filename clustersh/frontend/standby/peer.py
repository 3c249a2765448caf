"""Who is at the other end of a Unix socket, and whether that process has work to do."""

import _socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LOCAL_LEVEL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
"""macOS's and the BSDs' numbers, which Python has no names for."""


def peer_of(connection: "Any") -> tuple[int, int]:
    """Return (pid, uid) of the process at the other end; its pid is 0 where that is not known. Raises OSError."""
    if sys.platform == "linux":
        told = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        return int.from_bytes(told[0:4], sys.byteorder), int.from_bytes(told[4:8], sys.byteorder)
    # struct xucred: its version, then the uid
    told = connection.getsockopt(_LOCAL_LEVEL, _LOCAL_PEERCRED, 128)
    pid = connection.getsockopt(_LOCAL_LEVEL, _LOCAL_PEERPID) if sys.platform == "darwin" else 0
    return pid, int.from_bytes(told[4:8], sys.byteorder)


def is_busy(pid: int) -> bool:
    """Whether that process computes, or waits for its turn or a disk. Where that can't be told, it does."""
    if sys.platform != "linux":
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b") ")[2][:1]
    except OSError:
        return False
    return state in (b"R", b"D")
