"""The fleet: which machines have a link, and the way messages reach them.

`Bus` (bus.py) is the seam that the rest of the coordinator sees; `Fleet` is its embedded form, with links that this
process holds. A link is a plain object: the WebSocket is an adapter around it (link_server.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..wire.jobs import offline_reason
from ..wire.link import (
    MAX_READS,
    Adopted,
    Chunk,
    Ended,
    Failed,
    FromAgent,
    FromCoordinator,
    Hello,
    HostList,
    Pulse,
    Read,
    Started,
    Stdin,
    StdinTaken,
    StopRead,
    Vitals,
    VitalsReport,
    WitnessList,
)
from ..wire.problems import Kind, ProblemError
from ..wire.units import format_duration
from .bus import Answer, LinkEvents, Question
from .facts import sane
from .instances import Instances
from .links import MAX_UNREACHED, Link, Seen
from .records import MachineRef
from .registry import Key
from .signals import Signal, wait_until

MAX_FEEDING = 64
"""Pieces of stdin that one link may have unanswered."""
ANSWER_S = 60.0
"""Seconds in which an agent must answer a read, after the time that it may wait for more output."""
_WHEN_BACK = "ask again when it is back: clustersh machines"
_CLOCK_SAMPLES = 12

T = TypeVar("T")


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
        self._awaited: dict[str, Signal] = {}
        self._links: dict[str, Link] = {}
        self._instances = Instances()
        self._began = timer.seconds()
        self._gone: dict[str, float] = {}
        """When machines lost their last link."""
        self._epochs = itertools.count(int(now() * 1000))
        self._requests = itertools.count(1)
        self.seen: dict[str, Seen] = {}
        self.expected: set[str] = set()
        self.on_came: Callable[[str], None] = lambda machine_id: None
        self.on_vitals: Callable[[str, Vitals], None] = lambda machine_id, vitals: None
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

    def ask(self, machine_id: str, question: Callable[[int], Question]) -> Deferred[Answer]:
        link = self._links.get(machine_id)
        if link is None or not link.welcomed:
            raise ProblemError(
                Kind.OUTPUT_UNAVAILABLE, "the machine is offline; its output is kept there", hint=_WHEN_BACK
            )
        request = next(self._requests)
        message = question(request)
        feeding = isinstance(message, Stdin)
        if (link.feeding >= MAX_FEEDING) if feeding else (len(link.questions) - link.feeding >= MAX_READS):
            who = "writers to commands" if feeding else "readers"
            raise ProblemError(Kind.RATE_LIMITED, f"too many {who} on that machine", hint="try again in a moment")

        def give_up(_: Deferred[Answer]) -> None:
            if link.questions.pop(request, None) is not None and isinstance(message, Read):
                link.send(StopRead(request))

        def settled(result: T) -> T:
            link.feeding -= feeding
            if limit is not None and limit.active():
                limit.cancel()
            return result

        def expire() -> None:
            give_up(answer)
            problem = ProblemError(
                Kind.OUTPUT_UNAVAILABLE, f"{link.machine.name} does not answer", hint="on it: clusteragent status"
            )
            answer.errback(problem)

        answer: Deferred[Answer] = Deferred(give_up)
        link.questions[request] = answer
        link.feeding += feeding
        # A process may take its time to read its stdin; output is there, or is not.
        wait_s = message.wait_s if isinstance(message, Read) else 0.0
        limit = None if feeding else self._timer.callLater(wait_s + ANSWER_S, expire)
        answer.addBoth(settled)
        link.send(message)
        return answer

    # -- what the adapters bring

    async def hello(self, link: Link, hello: Hello) -> None:
        """*link*'s agent said who it is: it takes the place of an older link of that machine, unless it is the older
        one of two agents."""
        machine_id = link.machine.id
        older = self._links.get(machine_id)
        self._instances.note(machine_id, hello.instance)
        link.hello = hello
        if older is not None and older.hello is not None:
            if self._instances.is_older(machine_id, hello.instance, older.hello.instance):
                self._turn_away(link, older)
                return
            older.replaced = older.hello.instance != hello.instance
        link.epoch = next(self._epochs)
        link.offsets.append(hello.clock - self._clock())
        self._links[machine_id] = link
        if older is not None:
            self._gone[machine_id] = self._timer.seconds()
            self._drop(older)
            if older.replaced:
                self._turn_away(older, link)
            else:
                older.close("another link of this machine has come")
        link.unreached = hello.unreached[:MAX_UNREACHED]
        before = self.seen.get(machine_id)
        at = before.at if before is not None and link.unreached else self._now()
        self.seen[machine_id] = Seen(at, sane(hello.facts), hello.version, link.address)
        welcome = await self.events.linking(link.machine, hello, link.epoch)
        if self._links.get(machine_id) is link:
            link.welcomed = True
            link.send(welcome)
            if awaited := self._awaited.get(machine_id):
                awaited.fire()
            self.on_came(machine_id)
            self._log.info("{machine} is online from {address}", machine=link.machine.name, address=link.address)

    def _turn_away(self, link: Link, newer: Link) -> None:
        link.replaced = True
        self._log.warn(
            "{machine}: the agent at {older} is turned away, another with its key has come from {newer}",
            machine=link.machine.name,
            older=link.address,
            newer=newer.address,
        )
        link.close("another agent with this key has come")

    def received(self, link: Link, message: FromAgent) -> Deferred[None] | None:
        """*link*'s agent sent *message* (after its Hello). Raises ProblemError where it may not.

        What is returned fires once the message is dealt with, if that takes long.
        """
        if not link.welcomed or self._links.get(link.machine.id) is not link:
            return None
        match message:
            case Pulse():
                link.offsets.append(message.clock - self._clock())
                del link.offsets[:-_CLOCK_SAMPLES]
                self._heard(link, message.unreached)
            case Started():
                self.events.started(link.machine.id, message)
            case Ended():
                return self.events.ended(link.machine.id, message)
            case VitalsReport():
                self.on_vitals(link.machine.id, message.vitals)
                self._answered(link, message)
            case Chunk() | StdinTaken() | WitnessList() | Adopted() | HostList() | Failed():
                self._answered(link, message)
            case Hello():
                raise ProblemError(Kind.BAD_REQUEST, "a link says hello once")
        return None

    def _heard(self, link: Link, unreached: str) -> None:
        """*link*'s agent is there; *unreached* says why its machine isn't."""
        if unreached and not link.unreached:
            self._log.info("{machine} is unreachable: {reason}", machine=link.machine.name, reason=unreached)
        link.unreached = unreached[:MAX_UNREACHED]
        if not unreached:
            self.seen[link.machine.id].at = self._now()

    def _answered(self, link: Link, message: Answer | Failed) -> None:
        waiter = link.questions.pop(message.request, None)
        if waiter is None:
            return
        if isinstance(message, Failed):
            waiter.errback(_told_by(link.machine, message))
        else:
            waiter.callback(message)

    def closed(self, link: Link) -> None:
        """*link* is gone."""
        if self._links.get(link.machine.id) is link:
            del self._links[link.machine.id]
            self._heard(link, link.unreached)
            self._gone[link.machine.id] = self._timer.seconds()
            self._log.info("{machine} is offline", machine=link.machine.name)
        self._drop(link)

    def cut(self, machine_id: str, reason: str) -> None:
        """End the machine's link, if it has one."""
        link = self._links.get(machine_id)
        if link is not None:
            self.closed(link)
            link.close(reason)

    def renamed(self, machine: Key) -> None:
        """*machine* is called otherwise now; its link stays."""
        link = self._links.get(machine.id)
        if link is not None:
            link.machine = machine

    def close(self) -> None:
        """End every link."""
        for machine_id in list(self._links):
            self.cut(machine_id, "the coordinator stops")

    def _drop(self, link: Link) -> None:
        waiting, link.questions = link.questions, {}
        for waiter in waiting.values():
            if waiter.called:
                continue  # whoever waited for it gave up when told of another
            gone = "the machine went offline; its output is kept there"
            waiter.errback(ProblemError(Kind.OUTPUT_UNAVAILABLE, gone, hint=_WHEN_BACK))

    # -- who is there

    def status(self, machine_id: str) -> str:
        """Return online, reconnecting, offline, or unreachable: its gateway's agent is there, and doesn't reach it."""
        if self.epoch(machine_id) is not None:
            return "unreachable" if self.unreached(machine_id) else "online"
        return "reconnecting" if self._is_expected(machine_id) else "offline"

    def unreached(self, machine_id: str) -> str | None:
        """Return why the machine's gateway doesn't reach it; None where it does, or isn't there itself."""
        link = self._links.get(machine_id)
        return link.unreached or None if link is not None and link.welcomed else None

    def away_s(self, machine_id: str) -> float:
        """Return for how many seconds the machine has had no link, as far as this coordinator has seen it."""
        if self.epoch(machine_id) is not None:
            return 0.0
        return self._timer.seconds() - self._gone.get(machine_id, self._began)

    def latency(self, machine_id: str) -> float | None:
        """Return the seconds that its link takes to there and back; None while that isn't known."""
        link = self._links.get(machine_id)
        return link.round_trip_s if link is not None else None

    async def until_back(self, machine_id: str) -> None:
        """Wait for a machine that is reconnecting; return at once for any other."""
        if self.epoch(machine_id) is None and self._is_expected(machine_id):
            left = self._back_by - self._timer.seconds()
            came = self._awaited.setdefault(machine_id, Signal())
            await wait_until(self._timer, came, lambda: self.epoch(machine_id) is not None, left)

    async def until_online(self, machine_id: str, seconds: float) -> None:
        """Wait until the machine has a link, but at most *seconds*."""
        came = self._awaited.setdefault(machine_id, Signal())
        await wait_until(self._timer, came, lambda: self.epoch(machine_id) is not None, seconds)

    def _is_expected(self, machine_id: str) -> bool:
        return self._timer.seconds() < self._back_by and machine_id in self.expected

    def offline_reason(self, machine: MachineRef) -> str:
        """Return why nothing can be sent to *machine* now."""
        seen = self.seen.get(machine.id)
        if seen is None:
            return offline_reason(machine.name, "never seen yet")
        return offline_reason(machine.name, f"last seen {format_duration(max(0.0, self._now() - seen.at))} ago")

    @property
    def online(self) -> set[str]:
        """The ids of the machines that have a link, and are reached."""
        return {machine_id for machine_id, link in self._links.items() if link.welcomed and not link.unreached}

    @property
    def not_offline(self) -> set[str]:
        """The ids of the machines that are online, or expected back."""
        if self._timer.seconds() >= self._back_by:
            return self.online
        return self.online | self.expected.difference(each for each, link in self._links.items() if link.unreached)


def _told_by(machine: Key, message: Failed) -> ProblemError:
    """Return the problem that the agent of *machine* tells of."""
    kind = Kind(message.type) if message.type in Kind._value2member_map_ else Kind.INTERNAL
    its_disk = f"that is on the disk of {machine.name}; how jobs ended there: clustersh history {machine.name}"
    return ProblemError(kind, message.detail, hint=its_disk if kind is Kind.STORAGE else "")
