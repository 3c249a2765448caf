"""Where a user's standby is, and for whom it stands by: the socket's path, and the key that both ends must agree on.

The key holds all that a process can't change for one of its callers: whose it is, which clustersh, on which state, in
which namespaces and with what rights, the time zone and the encoding.
"""

import os
import stat
import sys

from ... import __version__

TYPE_CHECKING = False  # typing's own takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMESPACES = ("mnt", "net", "user", "pid")
_RIGHTS = (b"Gid:", b"Groups:", b"CapEff:", b"NoNewPrivs:", b"Seccomp:")
"""What differs in a sandbox that is made without namespaces."""
_LONGEST = 100
"""Bytes that a Unix socket's path may have: 108 on Linux, 104 elsewhere, with the zero at its end."""


class Place:
    """The *folder* of this user's sockets, the *socket* in it, and its *key*."""

    def __init__(self, folder: str, home: str, key: bytes) -> None:
        self.folder = folder
        self.home = home
        self.key = key
        self.of_home = _digits(os.fsencode(home))
        self.socket = f"{folder}/{self.of_home}-{_digits(key)}"
        self.lock = f"{self.socket}.lock"
        self.log = f"{self.socket}.log"

    @property
    def fits(self) -> bool:
        """Whether a Unix socket may have that path."""
        return len(os.fsencode(self.socket)) <= _LONGEST

    @property
    def private(self) -> bool:
        """Whether the folder is there, and nobody else's business."""
        try:
            found = os.lstat(self.folder)
        except OSError:
            return False
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def find(environ: "Mapping[str, str]") -> Place:
    """Return where the standby of a caller with that *environ* is."""
    home = _home(environ)
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    folder = f"{runtime}/clustersh" if runtime.startswith("/") and _is_mine(runtime) else f"{home}/client/standby"
    return Place(folder, home, _key(home, environ))


def _home(environ: "Mapping[str, str]") -> str:
    """As `clustersh.home.default_home`, whose imports a launcher has no time for."""
    chosen = environ.get("CLUSTERSH_HOME")
    if chosen:
        return os.path.abspath(os.path.expanduser(chosen))
    return os.path.abspath(f"{environ.get('HOME') or os.path.expanduser('~')}/.config/clustersh")


def _key(home: str, environ: "Mapping[str, str]") -> bytes:
    root = os.stat("/")
    parts = [
        __version__,
        os.path.dirname(__file__),
        home,
        *map(str, (os.geteuid(), os.getuid(), os.getegid(), *sorted(os.getgroups()), root.st_dev, root.st_ino)),
        environ.get("TZ", "-"),
        sys.getfilesystemencoding(),
    ]
    return b"\0".join((*map(os.fsencode, parts), *bounds("self")))


def bounds(process: str) -> list[bytes]:
    """Return what *process* ("self", or a pid) can't leave: its root, namespaces and rights. Nothing where there is no
    /proc, or it does not tell."""
    folder = f"/proc/{process}"
    try:
        root = os.stat(f"{folder}/root")
        with open(f"{folder}/status", "rb", buffering=0) as file:
            rights = [line for line in file.read(8192).split(b"\n") if line.startswith(_RIGHTS)]
    except OSError:
        return []
    namespaces = (_namespace(f"{folder}/ns/{name}") for name in _NAMESPACES)
    return [b"%d:%d" % (root.st_dev, root.st_ino), *namespaces, *rights]


def _namespace(path: str) -> bytes:
    try:
        return os.fsencode(os.readlink(path))
    except OSError:
        return b""


def _is_mine(path: str) -> bool:
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _digits(data: bytes) -> str:
    """Return 12 digits of *data*: FNV-1a, since hashlib takes longer to import than all the rest. The key decides."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"[:12]
