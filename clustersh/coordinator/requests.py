"""Requests for runs: each is recorded before anything comes of it, and the same one again is the same run."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..faultpoints import reached
from ..trust.identity import Identity
from ..wire.fleet import is_plain
from ..wire.jobs import Command
from ..wire.problems import Kind, Problem, ProblemError
from ..wire.rest import RunRequest
from . import history
from .chosen import Chosen, run_record, weight_of
from .expressions import shown
from .fleet import Fleet
from .index import Index
from .ledger import Ledger
from .open_runs import OpenJob, OpenRun, RunTable
from .pacing import widest
from .placement.placer import Placer
from .policy.policy import ApprovalNeeded, Passage, Policy
from .records import MachineRef, PolicyOverridden, RunRefused
from .registry import Key, Registry
from .targets import Targets


class RunBlobs(Protocol):
    """What a run's files need of the blob store."""

    async def hold(self, script: str, manifest: str) -> frozenset[str]:
        """Pin these ("" is none) and what the manifest names; return all. ProblemError where one is missing."""

    def let_go(self, blobs: frozenset[str]) -> None:
        """Take the pins away."""


class Dispatcher(Protocol):
    """What starts a run that is recorded."""

    def start(self, run: OpenRun) -> None:
        """Begin to send the run to its machines; it doesn't wait for any of them."""


class Requests:
    """Takes requests in, once each.

    *new_uuid* makes a UUIDv7; *secret* keys the digests, which cover secrets too. *placer* chooses the machines of runs
    that are placed, *pacer* starts those that don't go to all of theirs at once. *policy* judges each before anything
    comes of it.
    """

    def __init__(
        self,
        ledger: Ledger,
        index: Index,
        registry: Registry,
        targets: Targets,
        fleet: Fleet,
        blobs: RunBlobs,
        table: RunTable,
        dispatcher: Dispatcher,
        new_uuid: Callable[[], str],
        secret: bytes,
        placer: Placer,
        policy: Policy,
        pacer: Dispatcher | None = None,
    ) -> None:
        self._log = Logger()
        self._ledger = ledger
        self._index = index
        self._registry = registry
        self._targets = targets
        self._fleet = fleet
        self._blobs = blobs
        self._table = table
        self._dispatcher = dispatcher
        self._new_uuid = new_uuid
        self._secret = secret
        self._placer = placer
        self._policy = policy
        self._pacer = pacer
        self._under_way: dict[tuple[str, str], tuple[str, list[Deferred[str]]]] = {}

    async def take(self, caller: Identity, key: str, asked: RunRequest) -> str:
        """Return the uuid of the run that *caller* asks for under *key*: the same one for the same request.

        Raises ProblemError: what was refused stays refused under that key.
        """
        digest = self._digest(asked)
        waiter: Deferred[str] = Deferred()
        under_way = self._under_way.get((caller.id, key))
        if under_way is not None:
            _check_digest(under_way[0], digest)
            under_way[1].append(waiter)
            return await waiter
        self._under_way[caller.id, key] = (digest, [waiter])
        work = Deferred.fromCoroutine(self._take_once(caller, key, digest, asked))
        work.addErrback(lambda failure: self._log.failure("a request could not be taken in", failure=failure))
        return await waiter

    async def _take_once(self, caller: Identity, key: str, digest: str, asked: RunRequest) -> None:
        """Answer all that ask for this run at once; the first of them going away changes nothing."""
        uuid = ""
        problem: ProblemError | None = ProblemError(
            Kind.INTERNAL, "the coordinator could not take the request", started=None
        )
        try:
            uuid = await self._find_or_make(caller, key, digest, asked)
            problem = None
        except ProblemError as error:
            problem = error
        finally:
            for waiter in self._under_way.pop((caller.id, key))[1]:
                if not waiter.called:
                    waiter.errback(ProblemError.received(problem.problem)) if problem else waiter.callback(uuid)

    async def _find_or_make(self, caller: Identity, key: str, digest: str, asked: RunRequest) -> str:
        known = await self._known(caller, key)
        if known is not None:
            _check_digest(known.digest, digest)
            if known.problem is not None:
                raise ProblemError.received(known.problem)
            return known.uuid
        reached("run-asked")
        uuid = self._new_uuid()
        with self._placer.making(uuid):
            run = await self._make(caller, key, digest, asked, uuid)
        self._table.add(run)
        self._dispatcher_of(asked).start(run)
        self._log.info(
            "{uuid} {client} on {target}: {command}",
            uuid=run.uuid,
            client=caller.name,
            target=run.target,
            command=run.command[:200],
        )
        return run.uuid

    async def _make(self, caller: Identity, key: str, digest: str, asked: RunRequest, uuid: str) -> OpenRun:
        """Return the run once it is durable. Raises ProblemError; that it was refused is recorded too."""
        try:
            chosen = self.choose(caller, asked, uuid)
            verdict = await self._policy.judge(caller, asked, chosen.machines)
            self._policy.check(caller, asked, chosen.machines, verdict)
        except ApprovalNeeded as needed:
            if needed.new:  # it is not final: the same request runs once it is allowed
                await self._refuse(caller, "", digest, asked, uuid, needed.without_code)
            raise
        except ProblemError as error:
            if error.problem.kind is not Kind.RATE_LIMITED:  # else it is only not now
                await self._refuse(caller, key, digest, asked, uuid, error.problem)
            raise
        weight = weight_of(asked, len(chosen.machines))
        self._table.claim(caller.id, weight)
        try:
            passage = self._policy.let_pass(caller, asked, chosen.machines, verdict)
            try:
                return await self._record(caller, key, digest, asked, uuid, chosen, weight, passage)
            except BaseException:
                passage.give_back()
                raise
            finally:
                passage.let_go()
        except BaseException:
            self._table.give_back(caller.id, weight)
            raise

    def _dispatcher_of(self, asked: RunRequest) -> Dispatcher:
        if asked.pace is None:
            return self._dispatcher
        if self._pacer is None:
            raise ProblemError(Kind.BAD_REQUEST, "no such pace: this coordinator starts a run everywhere at once")
        return self._pacer

    async def _known(self, caller: Identity, key: str) -> history.KnownRun | None:
        """Return the run that was asked for under *key* before; a problem says that there may be one."""
        try:
            return await self._index.ask_of_key(
                caller.id, key, lambda connection: history.run_of_key(connection, caller.id, key)
            )
        except ProblemError as error:
            raise ProblemError.received(msgspec.structs.replace(error.problem, started=None)) from error

    async def _record(
        self,
        caller: Identity,
        key: str,
        digest: str,
        asked: RunRequest,
        uuid: str,
        chosen: Chosen,
        weight: int,
        passage: Passage,
    ) -> OpenRun:
        """Return the run once it is durable. Raises ProblemError."""
        script, files = asked.command.script, asked.files
        blobs = await self._blobs.hold(script.sha256 if script else "", files.sha256 if files else "")
        references = tuple(MachineRef(machine.name, machine.id) for machine in chosen.machines)
        try:
            if not is_plain(asked.target, asked.exclude):
                used = [machine.id for machine in chosen.machines if machine.id in chosen.named]
                await self._registry.take_into_use(used, caller)
            if passage.approver:
                by = (caller.name, caller.id, passage.approver, passage.rules)
                await self._ledger.append(PolicyOverridden(uuid, *by))
            entry = await self._ledger.append(run_record(caller, key, digest, asked, uuid, references, chosen))
        except BaseException:
            self._blobs.let_go(blobs)
            raise
        reached("run-recorded")
        for machine in chosen.machines:
            if machine.id in chosen.named:
                self._registry.used(machine.id)
        return OpenRun(
            uuid=uuid,
            client=caller.name,
            client_id=caller.id,
            target=asked.target,
            command=asked.command.text,
            cwd=asked.cwd,
            timeout_s=asked.timeout_s,
            requested=entry.time,
            jobs={machine.id: OpenJob(uuid, machine) for machine in references},
            raw=asked.raw,
            exclude=asked.exclude,
            skipped=chosen.skipped,
            selected=chosen.selected,
            left_out=chosen.left_out,
            request=asked,
            blobs=blobs,
            weight=weight,
            width=widest(len(chosen.machines), asked.pace),
        )

    def choose(self, caller: Identity, asked: RunRequest, uuid: str | None = None) -> Chosen:
        """Return the machines that the run *uuid* is for, from now on. Raises ProblemError where it can't be for any.

        Without a uuid nothing comes of it: it only tells.
        """
        self._dispatcher_of(asked)
        resolved = self._targets.resolve(asked.target, asked.exclude)
        machines = resolved.machines
        skipped: tuple[str, ...] = ()
        selected: tuple[str, ...] = ()
        if asked.skip_offline:
            away = ("offline", "unreachable")
            offline = {each.id for each in machines if self._fleet.status(each.id) in away}
            skipped = tuple(each.name for each in machines if each.id in offline)
            machines = tuple(each for each in machines if each.id not in offline)
        if not machines:
            said = shown(asked.target)
            nobody = f"all machines of {said} are offline" if skipped else f"{said} is no machine"
            raise ProblemError(Kind.EMPTY_TARGET, nobody, hint="see: clustersh machines")
        if asked.placement is not None:
            # What the target says by name is used by that from now on: it is new no more.
            waiting = {each.id for each in machines if each.new and self._targets.new_wait} - resolved.named
            known = tuple(each if each.id in waiting else replace(each, new=False) for each in machines)
            asked_for = self._asked_for(caller, asked, known)
            if asked_for:
                machines = asked_for
                selected = tuple(f"Selected {each.name}: an approval is for it" for each in asked_for)
            elif uuid:
                machines, selected = self._placer.place(uuid, known, asked.placement)
            else:
                machines, selected = self._placer.choose(known, asked.placement)
        return Chosen(machines, resolved.named, skipped, selected, resolved.left_out)

    def _asked_for(self, caller: Identity, asked: RunRequest, known: tuple[Key, ...]) -> tuple[Key, ...]:
        """Return the machines for which such a run has an approval, or waits for one, where they are still there."""
        there = {each.id for each in known if not each.new and self._fleet.status(each.id) == "online"}
        for ids in self._policy.asked_for(caller, asked):
            if ids <= there:
                return tuple(each for each in known if each.id in ids)
        return ()

    async def _refuse(
        self, caller: Identity, key: str, digest: str, asked: RunRequest, uuid: str, problem: Problem
    ) -> None:
        command = asked.command if len(asked.command.text) <= 4096 else Command(shell=asked.command.text[:4096])
        await self._ledger.append(RunRefused(uuid, caller.name, caller.id, key, digest, asked.target, command, problem))

    def _digest(self, asked: RunRequest) -> str:
        """Return a keyed hash of the canonical request: it covers the environment without giving it away."""
        canonical = msgspec.json.encode(asked, order="deterministic")
        return hmac.digest(self._secret, canonical, "sha256").hex()


def _check_digest(known: str, asked: str) -> None:
    if not hmac.compare_digest(known, asked):
        raise ProblemError(
            Kind.KEY_CONFLICT,
            "that idempotency key was used for another request",
            hint="choose another --key, or none",
        )
