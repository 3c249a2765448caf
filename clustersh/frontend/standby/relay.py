"""A call that a standby does: its output to our descriptors, our input to it as it asks, and every signal.

Descriptors are read and written only where that can't block, else (writes) in a thread: a signal must get through.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import _thread
import errno
import os
import select
import stat

from . import frames
from .launcher import SIGNALS, sizes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_AT_ONCE = 4096
_CLOSED = (errno.EPIPE, errno.ECONNRESET)
_SILENCE_MS = 3000
"""Twice so long a standby may take to say that it heard of a signal."""


class Lost(Exception):
    """The standby did not say how the call ended; the message says why."""


class Relay:
    """One call over *connection*.

    Afterwards *printed* says whether any output came, *fed* whether input was taken, and *untold* how many signals the
    standby did not hear of.
    """

    def __init__(self, connection: _socket.socket) -> None:
        self._connection = connection
        self._frames = frames.Frames()
        self._poll = select.poll()
        self._sending = _thread.allocate_lock()
        self._to_send: list[bytes] = []
        self._to_write: Any = None
        self._unwritten = 0
        self._wanted = 0
        self.printed = False
        self.fed = False
        self.untold = 0

    def run(self, rest: bytes, held: set[int]) -> int:
        """Return the exit status of the call, of which the *rest* is still to be sent.

        Signals are blocked until they are watched: from then on only those that were before, which is *held*. Raises
        Lost; signals are then as they were.
        """
        self._to_send.append(rest)  # before any signal
        before = self._watch_signals()
        try:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, held)
            return self._until_end()
        finally:
            for number, handler in before.items():
                _signal.signal(number, handler)

    def _until_end(self) -> int:
        self._send_all()
        self._poll.register(self._connection, select.POLLIN)
        silent = 0
        while True:
            ready = self._poll.poll(_SILENCE_MS)
            silent = 0 if ready or not self.untold else silent + 1
            if silent > 1:
                raise Lost("the standby does not answer any more")
            for descriptor, _ in ready:
                if descriptor == self._connection.fileno():
                    status = self._receive()
                    if status is not None:
                        return status
                else:
                    self._read()

    # -- from the standby

    def _receive(self) -> int | None:
        try:
            data = self._connection.recv(frames.WINDOW)
        except OSError:
            data = b""
        if not data:
            raise Lost("the standby ended in the midst of the command")
        for kind, payload in self._frames.feed(data):
            if kind in (frames.OUT, frames.ERR):
                self.printed = True
                self._write(1 if kind == frames.OUT else 2, payload)
            elif kind == frames.READ:
                self._wanted = frames.numbers(payload)[0]
                self._poll.register(0, select.POLLIN)
            elif kind == frames.TOLD:
                self.untold -= 1
            elif kind == frames.EXIT:
                return frames.numbers(payload)[0]
        return None

    def _write(self, stream: int, data: bytes) -> None:
        if not self._unwritten and len(data) <= _AT_ONCE and _takes_it_now(stream):
            self._write_all(stream, data)
            return
        if self._to_write is None:
            self._start_writer()
        self._unwritten += 1
        self._to_write.put((stream, data))

    def _start_writer(self) -> None:
        import _queue  # only large outputs need it

        self._to_write = _queue.SimpleQueue()
        # Signals are the main thread's: one that this thread got would not wake it.
        before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        try:
            _thread.start_new_thread(self._write_on, ())
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, before)

    def _write_on(self) -> None:
        while True:
            stream, data = self._to_write.get()
            self._write_all(stream, data)
            self._unwritten -= 1

    def _write_all(self, stream: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(stream, rest) :]
            except BlockingIOError:
                _wait_writable(stream)  # the caller made it non-blocking, and shares it with us
            except OSError as error:
                closed = error.errno in _CLOSED or (error.errno == errno.EIO and not _is_file(stream))
                why, size = os.strerror(error.errno or 0).encode(), len(data).to_bytes(4, "big")
                words = [bytes((stream,)), b"closed" if closed else b"", why, size]
                self._send(frames.frame(frames.FAILED, frames.pack(words)))
                return
        self._send(frames.number(frames.ACK, len(data)))

    # -- to the standby

    def _read(self) -> None:
        self._poll.unregister(0)
        try:
            data = os.read(0, self._wanted)
        except BlockingIOError:
            self._poll.register(0, select.POLLIN)
            return
        except OSError as error:
            self._send(frames.frame(frames.STDIN_FAILED, os.strerror(error.errno or 0).encode()))
            return
        self.fed = self.fed or bool(data)
        self._send(frames.frame(frames.STDIN, data))

    def _send(self, frame: bytes) -> None:
        """Send *frame* whole."""
        self._to_send.append(frame)
        self._send_all()

    def _send_all(self) -> None:
        """Send what is to be sent. A signal or the other thread may come in between: who is at it sends theirs too."""
        while self._to_send and self._sending.acquire(False):
            try:
                while self._to_send:
                    self._connection.sendall(self._to_send.pop(0))
            except OSError:
                self._to_send.clear()  # whoever reads from it will notice
            finally:
                self._sending.release()

    # -- the caller's signals

    def _watch_signals(self) -> dict[int, Any]:
        """Take those that the caller does not ignore (nohup, a job in the background); return who had them."""
        before = {}
        for number in SIGNALS:
            if _signal.getsignal(number) is not _signal.SIG_IGN:
                before[number] = _signal.signal(number, self._signalled)
        if any(map(os.isatty, (1, 2))):
            resized = lambda *_: self._send(frames.frame(frames.SIZE, sizes()))  # noqa: E731
            before[_signal.SIGWINCH] = _signal.signal(_signal.SIGWINCH, resized)
        return before

    def _signalled(self, number: int, _frame: object) -> None:
        if self.untold:
            os._exit(128 + number)  # it does not even say that it heard of the last one
        self.untold += 1
        self._send(frames.number(frames.SIGNAL, number))


def _takes_it_now(stream: int) -> bool:
    """Whether a write of _AT_ONCE bytes would not block: so much a writable pipe takes."""
    try:
        if _is_file(stream):
            return True
        poll = select.poll()
        poll.register(stream, select.POLLOUT)
        return bool(poll.poll(0))
    except OSError:
        return True  # the write itself will tell what is wrong


def _is_file(stream: int) -> bool:
    return stat.S_ISREG(os.fstat(stream).st_mode)


def _wait_writable(stream: int) -> None:
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    poll.poll()
