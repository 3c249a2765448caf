"""REST: runs, and who is asking. docs/rest.md lists the calls."""

from __future__ import annotations

from typing import Any

from .. import __version__
from ..wire import ids
from ..wire.link import PATH
from ..wire.problems import Kind, ProblemError
from ..wire.queries import EndsQuery, RequestQuery, RunQuery
from ..wire.rest import Cancelled, Ends, Run, RunRequest, Whoami
from .api import Api
from .callers import Caller
from .fleet import Fleet
from .http import Request, wait_seconds
from .link_server import LinkFactory
from .registry import Registry
from .requests import Requests
from .routes import AGENTS, CLIENTS, IDEMPOTENCY_KEY, WAIT, Answer
from .run_names import RunNames
from .run_views import RunViews
from .runs import Runs


class RunCalls:
    """The calls of clients about runs and machines, and the door to the link."""

    def __init__(
        self,
        runs: Runs,
        requests: Requests,
        views: RunViews,
        names: RunNames,
        registry: Registry,
        fleet: Fleet,
        links: LinkFactory,
        host: str,
    ) -> None:
        self._runs = runs
        self._requests = requests
        self._views = views
        self._names = names
        self._registry = registry
        self._fleet = fleet
        self._links = links
        self._host = host

    def add_to(self, api: Api) -> None:
        """Register every call of this family."""
        named = (Kind.UNKNOWN_RUN, Kind.AMBIGUOUS_ID)
        refused = (Kind.UNKNOWN_MACHINE, Kind.UNKNOWN_GROUP, Kind.EMPTY_TARGET, Kind.UNKNOWN_BLOB)
        api.add("GET", "/v1/whoami", self.whoami, CLIENTS)
        api.add(
            "POST",
            "/v1/runs",
            self.request_run,
            CLIENTS,
            RunRequest,
            query=RequestQuery,
            headers=(IDEMPOTENCY_KEY, WAIT),
            answers={200: Run, 202: Run},
            problems=(
                *(*refused, Kind.POLICY, Kind.KEY_CONFLICT, Kind.TOO_LARGE),
                *(Kind.RATE_LIMITED, Kind.STORAGE, Kind.UNAVAILABLE),
            ),
        )
        api.add(
            "GET",
            "/v1/runs/<id>",
            self.run,
            CLIENTS,
            query=RunQuery,
            headers=(WAIT,),
            answers={200: Run, 202: Run},
            problems=(*named, *refused),
        )
        api.add("GET", "/v1/runs/<id>/ends", self.ends, CLIENTS, query=EndsQuery, headers=(WAIT,), problems=named)
        api.add("POST", "/v1/runs/<id>/cancel", self.cancel_run, CLIENTS, problems=(*named, Kind.STORAGE))
        api.add("GET", PATH, self.link, AGENTS, answers={101: None})

    # -- who is asking

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

    # -- runs

    async def request_run(self, request: Request, caller: Caller, body: RunRequest, query: RequestQuery) -> Answer:
        """Take a run in, and wait for it as long as asked."""
        key = request.getHeader("Idempotency-Key") or ""
        if not ids.IDEMPOTENCY_KEY.fullmatch(key):
            raise ProblemError(
                Kind.BAD_REQUEST,
                "a run needs an Idempotency-Key header of 1 to 128 printable ASCII characters",
                hint="make one for each run, and send the same one when you repeat a request",
            )
        uuid = await self._requests.take(caller.identity, key, body)
        return await self._answer(request, uuid, body.limit_bytes, fold=query.fold)

    async def run(self, request: Request, caller: Caller, id: str, query: RunQuery) -> Answer:
        """Tell of a run, after waiting for its end as long as asked."""
        uuid = await self._names.uuid(id)
        restricted = query.target or query.exclude
        only = await self._names.on(uuid, query.target, query.exclude) if restricted else frozenset[str]()
        return await self._answer(request, uuid, query.limit, fold=query.fold, only=only)

    async def _answer(
        self, request: Request, uuid: str, limit: int, *, fold: bool, only: frozenset[str] = frozenset()
    ) -> Answer:
        async def settled() -> Run:
            await self._runs.settle(uuid, wait_seconds(request))
            return await self._views.run(uuid, limit, fold=fold, only=only)

        found = await request.unless_gone(settled())
        return Answer(found, 200 if found.ended else 202)

    async def ends(self, request: Request, caller: Caller, id: str, query: EndsQuery) -> Ends:
        """Tell which jobs of a run have ended, in that order, after waiting for the next as long as asked."""
        uuid = await self._names.uuid(id)

        async def told() -> Ends:
            await self._runs.more_ends(uuid, query.after, wait_seconds(request))
            return await self._views.ends(uuid, query.after, query.limit)

        return await request.unless_gone(told())

    async def cancel_run(self, request: Request, caller: Caller, id: str) -> Cancelled:
        """End a run on every machine."""
        return await self._runs.cancel(caller.identity, await self._names.uuid(id))

    # -- the link

    async def link(self, request: Request, caller: Caller) -> Any:
        """Let an agent's WebSocket in."""
        machine = self._registry.machine_by_id(caller.identity.id)
        if machine is None:
            raise ProblemError(Kind.WRONG_ROLE, "a link is an agent's")
        return self._links.taking(machine)
