"""One command over a connection: what comes before, of and after it in its output is told apart by a mark.

The far side says B on both streams when the command begins, and E with its status after it (scripts.JOB): so neither
what start-up files print nor the status of ``ssh`` itself is taken for the command's. Both ends are known although
something that it left in the background still holds the streams.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...wire.jobs import Outcome, State
from ...wire.output import Stream
from ..process import ProcessListener, close_stdin

MARK_BEGINS = b"\x1e"
_STATUS = re.compile(rb"E[0-9]{1,3}")
_LONGEST_WORD = 4096
_BEFORE_LIMIT = 16 << 10


class Marked:
    """One stream: `feed` takes what comes and returns what is the command's. *word* is what ended it, None before."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._held = b""
        self.before = b""
        self.begun = False
        self.word: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        if self.word is not None:
            return b""
        data, self._held, found = self._held + data, b"", []
        while self.word is None:
            at = data.find(self._mark)
            end = data.find(b"\n", at + len(self._mark)) if at >= 0 else -1
            if end < 0:
                keep = len(data) - at if at >= 0 else _beginning_at_end(data, self._mark)
                data, self._held = data[: len(data) - keep], data[len(data) - keep :]
                if len(self._held) > _LONGEST_WORD:
                    data, self._held = data + self._held, b""
                break
            found.append(data[:at])
            said, data = data[at + len(self._mark) : end], data[end + 1 :]
            if said == b"B" and not self.begun:
                self._not_its_own(b"".join(found))
                self.begun, found = True, []
            else:
                self.word, data = said, b""
        found.append(data)
        own = b"".join(found)
        if self.begun:
            return own
        self._not_its_own(own)
        return b""

    def rest(self) -> bytes:
        """Return what was held back, where nothing comes any more."""
        held, self._held = self._held, b""
        return held if self.begun and self.word is None else b""

    def _not_its_own(self, data: bytes) -> None:
        self.before = (self.before + data)[-_BEFORE_LIMIT:]


def _beginning_at_end(data: bytes, mark: bytes) -> int:
    """Return how many bytes at the end of *data* may be the beginning of *mark*."""
    at = data.rfind(mark[:1], max(0, len(data) - len(mark) + 1))
    while at >= 0:
        if mark.startswith(data[at:]):
            return len(data) - at
        at = data.rfind(mark[:1], max(0, len(data) - len(mark) + 1), at)
    return 0


class Session(ProcessListener):
    """Stands between the ``ssh`` of one command and *listener*, which hears of the command alone.

    *header* is what is sent first, *where* the directory that it names. *freed* is called when that ``ssh`` is gone,
    and *broken* where it went before the command's end was told: with whether the command had begun, the status of
    ssh, and what that said; it returns the outcome.
    """

    _log = Logger()

    def __init__(
        self,
        listener: ProcessListener,
        mark: bytes,
        header: bytes,
        *,
        where: str,
        stdin: bool,
        freed: Callable[[], None],
        broken: Callable[[bool, int | None, str], Coroutine[Any, Any, Outcome]],
    ) -> None:
        self._listener = listener
        self._header = header
        self._where = where
        self._stdin = stdin
        self._freed = freed
        self._broken = broken
        self._streams = {stream: Marked(mark) for stream in (Stream.STDOUT, Stream.STDERR)}
        self._transport: Any = None
        self._over = False

    def spawned(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._header + b"\n")
        if not self._stdin:
            close_stdin(transport)
        self._listener.spawned(transport)

    def output(self, stream: Stream, data: bytes) -> None:
        own = self._streams[stream].feed(data)
        if own:
            self._listener.output(stream, own)
        if not self._over and all(each.word is not None for each in self._streams.values()):
            self._over = True
            # Something left in the background may hold the streams.
            with contextlib.suppress(ProcessExitedAlready):
                self._transport.signalProcess("TERM")
            self._tell(self._streams[Stream.STDOUT].word or b"")

    def stdin_taken(self) -> None:
        if self._stdin:
            self._listener.stdin_taken()

    def stdin_closed(self) -> None:
        if self._stdin:
            self._listener.stdin_closed()

    def exited(self, code: int | None, number: int | None) -> None:
        self._freed()
        if self._over:
            return
        self._over = True
        for stream, each in self._streams.items():
            if rest := each.rest():
                self._listener.output(stream, rest)
        begun = any(each.begun for each in self._streams.values())
        said = self._streams[Stream.STDERR].before.decode(errors="replace")
        outcome = Deferred.fromCoroutine(self._broken(begun, code, said))
        outcome.addCallbacks(self._listener.gone, self._failed)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("what became of a command is not known", failure)
        self._listener.gone(Outcome(State.INTERRUPTED, reason="internal error of the agent"))

    def _tell(self, word: bytes) -> None:
        if _STATUS.fullmatch(word):
            self._listener.exited(int(word[1:]), None)
        else:
            reason = f"{word[1:].decode(errors='replace')}: {self._where}"
            self._listener.gone(Outcome(State.NOT_STARTED, reason=reason))
