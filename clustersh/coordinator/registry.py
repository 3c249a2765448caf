"""The trusted list: every key that may speak here, and the machines and clients they stand for.

It is a projection of the ledger, kept in memory: each request asks it, so that a revocation holds at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from ..trust.identity import Identity, Role
from ..wire.problems import Kind, ProblemError
from ..wire.tailnet import TailnetIdentity
from .claims import Claims, join_again, to_free
from .close_names import did_you_mean
from .index import Index
from .key_book import Key, KeyBook, Roster, key_of, read_keys
from .ledger import Ledger
from .ledger_files import Entry
from .records import (
    Accepted,
    Adoption,
    Enrolled,
    Forgotten,
    Record,
    Renamed,
    Revoked,
    StoreSeen,
    TailnetSeen,
    begins_new,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

__all__ = ["Key", "Registry"]


class Registry:
    """Who is trusted. *issue* makes a certificate (DER) for an identity and a key."""

    def __init__(
        self,
        ledger: Ledger,
        index: Index,
        issue: Callable[[Identity, EllipticCurvePublicKey], bytes],
    ) -> None:
        self._ledger = ledger
        self._index = index
        self._issue = issue
        self._book = KeyBook()
        self._claims = Claims(self._book)
        self._ended_watchers: list[Callable[[Key], None]] = []
        self._renamed_watchers: list[Callable[[Key], None]] = []

    async def load(self) -> None:
        """Read the trusted list from the index."""
        for key in await self._index.ask(read_keys):
            self._book.enter(key)

    def watch_ended(self, watcher: Callable[[Key], None]) -> None:
        """Have *watcher* called with each key that loses its trust."""
        self._ended_watchers.append(watcher)

    def watch_renamed(self, watcher: Callable[[Key], None]) -> None:
        """Have *watcher* called with each key that is called otherwise from now on."""
        self._renamed_watchers.append(watcher)

    # -- asked at every request

    def check(self, identity: Identity, fingerprint: str) -> Identity:
        """Return whom that key stands for now: an older certificate of it may hold a name that is another's by now.

        Raises ProblemError (untrusted) unless the key is trusted in that role.
        """
        key = self._book.by_fingerprint.get(fingerprint)
        if key is None:
            raise ProblemError(Kind.UNTRUSTED, "this key was never let in here", hint=join_again(identity.role))
        if key.ended:
            verb = "forgotten" if key.role is Role.AGENT else "revoked"
            raise ProblemError(Kind.UNTRUSTED, f"the key of {key.name} was {verb}", hint=join_again(key.role))
        if (key.role, key.id) != (identity.role, identity.id):
            raise ProblemError(Kind.UNTRUSTED, "this key was let in under another identity")
        return Identity(key.role, key.name, key.id)

    # -- machines

    def machines(self) -> list[Key]:
        """The trusted machines, by name."""
        return list(self._book.roster.machines)

    @property
    def roster(self) -> Roster:
        """The trusted machines, by name, and which of them are new."""
        return self._book.roster

    def find(self, name: str) -> Key | None:
        """Return the machine called *name* (in lower case), if there is one."""
        return self._book.by_name.get((Role.AGENT, name))

    def machine(self, name: str) -> Key:
        """Return the machine called *name*. Raises ProblemError (unknown-machine) with the close matches."""
        key = self._book.by_name.get((Role.AGENT, name.strip().lower()))
        if key is None:
            raise ProblemError(Kind.UNKNOWN_MACHINE, f"no machine is called {name!r}", hint=self._did_you_mean(name))
        return key

    def machine_by_id(self, machine_id: str) -> Key | None:
        """Return the trusted machine with that id, if there is one."""
        return self._book.machines.get(machine_id)

    def _did_you_mean(self, name: str) -> str:
        names = self._book.roster.names
        meant = did_you_mean(name.strip().lower(), names)
        if meant:
            return meant
        return "see: clustersh machines" if names else "no machine has joined yet: run clusteragent enroll on one"

    # -- joining and leaving

    def holder(self, role: Role, name: str) -> str | None:
        """Return the fingerprint of the key that holds *name*, if one does."""
        return self._claims.holder(role, name)

    def check_join(self, role: Role, name: str, fingerprint: str) -> None:
        """Raise ProblemError unless that key may join under that name."""
        self._claims.check(role, name, fingerprint)

    def free_name(self, role: Role, name: str) -> str:
        """Return a name like *name* that nobody has."""
        return self._claims.free_name(role, name)

    def is_ais(self, role: Role, name: str, fingerprint: str) -> bool:
        """Whether that key is an AI agent's, or will be one under that name, whatever is said when it joins."""
        return self._claims.is_ais(role, name, fingerprint)

    async def register(
        self,
        role: Role,
        name: str,
        public_key: EllipticCurvePublicKey,
        fingerprint: str,
        address: str,
        approved_by: str,
        token: str = "",
        adoption: Adoption | None = None,
        *,
        ai: bool = False,
    ) -> bytes:
        """Trust that key under that name and return its certificate (DER). Raises ProblemError.

        A key that is trusted already under another name is renamed. *token* is the join token that this is a use of,
        *adoption* what it was made for. *ai*: it is an AI agent's, as where `is_ais` says so.
        """
        self.check_join(role, name, fingerprint)
        known = self._book.by_fingerprint.get(fingerprint)
        identity = Identity(role, name, known.id if known else str(uuid4()))
        certificate = self._issue(identity, public_key)
        ai = ai or self.is_ais(role, name, fingerprint)
        self._claims.joining[fingerprint] = (role, name)
        words = (role.value, name, identity.id, fingerprint, address, approved_by)
        record: Record = Enrolled(*words, token, adoption, ai)
        if known is not None and known.name != name:
            record = Renamed(*words, known.name, token, ai)
        try:
            entry = await self._ledger.append(record)
        finally:
            del self._claims.joining[fingerprint]
        self._take_in(entry)
        if self._book.by_fingerprint[fingerprint].ended:
            raise ProblemError(Kind.UNTRUSTED, "this key lost its trust meanwhile", hint=join_again(role))
        return certificate

    async def leave(self, identity: Identity) -> None:
        """Trust a machine's or a client's key no more, at its own wish. Raises ProblemError."""
        key = self._book.by_name.get((identity.role, identity.name))
        if key is not None and key.id == identity.id:
            kind = Forgotten if key.role is Role.AGENT else Revoked
            for each in (*self._carried_by(key.id), key):
                self._take_in(await self._ledger.append(kind(each.name, each.id, each.fingerprint, "itself")))

    async def revoke(self, name: str, *, dry_run: bool = False) -> None:
        """Trust the client *name* no more; *dry_run*: only look for it. Raises ProblemError, as `forget`."""
        key = self._named(Role.FRONTEND, name)
        if key is None:
            raise ProblemError(Kind.UNKNOWN_CLIENT, f"no client is called {name!r}", hint="see: clusterd clients")
        if not dry_run:
            await self._end_trust(key, Revoked(key.name, key.id, key.fingerprint))

    async def revoke_other_admins(self, fingerprint: str) -> None:
        """Trust no admin's key but that one."""
        for key in list(self._book.by_fingerprint.values()):
            if key.role is Role.ADMIN and not key.ended and key.fingerprint != fingerprint:
                self._take_in(await self._ledger.append(Revoked(key.name, key.id, key.fingerprint)))

    async def forget(self, name: str, *, dry_run: bool = False) -> Key:
        """Trust the machine *name* no more and free its name; so for those that it carries.

        Raises ProblemError: unknown-machine, or storage where the ledger can't take it. Then it holds all the same,
        but only for as long as the coordinator runs.
        """
        key = self._named(Role.AGENT, name) or self.machine(name)
        if dry_run:
            return key
        for carried in self._carried_by(key.id):
            await self._end_trust(carried, Forgotten(carried.name, carried.id, carried.fingerprint))
        await self._end_trust(key, Forgotten(key.name, key.id, key.fingerprint))
        return key

    def _carried_by(self, machine_id: str) -> list[Key]:
        """Return the machines that have no agent but that one's: they go where it goes."""
        return [key for key in self._book.roster.machines if key.carrier and key.carrier.machine_id == machine_id]

    def _named(self, role: Role, name: str) -> Key | None:
        named = (role, name.strip().lower())
        return self._claims.unrecorded.get(named) or self._book.by_name.get(named)

    async def _end_trust(self, key: Key, record: Revoked | Forgotten) -> None:
        try:
            self._take_in(await self._ledger.append(record))
        except ProblemError as error:
            if error.problem.kind is Kind.STORAGE:
                self._claims.unrecorded[key.role, key.name] = key
                self._end(key.fingerprint, self._ledger.moment())
                raise ProblemError(
                    Kind.STORAGE,
                    f"{key.name} is trusted no more, but only until the coordinator restarts: {error}",
                    hint=f"mend that, then run it again: {to_free(key.role, key.name)}",
                ) from error
            raise
        self._claims.unrecorded.pop((key.role, key.name), None)

    def _end(self, fingerprint: str, when: str) -> None:
        ended = replace(self._book.by_fingerprint[fingerprint], ended=when)
        self._book.enter(ended)
        for watcher in self._ended_watchers:
            watcher(ended)

    def has_other_store(self, machine_id: str, store: str) -> bool:
        """Whether a machine had another job store than *store* before: its old jobs are gone."""
        key = self._trusted_machine(machine_id)
        return key.store not in ("", store)

    async def note_store(self, machine_id: str, store: str) -> None:
        """Note which job store a machine has now. Raises ProblemError where the machine was forgotten meanwhile."""
        key = self._trusted_machine(machine_id)
        if key.store != store:
            self._take_in(await self._ledger.append(StoreSeen(key.name, machine_id, store)))
            self._trusted_machine(machine_id)

    async def note_tailnet(self, fingerprint: str, identity: TailnetIdentity) -> None:
        """Note who a client's or a machine's key comes from. Raises ProblemError where that can't be recorded."""
        key = self._book.by_fingerprint.get(fingerprint)
        if key is None or key.ended or key.role is Role.ADMIN or key.tailnet == identity:
            return
        words = (key.role.value, key.name, key.id, fingerprint, identity.login, identity.node)
        self._take_in(await self._ledger.append(TailnetSeen(*words)))

    def _trusted_machine(self, machine_id: str) -> Key:
        key = self.machine_by_id(machine_id)
        if key is None:
            raise ProblemError(Kind.UNTRUSTED, "this machine was forgotten", hint=join_again(Role.AGENT))
        return key

    def used(self, machine_id: str) -> None:
        """A client has named this machine: it is new no more (the run's own record says so to the index)."""
        key = self._book.machines.get(machine_id)
        if key is not None and key.new:
            self._book.enter(replace(key, new=False))

    async def accept(self, name: str, *, dry_run: bool = False) -> Key:
        """Have a machine that is new be one like any other, as an admin says. Raises ProblemError."""
        key = self.machine(name)
        if not dry_run:
            await self._accept([key])
        return key

    async def take_into_use(self, machine_ids: Collection[str], client: Identity) -> None:
        """*client* has named these machines: they are new no more, which is recorded. Raises ProblemError."""
        keys = [self._book.machines[machine_id] for machine_id in machine_ids if machine_id in self._book.machines]
        await self._accept(keys, client)

    async def _accept(self, keys: Collection[Key], client: Identity | None = None) -> None:
        by = (client.name, client.id) if client else ()
        accepted = [self._ledger.append(Accepted(key.name, key.id, *by)) for key in keys if key.new]
        for entry in accepted:
            self._take_in(await entry)

    def is_ai(self, client: Identity) -> bool:
        """Whether *client* is an AI agent's."""
        key = self._book.by_name.get((client.role, client.name))
        return key is not None and key.id == client.id and key.ai

    def clients(self) -> list[Key]:
        """Every client there ever was, by name."""
        keys = self._book.by_fingerprint.values()
        return sorted((key for key in keys if key.role is Role.FRONTEND), key=lambda key: (key.name, key.enrolled))

    # -- the projection

    def _take_in(self, entry: Entry) -> None:
        record: Record = entry.record
        if isinstance(record, Enrolled | Renamed):
            known = self._book.by_fingerprint.get(record.fingerprint)
            if known is None or not known.ended:  # what was revoked just before it was let in again stays revoked
                # Under another name it is new again: nobody has used it by that.
                same = known is not None and known.name == record.name
                new = known.new if known is not None and same else begins_new(record)
                self._book.enter(key_of(record, entry.time, new=new))
                if isinstance(record, Renamed):
                    for watcher in self._renamed_watchers:
                        watcher(self._book.by_fingerprint[record.fingerprint])
        elif isinstance(record, Revoked | Forgotten):
            self._end(record.fingerprint, entry.time)
        elif isinstance(record, StoreSeen):
            key = self._book.machines.get(record.machine_id)
            if key is not None:
                self._book.enter(replace(key, store=record.store))
        elif isinstance(record, TailnetSeen):
            known = self._book.by_fingerprint[record.fingerprint]
            self._book.enter(replace(known, tailnet=TailnetIdentity(record.login, record.node)))
        elif isinstance(record, Accepted):
            self.used(record.machine_id)
