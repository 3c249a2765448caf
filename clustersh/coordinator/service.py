"""The coordinator's composition root: everything is made and put together here."""

from __future__ import annotations

import os
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
from ..trust.identity import Identity, Role, certificate_sha256, curl_pin
from ..trust.tls import server_context_factory
from ..wire.problems import ProblemError
from . import door
from .admin_key import let_admin_in
from .api import Api
from .audit import Audit
from .callers import Gate
from .crowd import Crowd, allow_many_files
from .door import DoorError, DoorFactory
from .fleet import Fleet
from .guard import RULES
from .http import Site
from .index import Index
from .joining import Joining
from .ledger import Ledger
from .ledger_files import LedgerBroken
from .link_server import LinkFactory
from .neighbours import Neighbour, Neighbours
from .openapi import OpenApiCalls
from .own_secret import own_secret
from .packages import Packages
from .placement.scores import score
from .policy.rulebook import check
from .records import Summary
from .refusals import Refusal, Refusals, log_refusal
from .registry import Key, Registry
from .rest_admin import AdminCalls
from .rest_blobs import BlobCalls
from .rest_installers import InstallerCalls, Installers, Trust
from .rest_leaving import LeavingCalls
from .rest_machines import MachineCalls, Notes
from .rest_packages import PackageCalls
from .rest_tailnet import TailnetCalls
from .running import Running
from .seen import SeenBook
from .tailnet import Tailnet
from .targeting import Targeting
from .wheelhouse import Wheelhouse
from .whois import Acquaintances, Whois
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
        self._config = config
        self._started = False
        self._authority = Authority.open(folder, datetime.now(UTC))
        self._server = server_credentials(folder, self._authority, datetime.now(UTC))
        self._ledger = Ledger(reactor, folder / "ledger", time.time, config.coordinator.reserve)
        self._index = Index(reactor, folder / "index.sqlite", self._ledger)
        self._ledger.subscribe(self._index.follow)
        self._registry = Registry(self._ledger, self._index, self._issue)
        self._fleet = Fleet(reactor, boot_clock, time.time, config.coordinator.reconnect_grace)
        self._seen = SeenBook(self._index, self._fleet, time.time)
        self._targeting = Targeting(
            self._ledger, self._registry, self._fleet, config.enrollment.new_machines, config.policy
        )
        self._neighbours = Neighbours(Neighbour(socket.gethostname(), user_name()))
        self._fleet.on_came = self._came
        self._blobs = BlobStore(
            private_folder(folder / "blobs"), config.coordinator.blob_quota, config.coordinator.reserve
        )
        self._refusals = Refusals(reactor, self._refused)
        self._host = socket.gethostname().partition(".")[0]
        self._running = Running(
            reactor,
            self._ledger,
            self._index,
            self._registry,
            self._fleet,
            self._targeting.targets,
            self._blobs,
            self._refusals.note,
            own_secret(folder, "digest.key"),
            config.policy,
            self._host,
        )
        self._acquaintances = Acquaintances(boot_clock, Whois(reactor), self._registry.note_tailnet)
        rule = self._acquaintances.rule(required=config.enrollment.tailnet_only)
        kept = (self._ledger, self._registry, self._authority, self._refusals)
        self._joining = Joining(reactor, folder, config.enrollment, *kept, self._running.overrides, rule, self._host)
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
        api = Api(gate, self._acquaintances.came)
        links = self._links = LinkFactory(reactor, self._fleet, self._refusals.note)
        self._running.add_to(api, links, self._host)
        tailnet = Tailnet(reactor)
        groups, targets = self._targeting.groups, self._targeting.targets
        notes = Notes(groups.groups_of, groups.labels_of, score)
        MachineCalls(self._registry, targets, self._fleet, self._running.vitals, tailnet, notes).add_to(api)
        self._joining.add_to(api, self._fleet, self._running.policy)
        BlobCalls(self._blobs, self._running.runs).add_to(api)
        PackageCalls(self._packages).add_to(api)
        InstallerCalls(self._installers).add_to(api)
        TailnetCalls(tailnet, self._installers, socket.gethostname(), self._config.enrollment.policy).add_to(api)
        witnesses = WitnessCollector(self._fleet, self._registry)
        AdminCalls(self._joining.approvals, self._registry, Audit(self._ledger), witnesses).add_to(api)
        LeavingCalls(self._registry).add_to(api)
        self._targeting.calls(self._running.policy).add_to(api)
        OpenApiCalls(api).add_to(api)
        return api

    async def load(self) -> None:
        """Bring the projections up to the ledger, and be ready to be asked."""
        self._ledger.open()
        self._ledger.start()
        self._index.start()
        self._started = True
        await self._registry.load()
        await self._joining.load(self._index)
        await self._seen.load()
        await self._targeting.load(self._index)
        self._registry.watch_ended(self._cut)
        self._registry.watch_renamed(self._fleet.renamed)
        await let_admin_in(self._folder, self._registry, self._authority)
        await self._running.load()
        self._seen_loop.start(SEEN_EVERY_S, now=False)
        Deferred.fromCoroutine(self._packages.prepare())

    async def stop(self) -> None:
        """End the links and write what waits."""
        if self._seen_loop.running:
            self._seen_loop.stop()
        await self._running.stop()
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

    def _came(self, machine_id: str) -> None:
        self._seen.came(machine_id)
        facts = self._fleet.seen[machine_id].facts
        self._targeting.came(machine_id, facts)
        self._neighbours.came(machine_id, facts)

    def _cut(self, key: Key) -> None:
        """A key lost its trust: nothing of it stays connected."""
        if key.role is Role.AGENT:
            self._fleet.cut(key.id, f"{key.name} was forgotten")
            self._running.forget(key.id)
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
    """Return the coordinator's service; *listen* overrides the configuration. Raises ConfigError."""
    os.umask(0o077)
    check(config.policy, RULES, home / "config.toml")
    return CoordinatorService(reactor, home, config, listen)
