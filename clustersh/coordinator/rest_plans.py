"""REST: what a run would do, without doing it."""

from __future__ import annotations

from ..wire.fleet import Plan, PlannedMachine
from ..wire.problems import Problem, ProblemError
from ..wire.rest import RunRequest
from ..wire.units import timestamp
from .api import Api
from .callers import Caller
from .chosen import Chosen, weight_of
from .fleet import Fleet
from .http import Request
from .pacing import batches
from .policy.policy import Policy
from .registry import Key
from .requests import Requests
from .routes import CLIENTS


class PlanCalls:
    """``/v1/plans``."""

    def __init__(self, requests: Requests, fleet: Fleet, policy: Policy) -> None:
        self._requests = requests
        self._fleet = fleet
        self._policy = policy

    def add_to(self, api: Api) -> None:
        """Add the call."""
        api.add("POST", "/v1/plans", self.plan, CLIENTS, RunRequest)

    async def plan(self, request: Request, caller: Caller, body: RunRequest) -> Plan:
        """Tell what a request for a run would do now; nothing is recorded, placed or started.

        What it would be refused for is in `problem`. Files needn't be there yet.
        """
        try:
            chosen = self._requests.choose(caller.identity, body)
            weight_of(body, len(chosen.machines))
            verdict = await self._policy.judge(caller.identity, body, chosen.machines)
        except ProblemError as error:
            return _plan(body, Chosen((), frozenset()), (), error.problem)
        machines = await request.unless_gone(self._machines(body, chosen))
        refused = self._policy.preview(caller.identity, body, chosen.machines, verdict)
        return _plan(body, chosen, machines, refused.problem if refused else None, unjudged=verdict.unjudged)

    async def _machines(self, body: RunRequest, chosen: Chosen) -> tuple[PlannedMachine, ...]:
        """Return the machines as a run would find them: those that are expected back are waited for."""
        for machine in chosen.machines:
            await self._fleet.until_back(machine.id)
        keys = {machine.id: machine for machine in chosen.machines}
        paced = enumerate(batches([*keys], body.pace), 1)
        return tuple(self._planned(keys[machine_id], number) for number, batch in paced for machine_id in batch)

    def _planned(self, key: Key, batch: int) -> PlannedMachine:
        seen = self._fleet.seen.get(key.id)
        last_seen, unreached = timestamp(seen.at) if seen else None, self._fleet.unreached(key.id)
        return PlannedMachine(key.name, self._fleet.status(key.id), batch, last_seen, unreached)


def _plan(
    asked: RunRequest,
    chosen: Chosen,
    machines: tuple[PlannedMachine, ...],
    problem: Problem | None = None,
    *,
    unjudged: bool = False,
) -> Plan:
    return Plan(
        would_start=problem is None and all(machine.status == "online" for machine in machines),
        target=asked.target,
        command=asked.command,
        exclude=asked.exclude,
        machines=machines,
        skipped=chosen.skipped,
        selected=chosen.selected,
        problem=problem,
        cwd=asked.cwd,
        env=tuple(sorted(asked.env)),
        timeout_s=asked.timeout_s,
        idle_timeout_s=asked.idle_timeout_s,
        stdin=asked.stdin,
        files=asked.files,
        keep_files=asked.keep_files,
        unjudged=unjudged,
        left_out=chosen.left_out,
    )
