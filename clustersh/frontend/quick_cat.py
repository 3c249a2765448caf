"""The quick way of ``cat``: a blocking connection, read straight into one buffer and written out of it.

It needs no reactor, whose import takes longer than a small output, and takes a third of the processor time for each
byte of a large one. Where that isn't the whole story, the full way goes on from the byte that was reached.
"""

from __future__ import annotations

import http.client
from urllib.parse import quote, urlencode

from ..cli.invocation import Interrupted, Invocation
from ..wire.rest import Job, Run
from .blocking import FAILURES, connect, get, without_reactor
from .reading import Part, Reading
from .show import Form, OutputPrinter

ANSWER_S = 15.0
IDLE_S = 90.0
SMALLEST, LARGEST = 16 << 10, 256 << 10
"""Bytes that are read before they are shown: few at first, so that a slow network soon shows something."""


class QuickCat:
    """One attempt to print that part of an output. *reading* says how far it came."""

    def __init__(self, invocation: Invocation, machine: str, uuid: str, part: Part) -> None:
        self._invocation = invocation
        self._machine = machine
        self._uuid = uuid
        self._part = part
        self.reading: Reading | None = None

    def run(self) -> int | None:
        """Return the exit status, with everything printed; None where the full way is needed."""
        if self._invocation.json or self._part.tail == 0:
            return None
        try:
            with self._invocation.signals.breaking_in():
                return self._cat()
        except Interrupted as interrupted:
            return 128 + interrupted.number
        except FAILURES:
            return None

    def _cat(self) -> int | None:
        connection = connect(self._invocation.home, ANSWER_S)
        if connection is None:
            return None
        try:
            job = self._job(connection)
            if job is None:
                return None
            self.reading = self._part.of(*job)
            connection.sock.settimeout(IDLE_S)
            return self._print(connection, self.reading)
        finally:
            connection.close()

    def _job(self, connection: http.client.HTTPConnection) -> tuple[str, str] | None:
        """Return the machine and the whole uuid of the one job that is meant."""
        uuid = quote(self._uuid, safe="")
        if self._machine:
            job = get(connection, f"/v1/jobs/{quote(self._machine, safe='')}/{uuid}?limit=0", Job)
            return None if job is None else (job.machine, job.uuid)
        run = get(connection, f"/v1/runs/{uuid}?limit=0", Run)
        return None if run is None or len(run.jobs) != 1 else (run.jobs[0].machine, run.uuid)

    def _print(self, connection: http.client.HTTPConnection, reading: Reading) -> int | None:
        connection.request("GET", f"{reading.path}?{urlencode(reading.ask())}")
        response = connection.getresponse()
        if response.status != 200:
            return None
        reading.begin({name.lower(): value for name, value in response.getheaders()})
        printer = OutputPrinter(self._invocation.console.direct(), Form(None, combined=self._part.to_stdout))
        buffer, size = memoryview(bytearray(LARGEST)), SMALLEST
        while count := response.readinto(buffer[:size]):
            for stream, piece in reading.pieces(buffer[:count]):
                without_reactor(printer(stream, piece))
            size = min(2 * size, LARGEST)
        return 0
