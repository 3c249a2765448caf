"""The coordinator's REST interface, as programs call it: JSON in and out, bounded, with failures that say what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar, overload

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IPolicyForHTTPS

from .address import Address

T = TypeVar("T")
Query = Sequence[tuple[str, str]]
Collector = Callable[[bytes], Awaitable[None] | None]
"""Takes a piece of a large answer; nothing more is read from the network until what it returns is done."""


class Unreachable(Exception):
    """No answer came. The message is one sentence for people.

    *sent* is False only where surely nothing reached the coordinator: asking again is safe then. *hint* may say what to
    do, or be empty.
    """

    def __init__(self, message: str, *, sent: bool, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.sent = sent
        self.hint = hint


class RestClient:
    """One coordinator, over mutual TLS with *policy*, or over plain HTTP without one. Connections are kept."""

    def __init__(self, reactor: IReactorTime, address: Address, policy: IPolicyForHTTPS | None) -> None:
        raise NotImplementedError

    @overload
    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        timeout_s: float = 30.0,
    ) -> None: ...
    @overload
    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        answer: type[T],
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        timeout_s: float = 30.0,
    ) -> T: ...
    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        answer: type[T] | None = None,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        timeout_s: float = 30.0,
    ) -> T | None:
        """Send *body* and return the answer as *answer* (None without it: the body is read and dropped).

        *path* is percent-encoded by the caller (`quote`), *query* is encoded here. *body* is sent as JSON; bytes go as
        they are. *wait_s* becomes ``Prefer: wait=``, and *timeout_s* begins after it. Raises ProblemError for what the
        coordinator refuses, Unreachable where no whole answer came.
        """
        raise NotImplementedError

    async def stream(
        self,
        method: str,
        path: str,
        collect: Collector,
        *,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        begin: Callable[[Mapping[str, str]], None] | None = None,
        idle_s: float = 90.0,
    ) -> Mapping[str, str]:
        """Give each piece of a large answer to *collect*, in order, and return the answer's headers (lower-case names).

        *begin* gets the same headers before the first piece. While *collect* is awaited the connection is paused. More
        than *idle_s* without a byte (while not paused) raises Unreachable, as does an answer that is cut off.
        """
        raise NotImplementedError

    async def upload(self, path: str, size: int, chunks: AsyncIterator[bytes], *, idle_s: float = 60.0) -> None:
        """PUT exactly *size* bytes from *chunks*, as fast as the connection takes them. Raises as `call` does."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the kept connections."""
        raise NotImplementedError
