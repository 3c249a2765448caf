"""What must be true after a soak: the ledger, the agents' stores, what ran, and what is left behind."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from clustersh.agent.disk import Disk
from clustersh.agent.job_files import JobFiles
from clustersh.agent.records import StoredJob, StoreError
from clustersh.coordinator.records import JobEnded, Record, RunRequested, read_record
from clustersh.wire.jobs import State
from clustersh.wire.output import Stream

from .clients import Memory, Told
from .cluster import MACHINES, SERVICES, SoakCluster, descriptors, marked_processes, resident, settle
from .plan import digest, ran_file

BY_ITSELF = (State.COMPLETED, State.FAILED)
NEVER_RAN = (State.NOT_STARTED, State.REFUSED)
MAX_RESIDENT = {"coordinator": 256 << 20, "ws1": 160 << 20, "ws2": 160 << 20}
SPARE_DESCRIPTORS = 3
_BLOCK = 1 << 20


@dataclass
class Findings:
    """What is wrong, a line each."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)

    @property
    def any(self) -> bool:
        return any((self.lost, self.twice, self.missing, self.leaked))


@dataclass
class Job:
    """One job as the ledger has it."""

    requested: RunRequested
    ends: list[JobEnded] = field(default_factory=list)


def read_ledger(cluster: SoakCluster) -> dict[str, Job]:
    """Return the jobs in the ledger by uuid; each run here is on one machine."""
    jobs: dict[str, Job] = {}
    for record in _records(cluster.homes["coordinator"].path / "coordinator" / "ledger"):
        if isinstance(record, RunRequested):
            assert record.uuid not in jobs, f"{record.uuid} was requested twice"
            jobs[record.uuid] = Job(record)
        elif isinstance(record, JobEnded):
            jobs[record.uuid].ends.append(record)
    return jobs


def _records(folder: Path) -> list[Record]:
    files = sorted(folder.glob("*.jsonl"), key=lambda path: int(path.name.partition("-")[0]))
    return [read_record(line) for path in files for line in path.read_bytes().splitlines()]


class Check:
    """Compares what clients were told, the ledger, the stores, and what ran. The services have ended."""

    def __init__(self, cluster: SoakCluster, memory: Memory, findings: Findings) -> None:
        self._cluster = cluster
        self._memory = memory
        self._findings = findings
        self._jobs = read_ledger(cluster)
        self._by_key: dict[str, list[Job]] = defaultdict(list)
        for job in self._jobs.values():
            self._by_key[job.requested.key].append(job)
        ran = (ran_file(memory.folder, machine) for machine in MACHINES)
        self._ran = Counter(line for path in ran if path.exists() for line in path.read_text().split())
        self._files = {
            machine: JobFiles(cluster.homes[machine].path / "agent" / "jobs", Disk()) for machine in MACHINES
        }

    @property
    def uuids(self) -> set[str]:
        return set(self._jobs)

    def all(self) -> None:
        """Look at every job."""
        for told in self._memory.told.values():
            self._check_told(told)
        for job in self._jobs.values():
            if len(job.ends) != 1:
                self._findings.lost.append(f"{job.requested.key}: {len(job.ends)} outcomes in the ledger")
            else:
                self._check_job(job, job.ends[0])
        for key, times in self._ran.items():
            if times > 1:
                self._findings.twice.append(f"{key} ran {times} times")
            if key not in self._by_key:
                self._findings.lost.append(f"{key} ran, but the ledger has no such request")
        self._findings.missing += self._memory.missing
        self._findings.lost += self._memory.given_up

    def _check_told(self, told: Told) -> None:
        jobs, key = self._by_key[told.work.id], told.work.id
        uuids = {job.requested.uuid for job in jobs}
        if len(jobs) > 1:
            self._findings.twice.append(f"{key}: {len(jobs)} runs under one idempotency key")
        if told.acknowledged and (not jobs or not told.uuids <= uuids):
            self._findings.lost.append(f"{key}: acknowledged as {told.uuids}, the ledger has {uuids}")
        ends = {end.outcome.state.value for job in jobs for end in job.ends}
        if not told.states <= ends:
            self._findings.lost.append(f"{key}: its client was told {told.states}, the ledger has {ends}")
        if told.nothing_ran and self._ran[key]:
            self._findings.lost.append(f"{key}: its client was told that nothing ran, but it did")

    def _check_job(self, job: Job, end: JobEnded) -> None:
        key, outcome = job.requested.key, end.outcome
        ran = self._ran[key]
        if outcome.state in BY_ITSELF and ran == 0:
            self._findings.lost.append(f"{key}: {outcome} in the ledger, but it never ran")
        if outcome.state in NEVER_RAN and ran:
            self._findings.lost.append(f"{key}: {outcome} in the ledger, but it ran")
        if outcome.state is State.LOST:
            self._findings.lost.append(f"{key}: {outcome}")
        work = self._memory.told[key].work
        if outcome.exit_code is not None and outcome.exit_code != work.exit_code:
            self._findings.lost.append(f"{key}: exit {outcome.exit_code} instead of {work.exit_code}")
        stored = self._stored(job)
        if stored is None:
            if outcome.state not in NEVER_RAN and outcome.state is not State.CANCELLED:
                self._findings.lost.append(f"{key}: {outcome} in the ledger, but its agent does not know it")
            return
        if stored.end is None or (stored.end.outcome, stored.end.output) != (outcome, end.output):
            self._findings.lost.append(f"{key}: {end} in the ledger, but {stored.end} in its agent's store")
            return
        self._check_output(job, stored)

    def _stored(self, job: Job) -> StoredJob | None:
        try:
            return self._files[job.requested.machines[0].name].load(job.requested.uuid)
        except StoreError:
            return None

    def _check_output(self, job: Job, stored: StoredJob) -> None:
        """Compare what is kept, byte for byte by its SHA-256, with what was printed; a prefix where it was ended."""
        end, key = stored.end, job.requested.key
        assert end is not None
        whole = end.outcome.state in BY_ITSELF
        work = self._memory.told[key].work
        kept = self._read(job, stored)
        sums = (end.output.stdout_sha256, end.output.stderr_sha256)
        expected = work.expected(self._memory.noise)
        for name, found, told, wanted in zip(("stdout", "stderr"), kept, sums, expected, strict=True):
            if found is None or digest(found) != told:
                self._findings.missing.append(f"{key}: its {name} is kept otherwise than its SHA-256 says")
            elif found != wanted if whole else not end.output.unindexed and not wanted.startswith(found):
                self._findings.missing.append(f"{key}: {len(found)} bytes of {name} are not the {len(wanted)} printed")

    def _read(self, job: Job, stored: StoredJob) -> tuple[bytes | None, bytes | None]:
        assert stored.end is not None
        output = self._files[job.requested.machines[0].name].output(stored.uuid, stored.end)
        streams: list[bytes | None] = []
        for stream in (Stream.STDOUT, Stream.STDERR):
            content = b""
            try:
                while part := output.read(stream, len(content), _BLOCK).data:
                    content += part
            except StoreError:
                streams.append(None)
            else:
                streams.append(content)
        return streams[0], streams[1]

    def outcomes(self) -> Counter[str]:
        """Return how many jobs ended how."""
        return Counter(job.ends[0].outcome.state.value for job in self._jobs.values() if job.ends)


def check_idle(cluster: SoakCluster, usual: dict[str, int], uuids: set[str], findings: Findings) -> None:
    """Look for what the services hold although nothing is left to do; *usual* is how many files each has open."""
    settle(lambda: not marked_processes(uuids), 10.0)
    findings.leaked += [f"process {process}" for process in marked_processes(uuids)]
    for service in SERVICES:
        pid = cluster.processes[service].pid
        most = usual[service] + SPARE_DESCRIPTORS
        if not settle(lambda pid=pid, most=most: len(descriptors(pid)) <= most, 20.0):  # type: ignore[misc]
            held = Counter(name.partition(":")[0] for name in descriptors(pid))
            findings.leaked.append(f"{service} has {held.total()} files open, at most {most} before: {dict(held)}")
        size = resident(pid)
        print(f"{service}, idle: {len(descriptors(pid))} files open, {size >> 20} MiB resident", flush=True)
        if size > MAX_RESIDENT[service]:
            findings.leaked.append(f"{service} holds {size >> 20} MiB")
        children = Path(f"/proc/{pid}/task/{pid}/children")
        with contextlib.suppress(OSError):
            others = [child for child in children.read_text().split() if not _is_worker(service, child)]
            findings.leaked += [f"{service} has a child {child}" for child in others]


def _is_worker(service: str, pid: str) -> bool:
    """Whether that is the process in which a coordinator judges commands."""
    return service == "coordinator" and b"guard_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()


def check_left_behind(cluster: SoakCluster, findings: Findings) -> None:
    """Look for files that are of no use any more."""
    for name, home in cluster.homes.items():
        findings.leaked += [f"{name}: {path}" for path in (home.path.parent / "tmp").iterdir()]
        work = home.path / "agent" / "work"
        findings.leaked += [f"{name}: {path}" for path in (work.iterdir() if work.is_dir() else ())]
        for path in home.path.rglob("*"):
            if path.name.startswith(".") or path.suffix in (".new", ".tmp", ".partial"):
                findings.leaked.append(f"{name}: {path}")
