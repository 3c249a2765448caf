"""Reading a job's output and feeding its stdin, through its machine's link, in bounded windows."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from ..wire.link import MAX_CHUNK, Chunk, Read, Stdin, StdinTaken
from ..wire.output import RunsError, Stream, check_runs
from ..wire.problems import Kind, ProblemError
from ..wire.rest import StdinProgress
from .bus import Answer, Bus
from .read_ahead import Allowance, Window

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


class _Ahead:
    """A piece of *length* bytes that was asked for now, and what answers that."""

    def __init__(self, length: int, answer: Deferred[Answer], clock: Callable[[], float]) -> None:
        self.length = length
        self.answer = answer
        self._clock = clock
        self._asked = self._came = clock()
        answer.addCallback(self._note)

    def _note(self, answer: Answer) -> Answer:
        self._came = self._clock()
        return answer

    async def taken(self, window: Window) -> Answer:
        """Return the answer, and let *window* adapt to how it came."""
        lay = self._clock() - self._came if self.answer.called else None
        answer = await self.answer
        window.adapt(self._came - self._asked, lay)
        return answer


class Outputs:
    """Reads outputs over *bus*; *clock* gives seconds that never jump."""

    def __init__(self, bus: Bus, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._clock = clock
        self.allowance = Allowance()

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

    async def chunks(self, wanted: Wanted) -> AsyncGenerator[Chunk, None]:
        """Yield the output in order, at least one chunk (perhaps empty). Raises ProblemError.

        Reads ahead in a window that grows while the way to the machine isn't full (read_ahead.py).
        """
        position, end = wanted.offset, _end(wanted)
        chunk = await self._read(wanted, position, _step(position, end))
        yield chunk
        position += len(chunk.data)
        ahead: deque[_Ahead] = deque()
        window, asked = Window(self.allowance), position
        try:
            while True:
                asked = self._ask_ahead(wanted, ahead, window.size, asked, min(chunk.size, end))
                if ahead:
                    piece = ahead.popleft()
                    chunk = _checked(await piece.taken(window), wanted.stream, position, piece.length)
                    if len(chunk.data) < piece.length:
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
            window.close()

    def _ask_ahead(self, wanted: Wanted, ahead: deque[_Ahead], size: int, asked: int, end: int) -> int:
        """Ask for what follows *asked* until *size* pieces are under way; return how far that is."""
        while len(ahead) < size and asked < end:
            length = _step(asked, end)
            try:
                answer = self._ask(wanted, asked, length)
            except ProblemError as error:
                if ahead and error.problem.kind is Kind.RATE_LIMITED:
                    break  # the link has enough to do: what is under way comes all the same
                raise
            ahead.append(_Ahead(length, answer, self._clock))
            asked += length
        return asked

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


def _forget(ahead: deque[_Ahead]) -> None:
    while ahead:
        answer = ahead.pop().answer
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
