"""``clustersh check``: what machines say of themselves, one line each.

It is one run, of a probe that each machine's agent carries out (`clustersh.probe`), so it is recorded, ends in time and
can be cancelled as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.errors import NOTHING_RAN, REFUSED
from ..cli.invocation import Invocation
from ..config import load
from ..wire.checks import MAX_ANSWER
from ..wire.rest import Ends, Job, Run
from . import left_out
from .asking import Asking
from .attend import ANSWER_S, LOOK_S, Attendant, Manner
from .check_arguments import CheckOptions, read_check_options
from .check_results import CheckReport, MachineCheck, exit_status, judge, summary
from .client import connect
from .many.names import natural
from .many.summary import none_started
from .many.tally import Tally
from .retry import Retry
from .show import Form

_OTHERWISE = "the same again is another check"
_ALL_ANSWERS = 8 << 20
_SOME_ANSWER = 4 << 10


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``check``."""
    options = read_check_options(invocation, arguments)
    return lambda reactor: check(reactor, invocation, options)


async def check(reactor: Any, invocation: Invocation, options: CheckOptions) -> int:
    """Make the checks that *options* ask for, and return the exit status."""
    retry = Retry(reactor, load(invocation.home).client.retry_for)
    client = await connect(reactor, invocation)
    if options.dry_run:
        from .plan import show_plan

        return await show_plan(client, invocation, options.request, [])
    manner = Manner(Form(_ALL_ANSWERS), follow=True, wait_s=options.wait_s, confirmed=True)
    asking = Asking(client, retry, invocation, options.request, invocation.key)

    def show(attendant: Attendant, run: Run) -> Checks:
        return Checks(attendant, options, run)

    return await Attendant(reactor, invocation, client, retry, asking, manner, show, otherwise=_OTHERWISE).attend()


class Checks:
    """Shows the run of a check: each machine as it ends, then the whole."""

    def __init__(self, attendant: Attendant, options: CheckOptions, run: Run) -> None:
        self._attendant = attendant
        self._options = options
        self._tally = Tally(run)
        self._console = attendant.invocation.console
        self._found: dict[str, MachineCheck] = {}
        self._told: dict[str, Job] = {}

    async def until_end(self, run: Run) -> Run:
        """Return *run* once all have ended. What a machine did not confirm may never start, and is not waited for."""
        live = self._console.live(self._tally.line, self._attendant.reactor)
        self._attendant.invocation.console = self._console = live
        try:
            after = 0
            while True:
                ends = await self._attendant.retry(partial(self._ends, run, after))
                await self._tell(ends.jobs)
                after = ends.next
                if ends.ended or self._tally.waits_only_for(ends.unconfirmed):
                    return msgspec.structs.replace(run, unconfirmed=ends.unconfirmed)
        finally:
            await live.stop()

    async def present(self, run: Run) -> int:
        """Tell of those that nothing is known of, and of the whole."""
        await self._tell([job for job in run.jobs if job.machine not in self._found], run.unconfirmed)
        found = sorted(self._found.values(), key=lambda one: natural(one.machine))
        status = exit_status(found)
        if self._attendant.invocation.json:
            report = CheckReport(run.uuid, run.target, status == 0, tuple(found), run.left_out)
            await self._console.out(msgspec.json.encode(report) + b"\n")
        if status in (NOTHING_RAN, REFUSED):
            await self._console.error(*none_started(list(self._told.values()), None, "nothing was checked: the check"))
        if len(found) > 1 or run.left_out:
            await self._console.err(summary(found, run.left_out) + "\n")
        if any(job.machine in run.unconfirmed for job in run.jobs):
            await self._console.hint(f"what becomes of the rest: clustersh wait {run.uuid}")
        if run.left_out:
            await self._console.hint(left_out.hint(run.left_out))
        return status

    async def so_far(self, run: Run) -> None:
        """Tell of all machines, as far as they are known."""
        await self.present(run)

    async def leave(self, run: Run) -> None:
        """Nothing more: what is known was told as it came."""

    async def _tell(self, jobs: Sequence[Job], unconfirmed: tuple[str, ...] = ()) -> None:
        for job in jobs:
            self._told[job.machine] = job
            found = self._found[job.machine] = judge(job, self._options.checks, unconfirmed)
            if not self._attendant.invocation.json:
                await self._console.out(found.line + "\n")
        self._tally.take(jobs)

    async def _ends(self, run: Run, after: int) -> Ends:
        share = max(_SOME_ANSWER, min(MAX_ANSWER, _ALL_ANSWERS // max(1, len(run.jobs))))
        query = [("after", str(after)), ("limit", str(share))]
        path = f"/v1/runs/{run.uuid}/ends"
        return await self._attendant.client.call(
            "GET", path, answer=Ends, query=query, wait_s=LOOK_S, timeout_s=ANSWER_S
        )
