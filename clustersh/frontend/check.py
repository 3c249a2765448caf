"""``clustersh check``: what machines say of themselves, one line each.

It is one run, of a probe that each machine's agent carries out (`clustersh.probe`), so it is recorded, ends in time and
can be cancelled as any other.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from ..cli.commands import Start
from ..cli.errors import UNCERTAIN, CliError
from ..cli.invocation import Invocation
from ..config import load
from ..rest_client import RestClient, Unreachable
from ..wire.checks import MAX_ANSWER
from ..wire.problems import Kind, ProblemError
from ..wire.rest import Cancelled, Ends, Job, Run
from .attend import LOOK_S
from .check_arguments import CheckOptions, read_check_options
from .check_results import CheckReport, MachineCheck, exit_status, judge, summary
from .client import connect
from .retry import GaveUp, Retry
from .watch import Left, Watch


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``check``."""
    options = read_check_options(invocation, arguments)
    return lambda reactor: check(reactor, invocation, options)


async def check(reactor: Any, invocation: Invocation, options: CheckOptions) -> int:
    """Make the checks that *options* ask for, and return the exit status."""
    retry = Retry(reactor, load(invocation.home).client.retry_for)
    client = await connect(reactor, invocation)
    return await Checking(reactor, invocation, client, retry, options).run()


class Checking:
    """One check of a target: machines are told of as they end."""

    def __init__(
        self, reactor: Any, invocation: Invocation, client: RestClient, retry: Retry, options: CheckOptions
    ) -> None:
        self._invocation = invocation
        self._client = client
        self._retry = retry
        self._options = options
        self._watch = Watch(reactor, invocation.signals, wait_s=options.wait_s, interrupted=self._interrupted)
        self._run: Run | None = None
        self._found: dict[str, MachineCheck] = {}
        self._unconfirmed: tuple[str, ...] = ()
        self._beside: list[Deferred[None]] = []

    async def run(self) -> int:
        """Return the exit status, with everything printed. Raises CliError, ProblemError and Unreachable."""
        try:
            await self._watch.over(self._until_end())
        except Left:
            if self._run is None:
                raise self._lost("left before the coordinator answered") from None
        except GaveUp as gave_up:
            raise self._lost(f"no answer from the coordinator: {gave_up.failure}") from gave_up
        finally:
            for work in self._beside:
                work.cancel()
        return await self._conclude()

    async def _until_end(self) -> None:
        run = self._run = await self._begin()
        self._invocation.uuid, self._invocation.started = run.uuid, None
        if self._beside:
            await self._cancel(run)
        after, ended = 0, False
        while not ended and not self._only_unconfirmed(run):
            ends = await self._retry(lambda: self._ends(run.uuid, after))  # noqa: B023 - awaited before it changes
            self._unconfirmed = ends.unconfirmed
            for job in ends.jobs:
                await self._tell(job)
            after, ended = ends.next, ends.ended

    async def _begin(self) -> Run:
        key = {"Idempotency-Key": secrets.token_hex(16)}
        request = self._options.request
        self._invocation.started = None
        try:
            return await self._retry(
                lambda: self._client.call("POST", "/v1/runs", request, answer=Run, headers=key, wait_s=0)
            )
        except ProblemError as problem:
            self._invocation.started = problem.problem.started
            raise
        except Unreachable:
            # Retry lets it through only where nothing was ever sent.
            self._invocation.started = False
            raise

    async def _ends(self, uuid: str, after: int) -> Ends:
        query = [("after", str(after)), ("limit", str(MAX_ANSWER))]
        return await self._client.call("GET", f"/v1/runs/{uuid}/ends", answer=Ends, query=query, wait_s=LOOK_S)

    def _only_unconfirmed(self, run: Run) -> bool:
        """Whether those that nothing is known of did not confirm the start: it may never come."""
        waiting = {job.machine for job in run.jobs} - self._found.keys()
        return bool(waiting) and waiting <= set(self._unconfirmed)

    async def _tell(self, job: Job) -> None:
        found = self._found[job.machine] = judge(job, self._options.checks, self._unconfirmed)
        if not self._invocation.json:
            await self._invocation.console.out(found.line + "\n")

    async def _conclude(self) -> int:
        assert self._run is not None
        for job in self._run.jobs:
            if job.machine not in self._found:
                await self._tell(job)
        found = sorted(self._found.values(), key=lambda one: one.machine)
        status = exit_status(found)
        console = self._invocation.console
        if self._invocation.json:
            report = CheckReport(self._run.uuid, self._run.target, status == 0, tuple(found))
            await console.out(msgspec.json.encode(report) + b"\n")
        if len(found) > 1:
            await console.err(summary(found) + "\n")
        if status == UNCERTAIN:
            await console.hint(f"what became of the others: clustersh wait {self._run.uuid}")
        return status

    def _lost(self, why: str) -> CliError:
        uuid = self._invocation.uuid
        return CliError(
            why,
            (f"clustersh wait {uuid}" if uuid else "the same again is another check: it does no harm",),
            status=UNCERTAIN,
            kind=Kind.UNAVAILABLE,
            uuid=uuid,
            started=self._invocation.started,
        )

    # -- interrupted

    def _interrupted(self) -> None:
        text = "Cancelling the checks; interrupt again to leave at once.\n"
        self._beside.append(self._watch.beside(self._invocation.console.err(text)))
        if self._run is not None:
            self._beside.append(self._watch.beside(self._cancel(self._run)))

    async def _cancel(self, run: Run) -> None:
        try:
            await self._retry(lambda: self._client.call("POST", f"/v1/runs/{run.uuid}/cancel", {}, answer=Cancelled))
        except ProblemError as problem:
            if problem.problem.kind is not Kind.NOT_RUNNING:
                await self._invocation.console.error(f"can't cancel the checks: {problem}")
