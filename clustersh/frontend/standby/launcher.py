"""The thin front of ``clustersh``: it hands a call to the standby, and relays bytes and signals.

It imports only what the interpreter has in C, and never changes a flag of the caller's descriptors. Where there is no
standby to hand the call to, `call` returns None, and the program goes on in this process as if nothing had been tried.

All that isn't needed for handing over is imported once the call is on its way: while the standby is at it. Until then
not even ``__future__`` is, which is a module as any other; so annotations that need an import are quoted.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import os

from . import frames, place
from .peer import is_busy, peer_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

IN_PROCESS = ("up", "down", "discover", "login", "logout", "standby")
"""Commands that start programs, or change what a standby is for."""
_REPEATABLE = ("run", "check", "machines", "history", "cat", "wait", "targets", "policy", "whoami", "__complete")
"""Commands that may be done again after a standby that died in their midst: they only look, or carry the key."""
_NEEDED = ("TERM", "NO_COLOR", "CLUSTERSH_WAIT", "USER", "USERNAME", "HOME")
_OF_THIS_PROCESS = ("/dev", "/proc")
SIGNALS = [getattr(_signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(_signal, name)]
_PROMPT_S, _PROMPTS, _IDLE_PROMPTS = 0.02, 50, 2
"""How long a look for an answer takes, in seconds; how many a standby gets that is busy, and one that isn't."""


class Launcher:
    """One call of ``clustersh``, on its way.

    *key* is the idempotency key of what it may start; *lost* says why nothing more is known of it, where the standby
    was lost and the call can't be repeated.
    """

    def __init__(self, argv: "Sequence[str]", environ: "Mapping[str, str]", cwd: "Callable[[], str]") -> None:
        self._argv = argv
        self._environ = environ
        self._cwd = cwd
        self._place: place.Place | None = None
        self._call = b""
        self.key = os.urandom(16).hex()
        self.lost = ""
        self.printed = False

    def call(self) -> int | None:
        """Return the exit status of the call, done by a standby; None where it is to be done here."""
        if not self._may():
            return None
        try:
            self._place = place.find(self._environ)
            connection = self._connect(self._place)
        except (OSError, UnicodeError):
            return None
        if connection is None:
            return None
        try:
            return self._hand_over(connection)
        finally:
            connection.close()

    def leave(self) -> None:
        """Leave a standby for the next call, where there is none."""
        if self._place is not None:
            from .leaving import leave

            leave(self._place, self._environ)

    def _may(self) -> bool:
        environ, words = self._environ, self._argv
        if not hasattr(_socket, "AF_UNIX") or environ.get("CLUSTERSH_STANDBY") == "off":
            return False
        if environ.get("CI") or environ.get("CLUSTERSH_DEBUG") or (words and words[0] in IN_PROCESS):
            return False
        # What these name is this process's own: the other end of a <(...), its terminal.
        own = (word.rpartition("=")[2].startswith(f"{folder}/") for word in words for folder in _OF_THIS_PROCESS)
        return not any(own)

    def _connect(self, where: place.Place) -> _socket.socket | None:
        """Return a connection to a standby that said it is ready; None where there is none. Raises OSError."""
        if not (where.fits and where.private):
            return None
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            connection.settimeout(_PROMPT_S)
            connection.connect(where.socket)
            pid, uid = peer_of(connection)
            if uid != os.geteuid():
                return None
            connection.sendall(frames.frame(frames.HELLO, where.key))
            self._call = self._frame()  # while it wakes up
            ready = _ready(connection, pid)
        except OSError:
            connection.close()
            raise
        if not ready:
            connection.close()
            return None
        connection.settimeout(None)
        return connection

    def _hand_over(self, connection: _socket.socket) -> int | None:
        """Have the call done, and return its exit status; None where the standby was lost."""
        held = _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)  # until there is somebody to pass them on
        rest = _sent_at_once(connection, self._call)
        from .relay import Lost, Relay

        relay = Relay(connection)
        try:
            return relay.run(rest, held)
        except Lost as lost:
            self.printed = relay.printed
            if relay.printed or relay.fed or relay.untold or not self._repeatable():
                self.lost = str(lost)
            return None

    def _frame(self) -> bytes:
        """Return the call. Of the environment there is only what commands look at, and what an argument names."""
        words = [*self._argv, *(word.partition("=")[2] for word in self._argv)]
        named = {name: self._environ[name] for name in (*_NEEDED, *words) if name and name in self._environ}
        environ = [os.fsencode(f"{name}={value}") for name, value in named.items()]
        head = [self.key.encode(), os.fsencode(self._cwd()), *map(os.fsencode, self._argv)]
        call = frames.pack([frames.pack(head), frames.pack(environ)])
        return frames.frame(frames.CALL, frames.pack([call, _streams()]))

    def _repeatable(self) -> bool:
        return not self._argv or self._argv[0] in _REPEATABLE or self._argv[0].startswith("-")


def _ready(connection: _socket.socket, pid: int) -> bool:
    """Whether the other end says so: soon, or a little later where it is only busy.

    One that sleeps although there is something to answer is stopped, or hangs.
    """
    idle = 0
    for _ in range(_PROMPTS):
        try:
            return connection.recv(5)[:1] == bytes((frames.READY,))
        except TimeoutError:
            idle = 0 if is_busy(pid) else idle + 1
            if idle == _IDLE_PROMPTS:
                break
    return False


def _sent_at_once(connection: _socket.socket, frame: bytes) -> bytes:
    """Send *frame* as far as that doesn't block, and return the rest."""
    try:
        return frame[connection.send(frame, _socket.MSG_DONTWAIT) :]
    except OSError:
        return frame  # whoever sends that notices it too


def _streams() -> bytes:
    """Say what the three descriptors are: terminals, how large, and whether the last two are the same."""
    terminals = bytes(os.isatty(stream) for stream in (0, 1, 2))
    try:
        same = os.path.sameopenfile(1, 2)
    except OSError:
        same = False
    return frames.pack([terminals, bytes((same,)), sizes()])


def sizes() -> bytes:
    """Return the columns and lines of stdout and of stderr, as far as they are terminals."""
    found = list[bytes]()
    for stream in (1, 2):
        try:
            columns, lines = os.get_terminal_size(stream)
        except OSError:
            columns = lines = 0
        found += columns.to_bytes(4, "big"), lines.to_bytes(4, "big")
    return b"".join(found)
