"""Output as it comes from many machines at once: whole lines, each with its machine's name."""

from __future__ import annotations

from collections import deque

from ...cli.console import Console
from ...rest_client import RestClient, Unreachable
from ...wire.output import Stream
from ...wire.problems import Kind, ProblemError
from ...wire.rest import Job, Run
from ..output import OutputReader
from ..reading import Reading
from ..retry import GaveUp, Retry
from ..together import together
from .sections import Gap
from .show import UNLIMITED, ManyForm
from .tally import Tally

AT_ONCE = 64
"""Machines that are read as it comes, on a connection each; more than that take turns."""
READERS = 8
"""Connections on which they take turns."""
TURN_S = 1.0
"""Between two turns of a machine."""
MAX_LINE = 8192
"""Bytes of a line without an end that are held back; a longer one goes on after another prefix."""
_NOT_YET = (Kind.NOT_RUNNING, Kind.OUTPUT_UNAVAILABLE)


class Lines:
    """What one machine prints, as lines that begin with its name; each stream has its own unfinished one."""

    def __init__(self, console: Console, machine: str) -> None:
        self._console = console
        self._prefix = f"{machine}: ".encode()
        self._rest = {Stream.STDOUT: b"", Stream.STDERR: b""}

    async def __call__(self, stream: Stream, data: bytes | memoryview) -> None:
        """Print the lines that *data* ends, and keep its last one until that ends."""
        *whole, rest = (self._rest[stream] + bytes(data)).split(b"\n")
        while len(rest) > MAX_LINE:
            whole.append(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        self._rest[stream] = rest
        await self._print(stream, whole)

    async def end(self) -> None:
        """Print what has no end."""
        for stream, rest in self._rest.items():
            if rest:
                await self._print(stream, [rest])
                self._rest[stream] = b""

    async def _print(self, stream: Stream, whole: list[bytes]) -> None:
        text = b"".join(b"%b%b\n" % (self._prefix, line) for line in whole)
        await (self._console.err if stream is Stream.STDERR else self._console.out)(text)


class _Followed:
    """One job that is read: at most *limit* bytes of it."""

    def __init__(self, job: Job, console: Console, limit: int) -> None:
        self.job = job
        self.lines = Lines(console, job.machine)
        self.left = limit
        self.printed = 0
        self.unread = ""

    async def __call__(self, stream: Stream, data: bytes | memoryview) -> None:
        await self.lines(stream, data)
        self.printed += len(data)
        self.left -= len(data)


class Follower:
    """Reads what all jobs of a run print, while they run; *tally* says which of them have ended."""

    def __init__(self, client: RestClient, retry: Retry, form: ManyForm, tally: Tally) -> None:
        self._client = client
        self._retry = retry
        self._form = form
        self._tally = tally
        self._live = tally.total <= AT_ONCE
        self._waiting: deque[_Followed] = deque()
        self._followed: list[_Followed] = []
        self._closing = False

    async def follow(self, console: Console, run: Run) -> None:
        """Print it as it comes, until all have ended. Raises what printing raises."""
        share = UNLIMITED if self._form.limit is None else self._form.limit // max(1, len(run.jobs))
        self._followed = [_Followed(job, console, share) for job in run.jobs]
        self._waiting.extend(self._followed)
        readers = min(len(self._followed), AT_ONCE if self._live else READERS)
        await together(self._read_on() for _ in range(readers))

    def close(self) -> None:
        """Whoever has not ended by now is not waited for."""
        self._closing = True

    async def flush(self) -> None:
        """Print the lines that have no end yet."""
        for followed in self._followed:
            await followed.lines.end()

    def gaps(self, run: Run) -> list[Gap]:
        """Return what of the output of *run*, which has ended, was not printed."""
        printed = {followed.job.machine: followed for followed in self._followed}
        return [
            Gap((job.machine,), job, printed[job.machine].unread)
            for job in run.jobs
            if job.machine in printed and printed[job.machine].printed < job.output_bytes
        ]

    async def _read_on(self) -> None:
        while self._waiting:
            followed = self._waiting.popleft()
            if await self._turn(followed):
                await followed.lines.end()
            else:
                self._waiting.append(followed)

    async def _turn(self, followed: _Followed) -> bool:
        """Read what there is, or all that comes; return whether that was the last of it."""
        ended = followed.job.machine not in self._tally.running
        length = followed.left if followed.left < UNLIMITED // 2 else None
        reading = Reading(
            followed.job.machine, followed.job.uuid, offset=followed.printed, length=length, follow=self._live
        )
        try:
            await OutputReader(self._client, self._retry, reading, followed).read()
        except ProblemError as problem:
            followed.unread = str(problem)
            if ended or problem.problem.kind not in _NOT_YET:
                return True
            await self._retry.pause(TURN_S)
            return self._closing
        except (GaveUp, Unreachable) as error:
            followed.unread = str(error)
            return True
        followed.unread = ""
        if self._live or ended or followed.left <= 0:
            return True
        await self._retry.pause(TURN_S * READERS / self._tally.total)
        return self._closing
