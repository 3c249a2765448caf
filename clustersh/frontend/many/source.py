"""Output that did not come with the answer, read from its machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ...rest_client import RestClient, Unreachable
from ...wire.output import Stream
from ...wire.problems import ProblemError
from ...wire.rest import Job
from ..output import OutputReader
from ..reading import Reading
from ..retry import GaveUp, Retry

Sink = Callable[[Stream, bytes | memoryview], Awaitable[None]]


class MachineSource:
    """Reads through *client*."""

    def __init__(self, client: RestClient, retry: Retry) -> None:
        self._client = client
        self._retry = retry

    async def read(self, job: Job, length: int, sink: Sink) -> str:
        """Give *sink* the first *length* bytes, stdout before stderr; return why they can't be read ("": they were)."""
        try:
            for stream, size in ((Stream.STDOUT, job.stdout_bytes), (Stream.STDERR, job.stderr_bytes)):
                wanted = min(size, length)
                if wanted:
                    reading = Reading(job.machine, job.uuid, stream, length=wanted)
                    await OutputReader(self._client, self._retry, reading, sink).read()
                    length -= reading.delivered
        except (GaveUp, ProblemError, Unreachable) as error:
            return str(error)
        return ""
