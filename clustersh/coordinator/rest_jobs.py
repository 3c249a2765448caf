"""REST: jobs, their output and their stdin. docs/rest.md lists the calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from ..wire.link import Chunk
from ..wire.output import Stream, pieces
from ..wire.problems import Kind, ProblemError
from ..wire.queries import JobQuery, JobsQuery, OutputQuery, StdinQuery, seconds_since_1970
from ..wire.rest import FRAMES, MAX_STDIN_PIECE, Cancelled, Job, JobPage, StdinProgress
from . import history
from .api import Api
from .callers import Caller
from .http import Request, wait_seconds
from .index import Index
from .outputs import Outputs, Wanted
from .ranges import UNIT, Span, asked_range, span_of
from .registry import Registry
from .routes import CLIENTS, OCTETS, RANGE, WAIT, Answer, Bytes
from .run_names import RunNames
from .run_views import RunViews
from .runs import Runs
from .targets import Targets

_STREAM_BYTES = {Stream.STDOUT: b"\x01", Stream.STDERR: b"\x02"}


class JobCalls:
    """The calls of clients about jobs."""

    def __init__(
        self,
        runs: Runs,
        views: RunViews,
        names: RunNames,
        index: Index,
        registry: Registry,
        targets: Targets,
        outputs: Outputs,
    ) -> None:
        self._runs = runs
        self._views = views
        self._names = names
        self._index = index
        self._registry = registry
        self._targets = targets
        self._outputs = outputs

    def add_to(self, api: Api) -> None:
        """Register every call of this family."""
        job = "/v1/jobs/<machine>/<id>"
        named = (Kind.UNKNOWN_RUN, Kind.AMBIGUOUS_ID)
        told = (*named, Kind.OUTPUT_UNAVAILABLE, Kind.RATE_LIMITED, Kind.STORAGE)
        nobody = (Kind.UNKNOWN_MACHINE, Kind.UNKNOWN_GROUP, Kind.EMPTY_TARGET)
        api.add("GET", "/v1/jobs", self.jobs, CLIENTS, query=JobsQuery, problems=(*named, *nobody))
        api.add("GET", job, self.job, CLIENTS, query=JobQuery, headers=(WAIT,), problems=named)
        api.add("POST", f"{job}/cancel", self.cancel_job, CLIENTS, problems=(*named, Kind.STORAGE))
        api.add(
            "GET",
            f"{job}/output",
            self.output,
            CLIENTS,
            query=OutputQuery,
            headers=(RANGE,),
            answers={200: (FRAMES, OCTETS), 206: (OCTETS,)},
            problems=(*told, Kind.RANGE_NOT_SATISFIABLE),
        )
        api.add(
            "PUT",
            f"{job}/stdin",
            self.stdin,
            CLIENTS,
            Bytes(MAX_STDIN_PIECE),
            query=StdinQuery,
            problems=(*told, Kind.NOT_RUNNING, Kind.POLICY),
        )

    async def jobs(self, request: Request, caller: Caller, query: JobsQuery) -> JobPage:
        """List jobs, newest first."""
        only, without = self._machine_ids(query.target, query.exclude)
        wanted = history.Filter(
            machine=query.machine.lower(),
            machine_ids=only,
            without_ids=without,
            client=query.client.lower(),
            states=query.status,
            since=seconds_since_1970(query.since) if query.since else 0.0,
            before=await self._names.uuid(query.before) if query.before else "",
            limit=query.limit,
        )
        if wanted.machine:
            await self._check_machine(wanted.machine)
        page = await self._index.ask(lambda connection: history.jobs(connection, wanted))
        return JobPage(tuple(self._views.live(job) for job in page.jobs), page.next)

    def _machine_ids(self, target: str, exclude: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the machines to list the jobs of, and those to leave out of all: forgotten ones stay in."""
        if target:
            return tuple(machine.id for machine in self._targets.resolve(target, exclude).machines), ()
        return (), tuple(self._targets.excluded(exclude)) if exclude else ()

    async def _check_machine(self, name: str) -> None:
        """Raise ProblemError unless there is, or ever was, a machine of that name."""
        try:
            self._registry.machine(name)
        except ProblemError:
            if not await self._index.ask(lambda connection: history.was_machine(connection, name)):
                raise

    async def job(self, request: Request, caller: Caller, machine: str, id: str, query: JobQuery) -> Job:
        """Tell of one job, after waiting for its end as long as asked."""
        uuid, reference = await self._names.job(machine, id)

        async def settled() -> Job:
            await self._runs.settle_job(uuid, reference.id, wait_seconds(request))
            return await self._views.job(uuid, reference.id, query.limit)

        return await request.unless_gone(settled())

    async def cancel_job(self, request: Request, caller: Caller, machine: str, id: str) -> Cancelled:
        """End a run on one machine."""
        uuid, reference = await self._names.job(machine, id)
        return await self._runs.cancel(caller.identity, uuid, reference.id)

    async def output(self, request: Request, caller: Caller, machine: str, id: str, query: OutputQuery) -> Answer:
        """Stream a job's output, or a part of it.

        The answer's headers: `Clustersh-Offset`, where it begins in the stream; `Clustersh-Size`, how long that was;
        `Clustersh-Ended`, whether it grows no more.
        """
        uuid, reference = await self._names.job(machine, id)
        await self._views.check_has_output(uuid, reference)
        wanted = Wanted(reference.id, uuid, query.stream, query.offset, query.length, query.follow)
        asked = asked_range(request)
        if asked is not None and query.stream is not Stream.BOTH:
            _check_only_range(query)
            return await self._range(request, wanted, asked)
        first, chunks = await request.unless_gone(self._begin(wanted, query.tail))
        return _output(wanted, first, chunks)

    async def _begin(self, wanted: Wanted, tail: int = 0) -> tuple[Chunk, AsyncGenerator[Chunk, None]]:
        """Return the first chunk, whose absence is still an error that can be told, and the rest."""
        if tail:
            wanted = replace(wanted, offset=await self._outputs.tail_offset(wanted, tail))
        chunks = self._outputs.chunks(wanted)
        return await anext(chunks), chunks

    async def _range(self, request: Request, wanted: Wanted, asked: tuple[int, int | None]) -> Answer:
        """Answer one byte range, of the stream as long as it is now."""
        there = await request.unless_gone(self._outputs.size(wanted))
        span = span_of(request, asked, there.size)
        wanted = replace(wanted, offset=span.offset, length=span.length)
        first, chunks = await request.unless_gone(self._begin(wanted))
        return _output(wanted, first, chunks, span)

    async def stdin(
        self, request: Request, caller: Caller, machine: str, id: str, body: bytes, query: StdinQuery
    ) -> StdinProgress:
        """Take a numbered piece of stdin, from the run's own client; answered when the process took it."""
        uuid, reference = await self._names.job(machine, id)
        run = self._runs.find(uuid)
        if run is None:
            raise ProblemError(Kind.NOT_RUNNING, f"the job {uuid} is not running", uuid=uuid)
        if run.client_id != caller.identity.id:  # else it would run what it likes, where it likes, in another's name
            raise ProblemError(Kind.POLICY, f"only {run.client} feeds that run, which asked for it", uuid=uuid)
        writing = self._outputs.write_stdin(reference.id, uuid, query.offset, body, query.end)
        return await request.unless_gone(writing)


def _check_only_range(query: OutputQuery) -> None:
    if (query.offset, query.length, query.tail, query.follow) != (0, None, 0, False):
        raise ProblemError(Kind.BAD_REQUEST, "a Range goes without offset, length, tail and follow")


def _output(wanted: Wanted, first: Chunk, rest: AsyncGenerator[Chunk, None], span: Span | None = None) -> Answer:
    headers = {
        "Clustersh-Offset": str(first.offset),
        "Clustersh-Size": str(first.size),
        "Clustersh-Ended": "true" if first.ended else "false",
    }
    if wanted.stream is Stream.BOTH:
        return Answer(_body(first, rest, _frame), 200, FRAMES, headers)
    headers["Accept-Ranges"] = UNIT
    if span is not None:
        headers["Content-Range"] = span.content_range(first.size if first.ended else None)
        headers["Content-Length"] = str(span.length)
    return Answer(_body(first, rest, _plain), 206 if span else 200, OCTETS, headers)


async def _body(
    first: Chunk, rest: AsyncGenerator[Chunk, None], form: Callable[[Chunk], bytes]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):  # a reader that leaves takes its questions back at once
        yield form(first)
        async for chunk in rest:
            yield form(chunk)


def _plain(chunk: Chunk) -> bytes:
    return chunk.data


def _frame(chunk: Chunk) -> bytes:
    parts: list[bytes] = []
    for stream, piece in pieces(chunk.data, chunk.runs):
        parts += (_STREAM_BYTES[stream], len(piece).to_bytes(4, "big"), piece)
    return b"".join(parts)
