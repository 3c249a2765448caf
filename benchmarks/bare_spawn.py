"""Twisted's bare `spawnProcess` of `bash -c true`, as a process of its own; prints jobs a second and CPU ms a job.

Usage: python -m benchmarks.bare_spawn JOBS IN_FLIGHT
"""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.protocol import ProcessProtocol

reactor: Any = installed


class Bare(ProcessProtocol):
    """One process; the next is spawned when it has ended."""

    def processEnded(self, reason: object) -> None:
        crowd.ended()


class Crowd:
    """Spawns *jobs* processes, *in_flight* at a time."""

    def __init__(self, jobs: int, in_flight: int) -> None:
        self._left = self._running = jobs
        self._in_flight = in_flight

    def begin(self) -> None:
        for _ in range(self._in_flight):
            self._spawn()

    def ended(self) -> None:
        self._running -= 1
        if self._running == 0:
            reactor.stop()
        self._spawn()

    def _spawn(self) -> None:
        if self._left:
            self._left -= 1
            reactor.spawnProcess(Bare(), "/bin/bash", ["bash", "-c", "true"], os.environ)


jobs, in_flight = int(sys.argv[1]), int(sys.argv[2])
crowd = Crowd(jobs, in_flight)
reactor.callWhenRunning(crowd.begin)
before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
reactor.run()
seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
sys.stdout.write(f"{jobs / seconds} {cpu / jobs * 1000}\n")
