"""A job's stdin: a numbered byte stream, of which each byte reaches the process once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ..wire.link import Failed, Stdin, StdinTaken
from ..wire.problems import Kind
from .process import close_stdin

WAITING_LIMIT = 4 << 20
"""Bytes that may wait for the process to take them."""

Reply: TypeAlias = Callable[[StdinTaken | Failed], None]


class StdinStream:
    """Takes the pieces of one job's stdin, before and after its process is there.

    A piece is answered once the process's pipe has taken all of it; what was taken already is answered at once.
    """

    def __init__(self) -> None:
        self._transport: Any = None
        self._received = 0
        self._taken = 0
        self._early = bytearray()
        self._ended = False
        self._closed = False
        self._waiting: list[tuple[int, int, Reply]] = []

    def take(self, piece: Stdin, reply: Reply) -> None:
        """Pass on what is new in *piece*."""
        if piece.offset > self._received:
            detail = f"stdin from {piece.offset} leaves a gap: {self._received} bytes came so far"
            reply(Failed(piece.request, Kind.BAD_REQUEST.value, detail))
            return
        fresh = piece.data[self._received - piece.offset :] if not (self._ended or self._closed) else b""
        if self._received - self._taken + len(fresh) > WAITING_LIMIT:
            reply(Failed(piece.request, Kind.TOO_LARGE.value, "too much stdin waits for the process"))
            return
        self._received += len(fresh)
        self._ended = self._ended or piece.end
        self._waiting.append((piece.request, self._received, reply))
        if self._closed:
            self._answer()
        elif self._transport is None:
            self._early += fresh
        elif fresh:
            self._transport.write(fresh)
        else:
            self._settle()

    def connect(self, transport: Any) -> None:
        """The process is there, with *transport*."""
        self._transport = transport
        early, self._early = bytes(self._early), bytearray()
        if early:
            transport.write(early)
        else:
            self._settle()

    def taken(self) -> None:
        """The pipe has taken all that was written."""
        if self._transport is not None:
            self._taken = self._received
            self._settle()

    def close(self) -> None:
        """The process takes no more: it closed its stdin, or is gone, or never came."""
        self._closed = True
        self._early.clear()
        self._answer()

    def _settle(self) -> None:
        if self._ended and not self._closed and self._taken == self._received:
            self._closed = True
            close_stdin(self._transport)
        self._answer()

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for request, upto, reply in waiting:
            if self._closed or upto <= self._taken:
                reply(StdinTaken(request, self._taken, self._closed))
            else:
                self._waiting.append((request, upto, reply))
