"""Staying with a run until it ended, and showing its end: what ``run`` and ``wait`` have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import quote

from twisted.internet.defer import Deferred

from ..cli.errors import UNCERTAIN, CliError
from ..cli.invocation import Invocation
from ..rest_client import RestClient, Unreachable
from ..wire.jobs import State
from ..wire.problems import Kind, ProblemError
from ..wire.rest import Cancelled, Job, Run
from ..wire.units import format_timeout
from .output import OutputReader, print_output
from .reading import Reading
from .retry import GaveUp, Retry
from .show import Form, print_document, print_end, printer_for
from .stdin import StdinSender
from .watch import Left, Watch, Why

LOOK_S, ANSWER_S = 15.0, 15.0
"""Seconds that a look waits for the end, and in which its answer must come after that: silence is noticed in 30."""
REMIND_AFTER_S = 30.0
LEARN_WITHIN_S = 5.0
_NOT_YET = (Kind.NOT_RUNNING, Kind.OUTPUT_UNAVAILABLE)


class Manner(NamedTuple):
    """How to stay with a run: *live* prints the output as it comes, *wait_s* (None: for ever) limits the waiting,
    *feed* streams standard input, *confirmed* tells of a start that its agent did not confirm instead of waiting on."""

    form: Form
    live: bool = False
    wait_s: float | None = None
    feed: bool = False
    confirmed: bool = False


class Attendant:
    """Stays with one run. *begin* asks for it (and may be called again: it is the same run), waiting some seconds.

    *otherwise* is the hint for when not even the uuid came back. *known*: the run, where it was asked for already.
    """

    def __init__(
        self,
        reactor: Any,
        invocation: Invocation,
        client: RestClient,
        retry: Retry,
        begin: Callable[[float], Awaitable[Run]],
        manner: Manner,
        otherwise: str = "",
        known: Run | None = None,
    ) -> None:
        self._reactor = reactor
        self._invocation = invocation
        self._client = client
        self._retry = retry
        self._begin = begin
        self._manner = manner
        self._otherwise = otherwise
        self._printers = {"": printer_for(invocation, manner.form)}
        self._watch = Watch(reactor, invocation.signals, wait_s=manner.wait_s, interrupted=self._interrupted)
        self._known = known
        self._run: Run | None = None
        self._cancelling = False
        self._cancelled = False
        self._beside: list[Deferred[None]] = []

    async def attend(self) -> int:
        """Return the exit status, with everything printed. Raises CliError, ProblemError and Unreachable."""
        reminder = None
        if not self._invocation.console.errors_to_terminal:
            reminder = self._reactor.callLater(REMIND_AFTER_S, self._remind)
        try:
            run = await self._watch.over(self._until_end())
            return await self._present(run)
        except Left as left:
            return await self._leave(left.why)
        except GaveUp as gave_up:
            raise self._lost(gave_up) from gave_up
        except ProblemError:
            if self._run is None and self._retry.unanswered:
                self._invocation.started = None  # the request that was cut off may have started it
            raise
        finally:
            if reminder is not None and reminder.active():
                reminder.cancel()
            for work in self._beside:
                work.cancel()

    async def _until_end(self) -> Run:
        # A command that takes its time is followed by its uuid, which the caller should have soon.
        at_once = self._manner.live or self._manner.feed
        run = self._know(self._known or await self._begin(0.0 if at_once else 2.0))
        if self._manner.feed and not run.ended:
            job = run.jobs[0]
            sender = StdinSender(self._client, self._retry, self._invocation.stdin, job.machine, job.uuid)
            self._beside.append(self._watch.beside(self._feed(sender)))
        if self._manner.live and not run.ended:
            run = await self._stream(run)
        while not run.ended:
            self._check_confirmed(run)
            run = await self._look(LOOK_S)
        return run

    async def _look(self, wait_s: float = 0.0) -> Run:
        uuid = self._invocation.uuid
        return self._know(await self._retry(lambda: look_at(self._client, uuid, wait_s, self._manner.form)))

    def _know(self, run: Run) -> Run:
        first = self._run is None
        self._run = run
        self._invocation.uuid = run.uuid
        self._invocation.started = True if any(job.started for job in run.jobs) else None
        if first and self._cancelling:
            self._beside.append(self._watch.beside(self._cancel()))
        return run

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
        while run.jobs[0].status is State.REQUESTED:
            self._check_confirmed(run)
            await self._retry.pause(0.05)
            run = await self._look()
        reader = self._reader(run.jobs[0], follow=True)
        while not run.ended:
            try:
                await reader.read()
                break
            except ProblemError as problem:
                if problem.problem.kind not in _NOT_YET:
                    raise
            await self._retry.pause(1.0)
            run = await self._look()
        return await self._look(LOOK_S)

    def _reader(self, job: Job, *, follow: bool) -> OutputReader:
        printer = self._printer(job)
        limit = self._manner.form.limit
        reading = Reading(
            job.machine,
            job.uuid,
            offset=printer.printed,
            length=None if limit is None else max(0, limit - printer.printed),
            follow=follow,
        )
        return OutputReader(self._client, self._retry, reading, printer)

    def _printer(self, job: Job) -> Any:
        """Return the one printer of *job*: it knows how much was printed already."""
        name = job.machine if self._run is not None and len(self._run.jobs) > 1 else ""
        if name not in self._printers:
            self._printers[name] = printer_for(self._invocation, self._manner.form)
        return self._printers[name]

    async def _present(self, run: Run) -> int:
        statuses = []
        for job in run.jobs:
            printer = self._printer(job)
            console = self._invocation.console
            unread = await print_output(self._client, self._retry, console, job, self._manner.form, printer)
            ended = await print_end(self._invocation, job, printer, unread)
            statuses.append(ended.status)
        return next((status for status in statuses if status), 0)

    # -- leaving before the end

    async def _leave(self, why: Why) -> int:
        run = self._run or await self._learn()
        if run is None:
            raise CliError(
                "left before the coordinator answered; the command may run",
                (self._otherwise,) if self._otherwise else (),
                status=UNCERTAIN,
                kind=Kind.UNAVAILABLE,
                started=None,
            )
        if why is Why.WAIT_OVER:
            run = await self._show_so_far(run)
            if run.ended:
                return await self._present(run)
        for job in run.jobs:
            await print_document(self._invocation, job, self._printer(job))
        if why is Why.INTERRUPTED and self._cancelled:
            await self._invocation.console.hint(f"the cancel was sent; clustersh wait {run.uuid} tells how it ended")
        else:
            await self._invocation.console.hint(_still_running(run.uuid))
        return UNCERTAIN

    async def _show_so_far(self, run: Run) -> Run:
        try:
            run = self._know(await self._limited(look_at(self._client, run.uuid, 0.0, self._manner.form)))
            for job in run.jobs:
                if not job.status.ended:
                    await self._limited(self._reader(job, follow=False).read())
        except (GaveUp, Unreachable, ProblemError):
            return run  # the hint says how to get what is missing
        return run

    async def _learn(self) -> Run | None:
        """Ask for the uuid of a run whose answer is under way: the same request again, with no waiting."""
        try:
            return self._know(await self._limited(self._begin(0.0)))
        except (GaveUp, Unreachable):
            return None

    async def _limited(self, work: Any) -> Any:
        """Await *work* for at most LEARN_WITHIN_S. Raises Unreachable after that."""
        task: Deferred[Any] = Deferred.fromCoroutine(work)
        task.addTimeout(LEARN_WITHIN_S, self._reactor, _timed_out)
        return await task

    def _lost(self, gave_up: GaveUp) -> CliError:
        uuid = self._invocation.uuid
        why = gave_up.failure.hint if isinstance(gave_up.failure, Unreachable) else ""
        go_on = f"it may still run: clustersh wait {uuid}" if uuid else self._otherwise
        waited = f" for {format_timeout(gave_up.for_s)}" if gave_up.for_s else ""
        return CliError(
            f"no answer from the coordinator{waited}: {gave_up.failure}",
            tuple(hint for hint in (why, go_on) if hint),
            status=UNCERTAIN,
            kind=Kind.UNAVAILABLE,
            uuid=uuid,
            started=self._invocation.started,
        )

    # -- beside the waiting

    def _remind(self) -> None:
        if self._run is not None:
            self._beside.append(self._watch.beside(self._invocation.console.hint(_still_running(self._run.uuid))))

    def _interrupted(self) -> None:
        self._cancelling = True
        text = "Cancelling the command; interrupt again to leave at once.\n"
        self._beside.append(self._watch.beside(self._invocation.console.err(text)))
        self._beside.append(self._watch.beside(self._cancel_now()))

    async def _cancel_now(self) -> None:
        """Cancel without waiting for the answer that is under way; `_know` cancels as soon as the uuid is known."""
        if self._run is not None:
            await self._cancel()
        else:
            await self._learn()

    async def _cancel(self) -> None:
        assert self._run is not None
        path = f"/v1/runs/{quote(self._run.uuid, safe='')}/cancel"
        try:
            await self._retry(lambda: self._client.call("POST", path, {}, answer=Cancelled))
            self._cancelled = True
        except ProblemError as problem:
            if problem.problem.kind is not Kind.NOT_RUNNING:
                await self._invocation.console.error(f"can't cancel the command: {problem}")

    async def _feed(self, sender: StdinSender) -> None:
        try:
            await sender.send()
        except CliError:
            # The command would wait for ever for input that can't be read.
            await self._cancel()
            raise


async def look_at(client: RestClient, uuid: str, wait_s: float, form: Form) -> Run:
    """Return the run *uuid* (or its last digits) with as much output as *form* shows, after up to *wait_s* seconds."""
    query = [] if form.limit is None else [("limit", str(form.limit))]
    return await client.call(
        "GET", f"/v1/runs/{quote(uuid, safe='')}", answer=Run, query=query, wait_s=wait_s, timeout_s=ANSWER_S
    )


def _still_running(uuid: str) -> str:
    return f"still running, clustersh wait {uuid}"


def _timed_out(_result: object, seconds: float) -> None:
    raise Unreachable(f"no answer within {format_timeout(seconds)}", sent=True)
