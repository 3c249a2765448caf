"""One command over a connection: what comes before, of and after it in its output is told apart by a mark.

The far side says B on both streams when the command begins, and E with its status after it (scripts.JOB): so neither
what start-up files print nor the status of ``ssh`` itself is taken for the command's. Both ends are known although
something that it left in the background still holds the streams.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from zope.interface import implementer

from ...wire.jobs import Outcome, State
from ...wire.output import Stream
from ..executors import IConversation
from .connection import Connection

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


@implementer(IConversation)
class Conversation:
    """What is said with the ``ssh`` of one command, over *connection*.

    *header* is what is sent first, *where* the directory that it names. *lost* says what became of the command where
    ssh went before its end was told: of whether it had begun, the status of ssh, and what that said.
    """

    def __init__(
        self,
        connection: Connection,
        mark: bytes,
        header: bytes,
        where: str,
        lost: Callable[[bool, int | None, str], Awaitable[Outcome]],
    ) -> None:
        self.connection = connection
        self.first = header + b"\n"
        self.ended: Outcome | None = None
        self._where = where
        self._lost = lost
        self._streams = {stream: Marked(mark) for stream in (Stream.STDOUT, Stream.STDERR)}

    def heard(self, stream: Stream, data: bytes) -> bytes:
        """Return what is the command's."""
        marked = self._streams[stream]
        own = marked.feed(data) if data else marked.rest()
        if self.ended is None and all(each.word is not None for each in self._streams.values()):
            self.ended = self._outcome_of(self._streams[Stream.STDOUT].word or b"")
        return own

    def outcome(self, code: int | None, number: int | None) -> Awaitable[Outcome]:
        """Return what became of the command, whose end was not told."""
        begun = any(each.begun for each in self._streams.values())
        return self._lost(begun, code, self._streams[Stream.STDERR].before.decode(errors="replace"))

    def close(self) -> None:
        """It goes over the connection no more."""
        self.connection.leave()

    def _outcome_of(self, word: bytes) -> Outcome:
        if _STATUS.fullmatch(word):
            return Outcome.exited(int(word[1:]))
        return Outcome(State.NOT_STARTED, reason=f"{word[1:].decode(errors='replace')}: {self._where}")
