"""REST: what a run would do, without doing it."""

from __future__ import annotations

import msgspec

from ..trust.identity import Identity
from ..wire.fleet import Plan, PlannedMachine
from ..wire.policy import PolicyTest
from ..wire.problems import ProblemError
from ..wire.rest import RunRequest
from ..wire.units import timestamp
from .api import Api
from .callers import Caller
from .chosen import Chosen, weight_of
from .fleet import Fleet
from .http import Request
from .open_runs import RunTable
from .pacing import batches
from .policy.policy import Policy
from .policy.verdicts import no_script
from .registry import Key
from .requests import Requests
from .routes import CLIENTS


class PlanCalls:
    """``/v1/plans``."""

    def __init__(self, requests: Requests, fleet: Fleet, policy: Policy, table: RunTable) -> None:
        self._requests = requests
        self._fleet = fleet
        self._policy = policy
        self._table = table

    def add_to(self, api: Api) -> None:
        """Add the call."""
        api.add("POST", "/v1/plans", self.plan, CLIENTS, RunRequest)

    async def plan(self, request: Request, caller: Caller, body: RunRequest) -> Plan:
        """Tell what a request for a run would do now; nothing is recorded, placed or started.

        What it would be refused for is in `problem`. Files needn't be there yet, but its script is judged.
        """
        try:
            chosen = self._requests.choose(caller.identity, body)
        except ProblemError as error:
            return _plan(body, Chosen((), frozenset()), (), PolicyTest(False, (), problem=error.problem))
        said = await request.unless_gone(self._said(caller.identity, body, chosen))
        machines = await request.unless_gone(self._machines(body, chosen))
        return _plan(body, chosen, machines, said)

    async def _said(self, caller: Identity, body: RunRequest, chosen: Chosen) -> PolicyTest:
        """Return what the policy says; what else keeps such a run from being taken in now is the problem, too."""
        said = PolicyTest(False, ())
        try:
            said = await self._policy.test(caller, body, chosen.machines)
            if said.problem is None:
                self._table.check_room(caller.id, weight_of(body, len(chosen.machines)))
                if said.unjudged:
                    raise no_script()
                self._policy.check_now(caller, body, chosen.machines)
        except ProblemError as error:
            return msgspec.structs.replace(said, problem=error.problem)
        return said

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


def _plan(asked: RunRequest, chosen: Chosen, machines: tuple[PlannedMachine, ...], said: PolicyTest) -> Plan:
    return Plan(
        would_start=said.problem is None and all(machine.status == "online" for machine in machines),
        target=asked.target,
        command=asked.command,
        exclude=asked.exclude,
        machines=machines,
        skipped=chosen.skipped,
        selected=chosen.selected,
        problem=said.problem,
        cwd=asked.cwd,
        env=tuple(sorted(asked.env)),
        timeout_s=asked.timeout_s,
        idle_timeout_s=asked.idle_timeout_s,
        stdin=asked.stdin,
        files=asked.files,
        keep_files=asked.keep_files,
        unjudged=said.unjudged,
        verdicts=said.verdicts,
        force=said.force,
        left_out=chosen.left_out,
    )
