"""The fleet: which machines have a link, and the way messages reach them.

`Bus` is the seam that the rest of the coordinator sees; `Fleet` is its embedded form, with links that this process
holds. A link is a plain object: the WebSocket is an adapter around it (link_server.py).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..wire.link import (
    Chunk,
    Ended,
    Facts,
    Failed,
    FromAgent,
    FromCoordinator,
    Hello,
    Pulse,
    Read,
    Started,
    Stdin,
    StdinTaken,
    StopRead,
)
from ..wire.problems import Kind, ProblemError
from ..wire.units import format_duration
from .records import MachineRef
from .registry import Key
from .signals import Signal, wait_until

MAX_QUESTIONS = 256
"""Reads and pieces of stdin that one link may have unanswered."""
_CLOCK_SAMPLES = 12

Answer: TypeAlias = Chunk | StdinTaken


class Bus(Protocol):
    """How messages reach an agent, wherever its link ends."""

    def epoch(self, machine_id: str) -> int | None:
        """The epoch of the machine's link; None where it has none."""

    def clock(self, machine_id: str) -> float:
        """What the agent's clock says now, or a little less. Only for a machine that has a link."""

    def send(self, machine_id: str, message: FromCoordinator) -> bool:
        """Send *message*; False where the machine has no link."""

    def ask(self, machine_id: str, question: Callable[[int], Read | Stdin]) -> Deferred[Answer]:
        """Send the question made for a request number; fires with its answer, fails with ProblemError."""


class LinkEvents(Protocol):
    """Who is told what the links bring."""

    async def linking(self, machine: Key, hello: Hello, epoch: int) -> FromCoordinator:
        """Return the Welcome for a machine that came; nothing is sent to it before."""

    def started(self, machine_id: str, message: Started) -> None:
        """A job was acknowledged."""

    def ended(self, machine_id: str, message: Ended) -> None:
        """A job has an outcome."""


class Seen(msgspec.Struct):
    """What is known of a machine's last link: when (seconds since 1970), its facts, version and address."""

    at: float
    facts: Facts = Facts()
    version: str = ""
    address: str = ""


@dataclass
class Link:
    """One agent's connection. *send* takes messages; *close* ends it, saying why."""

    machine: Key
    address: str
    send: Callable[[FromCoordinator], None]
    close: Callable[[str], None]
    epoch: int = 0
    hello: Hello | None = None
    welcomed: bool = False
    offsets: deque[float] = field(default_factory=lambda: deque(maxlen=_CLOCK_SAMPLES))
    questions: dict[int, Deferred[Answer]] = field(default_factory=dict)


class Fleet:
    """Every link that this coordinator holds.

    *clock* gives seconds that never jump, *now* those since 1970. For *grace* seconds after its start, machines that
    were there just before the last stop count as reconnecting, not as offline.
    """

    def __init__(
        self, timer: IReactorTime, clock: Callable[[], float], now: Callable[[], float], grace: float = 0.0
    ) -> None:
        self._log = Logger()
        self._timer = timer
        self._clock = clock
        self._now = now
        self._back_by = timer.seconds() + grace
        self._came = Signal()
        self._links: dict[str, Link] = {}
        self._epochs = itertools.count(int(now() * 1000))
        self._requests = itertools.count(1)
        self.seen: dict[str, Seen] = {}
        self.expected: set[str] = set()
        self.events: LinkEvents

    # -- the bus

    def epoch(self, machine_id: str) -> int | None:
        link = self._links.get(machine_id)
        return link.epoch if link is not None and link.welcomed else None

    def clock(self, machine_id: str) -> float:
        # The sample that travelled fastest says most; a late one would only make starts expire too early.
        return self._clock() + max(self._links[machine_id].offsets)

    def send(self, machine_id: str, message: FromCoordinator) -> bool:
        link = self._links.get(machine_id)
        if link is None or not link.welcomed:
            return False
        link.send(message)
        return True

    def ask(self, machine_id: str, question: Callable[[int], Read | Stdin]) -> Deferred[Answer]:
        link = self._links.get(machine_id)
        if link is None or not link.welcomed:
            raise ProblemError(Kind.OUTPUT_UNAVAILABLE, "the machine is offline; its output is kept there")
        if len(link.questions) >= MAX_QUESTIONS:
            raise ProblemError(Kind.RATE_LIMITED, "too many readers on that machine", hint="try again in a moment")
        request = next(self._requests)
        message = question(request)

        def give_up(_: Deferred[Answer]) -> None:
            if link.questions.pop(request, None) is not None and isinstance(message, Read):
                link.send(StopRead(request))

        answer: Deferred[Answer] = Deferred(give_up)
        link.questions[request] = answer
        link.send(message)
        return answer

    # -- what the adapters bring

    async def hello(self, link: Link, hello: Hello) -> None:
        """*link*'s agent said who it is: it takes the place of an older link of that machine."""
        machine_id = link.machine.id
        link.hello, link.epoch = hello, next(self._epochs)
        link.offsets.append(hello.clock - self._clock())
        older = self._links.get(machine_id)
        self._links[machine_id] = link
        if older is not None:
            self._drop(older)
            older.close("another link of this machine has come")
        self.seen[machine_id] = Seen(self._now(), hello.facts, hello.version, link.address)
        welcome = await self.events.linking(link.machine, hello, link.epoch)
        if self._links.get(machine_id) is link:
            link.welcomed = True
            link.send(welcome)
            self._came.fire()
            self._log.info("{machine} is online from {address}", machine=link.machine.name, address=link.address)

    def received(self, link: Link, message: FromAgent) -> None:
        """*link*'s agent sent *message* (after its Hello). Raises ProblemError where it may not."""
        if not link.welcomed or self._links.get(link.machine.id) is not link:
            return
        match message:
            case Pulse():
                link.offsets.append(message.clock - self._clock())
                self.seen[link.machine.id].at = self._now()
            case Started():
                self.events.started(link.machine.id, message)
            case Ended():
                self.events.ended(link.machine.id, message)
            case Chunk() | StdinTaken() | Failed():
                self._answered(link, message)
            case Hello():
                raise ProblemError(Kind.BAD_REQUEST, "a link says hello once")

    def _answered(self, link: Link, message: Chunk | StdinTaken | Failed) -> None:
        waiter = link.questions.pop(message.request, None)
        if waiter is None:
            return
        if isinstance(message, Failed):
            known = message.type in Kind._value2member_map_
            waiter.errback(ProblemError(Kind(message.type) if known else Kind.INTERNAL, message.detail))
        else:
            waiter.callback(message)

    def closed(self, link: Link) -> None:
        """*link* is gone."""
        if self._links.get(link.machine.id) is link:
            del self._links[link.machine.id]
            self.seen[link.machine.id].at = self._now()
            self._log.info("{machine} is offline", machine=link.machine.name)
        self._drop(link)

    def cut(self, machine_id: str, reason: str) -> None:
        """End the machine's link, if it has one."""
        link = self._links.get(machine_id)
        if link is not None:
            self.closed(link)
            link.close(reason)

    def close(self) -> None:
        """End every link."""
        for machine_id in list(self._links):
            self.cut(machine_id, "the coordinator stops")

    def _drop(self, link: Link) -> None:
        waiting, link.questions = link.questions, {}
        for waiter in waiting.values():
            waiter.errback(ProblemError(Kind.OUTPUT_UNAVAILABLE, "the machine went offline; its output is kept there"))

    # -- who is there

    def status(self, machine_id: str) -> str:
        """Return online, reconnecting or offline."""
        if self.epoch(machine_id) is not None:
            return "online"
        return "reconnecting" if self._is_expected(machine_id) else "offline"

    async def until_back(self, machine_id: str) -> None:
        """Wait for a machine that is reconnecting; return at once for any other."""
        if self.epoch(machine_id) is None and self._is_expected(machine_id):
            left = self._back_by - self._timer.seconds()
            await wait_until(self._timer, self._came, lambda: self.epoch(machine_id) is not None, left)

    def _is_expected(self, machine_id: str) -> bool:
        return self._timer.seconds() < self._back_by and machine_id in self.expected

    def offline_reason(self, machine: MachineRef) -> str:
        """Return why nothing can be sent to *machine* now."""
        seen = self.seen.get(machine.id)
        if seen is None:
            return f"{machine.name} is offline (never seen yet)"
        return f"{machine.name} is offline (last seen {format_duration(max(0.0, self._now() - seen.at))} ago)"

    @property
    def online(self) -> set[str]:
        """The ids of the machines that have a link."""
        return {machine_id for machine_id, link in self._links.items() if link.welcomed}
