"""A live job's output on its way to the disk: buffered briefly, written in a thread, with back-pressure."""

from __future__ import annotations

from ..wire.jobs import OutputSummary
from ..wire.output import Stream


class OutputWriter:
    """Takes a process's output from the reactor; made by `JobStore.output`."""

    @property
    def cut(self) -> str:
        """Why output is dropped from now on, such as a full disk; empty while all of it is kept."""
        raise NotImplementedError

    def write(self, stream: Stream, data: bytes) -> None:
        """Keep *data*, which came from *stream* (stdout or stderr). Never blocks, never raises.

        While more than 1 MiB waits for the disk, ``on_pressure(True)`` asks to stop reading the process's pipes;
        ``on_pressure(False)`` takes it back.
        """
        raise NotImplementedError

    async def finish(self) -> OutputSummary:
        """Write what is left, make it durable, and say how much there was; asking again gives the same."""
        raise NotImplementedError
