"""Machines that only have SSH: a client has an agent carry them, which lets each in as a machine of its own.

The agent gets a join token for one use, made for this name and this agent, and pairs with it as any machine does. What
lets it in is that a client asked for it that may use the gateway: it needs no approval, however machines are enrolled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from ..trust.identity import Identity
from ..wire.adopting import AdoptedMachine, AdoptMachine
from ..wire.ids import clean_name, machine_name
from ..wire.link import Adopt, Adopted, AskHosts, HostList
from ..wire.problems import Kind, ProblemError
from .bus import Answer, Question
from .fleet import Fleet
from .pairing import Pairings
from .policy.policy import Policy
from .records import Adoption
from .registry import Key, Registry
from .tokens import JoinTokens

TOKEN_S = 120.0
ONLINE_S = 10.0


class Adoptions:
    """Has agents carry machines. *host* is what the coordinator's host is called.

    *policy* says which machines a client may use.
    """

    def __init__(
        self,
        registry: Registry,
        fleet: Fleet,
        tokens: JoinTokens,
        pairings: Pairings,
        host: Callable[[], str],
        policy: Policy,
    ) -> None:
        self._registry = registry
        self._fleet = fleet
        self._tokens = tokens
        self._pairings = pairings
        self._host = host
        self._policy = policy

    async def adopt(self, asked: AdoptMachine, client: Identity) -> AdoptedMachine:
        """Do what *client* asks for. Raises ProblemError."""
        gateway = self._gateway(asked.via, client)
        name = _name(asked)
        done = AdoptedMachine(name, asked.destination, gateway.name, dry_run=asked.dry_run)
        known = self._registry.find(name)
        carrier = known.carrier if known is not None else None
        if carrier is not None and (carrier.machine_id, carrier.destination) == (gateway.id, asked.destination):
            return AdoptedMachine(name, asked.destination, gateway.name, already=True, dry_run=asked.dry_run)
        if known is not None:
            raise self._taken(known, asked.destination, gateway)
        self._registry.check_join(gateway.role, name, "")
        if asked.dry_run:
            await self._have_it_adopted(gateway, name, asked.destination, "")
            return done
        token, _ = await self._tokens.create(TOKEN_S, 1)
        adoption = Adoption(gateway.id, gateway.name, asked.destination, client.name, client.id)
        try:
            with self._pairings.adopting(token.id, name, adoption):
                await self._have_it_adopted(gateway, name, asked.destination, token.text)
        except BaseException:
            with contextlib.suppress(ProblemError):
                await self._tokens.revoke(token.id)
            raise
        if (machine := self._registry.find(name)) is not None:
            await self._take_into_use(machine, client)
            await self._fleet.until_online(machine.id, ONLINE_S)
        return done

    async def hosts(self, via: str, client: Identity) -> tuple[Key, tuple[str, ...]]:
        """Return the gateway, and the hosts in its user's ssh configuration. Raises ProblemError."""
        gateway = self._gateway(via, client)
        answer = await self._ask(gateway, AskHosts)
        assert isinstance(answer, HostList)
        return gateway, answer.hosts

    async def _take_into_use(self, machine: Key, client: Identity) -> None:
        """Who adopts a machine names it, as a run does; but not who may run nothing on it.

        Else that client could have the runs of others, on ``all`` machines, reach one that it chose.
        """
        usable = self._policy.usable(client, [machine])
        await self._registry.take_into_use([each.id for each in usable], client)

    def _gateway(self, via: str, client: Identity) -> Key:
        """Return the machine whose agent is to carry others for *client*. Raises ProblemError."""
        gateway = self._named(via)
        self._policy.check_use(client, gateway)
        return gateway

    def _named(self, via: str) -> Key:
        if via:
            machine = self._registry.machine(via)
            if machine.carrier is not None:
                raise ProblemError(Kind.BAD_REQUEST, f"{machine.name} is carried by {machine.carrier.gateway} itself")
            return machine
        machines = [machine for machine in self._registry.machines() if machine.carrier is None]
        here = [machine for machine in machines if self._is_here(machine)]
        for few in (machines, here):
            if len(few) == 1:
                return few[0]
        if not machines:
            raise ProblemError(
                Kind.UNKNOWN_MACHINE, "no machine has joined yet that could carry others", hint="clusteragent enroll"
            )
        raise ProblemError(
            Kind.BAD_REQUEST,
            f"which of {len(machines)} machines is to carry it?",
            hint=f"clustersh adopt --via {self._best(machines).name} ...",
        )

    def _taken(self, known: Key, destination: str, gateway: Key) -> ProblemError:
        """Return why *gateway* can't carry *destination* by the name of the machine *known*."""
        free = f"if {destination} is another machine: --name {self._registry.free_name(known.role, known.name)}"
        if known.carrier is None:
            what = f"{known.name} is a machine with an agent of its own"
            use = f"there is nothing to adopt: clustersh run {known.name} COMMAND"
            hints = [use, free]
            if gateway.id != known.id:
                hints.append(f"to have {gateway.name} carry it instead, on {known.name} first: clusteragent leave")
            return ProblemError(Kind.NAME_TAKEN, what, hint="\n".join(hints))
        what = f"{known.name} is carried already: by {known.carrier.gateway}, as {known.carrier.destination}"
        instead = f"to have {gateway.name} carry it, first on the coordinator: clusterd forget {known.name}"
        return ProblemError(Kind.NAME_TAKEN, what, hint=f"{free}\n{instead}")

    def _best(self, machines: Sequence[Key]) -> Key:
        """Return which of *machines* is proposed as the gateway: one that is in use, online, and here."""

        def lacks(machine: Key) -> tuple[bool, bool, bool]:
            return machine.new, self._fleet.status(machine.id) != "online", not self._is_here(machine)

        return min(machines, key=lacks)

    def _is_here(self, machine: Key) -> bool:
        seen = self._fleet.seen.get(machine.id)
        return seen is not None and seen.facts.hostname == self._host()

    async def _have_it_adopted(self, gateway: Key, name: str, destination: str, token: str) -> None:
        answer = await self._ask(gateway, lambda request: Adopt(request, name, destination, token))
        assert isinstance(answer, Adopted)
        if answer.problem:
            hint = " ".join(answer.hint.split())  # one line, whatever the agent says
            raise ProblemError(Kind.UNREACHABLE, f"{gateway.name}: {answer.problem}", hint=hint)

    async def _ask(self, gateway: Key, question: Callable[[int], Question]) -> Answer:
        if self._fleet.epoch(gateway.id) is None:
            raise ProblemError(Kind.UNREACHABLE, f"{gateway.name} is offline", hint="see: clustersh machines")
        try:
            return await self._fleet.ask(gateway.id, question)
        except ProblemError as error:
            if error.problem.kind is not Kind.OUTPUT_UNAVAILABLE:
                raise
            why = f"{gateway.name} has gone offline, or does not answer"
            raise ProblemError(Kind.UNREACHABLE, why, hint="see: clustersh machines") from error


def _name(asked: AdoptMachine) -> str:
    host = asked.destination.rpartition("@")[2].partition("%")[0]
    try:
        return machine_name(asked.name or clean_name(host))
    except ValueError as error:
        raise ProblemError(Kind.BAD_REQUEST, str(error)) from error
