"""The coordinator's composition root: everything is made and put together here."""

from __future__ import annotations

import os
import secrets
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import __version__
from ..blobs import BlobStore
from ..clocks import boot_clock
from ..config import Config, Listen
from ..daemon import stop_because
from ..heap import keep_freed_memory
from ..home import HomeError, ServiceLock, private_folder, user_name
from ..trust.authority import Authority, server_credentials
from ..trust.errors import TrustError
from ..trust.identity import Identity, Role, certificate_sha256, curl_pin, fingerprint
from ..trust.tls import peer_certificate, server_context_factory
from ..wire.ids import UuidMaker
from ..wire.problems import Kind, ProblemError
from . import door, history
from .admin_key import let_admin_in
from .adoption import Adoptions
from .api import Api
from .audit import Audit
from .callers import Gate
from .crowd import Crowd, allow_many_files
from .door import DoorError, DoorFactory
from .fleet import Fleet
from .http import Site
from .index import Index
from .ledger import Ledger
from .ledger_files import LedgerBroken
from .link_server import LinkFactory
from .neighbours import Neighbour, Neighbours
from .open_runs import RunTable
from .openapi import OpenApiCalls
from .outcomes import Outcomes
from .outputs import Outputs
from .own_secret import own_secret
from .paced_runs import PacedRuns
from .packages import Packages
from .pairing import Pairings
from .placement.scores import score
from .placement.sight import make_placer
from .records import Summary
from .refusals import Refusal, Refusals, log_refusal
from .registry import Key, Registry
from .requests import Requests
from .rest_admin import AdminCalls
from .rest_adopt import AdoptCalls
from .rest_blobs import BlobCalls
from .rest_installers import InstallerCalls, Installers, Trust
from .rest_jobs import JobCalls
from .rest_leaving import LeavingCalls
from .rest_machines import MachineCalls, Notes
from .rest_packages import PackageCalls
from .rest_pairing import PairingCalls
from .rest_plans import PlanCalls
from .rest_runs import RunCalls
from .rest_tokens import TokenCalls
from .run_blobs import HeldBlobs
from .run_names import RunNames
from .run_views import RunViews
from .runs import Runs
from .seen import SeenBook
from .tailnet import Tailnet
from .targeting import Targeting
from .texts import Texts
from .tokens import JoinTokens
from .vitals import VitalsBook
from .wheelhouse import Wheelhouse
from .witnesses import WitnessCollector

SEEN_EVERY_S = 60.0
LAST_WORDS_S = 1.0
"""Seconds in which agents may take in what they were told last, when the coordinator stops."""


class CoordinatorService(Service):
    """The coordinator whose state is in *home*/coordinator. What keeps it from starting stops the reactor."""

    _log = Logger()

    def __init__(self, reactor: Any, home: Path, config: Config, listen: Listen | None = None) -> None:
        self._reactor = reactor
        self._folder = private_folder(home / "coordinator")
        self._config = config
        self._listen = listen or config.coordinator.listen
        self._lock = ServiceLock(self._folder)
        self._starting: Deferred[None] | None = None
        self._parts: _Parts | None = None
        self._ports: list[IListeningPort] = []

    def startService(self) -> None:
        """Take the folder's lock and begin; what can't be done at once follows."""
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._give_up)

    def stopService(self) -> Deferred[None]:
        """Close the door, then write what waits."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        keep_freed_memory()
        self._lock.take()
        self._parts = _Parts(self._reactor, self._folder, self._config)
        await self._parts.load()
        self._ports = door.listen(self._reactor, self._listen, self._parts.door)
        host, port = self._listen.host, _number(self._ports[0])
        own = "127.0.0.1" if host == "*" else host
        self._lock.announce(f"[{own}]:{port}" if ":" in own else f"{own}:{port}", __version__)
        self._log.info("the coordinator listens on {host} port {port}", host=host, port=port)

    async def _stop(self) -> None:
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.stop()
        self._lock.release()

    def _give_up(self, failure: Failure) -> None:
        if not self.running:
            return
        expected = failure.check(HomeError, TrustError, ProblemError, DoorError, LedgerBroken, OSError)
        if expected is None:
            self._log.failure("the coordinator can't start", failure)
        else:
            self._log.critical("the coordinator can't start: {reason}", reason=failure.getErrorMessage())
        stop_because(self._reactor, failure.value)


class _Parts:
    """The parts of a running coordinator."""

    _log = Logger()

    def __init__(self, reactor: Any, folder: Path, config: Config) -> None:
        self._folder = folder
        self._policy = config.enrollment.policy
        self._started = False
        self._authority = Authority.open(folder, datetime.now(UTC))
        self._server = server_credentials(folder, self._authority, datetime.now(UTC))
        self._ledger = Ledger(reactor, folder / "ledger", time.time, config.coordinator.reserve)
        self._index = Index(reactor, folder / "index.sqlite", self._ledger)
        self._ledger.subscribe(self._index.follow)
        self._registry = Registry(self._ledger, self._index, self._issue)
        self._fleet = Fleet(reactor, boot_clock, time.time, config.coordinator.reconnect_grace)
        self._seen = SeenBook(self._index, self._fleet, time.time)
        self._targeting = Targeting(self._ledger, self._registry, self._fleet, config.enrollment.new_machines)
        self._neighbours = Neighbours(Neighbour(socket.gethostname(), user_name()))
        self._fleet.on_came = self._came
        self._blobs = BlobStore(
            private_folder(folder / "blobs"), config.coordinator.blob_quota, config.coordinator.reserve
        )
        self._refusals = Refusals(reactor, self._refused)
        held, table = HeldBlobs(self._blobs), RunTable()
        self._vitals = VitalsBook(reactor, self._fleet, table.running)
        self._fleet.on_vitals = self._vitals.said
        parts = (self._ledger, self._index, self._registry, self._fleet)
        outcomes = Outcomes(reactor, *parts, table, held.let_go, self._refusals.note)
        self._runs = Runs(reactor, *parts, held, table, outcomes, time.time)
        self._fleet.events = self._runs
        self._placer = make_placer(self._fleet, table, self._vitals.known, boot_clock)
        self._paced = PacedRuns(reactor, self._ledger, self._index, self._fleet, table, self._runs, outcomes)
        self._new_uuid = UuidMaker(lambda: time.time_ns() // 1_000_000)
        self._requests = Requests(
            self._ledger,
            self._index,
            self._registry,
            self._targeting.targets,
            self._fleet,
            held,
            table,
            self._runs,
            self._new_uuid,
            own_secret(folder, "digest.key"),
            self._placer,
            pacer=self._paced,
        )
        self._host = socket.gethostname().partition(".")[0]
        token_key = own_secret(folder, "token.key")
        self._tokens = JoinTokens(self._ledger, token_key, time.time, secrets.token_bytes)
        self._ledger.subscribe(self._tokens.follow)
        self._pairings = Pairings(
            self._registry,
            self._authority.certificate_der,
            reactor,
            secrets.token_bytes,
            self._refusals,
            policy=self._policy,
            tokens=self._tokens,
            host=self._host,
        )
        self._packages = Packages(Wheelhouse(folder))
        trust = Trust(
            certificate_sha256(self._authority.certificate),
            self._authority.certificate_pem.decode(),
            curl_pin(self._server.key.public_key()),
        )
        self._installers = Installers(self._packages, trust)
        self._seen_loop = LoopingCall(self._seen.save_in_background)
        self._seen_loop.clock = reactor
        gate = Gate(
            self._registry,
            self._refusals,
            admin_from=[each.network for each in config.coordinator.admin_from],
            strangers_from=[each.network for each in config.enrollment.allow],
        )
        self._site = Site(reactor, self._api(reactor, gate))
        crowd = Crowd(self._refusals.note, all_=allow_many_files())
        self.door = DoorFactory(reactor, self._site, server_context_factory(self._server), crowd)

    def _api(self, reactor: Any, gate: Gate) -> Api:
        api = Api(gate)
        outputs = Outputs(self._fleet, boot_clock)
        views = RunViews(self._runs, self._index, Texts(outputs, self._fleet, reactor), self._fleet)
        names = RunNames(self._runs, self._index)
        links = self._links = LinkFactory(reactor, self._fleet, self._machine_of, self._refusals.note)
        RunCalls(self._runs, self._requests, views, names, self._registry, self._fleet, links, self._host).add_to(api)
        JobCalls(self._runs, views, names, self._index, self._registry, outputs).add_to(api)
        PlanCalls(self._requests, self._fleet).add_to(api)
        tailnet = Tailnet(reactor)
        groups, targets = self._targeting.groups, self._targeting.targets
        notes = Notes(groups.groups_of, groups.labels_of, score)
        MachineCalls(self._registry, targets, self._fleet, self._vitals, tailnet, notes).add_to(api)
        PairingCalls(self._pairings, self._authority.certificate_pem).add_to(api)
        BlobCalls(self._blobs, self._runs).add_to(api)
        PackageCalls(self._packages).add_to(api)
        InstallerCalls(self._installers).add_to(api)
        witnesses = WitnessCollector(self._fleet, self._registry)
        AdminCalls(self._pairings, self._registry, Audit(self._ledger), witnesses).add_to(api)
        TokenCalls(self._tokens, self._policy).add_to(api)
        LeavingCalls(self._registry).add_to(api)
        adoptions = Adoptions(self._registry, self._fleet, self._tokens, self._pairings, socket.gethostname)
        AdoptCalls(adoptions).add_to(api)
        self._targeting.calls.add_to(api)
        OpenApiCalls(api).add_to(api)
        return api

    async def load(self) -> None:
        """Bring the projections up to the ledger, and be ready to be asked."""
        self._ledger.open()
        self._ledger.start()
        self._index.start()
        self._started = True
        await self._registry.load()
        await self._tokens.load(self._index)
        await self._seen.load()
        await self._targeting.load(self._index)
        self._registry.watch_ended(self._cut)
        self._registry.watch_renamed(self._fleet.renamed)
        await let_admin_in(self._folder, self._registry, self._authority)
        await self._runs.load()
        await self._paced.load()
        if last := await self._index.ask(history.last_uuid):
            # The clock may have been set back since: a history is in the order of its uuids.
            self._new_uuid.follow(last)
        self._seen_loop.start(SEEN_EVERY_S, now=False)
        Deferred.fromCoroutine(self._packages.prepare())

    async def stop(self) -> None:
        """End the links and write what waits."""
        if self._seen_loop.running:
            self._seen_loop.stop()
        await self._paced.stop()
        self._fleet.close()
        await self._links.until_closed(LAST_WORDS_S)
        self._refusals.stop()
        if self._started:
            await self._save_seen()
        await self._ledger.stop()
        await self._index.stop()

    async def _save_seen(self) -> None:
        try:
            await self._seen.save()
        except Exception as error:  # whatever the index has: it must not keep the ledger from being closed
            self._log.warn("can't note who was seen: {reason}", reason=str(error))

    def _issue(self, identity: Identity, public_key: EllipticCurvePublicKey) -> bytes:
        certificate = self._authority.issue(identity, public_key, datetime.now(UTC))
        return certificate.public_bytes(Encoding.DER)

    def _machine_of(self, transport: Any) -> Key:
        certificate = peer_certificate(transport)
        if certificate is None:
            raise ProblemError(Kind.NO_CERTIFICATE, "a link needs an agent's certificate")
        identity, key = Identity.from_certificate(certificate), fingerprint(certificate)
        self._registry.check(identity, key)
        machine = self._registry.machine_by_id(identity.id)
        if machine is None:
            raise ProblemError(Kind.WRONG_ROLE, "a link is an agent's")
        return machine

    def _came(self, machine_id: str) -> None:
        self._seen.came(machine_id)
        facts = self._fleet.seen[machine_id].facts
        self._targeting.came(machine_id, facts)
        self._neighbours.came(machine_id, facts)

    def _cut(self, key: Key) -> None:
        """A key lost its trust: nothing of it stays connected."""
        if key.role is Role.AGENT:
            self._placer.forget(key.id)
            self._fleet.cut(key.id, f"{key.name} was forgotten")
            self._vitals.forget(key.id)
            self._links.cut(key.id)
        self._site.cut(key.fingerprint)

    def _refused(self, refusal: Refusal) -> None:
        log_refusal(refusal)
        summary = Summary(f"refused {refusal.address}: {refusal.reason}", refusal.times)
        self._ledger.append(summary).addErrback(lambda _: None)


def _number(port: IListeningPort) -> int:
    address = port.getHost()
    assert isinstance(address, IPv4Address | IPv6Address)
    return address.port


def make_service(reactor: Any, home: Path, config: Config, listen: Listen | None = None) -> CoordinatorService:
    """Return the coordinator's service; *listen* overrides the configuration."""
    os.umask(0o077)
    return CoordinatorService(reactor, home, config, listen)
