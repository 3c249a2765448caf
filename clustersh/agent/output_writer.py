"""A live job's output on its way to the disk: buffered briefly, written in a thread, with back-pressure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..wire.jobs import OutputSummary
from ..wire.output import Stream, encode_runs
from .output_file import GrowingOutput, OutputCutError, StreamHashes
from .output_index import Sizes
from .output_read import InlineOutput

FLUSH_BYTES = 64 << 10
FLUSH_AFTER_S = 0.1
INLINE_LIMIT = 32 << 10
"""An output no larger than this, of a job that ended before any of it was written, becomes part of its end."""
PAUSE_AT = 1 << 20
RESUME_AT = 256 << 10

_log = Logger()


class OutputWriter:
    """Takes a process's output from the reactor; made by `JobStore.output`.

    *in_thread* runs a function in one of the store's threads; *on_grown* is told when more of it can be read.
    """

    def __init__(
        self,
        reactor: Any,
        in_thread: Callable[..., Awaitable[Any]],
        file: GrowingOutput,
        *,
        on_grown: Callable[[], None],
        on_pressure: Callable[[bool], None] | None,
        on_cut: Callable[[str], None] | None,
    ) -> None:
        self._reactor = reactor
        self._in_thread = in_thread
        self._file = file
        self._on_grown = on_grown
        self._on_pressure = on_pressure
        self._on_cut = on_cut
        self._pending: list[tuple[Stream, bytes]] = []
        self._pending_bytes = 0
        self._writing_bytes = 0
        self._writing = False
        self._paused = False
        self._timer: IDelayedCall | None = None
        self._cut = ""
        self._touched_disk = False
        self._summary: OutputSummary | None = None
        self._closing = False
        self._lock = DeferredLock()
        self._idle: Deferred[None] | None = None
        self.output: GrowingOutput | InlineOutput = file
        self.inline: tuple[bytes, bytes] | None = None

    @property
    def cut(self) -> str:
        """Why output is dropped from now on, such as a full disk; empty while all of it is kept."""
        return self._cut

    @property
    def finished(self) -> bool:
        """Whether the output grows no more."""
        return self._summary is not None

    @property
    def sizes(self) -> Sizes:
        """How much can be read."""
        return self.output.sizes

    def write(self, stream: Stream, data: bytes) -> None:
        """Keep *data*, which came from *stream* (stdout or stderr). Never blocks, never raises.

        While more than 1 MiB waits for the disk, ``on_pressure(True)`` asks to stop reading the process's pipes;
        ``on_pressure(False)`` takes it back.
        """
        if self._cut or self._closing or not data:
            return
        self._pending.append((stream, data))
        self._pending_bytes += len(data)
        if self._pending_bytes >= FLUSH_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = self._reactor.callLater(FLUSH_AFTER_S, self._flush_soon)
        self._weigh()

    async def finish(self) -> OutputSummary:
        """Write what is left, make it durable, and say how much there was; asking again gives the same."""
        self._closing = True
        async with self._lock:
            if self._summary is None:
                self._summary = await self._finish()
                self._on_grown()
        return self._summary

    async def _finish(self) -> OutputSummary:
        self._stop_timer()
        if not self._touched_disk and self._pending_bytes <= INLINE_LIMIT:
            return self._keep_inline()
        self._flush()
        if self._writing:
            self._idle = Deferred()
            await self._idle
        summary: OutputSummary = await self._in_thread(self._file.close, self._cut)
        self._cut = summary.cut
        return summary

    def _keep_inline(self) -> OutputSummary:
        pieces, self._pending = self._pending, []
        data = b"".join(piece for _, piece in pieces)
        self.inline = data, encode_runs((stream, len(piece)) for stream, piece in pieces)
        self.output = InlineOutput(*self.inline)
        hashes = StreamHashes()
        hashes.update(pieces)
        return hashes.summary(self.output.sizes)

    def _flush_soon(self) -> None:
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        """Have all that waits written; what comes meanwhile goes with the next write."""
        self._touched_disk = self._touched_disk or bool(self._pending)
        if self._writing or not self._pending:
            return
        self._writing = True
        Deferred.fromCoroutine(self._write_out()).addErrback(self._broken)

    async def _write_out(self) -> None:
        try:
            while self._pending and not self._cut:
                batch, self._pending = self._pending, []
                self._writing_bytes, self._pending_bytes = self._pending_bytes, 0
                self._stop_timer()
                await self._append(batch)
                if self._pending_bytes < FLUSH_BYTES and not self._closing:
                    break
        finally:
            self._writing = False
            if self._pending and self._timer is None and not self._closing:
                self._timer = self._reactor.callLater(FLUSH_AFTER_S, self._flush_soon)
            idle, self._idle = self._idle, None
            if idle is not None:
                idle.callback(None)

    async def _append(self, batch: list[tuple[Stream, bytes]]) -> None:
        try:
            await self._in_thread(self._file.append, batch)
        except OutputCutError as error:
            self._drop(str(error))
        finally:
            self._writing_bytes = 0
        self._weigh()
        self._on_grown()

    def _broken(self, failure: Failure) -> None:
        _log.failure("an output can't be written", failure)
        self._drop("internal error on the machine")

    def _drop(self, reason: str) -> None:
        self._cut = reason
        self._pending, self._pending_bytes = [], 0
        self._stop_timer()
        if self._on_cut is not None:
            self._on_cut(reason)

    def _weigh(self) -> None:
        """Ask for less, or for more again."""
        waiting = self._pending_bytes + self._writing_bytes
        paused = waiting > PAUSE_AT or (self._paused and waiting > RESUME_AT)
        if paused is not self._paused:
            self._paused = paused
            if self._on_pressure is not None:
                self._on_pressure(paused)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
