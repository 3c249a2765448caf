"""One machine's run as it is shown: its output as if it had been printed here, then how it ended."""

from __future__ import annotations

from ..cli.errors import UNCERTAIN, CliError
from ..rest_client import Unreachable
from ..wire.jobs import State
from ..wire.problems import Kind, ProblemError
from ..wire.rest import Job, Run
from .attend import LOOK_S, Attendant
from .output import OutputReader, print_output
from .reading import Reading
from .retry import GaveUp
from .show import print_document, print_end, printer_for, selected_lines
from .stdin import StdinSender

_NOT_YET = (Kind.NOT_RUNNING, Kind.OUTPUT_UNAVAILABLE)


class OneJob:
    """Shows the one job of a run."""

    def __init__(self, attendant: Attendant) -> None:
        self._attendant = attendant
        self._invocation = attendant.invocation
        self._manner = attendant.manner
        self._printer = printer_for(attendant.invocation, attendant.manner.form)

    async def until_end(self, run: Run) -> Run:
        """Return *run* as it ended; print its output as it comes, where that is wanted."""
        if self._manner.confirmed:
            await self._invocation.console.err(selected_lines(run))
        if self._manner.feed and not run.ended:
            job = run.jobs[0]
            client, retry = self._attendant.client, self._attendant.retry
            sender = StdinSender(client, retry, self._invocation.stdin, job.machine, job.uuid)
            self._attendant.beside(self._feed(sender))
        if (self._manner.follow or self._manner.full) and not run.ended:
            run = await self._stream(run)
        while not run.ended:
            self._check_confirmed(run)
            run = await self._attendant.look(LOOK_S)
        return run

    async def present(self, run: Run) -> int:
        """Print what is left of the output, and say how it ended."""
        job, attendant = run.jobs[0], self._attendant
        unread = await print_output(
            attendant.client, attendant.retry, self._invocation.console, job, self._manner.form, self._printer
        )
        return (await print_end(self._invocation, job, self._printer, unread)).status

    async def so_far(self, run: Run) -> None:
        """Print the output so far."""
        try:
            await self._attendant.limited(self._reader(run.jobs[0], follow=False).read())
        except (GaveUp, Unreachable, ProblemError):
            return  # the hint says how to get what is missing

    async def leave(self, run: Run) -> None:
        """Print the job's document, where it is wanted."""
        await print_document(self._invocation, run.jobs[0], self._printer)

    def _check_confirmed(self, run: Run) -> None:
        waiting = [job.machine for job in run.jobs if job.status is State.REQUESTED and job.machine in run.unconfirmed]
        if self._manner.confirmed and waiting:
            raise CliError(
                f"{', '.join(waiting)} did not confirm the start: the command may run, or never will",
                (f"clustersh wait {run.uuid} tells which, once the machine is heard of again",),
                status=UNCERTAIN,
                kind=Kind.UNCONFIRMED,
                uuid=run.uuid,
                started=None,
            )

    async def _stream(self, run: Run) -> Run:
        attendant = self._attendant
        while run.jobs[0].status is State.REQUESTED:
            self._check_confirmed(run)
            await attendant.retry.pause(0.05)
            run = await attendant.look()
        reader = self._reader(run.jobs[0], follow=True)
        while not run.ended:
            try:
                await reader.read()
                break
            except ProblemError as problem:
                if problem.problem.kind not in _NOT_YET:
                    raise
            await attendant.retry.pause(1.0)
            run = await attendant.look()
        return await attendant.look(LOOK_S)

    def _reader(self, job: Job, *, follow: bool) -> OutputReader:
        limit, printed = self._manner.form.limit, self._printer.printed
        reading = Reading(
            job.machine,
            job.uuid,
            offset=printed,
            length=None if limit is None else max(0, limit - printed),
            follow=follow,
        )
        return OutputReader(self._attendant.client, self._attendant.retry, reading, self._printer)

    async def _feed(self, sender: StdinSender) -> None:
        try:
            await sender.send()
        except CliError:
            # The command would wait for ever for input that can't be read.
            await self._attendant.cancel()
            raise
