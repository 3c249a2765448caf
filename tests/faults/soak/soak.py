"""One soak from its start to its figures."""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..users import give
from .check import Check, Findings, check_idle, check_left_behind, read_ledger
from .clients import Memory, ProgramClient, RawClient
from .cluster import LINKS, MACHINES, SERVICES, SoakCluster, descriptors, settle
from .plan import Fault, Work, make_faults, make_noise, make_work

RECONCILED_WITHIN_S = 90.0
_SHOWN = 20


class Wanted(NamedTuple):
    """What to do. With *restart* that service is killed *times* times, and nothing else is broken."""

    seed: int
    seconds: float = 180.0
    raw: int = 6
    programs: int = 4
    restart: str | None = None
    times: int = 200


class Soak:
    """Runs in *folder*, which others may enter."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self.folder = folder
        self.findings = Findings()
        self.figures = ""
        self._wanted = wanted
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self._injected = 0

    def run(self) -> int:
        """Print what is done and found; return the exit status."""
        faults = self._announce()
        self.memory = self._prepare()
        self.cluster = SoakCluster(self.folder)
        try:
            self._soak(faults)
        finally:
            self.cluster.stop()
        check_left_behind(self.cluster, self.findings)
        check = Check(self.cluster, self.memory, self.findings)
        check.all()
        return self._tell(check)

    def _soak(self, faults: list[Fault]) -> None:
        usual = self._warm_up()
        clients = self._start_clients()
        began = time.monotonic()
        try:
            self._break(faults)
        finally:
            self._over.set()
        for thread in clients:
            thread.join()
        print(f"the clients are done after {time.monotonic() - began:.0f}s", flush=True)
        self._settle()
        check_idle(self.cluster, usual, set(read_ledger(self.cluster)), self.findings)
        self._verify()

    def _announce(self) -> list[Fault]:
        wanted = self._wanted
        if wanted.restart:
            print(f"soak: seed {wanted.seed}, {wanted.restart} killed and restarted {wanted.times} times", flush=True)
            return []
        faults = make_faults(wanted.seed, wanted.seconds, SERVICES, LINKS)
        print(f"soak: seed {wanted.seed}, {wanted.seconds:.0f}s, {len(faults)} faults:")
        print("\n".join(str(fault) for fault in faults), flush=True)
        return faults

    def _prepare(self) -> Memory:
        noise = make_noise(self._wanted.seed)
        (self.folder / "noise").write_bytes(noise)
        (self.folder / "sent").write_text("sent with the command")
        ran = self.folder / "ran"
        ran.mkdir()
        give(ran)
        return Memory(self.folder, noise)

    def _warm_up(self) -> dict[str, int]:
        """Let every part work once; return how many files each service has open then."""
        works = iter([self._work(program=False) for _ in range(20)])
        RawClient(self.cluster, self.memory, lambda: next(works, None)).run()
        time.sleep(1.0)
        return {service: len(descriptors(self.cluster.processes[service].pid)) for service in SERVICES}

    # -- clients

    def _work(self, *, program: bool) -> Work:
        with self._lock:
            number = next(self._numbers)
        return make_work(self._wanted.seed, number, MACHINES, program=program)

    def _take(self, program: bool) -> Work | None:
        return None if self._over.is_set() else self._work(program=program)

    def _start_clients(self) -> list[threading.Thread]:
        given = self.cluster, self.memory
        clients: list[RawClient | ProgramClient] = []
        clients += [RawClient(*given, lambda: self._take(False)) for _ in range(self._wanted.raw)]
        clients += [ProgramClient(*given, lambda: self._take(True)) for _ in range(self._wanted.programs)]
        threads = [threading.Thread(target=self._guard, args=(client.run,)) for client in clients]
        for thread in threads:
            thread.start()
        return threads

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failed.append(error)
            self._over.set()

    # -- faults

    def _break(self, faults: list[Fault]) -> None:
        if self._wanted.restart:
            self._restart(self._wanted.restart)
            return
        began = time.monotonic()
        targets = (*SERVICES, *LINKS)
        by_target = [[fault for fault in faults if fault.target == target] for target in targets]
        threads = [
            threading.Thread(target=self._guard, args=(partial(self._inject, mine, began),)) for mine in by_target
        ]
        for thread in threads:
            thread.start()
        self._over.wait(self._wanted.seconds + 2.0)
        for thread in threads:
            thread.join()

    def _inject(self, faults: list[Fault], began: float) -> None:
        for fault in faults:
            if self._over.wait(max(0.0, began + fault.at - time.monotonic())):
                return
            self.cluster.inject(fault, time.sleep)
            with self._lock:
                self._injected += 1

    def _restart(self, service: str) -> None:
        """Kill it again and again: while it starts, before it has its links, or in the midst of its work."""
        dice = random.Random(f"{self._wanted.seed}/restarts")
        for _ in range(self._wanted.times):
            if self._over.is_set():
                return
            self.cluster.end(service, signal.SIGKILL if dice.random() < 0.8 else signal.SIGTERM)
            self.cluster.start(service)
            self._injected += 1
            if dice.random() < 0.5:
                watched = MACHINES if service == "coordinator" else (service,)
                settle(partial(self._are_linked, watched), 30.0)
            time.sleep(dice.uniform(0.0, 0.6))

    def _are_linked(self, machines: tuple[str, ...]) -> bool:
        return all(self.cluster.is_linked(machine) for machine in machines)

    # -- the end

    def _settle(self) -> None:
        """Wait until every machine is there and every job has ended."""
        self.cluster.until_online()
        began = time.monotonic()
        words = ("history", "--status", "requested", "--status", "running", "--json")
        clients = self.cluster.homes["clients"]
        left: list[str] = []

        def none_open() -> bool:
            left[:] = [f"{job['uuid']} {job['status']}" for job in clients.sh(*words).json["jobs"]]
            return not left

        settled = settle(none_open, RECONCILED_WITHIN_S)
        print(f"reconciled after {time.monotonic() - began:.1f}s" if settled else f"still open: {left}", flush=True)

    def _verify(self) -> None:
        verified = self.cluster.homes["coordinator"].run("clusterd", "audit", "verify", "--witness")
        if verified.status:
            self.findings.lost.append(f"clusterd audit verify: {verified.out}{verified.err}")

    def _tell(self, check: Check) -> int:
        compared = self.memory.compared.total()
        print(f"clients compared the output of {compared} jobs: {dict(self.memory.compared)}")
        print("outcomes: " + ", ".join(f"{state} {count}" for state, count in sorted(check.outcomes().items())))
        for line in _first_lines(self.findings):
            print(line)
        broken = [*(repr(error) for error in self._failed), *self.cluster.died]
        for line in broken:
            print(f"ERROR: {line}")
        found = ", ".join(f"{name} {len(lines)}" for name, lines in vars(self.findings).items())
        self.figures = f"jobs {len(check.uuids)}, faults {self._injected}, {found}"
        print(self.figures, flush=True)
        return 1 if self.findings.any or broken else 0


def _first_lines(findings: Findings) -> Iterator[str]:
    for name, lines in vars(findings).items():
        for line in lines[:_SHOWN]:
            yield f"{name}: {line[:1000]}"
        if len(lines) > _SHOWN:
            yield f"{name}: {len(lines) - _SHOWN} more"
