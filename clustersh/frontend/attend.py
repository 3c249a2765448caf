"""Staying with a run until it ended, and showing its end: what ``run`` and ``wait`` have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from twisted.internet.defer import Deferred

from ..cli.errors import UNCERTAIN, CliError
from ..cli.invocation import Invocation
from ..rest_client import RestClient, Unreachable
from ..wire.problems import Kind, ProblemError
from ..wire.rest import Cancelled, Run
from ..wire.units import format_timeout
from .layouts import Layout
from .retry import GaveUp, Retry
from .show import Form
from .watch import Left, Watch, Why

LOOK_S, ANSWER_S = 15.0, 15.0
"""Seconds that a look waits for the end, and in which its answer must come after that: silence is noticed in 30."""
REMIND_AFTER_S = 30.0
LEARN_WITHIN_S = 5.0


class Manner(NamedTuple):
    """How to stay with a run: *follow* prints its output as it comes, and *full* all of it; *wait_s* (None: for ever)
    limits the waiting, *feed* streams standard input, *confirmed* tells of a start that its agent did not confirm
    instead of waiting on; *layout* is for many machines."""

    form: Form
    follow: bool = False
    wait_s: float | None = None
    feed: bool = False
    confirmed: bool = False
    layout: Layout = Layout.FOLDED

    @property
    def full(self) -> bool:
        return self.form.limit is None


class Showing(Protocol):
    """What is printed of a run, as it goes on and at its end."""

    async def until_end(self, run: Run) -> Run:
        """Return *run* as it ended, with its output shown as far as it is shown while it runs."""

    async def present(self, run: Run) -> int:
        """Print all that was not shown yet of *run*, which has ended, and return the exit status."""

    async def so_far(self, run: Run) -> None:
        """Print what there is of *run*, which goes on, for a caller who doesn't wait any longer."""

    async def leave(self, run: Run) -> None:
        """Print the documents of *run*, where they are wanted: the caller leaves."""


class Attendant:
    """Stays with one run. *begin* asks for it (and may be called again: it is the same run), waiting some seconds.

    *show* chooses how the run is shown. *otherwise* is the hint for when not even the uuid came back. *known*: the run,
    where it was asked for already.
    """

    def __init__(
        self,
        reactor: Any,
        invocation: Invocation,
        client: RestClient,
        retry: Retry,
        begin: Callable[[float], Awaitable[Run]],
        manner: Manner,
        show: Callable[[Attendant, Run], Showing],
        otherwise: str = "",
        known: Run | None = None,
    ) -> None:
        self.reactor = reactor
        self.invocation = invocation
        self.client = client
        self.retry = retry
        self.manner = manner
        self._begin = begin
        self._show = show
        self._otherwise = otherwise
        self._watch = Watch(reactor, invocation.signals, wait_s=manner.wait_s, interrupted=self._interrupted)
        self._known = known
        self._run: Run | None = None
        self._showing: Showing | None = None
        self._cancelling = False
        self._cancelled = False
        self._beside: list[Deferred[None]] = []

    async def attend(self) -> int:
        """Return the exit status, with everything printed. Raises CliError, ProblemError and Unreachable."""
        reminder = None
        if not self.invocation.console.errors_to_terminal:
            reminder = self.reactor.callLater(REMIND_AFTER_S, self._remind)
        try:
            run = await self._watch.over(self._until_end())
            return await self._shown(run).present(run)
        except Left as left:
            return await self._leave(left.why)
        except GaveUp as gave_up:
            raise self._lost(gave_up) from gave_up
        except ProblemError:
            if self._run is None and self.retry.unanswered:
                self.invocation.started = None  # the request that was cut off may have started it
            raise
        finally:
            if reminder is not None and reminder.active():
                reminder.cancel()
            for work in self._beside:
                work.cancel()

    @property
    def interrupted(self) -> bool:
        """Whether the caller had the run cancelled."""
        return self._cancelling

    async def look(self, wait_s: float = 0.0) -> Run:
        """Return the run as it is now, or as it ended within *wait_s* seconds."""
        uuid, manner = self.invocation.uuid, self.manner
        return self.know(await self.retry(lambda: look_at(self.client, uuid, wait_s, manner.form, manner.layout)))

    def know(self, run: Run) -> Run:
        """Take note of what was answered."""
        first = self._run is None
        self._run = run
        self.invocation.uuid = run.uuid
        self.invocation.started = True if any(job.started for job in run.jobs) else None
        if first and self._cancelling:
            self.beside(self._cancel())
        return run

    def beside(self, work: Any) -> None:
        """Do *work* too, until the end; what it raises ends the waiting."""
        self._beside.append(self._watch.beside(work))

    async def cancel(self) -> None:
        """End the run, on all of its machines."""
        await self._cancel()

    async def limited(self, work: Any) -> Any:
        """Await *work* for at most LEARN_WITHIN_S. Raises Unreachable after that."""
        task: Deferred[Any] = Deferred.fromCoroutine(work)
        task.addTimeout(LEARN_WITHIN_S, self.reactor, _timed_out)
        return await task

    async def _until_end(self) -> Run:
        # A command that takes its time is followed by its uuid, which the caller should have soon.
        at_once = self.manner.follow or self.manner.full or self.manner.feed
        run = self.know(self._known or await self._begin(0.0 if at_once else 2.0))
        return await self._shown(run).until_end(run)

    def _shown(self, run: Run) -> Showing:
        if self._showing is None:
            self._showing = self._show(self, run)
        return self._showing

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
        showing = self._shown(run)
        if why is Why.WAIT_OVER:
            run = await self._now(run)
            if run.ended:
                return await showing.present(run)
            await showing.so_far(run)
        await showing.leave(run)
        if why is Why.INTERRUPTED and self._cancelled:
            await self.invocation.console.hint(f"the cancel was sent; clustersh wait {run.uuid} tells how it ended")
        else:
            await self.invocation.console.hint(still_running(run.uuid))
        return UNCERTAIN

    async def _now(self, run: Run) -> Run:
        manner = self.manner
        try:
            look: Run = await self.limited(look_at(self.client, run.uuid, 0.0, manner.form, manner.layout))
            return self.know(look)
        except (GaveUp, Unreachable, ProblemError):
            return run  # the hint says how to get what is missing

    async def _learn(self) -> Run | None:
        """Ask for the uuid of a run whose answer is under way: the same request again, with no waiting."""
        try:
            return self.know(await self.limited(self._begin(0.0)))
        except (GaveUp, Unreachable):
            return None

    def _lost(self, gave_up: GaveUp) -> CliError:
        uuid = self.invocation.uuid
        why = gave_up.failure.hint if isinstance(gave_up.failure, Unreachable) else ""
        go_on = f"it may still run: clustersh wait {uuid}" if uuid else self._otherwise
        waited = f" for {format_timeout(gave_up.for_s)}" if gave_up.for_s else ""
        return CliError(
            f"no answer from the coordinator{waited}: {gave_up.failure}",
            tuple(hint for hint in (why, go_on) if hint),
            status=UNCERTAIN,
            kind=Kind.UNAVAILABLE,
            uuid=uuid,
            started=self.invocation.started,
        )

    # -- beside the waiting

    def _remind(self) -> None:
        if self._run is not None:
            self.beside(self.invocation.console.hint(still_running(self._run.uuid)))

    def _interrupted(self) -> None:
        self._cancelling = True
        where = f" on {len(self._run.jobs)} machines" if self._run is not None and len(self._run.jobs) > 1 else ""
        self.beside(self.invocation.console.err(f"Cancelling the command{where}; interrupt again to leave at once.\n"))
        self.beside(self._cancel_now())

    async def _cancel_now(self) -> None:
        """Cancel without waiting for the answer that is under way; `know` cancels as soon as the uuid is known."""
        if self._run is not None:
            await self._cancel()
        else:
            await self._learn()

    async def _cancel(self) -> None:
        assert self._run is not None
        path = f"/v1/runs/{quote(self._run.uuid, safe='')}/cancel"
        try:
            await self.retry(lambda: self.client.call("POST", path, {}, answer=Cancelled))
            self._cancelled = True
        except ProblemError as problem:
            if problem.problem.kind is not Kind.NOT_RUNNING:
                await self.invocation.console.error(f"can't cancel the command: {problem}")


async def look_at(client: RestClient, uuid: str, wait_s: float, form: Form, layout: Layout = Layout.FOLDED) -> Run:
    """Return the run *uuid* (or its last digits) with as much output as *form* shows, after up to *wait_s* seconds."""
    query = [] if form.limit is None else [("limit", str(form.limit))]
    if layout.folds:
        query.append(("fold", "true"))
    return await client.call(
        "GET", f"/v1/runs/{quote(uuid, safe='')}", answer=Run, query=query, wait_s=wait_s, timeout_s=ANSWER_S
    )


def still_running(uuid: str) -> str:
    """Return the hint for a caller who leaves."""
    return f"still running, clustersh wait {uuid}"


def _timed_out(_result: object, seconds: float) -> None:
    raise Unreachable(f"no answer within {format_timeout(seconds)}", sent=True)
