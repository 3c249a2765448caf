"""Reading a job's output and feeding its stdin, through its machine's link, in bounded windows."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from ..wire.link import MAX_CHUNK, Chunk, Read, Stdin, StdinTaken
from ..wire.output import RunsError, Stream, check_runs
from ..wire.problems import Kind, ProblemError
from ..wire.rest import StdinProgress
from .fleet import Answer, Bus

MAX_WINDOW = 16
"""Reads under way at once for one reader: with MAX_CHUNK each, 4 MiB."""
FOLLOW_S = 30.0


@dataclass(frozen=True)
class Wanted:
    """A part of a job's output: *length* None is to the end; *follow* goes on until the job ends."""

    machine_id: str
    uuid: str
    stream: Stream
    offset: int = 0
    length: int | None = None
    follow: bool = False


class Outputs:
    """Reads outputs over *bus*."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def size(self, wanted: Wanted) -> Chunk:
        """Return an empty chunk that tells how long the stream is now, and whether it has ended."""
        return await self._read(wanted, 0, 0)

    async def tail_offset(self, wanted: Wanted, lines: int) -> int:
        """Return where the last *lines* lines of the stream begin."""
        chunk = await self._read(wanted, 0, 0, tail_lines=lines)
        return chunk.offset

    async def write_stdin(self, machine_id: str, uuid: str, offset: int, data: bytes, end: bool) -> StdinProgress:
        """Hand the process a piece of stdin; return once it took it. Raises ProblemError."""
        answer = await self._bus.ask(machine_id, lambda request: Stdin(request, uuid, offset, data, end))
        if not isinstance(answer, StdinTaken):
            raise _nonsense()
        return StdinProgress(answer.offset, answer.closed)

    async def chunks(self, wanted: Wanted) -> AsyncIterator[Chunk]:
        """Yield the output in order, at least one chunk (perhaps empty). Raises ProblemError.

        Reads ahead in a window that grows while the caller has to wait for the link, as on one with a long way.
        """
        position, end = wanted.offset, _end(wanted)
        chunk = await self._read(wanted, position, _step(position, end))
        yield chunk
        position += len(chunk.data)
        ahead: deque[tuple[int, Deferred[Answer]]] = deque()
        window, asked = 2, position
        try:
            while True:
                while len(ahead) < window and asked < min(chunk.size, end):
                    length = _step(asked, min(chunk.size, end))
                    ahead.append((length, self._ask(wanted, asked, length)))
                    asked += length
                if ahead:
                    length, answer = ahead.popleft()
                    if not answer.called:
                        window = min(window + 1, MAX_WINDOW)
                    chunk = _checked(await answer, wanted.stream, position, length)
                    if len(chunk.data) < length:
                        _forget(ahead)
                        asked = position + len(chunk.data)
                    if not chunk.data:
                        raise _nonsense()
                elif position >= end or chunk.ended or not wanted.follow:
                    return
                else:
                    chunk = await self._read(wanted, position, _step(position, end), wait_s=FOLLOW_S)
                position += len(chunk.data)
                asked = max(asked, position)
                yield chunk
        finally:
            _forget(ahead)

    async def _read(
        self, wanted: Wanted, offset: int, length: int, *, wait_s: float = 0.0, tail_lines: int = 0
    ) -> Chunk:
        answer = await self._ask(wanted, offset, length, wait_s, tail_lines)
        return _checked(answer, wanted.stream, None if tail_lines else offset, length)

    def _ask(
        self, wanted: Wanted, offset: int, length: int, wait_s: float = 0.0, tail_lines: int = 0
    ) -> Deferred[Answer]:
        return self._bus.ask(
            wanted.machine_id,
            lambda request: Read(request, wanted.uuid, wanted.stream, offset, length, wait_s, tail_lines),
        )


def _forget(ahead: deque[tuple[int, Deferred[Answer]]]) -> None:
    while ahead:
        _, answer = ahead.pop()
        answer.addErrback(lambda _: None)
        answer.cancel()


def _end(wanted: Wanted) -> int:
    return 1 << 62 if wanted.length is None else wanted.offset + wanted.length


def _step(position: int, end: int) -> int:
    return max(0, min(MAX_CHUNK, end - position))


def _checked(answer: Answer, stream: Stream, offset: int | None, length: int) -> Chunk:
    """Return *answer* if it can be one to what was asked; an agent's word is not taken for its sizes."""
    if not isinstance(answer, Chunk) or len(answer.data) > length or answer.size < 0:
        raise _nonsense()
    if offset is not None and answer.offset != offset:
        raise _nonsense()
    if stream is Stream.BOTH:
        try:
            check_runs(answer.data, answer.runs)
        except RunsError as error:
            raise _nonsense() from error
    return answer


def _nonsense() -> ProblemError:
    return ProblemError(Kind.OUTPUT_UNAVAILABLE, "the machine's agent gave an answer that can't be")
