"""Judges every run before anything comes of it: the client's limits first, then what its command would do.

Plain objects: what machines mean, what they are and what is under way is asked of the parts that know.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from ...config import Force, PolicyConfig, TargetPolicy
from ...trust.identity import Identity, Role
from ...wire.jobs import Command
from ...wire.policy import OnTarget, PolicyTest, PolicyView, RuleView
from ...wire.problems import Kind, Problem, ProblemError
from ...wire.rest import RunRequest
from ..guard import RULES, Finding
from ..pacing import widest
from ..registry import Key
from .client_limits import Busy, ClientLimits, Meaning, limits_of
from .kin import Kin
from .overrides import Override, Overrides
from .probes import lines_of_probe
from .rulebook import Rulebook
from .verdicts import ALLOWED, Ruling, Stop, Verdict, advice, no_script, refusal, worst_first
from .wanted import wanted

ITSELF = "itself"
"""The approver of a run that its client forced."""


class Judge(Protocol):
    """Who judges commands."""

    async def judge(
        self,
        command: Command,
        script: bytes | None,
        platform: str,
        folder: str = "",
        executor: str = "",
        *,
        client: str = "",
    ) -> tuple[Finding, ...]:
        """Return what `Guard.judge` does, for the client of that id. Raises ProblemError (rate-limited): not now."""


@dataclass(frozen=True)
class World:
    """What the policy asks of the others.

    *kin* is what a machine is now, by its id; *script* returns a script's bytes, None where there are none.
    """

    meaning: Meaning
    busy: Busy
    kin: Callable[[str], Kin]
    is_ai: Callable[[Identity], bool]
    script: Callable[[str], Awaitable[bytes | None]]
    clock: Callable[[], float]


@dataclass
class Passage:
    """A run that may pass: *approver* let it, over *rules*, where any stopped it."""

    rules: tuple[str, ...] = ()
    approver: str = ""
    let_go: Callable[[], None] = field(default=lambda: None)
    """Called once it is under way, or won't be."""
    give_back: Callable[[], None] = field(default=lambda: None)
    """Called where it won't be: an approval is good still."""


class ApprovalNeeded(ProblemError):
    """The run passes once an admin has typed the code in the hint; *new* says that the code was made now."""

    def __init__(self, refused: ProblemError, code: str, minutes: int, *, new: bool, host: str) -> None:
        on = f", on {host}" if host else ""
        left = "1 minute" if minutes == 1 else f"{minutes} minutes"
        hint = f"{refused.problem.hint}to have it allowed, once{on}: clusterd approve {code} ({left})\n"
        super().__init__(Kind.POLICY, str(refused), hint=f"{hint}then the same again with --force")
        self.new = new
        self.without_code: Problem = msgspec.structs.replace(self.problem, hint="an approval was asked for")


class Policy:
    """*secret* keys the digests of runs; *host* is where approvals are typed."""

    def __init__(
        self,
        config: PolicyConfig,
        guard: Judge,
        world: World,
        overrides: Overrides,
        secret: bytes,
        host: str = "",
    ) -> None:
        self._book = Rulebook(config, {name: rule.action.value for name, rule in RULES.items()})
        self._guard = guard
        self._world = world
        self._overrides = overrides
        self._secret = secret
        self._host = host
        self._limits = ClientLimits(world.meaning, world.busy, world.clock)

    def check_use(self, caller: Identity, machine: Key) -> None:
        """Raise ProblemError (policy) where the client's limits keep it from *machine*, whatever it wants there."""
        self._limits.check(caller, limits_of(self._book.of_client(caller.name)), [machine.name], 1)

    def usable(self, caller: Identity, machines: Sequence[Key]) -> list[Key]:
        """Return those of *machines* that the client may run something on. An admin may say of any that it is used."""
        if caller.role is Role.ADMIN or not machines:
            return list(machines)
        return self._limits.within(limits_of(self._book.of_client(caller.name)), machines)

    # -- before a run

    async def judge(self, caller: Identity, asked: RunRequest, machines: Sequence[Key]) -> Verdict:
        """Return what the policy says. Raises ProblemError (policy) where the client's limits forbid such a run."""
        limits = limits_of(self._book.of_client(caller.name))
        self._limits.check(caller, limits, [each.name for each in machines], widest(len(machines), asked.pace))
        script, unjudged = await self._script(asked.command)
        kins = [self._world.kin(machine.id) for machine in machines]  # which may be another by the time of the answer
        found = {kin: await self._findings(caller, asked, script, kin) for kin in dict.fromkeys(kins)}
        return Verdict(tuple(self._rulings(caller, machines, kins, found)), unjudged)

    def check(self, caller: Identity, asked: RunRequest, machines: Sequence[Key], verdict: Verdict) -> None:
        """Raise ProblemError (policy) unless such a run passes; ApprovalNeeded where an admin may let it."""
        if verdict.worst is None:
            return
        if not verdict.denied and verdict.force == "approve":
            self._check_approved(caller, asked, machines, verdict)
        elif verdict.denied or verdict.force == "never" or not asked.force:
            raise refusal(verdict, len(machines), advice(verdict))

    def let_pass(self, caller: Identity, asked: RunRequest, machines: Sequence[Key], verdict: Verdict) -> Passage:
        """Count a run that was checked just now, and use up its approval. Raises ProblemError: not now."""
        if verdict.unjudged:
            raise no_script()
        override = self._check_approved(caller, asked, machines, verdict) if verdict.force == "approve" else None
        limits = limits_of(self._book.of_client(caller.name))
        width = widest(len(machines), asked.pace)
        self._limits.claim(caller, limits, len(machines), width)
        passage = Passage(verdict.rules, let_go=lambda: self._limits.let_go(caller, width))
        if override is not None:
            passage.approver = override.approver
            self._overrides.take(override)
            passage.give_back = lambda: self._overrides.give_back(override)
        elif verdict.rules:
            passage.approver = ITSELF
        return passage

    def check_now(self, caller: Identity, asked: RunRequest, machines: Sequence[Key]) -> None:
        """Raise ProblemError (rate-limited) where such a run, which passes, would come too soon; nothing is counted."""
        limits = limits_of(self._book.of_client(caller.name))
        self._limits.check_now(caller, limits, len(machines), widest(len(machines), asked.pace))

    def asked_for(self, caller: Identity, asked: RunRequest) -> list[frozenset[str]]:
        """Return on which machines (their ids) that run waits for an approval, or has one; those that have first."""
        return [each.machines for each in self._overrides.anywhere(caller, self._digest(caller, asked))]

    def preview(
        self, caller: Identity, asked: RunRequest, machines: Sequence[Key], verdict: Verdict
    ) -> ProblemError | None:
        """Return what such a run would be refused for; no code is made, and nothing is counted."""
        if verdict.worst is None:
            return None
        waits = not verdict.denied and verdict.force == "approve"
        approved = waits and self._approved(caller, asked, machines) is not None
        if asked.force and (approved or (not verdict.denied and verdict.force == "self")):
            return None
        return refusal(verdict, len(machines), ALLOWED if approved else advice(verdict))

    # -- who asks what holds

    async def test(self, caller: Identity, asked: RunRequest, machines: Sequence[Key]) -> PolicyTest:
        """Return what would be said of such a run; nothing comes of it."""
        try:
            verdict = await self.judge(caller, asked, machines)
        except ProblemError as error:
            if error.problem.kind is not Kind.POLICY:
                raise
            return PolicyTest(passes=False, verdicts=(), force="never", problem=error.problem)
        refused = self.preview(caller, asked, machines, verdict)
        force = "" if verdict.worst is None else "never" if verdict.denied else verdict.force
        told = tuple(ruling.told for ruling in verdict.rulings)
        return PolicyTest(refused is None, told, force, refused.problem if refused else None, verdict.unjudged)

    def view(self, caller: Identity) -> PolicyView:
        """Return what holds for *caller*."""
        clients, ai = self._book.of_client(caller.name), self._world.is_ai(caller)
        limits = limits_of(clients)
        unknown: dict[str, None] = {}
        on: list[OnTarget] = []
        for expression, entry in self._book.config.target.items():
            names, missing = self._world.meaning.members(expression)
            unknown.update(dict.fromkeys(missing))
            on.append(OnTarget(expression, tuple(sorted(names)), entry.force, dict(entry.rules)))
        for expression in limits.targets:
            unknown.update(dict.fromkeys(self._world.meaning.members(expression)[1]))
        return PolicyView(
            client=caller.name,
            ai=ai,
            force=self._book.force(clients, (), ai=ai),
            rules=tuple(RuleView(name, self._book.action(name, clients, ()), rule.why) for name, rule in RULES.items()),
            targets=limits.targets,
            machines_at_once=limits.machines_at_once,
            jobs_per_minute=limits.jobs_per_minute,
            under_way=self._limits.under_way(caller.id),
            on=tuple(on),
            unknown=tuple(unknown),
        )

    # -- approvals

    def _check_approved(
        self, caller: Identity, asked: RunRequest, machines: Sequence[Key], verdict: Verdict
    ) -> Override:
        digest, ids = self._digest(caller, asked), _ids(machines)
        known = self._overrides.find(caller, digest, ids)
        if known is not None and known.approver:
            if asked.force:
                return known
            raise refusal(verdict, len(machines), ALLOWED)
        override = known or self._overrides.ask(caller, digest, ids, wanted(caller, asked, machines, verdict))
        raise ApprovalNeeded(
            refusal(verdict, len(machines), ""),
            override.code,
            self._overrides.minutes_left(override),
            new=known is None,
            host=self._host,
        )

    def _approved(self, caller: Identity, asked: RunRequest, machines: Sequence[Key]) -> Override | None:
        found = self._overrides.find(caller, self._digest(caller, asked), _ids(machines))
        return found if found is not None and found.approver else None

    def _digest(self, caller: Identity, asked: RunRequest) -> str:
        """Return a keyed hash of who does what: of all that was asked for but how it is answered."""
        same = msgspec.structs.replace(asked, force=False, limit_bytes=0)
        canonical = msgspec.json.encode((caller.id, same), order="deterministic")
        return hmac.digest(self._secret, b"override\0" + canonical, "sha256").hex()

    # -- what the guard says

    async def _script(self, command: Command) -> tuple[bytes | None, bool]:
        if command.script is None:
            return None, False
        script = await self._world.script(command.script.sha256)
        return script, script is None

    async def _findings(self, caller: Identity, asked: RunRequest, script: bytes | None, kin: Kin) -> list[Finding]:
        command, found = asked.command, list[Finding]()
        for each in (command, *lines_of_probe(command)):
            if each.script is not None and script is None:
                continue
            found += await self._guard.judge(each, script, kin.system, asked.cwd, kin.executor, client=caller.id)
        return found

    def _rulings(
        self,
        caller: Identity,
        machines: Sequence[Key],
        kins: Sequence[Kin],
        found: Mapping[Kin, Sequence[Finding]],
    ) -> list[Ruling]:
        alike: dict[tuple[Kin, tuple[int, ...]], list[str]] = {}
        entries = list(self._book.config.target.items()) if any(found.values()) else []
        members = [self._world.meaning.members(expression)[0] for expression, _ in entries]
        for machine, kin in zip(machines, kins, strict=True):
            held = tuple(number for number, names in enumerate(members) if machine.name in names)
            alike.setdefault((kin, held), []).append(machine.name)
        return [
            self._ruling(caller, tuple(names), kin.system, [entries[number][1] for number in held], found[kin])
            for (kin, held), names in alike.items()
        ]

    def _ruling(
        self,
        caller: Identity,
        names: tuple[str, ...],
        system: str,
        targets: Sequence[TargetPolicy],
        found: Sequence[Finding],
    ) -> Ruling:
        clients = self._book.of_client(caller.name)
        stops = (
            Stop(each.rule, self._book.action(each.rule, clients, targets), each.why, each.where) for each in found
        )
        force: Force = self._book.force(clients, targets, ai=self._world.is_ai(caller))
        return Ruling(names, system, worst_first(stop for stop in stops if stop.action != "allow"), force)


def _ids(machines: Sequence[Key]) -> frozenset[str]:
    return frozenset(machine.id for machine in machines)
