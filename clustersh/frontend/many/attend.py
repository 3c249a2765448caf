"""Staying with a run on many machines: who has ended, live where that is wanted, and all of it at its end."""

from __future__ import annotations

import contextlib
from functools import partial
from urllib.parse import quote

from ...rest_client import Unreachable
from ...wire.problems import ProblemError
from ...wire.rest import Ends, Job, Run
from ..attend import ANSWER_S, LOOK_S, Attendant
from ..layouts import Layout
from ..output import OutputReader
from ..reading import Reading
from ..retry import GaveUp
from ..show import selected_lines
from ..together import together
from .documents import job_documents, lines
from .folding import each
from .follow import Follower
from .sections import Gap, Section
from .show import ManyForm, print_outputs, tell
from .source import MachineSource
from .tally import Tally

TOGETHER_S = 0.1
"""Ends that come within this time are asked for at once."""


class ManyJobs:
    """Shows the jobs of one run on many machines."""

    def __init__(self, attendant: Attendant, run: Run) -> None:
        manner = attendant.manner
        self._attendant = attendant
        self._console = attendant.invocation.console
        self._form = ManyForm(manner.layout, manner.form.limit)
        self._source = MachineSource(attendant.client, attendant.retry)
        self._tally = Tally(run)
        self._lines = manner.layout is Layout.JSONL
        self._told: set[str] = set()
        self._budget = manner.form.limit or 0
        self._gaps: list[Gap] = []
        self._follower = Follower(attendant.client, attendant.retry, self._form, self._tally) if manner.follow else None

    async def until_end(self, run: Run) -> Run:
        """Return *run* as it ended."""
        console = self._console
        if self._attendant.manner.confirmed:
            await console.err(selected_lines(run))
        if run.ended and not self._lines and self._follower is None:
            return run
        live = None
        if not self._form.layout.documents:
            live = console.live(self._tally.line, self._attendant.reactor)
            self._attendant.invocation.console = self._console = live
        try:
            if self._follower is None:
                await self._wait(run.uuid)
            else:
                await self._follow(self._follower, run)
        finally:
            if live is not None:
                await live.stop()
        return await self._attendant.look()

    async def _follow(self, follower: Follower, run: Run) -> None:
        async def wait() -> None:
            await self._wait(run.uuid)
            follower.close()

        await together([follower.follow(self._console, run), wait()])

    async def present(self, run: Run) -> int:
        """Print all that was not shown yet, and what became of it all; return the exit status."""
        await self._print_outputs(run)
        return await tell(self._console, run, self._gaps, interrupted=self._attendant.interrupted)

    async def so_far(self, run: Run) -> None:
        """Print what those machines printed that have ended, what the others have by now, and who they are."""
        await self._print_outputs(run)
        if self._follower is None and not self._form.layout.documents:
            with contextlib.suppress(GaveUp, Unreachable, ProblemError):  # the hint says how to get what is missing
                await self._attendant.limited(self._print_running(run))
        await tell(self._console, run, self._gaps)

    async def leave(self, run: Run) -> None:
        """Print what was held back."""
        if self._follower is not None:
            await self._follower.flush()

    async def _print_outputs(self, run: Run) -> None:
        if self._follower is not None:
            self._gaps = self._follower.gaps(run)
        else:
            self._gaps += await print_outputs(self._console, run, self._form, self._source, told=self._told)

    async def _print_running(self, run: Run) -> None:
        share = None if self._form.limit is None else self._form.limit // len(run.jobs)
        for group in each([job for job in run.jobs if not job.status.ended], run.jobs, running=True):
            section = Section(self._console, group.header, ordered=True)
            reading = Reading(group.text.machine, run.uuid, length=share)
            await OutputReader(self._attendant.client, self._attendant.retry, reading, section).read()
            if section.printed:
                await section.end()

    async def _wait(self, uuid: str) -> None:
        after = 0
        while True:
            ends = await self._attendant.retry(partial(self._ends, uuid, after))
            after = ends.next
            if self._lines:
                await self._print_lines(ends.jobs)
            self._tally.take(ends.jobs)
            if ends.ended or (self._attendant.manner.confirmed and self._tally.waits_only_for(ends.unconfirmed)):
                return
            await self._attendant.retry.pause(TOGETHER_S)

    async def _ends(self, uuid: str, after: int) -> Ends:
        query = [("after", str(after)), ("limit", str(self._share()))]
        path = f"/v1/runs/{quote(uuid, safe='')}/ends"
        return await self._attendant.client.call(
            "GET", path, answer=Ends, query=query, wait_s=LOOK_S, timeout_s=ANSWER_S
        )

    def _share(self) -> int:
        """Return how much each of the next ends may show: what is left of the limit, for each of those left."""
        return self._budget // max(1, len(self._tally.running)) if self._lines else 0

    async def _print_lines(self, jobs: tuple[Job, ...]) -> None:
        share = self._share()
        documents, gaps = await job_documents(jobs, share)
        self._told.update(job.machine for job in jobs)
        self._budget -= sum(min(job.output_bytes, share) for job in jobs)
        self._gaps += gaps
        await self._console.out(lines(documents))
