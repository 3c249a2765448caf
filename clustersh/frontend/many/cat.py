"""``clustersh cat`` of a run on many machines: in sections, each output as it was printed."""

from __future__ import annotations

import msgspec

from ...cli.errors import NOTHING_RAN, UNCERTAIN
from ...cli.invocation import Invocation
from ...rest_client import RestClient, Unreachable
from ...wire.jobs import State
from ...wire.problems import ProblemError
from ...wire.rest import Run
from ..layouts import Layout
from ..output import OutputReader
from ..reading import Reading
from ..retry import GaveUp, Retry
from ..show import OutputKeeper
from ..stored_output import Words, cat_document
from .folding import Group, each, fold
from .names import node_set
from .sections import Section
from .summary import told_of


async def cat_many(invocation: Invocation, client: RestClient, retry: Retry, run: Run, words: Words) -> int:
    """Print what *words* ask for of the outputs of *run*, and return the exit status."""
    return await _Cat(invocation, client, retry, run, words).cat()


class _Cat:
    def __init__(self, invocation: Invocation, client: RestClient, retry: Retry, run: Run, words: Words) -> None:
        self._invocation = invocation
        self._client = client
        self._retry = retry
        self._run = run
        self._words = words
        self._read = 0
        self._unread = 0

    async def cat(self) -> int:
        """Print it all; what can't be read is told, and keeps nobody else's from being printed."""
        jobs = self._run.jobs
        together = fold if self._words.layout is Layout.FOLDED else each
        groups = together(jobs, jobs, running=True)
        if self._words.layout is Layout.JSON:
            await self._print_document(groups)
        else:
            for group in groups:
                await self._print(group)
        shown = {name for group in groups for name in group.machines}
        silent = [job for job in jobs if job.machine not in shown]
        if silent:
            await self._invocation.console.err(f"not there: {told_of(silent, self._run)}\n")
        if self._unread or not groups:
            return UNCERTAIN if self._read else NOTHING_RAN
        return 0

    async def _print(self, group: Group) -> None:
        section = Section(self._invocation.console, group.header, ordered=True)
        await self._get(group, section)
        await section.end()

    async def _print_document(self, groups: list[Group]) -> None:
        """Print one document, a job at a time: all outputs together may not fit into memory."""
        out = self._invocation.console.out
        await out(b'{"uuid":%b,"jobs":[' % msgspec.json.encode(self._run.uuid))
        for number, group in enumerate(groups):
            keeper = OutputKeeper(combined=False)
            reading = await self._get(group, keeper)
            await out((b"," if number else b"") + msgspec.json.encode(cat_document(group.job.machine, reading, keeper)))
        await out(b"]}\n")

    async def _get(self, group: Group, sink: Section | OutputKeeper) -> Reading:
        """Give *sink* the output of *group*."""
        reading = self._words.part.of(group.text.machine, self._run.uuid)
        try:
            if self._words.part.tail != 0 and (group.text.output_bytes or group.job.status is State.RUNNING):
                await OutputReader(self._client, self._retry, reading, sink).read()
            self._read += 1
        except (GaveUp, ProblemError, Unreachable) as error:
            self._unread += 1
            self._read += bool(reading.delivered)
            names = node_set(group.machines)
            hint = f"when it is back: clustersh cat {group.text.machine} {self._run.uuid}"
            await self._invocation.console.error(f"the output of {names} can't be read now: {error}", (hint,))
        return reading
