"""REST: runs, jobs, their output and stdin, and who and what is here. docs/rest.md lists the calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from autobahn.twisted.resource import WebSocketResource

from .. import __version__
from ..wire import units
from ..wire.ids import IDEMPOTENCY_KEY
from ..wire.jobs import HEAD_LIMIT, State
from ..wire.link import PATH, Chunk
from ..wire.output import Stream, pieces
from ..wire.problems import Kind, ProblemError
from ..wire.rest import (
    FRAMES,
    MAX_STDIN_PIECE,
    Cancelled,
    Job,
    JobPage,
    Machine,
    Machines,
    Run,
    RunRequest,
    StdinProgress,
    Whoami,
)
from . import history
from .api import AGENTS, CLIENTS, Answer, Api, Bytes
from .callers import Caller
from .fleet import Fleet, Seen
from .http import Request, wait_seconds
from .index import Index
from .link_server import LinkFactory
from .outputs import Outputs, Wanted
from .records import MachineRef
from .registry import Key, Registry
from .requests import Requests
from .run_views import RunViews
from .runs import Runs

OCTETS = "application/octet-stream"
_STREAM_BYTES = {Stream.STDOUT: b"\x01", Stream.STDERR: b"\x02"}


class RunCalls:
    """The calls of clients, and the door to the link."""

    def __init__(
        self,
        runs: Runs,
        requests: Requests,
        views: RunViews,
        index: Index,
        registry: Registry,
        fleet: Fleet,
        outputs: Outputs,
        links: LinkFactory,
        host: str,
    ) -> None:
        self._runs = runs
        self._requests = requests
        self._views = views
        self._index = index
        self._registry = registry
        self._fleet = fleet
        self._outputs = outputs
        self._links = links
        self._host = host

    def add_to(self, api: Api) -> None:
        """Register every call of this family."""
        job = "/v1/jobs/<machine>/<id>"
        api.add("GET", "/v1/whoami", self.whoami, CLIENTS)
        api.add("GET", "/v1/machines", self.machines, CLIENTS)
        api.add("POST", "/v1/runs", self.request_run, CLIENTS, RunRequest)
        api.add("GET", "/v1/runs/<id>", self.run, CLIENTS)
        api.add("POST", "/v1/runs/<id>/cancel", self.cancel_run, CLIENTS)
        api.add("GET", "/v1/jobs", self.jobs, CLIENTS)
        api.add("GET", job, self.job, CLIENTS)
        api.add("POST", f"{job}/cancel", self.cancel_job, CLIENTS)
        api.add("GET", f"{job}/output", self.output, CLIENTS)
        api.add("PUT", f"{job}/stdin", self.stdin, CLIENTS, Bytes(MAX_STDIN_PIECE))
        api.add("GET", PATH, self.link, AGENTS)

    # -- who and what is here

    async def whoami(self, request: Request, caller: Caller) -> Whoami:
        """Tell the caller who it is taken for."""
        return Whoami(
            name=caller.identity.name,
            role=caller.identity.role.value,
            id=caller.identity.id,
            fingerprint=caller.fingerprint,
            coordinator_version=__version__,
            machines=len(self._registry.machines()),
            online=len(self._fleet.online),
            host=self._host,
        )

    async def machines(self, request: Request, caller: Caller) -> Machines:
        """List the machines."""
        return Machines(tuple(self.machine_view(key) for key in self._registry.machines()))

    def machine_view(self, key: Key) -> Machine:
        """Return a machine as REST tells it."""
        seen = self._fleet.seen.get(key.id)
        known = seen or Seen(0.0)
        return Machine(
            name=key.name,
            id=key.id,
            platform=known.facts.platform,
            status=self._fleet.status(key.id),
            last_seen=units.timestamp(seen.at) if seen else None,
            new=key.new,
            address=known.address or key.address,
            fingerprint=key.fingerprint,
            version=known.version,
            enrolled=key.enrolled,
            facts=known.facts,
        )

    # -- runs

    async def request_run(self, request: Request, caller: Caller, body: RunRequest) -> Answer:
        """Take a run in, and wait for it as long as asked."""
        key = request.getHeader("Idempotency-Key") or ""
        if not IDEMPOTENCY_KEY.fullmatch(key):
            raise ProblemError(
                Kind.BAD_REQUEST,
                "a run needs an Idempotency-Key header of 1 to 128 printable ASCII characters",
                hint="make one for each run, and send the same one when you repeat a request",
            )
        uuid = await self._requests.take(caller.identity, key, body)
        return await self._answer(request, uuid, body.limit_bytes)

    async def run(self, request: Request, caller: Caller, id: str) -> Answer:
        """Tell of a run, after waiting for its end as long as asked."""
        return await self._answer(request, await self._uuid(id), _number(request, "limit", HEAD_LIMIT))

    async def _answer(self, request: Request, uuid: str, limit: int) -> Answer:
        found = await request.unless_gone(self._run_view(uuid, wait_seconds(request), limit))
        return Answer(found, 200 if found.ended else 202)

    async def _run_view(self, uuid: str, wait_s: float, limit: int) -> Run:
        await self._runs.settle(uuid, wait_s)
        return await self._views.run(uuid, limit)

    async def cancel_run(self, request: Request, caller: Caller, id: str) -> Cancelled:
        """End a run on every machine."""
        return await self._cancel(caller, await self._uuid(id))

    async def _cancel(self, caller: Caller, uuid: str, machine_id: str | None = None) -> Cancelled:
        if self._runs.find(uuid) is None:
            _, jobs = await self._index.ask(lambda connection: history.run_row(connection, uuid))
            return Cancelled(uuid, (), tuple(job.machine for job in jobs))
        return await self._runs.cancel(caller.identity, uuid, machine_id)

    # -- jobs

    async def jobs(self, request: Request, caller: Caller) -> JobPage:
        """List jobs, newest first."""
        wanted = history.Filter(
            machine=(request.query("machine") or "").lower(),
            client=(request.query("client") or "").lower(),
            states=tuple(_state(text) for text in request.query_all("status")),
            since=_since(request.query("since")),
            before=await self._uuid(request.query("before") or "") if request.query("before") else "",
            limit=_number(request, "limit", 100),
        )
        if wanted.machine:
            await self._check_machine(wanted.machine)
        page = await self._index.ask(lambda connection: history.jobs(connection, wanted))
        return JobPage(tuple(self._views.live(job) for job in page.jobs), page.next)

    async def _check_machine(self, name: str) -> None:
        """Raise ProblemError unless there is, or ever was, a machine of that name."""
        try:
            self._registry.machine(name)
        except ProblemError:
            if not await self._index.ask(lambda connection: history.was_machine(connection, name)):
                raise

    async def job(self, request: Request, caller: Caller, machine: str, id: str) -> Job:
        """Tell of one job, after waiting for its end as long as asked."""
        uuid, reference = await self._job(machine, id)
        found = await request.unless_gone(
            self._run_view(uuid, wait_seconds(request), _number(request, "limit", HEAD_LIMIT))
        )
        return next(job for job in found.jobs if job.machine == reference.name)

    async def cancel_job(self, request: Request, caller: Caller, machine: str, id: str) -> Cancelled:
        """End a run on one machine."""
        uuid, reference = await self._job(machine, id)
        return await self._cancel(caller, uuid, reference.id)

    async def output(self, request: Request, caller: Caller, machine: str, id: str) -> Answer:
        """Stream a job's output, or a part of it."""
        uuid, reference = await self._job(machine, id)
        stream = _stream(request.query("stream"))
        await self._views.check_has_output(uuid, reference)
        wanted = Wanted(
            machine_id=reference.id,
            uuid=uuid,
            stream=stream,
            offset=_number(request, "offset", 0),
            length=_number(request, "length", None),
            follow=_flag(request, "follow"),
        )
        tail = _number(request, "tail", 0)
        first, chunks = await request.unless_gone(self._begin(wanted, tail))
        headers = {
            "Clustersh-Offset": str(first.offset),
            "Clustersh-Size": str(first.size),
            "Clustersh-Ended": "true" if first.ended else "false",
        }
        body = _body(first, chunks, _frame if stream is Stream.BOTH else _plain)
        return Answer(body, 200, FRAMES if stream is Stream.BOTH else OCTETS, headers)

    async def _begin(self, wanted: Wanted, tail: int) -> tuple[Chunk, AsyncIterator[Chunk]]:
        """Return the first chunk, whose absence is still an error that can be told, and the rest."""
        if tail:
            offset = await self._outputs.tail_offset(wanted, tail)
            wanted = Wanted(wanted.machine_id, wanted.uuid, wanted.stream, offset, wanted.length, wanted.follow)
        chunks = self._outputs.chunks(wanted)
        return await anext(chunks), chunks

    async def stdin(self, request: Request, caller: Caller, machine: str, id: str, body: bytes) -> StdinProgress:
        """Take a numbered piece of stdin; answered when the process took it."""
        uuid, reference = await self._job(machine, id)
        return await self._outputs.write_stdin(
            reference.id, uuid, _number(request, "offset", 0), body, _flag(request, "end")
        )

    # -- the link

    async def link(self, request: Request, caller: Caller) -> Any:
        """Let an agent's WebSocket in."""
        return WebSocketResource(self._links)

    # -- names

    async def _uuid(self, text: str) -> str:
        return await self._index.ask(lambda connection: history.find_uuid(connection, text))

    async def _job(self, machine: str, text: str) -> tuple[str, MachineRef]:
        uuid = await self._uuid(text)
        return uuid, await self._index.ask(lambda connection: history.machine_of(connection, uuid, machine))


async def _body(first: Chunk, rest: AsyncIterator[Chunk], form: Callable[[Chunk], bytes]) -> AsyncIterator[bytes]:
    yield form(first)
    async for chunk in rest:
        yield form(chunk)


def _plain(chunk: Chunk) -> bytes:
    return chunk.data


def _frame(chunk: Chunk) -> bytes:
    frames = bytearray()
    for stream, piece in pieces(chunk.data, chunk.runs):
        frames += _STREAM_BYTES[stream] + len(piece).to_bytes(4, "big") + piece
    return bytes(frames)


def _number(request: Request, name: str, default: Any) -> Any:
    """Return a query parameter that is a whole number of 0 or more. Raises ProblemError."""
    text = request.query(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ProblemError(Kind.BAD_REQUEST, f"{name} must be a whole number of 0 or more")
    return int(text)


def _flag(request: Request, name: str) -> bool:
    text = request.query(name)
    if text not in (None, "true", "false"):
        raise ProblemError(Kind.BAD_REQUEST, f"{name} is true or false")
    return text == "true"


def _stream(text: str | None) -> Stream:
    try:
        return Stream(text or "both")
    except ValueError as error:
        raise ProblemError(Kind.BAD_REQUEST, "stream is one of stdout, stderr, both") from error


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError as error:
        raise ProblemError(Kind.BAD_REQUEST, f"status is one of {', '.join(State)}") from error


def _since(text: str | None) -> float:
    if not text:
        return 0.0
    try:
        return units.parse_timestamp(text)
    except ValueError as error:
        raise ProblemError(Kind.BAD_REQUEST, "since is an RFC 3339 time such as 2026-11-20T10:31:07Z") from error
