"""Many agents in one process, each with a key, a certificate, a link and an address of its own.

Only their jobs are simulated. Connections, back-off and links are the agent's own classes. A job ends as soon as it is
started, with exit status 0 and what `--output` says; `sleep SECONDS` ends after so long, or when it is cancelled.

Usage: python -m benchmarks.many_agents ADDRESS FOLDER [--first N] [--count N] [--output TEXT], where FOLDER holds a
folder with credentials for each agent. Whenever all of them are welcome it prints the monotonic clock's seconds; it
ends when its stdin does.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO

from clustersh.address import Address, parse_address
from clustersh.agent.backoff import Backoff, Change
from clustersh.agent.connector import Connector
from clustersh.agent.link import LinkFactory
from clustersh.clocks import boot_clock, use_boot_clock
from clustersh.config import AgentConfig
from clustersh.open_files import raise_open_files
from clustersh.trust.tls import load_client_policy
from clustersh.wire.jobs import Outcome, OutputSummary, State
from clustersh.wire.link import (
    NEVER_SEEN,
    Acknowledge,
    Cancel,
    Ended,
    Facts,
    FromAgent,
    FromCoordinator,
    Hello,
    Start,
    Started,
    Vitals,
    Welcome,
)
from clustersh.wire.output import Stream, encode_runs

reactor: Any = installed
FACTS = Facts(platform="linux/amd64", hostname="simulated", os="linux", arch="amd64", cpus=2, memory=2 << 30)
FIRST_ADDRESS = ipaddress.IPv4Address("127.64.0.1")
COMING_AT_FIRST = 32
"""Agents that connect at a time in the beginning."""
CONNECT_S = 30.0
NICE = 10
"""Machines would not use the coordinator's processor, nor the client's."""

Tell = Callable[[FromAgent], None]


class Jobs:
    """The jobs of one agent, as `clustersh.agent.jobs.Jobs` is; nothing is run."""

    def __init__(self, output: bytes) -> None:
        self._output = output
        self._summary = _summary(output)
        self._ends: dict[str, Ended] = {}
        self._running: dict[str, IDelayedCall] = {}
        self._tell: Tell | None = None

    def link_up(self, tell: Tell) -> None:
        self._tell = tell

    def link_down(self, tell: Tell) -> None:
        self._tell = None

    def received(self, message: FromCoordinator) -> None:
        match message:
            case Start():
                self._start(message)
            case Cancel() if message.uuid in self._running:
                self._running.pop(message.uuid).cancel()
                self._end(message.uuid, Outcome(State.CANCELLED, reason="cancelled"))
            case Acknowledge():
                self._ends.pop(message.uuid, None)
            case Welcome():
                for uuid in message.open:
                    self._account_for(uuid)

    async def measure(self) -> Vitals:
        """Tell how an idle machine does, as `clustersh.agent.gauges.Gauges` does."""
        return Vitals(cpu=3.0, memory=20.0, disk_root=40.0, disk_home=40.0, jobs=len(self._running), uptime_s=1e5)

    def say(self, message: FromAgent) -> None:
        """Send *message*, if there is a link."""
        if self._tell is not None:
            self._tell(message)

    def _start(self, message: Start) -> None:
        self.say(Started(message.uuid))
        name, _, seconds = (message.command.shell or "").partition(" ")
        if name == "sleep":
            ends = Outcome.exited(0)
            self._running[message.uuid] = reactor.callLater(float(seconds), self._slept, message.uuid, ends)
        else:
            self._end(message.uuid, Outcome.exited(0))

    def _slept(self, uuid: str, outcome: Outcome) -> None:
        del self._running[uuid]
        self._end(uuid, outcome)

    def _end(self, uuid: str, outcome: Outcome) -> None:
        runs = encode_runs([(Stream.STDOUT, len(self._output))])
        self._ends[uuid] = Ended(uuid, outcome, self._summary, 0.001, self._output, runs)
        self.say(self._ends[uuid])

    def _account_for(self, uuid: str) -> None:
        if uuid in self._running:
            self.say(Started(uuid))
        else:
            self.say(self._ends.get(uuid) or Ended(uuid, NEVER_SEEN))


class Crowd:
    """All agents of this process; says when all are welcome."""

    def __init__(self, address: Address, folders: Sequence[Path], first: int, output: bytes) -> None:
        self._address = address
        self._agents = [(folder, str(FIRST_ADDRESS + first + place)) for place, folder in enumerate(folders)]
        self._output = output
        self._away = set(range(len(folders)))
        self._to_come = iter(range(len(folders)))

    def start(self) -> None:
        for _ in range(COMING_AT_FIRST):
            self._next()

    def _next(self) -> None:
        number = next(self._to_come, None)
        if number is not None:
            self._make(number)

    def _make(self, number: int) -> None:
        folder, source = self._agents[number]
        policy, jobs = load_client_policy(folder), Jobs(self._output)
        came_first = True

        def hello() -> Hello:
            return Hello(version="0", instance=folder.name, store=folder.name, clock=boot_clock(), facts=FACTS)

        def welcomed(_: Welcome) -> None:
            connector.welcomed()

        def told(problem: str) -> None:
            nonlocal came_first
            if problem:
                self._away.add(number)
                return
            self._away.discard(number)
            if came_first:
                came_first = False
                self._next()
            if not self._away:
                sys.stdout.write(f"{time.monotonic()}\n")
                sys.stdout.flush()

        unused: Any = None
        simulated: Any = jobs
        factory = LinkFactory(
            reactor,
            self._address.netloc,
            jobs=simulated,
            store=unused,
            witnesses=unused,
            hello=hello,
            gauges=simulated,
            clock=boot_clock,
            on_welcome=welcomed,
        )
        # Not by name: thousands would wait for the few threads in which one process looks names up.
        plain = TCP4ClientEndpoint(
            reactor, self._address.host, self._address.port, timeout=CONNECT_S, bindAddress=(source, 0)
        )
        connector = Connector(
            reactor,
            wrapClientTLS(policy.creator, plain),
            factory,
            self._address,
            folder,
            Backoff(AgentConfig().reconnect_max),
            Change(boot_clock, boot_clock, frozenset),
            lambda: None,
            told,
        )
        connector.start()


def _summary(output: bytes) -> OutputSummary:
    nothing = hashlib.sha256().hexdigest()
    return OutputSummary(len(output), 0, hashlib.sha256(output).hexdigest(), nothing)


class UntilEnd(Protocol):
    """Stops the program at the end of stdin."""

    def connectionLost(self, reason: object = None) -> None:
        if reactor.running:
            reactor.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="many agents in one process")
    parser.add_argument("address", type=parse_address)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0, help="the first agent's place among the folders")
    parser.add_argument("--count", type=int, default=None, help="how many, from there on (default: all)")
    parser.add_argument("--output", default="", help="what each job prints, up to 127 bytes")
    options = parser.parse_args()
    last = None if options.count is None else options.first + options.count
    folders = sorted(options.folder.iterdir())[options.first : last]
    os.nice(NICE)
    raise_open_files()
    use_boot_clock(reactor)
    StandardIO(UntilEnd())
    Crowd(options.address, folders, options.first, options.output.encode()).start()
    reactor.run()


if __name__ == "__main__":
    main()
