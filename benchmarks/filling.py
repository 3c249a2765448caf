"""Ledgers and job stores of any size, written through the product's own classes."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clustersh.agent.disk import Disk
from clustersh.agent.job_files import JobFiles
from clustersh.agent.records import JobEnd as StoredEnd
from clustersh.agent.records import JobRecord, StoredJob
from clustersh.coordinator.ledger import Ledger
from clustersh.coordinator.records import Enrolled, JobEnded, MachineRef, Record, RunRequested
from clustersh.trust.authority import Authority
from clustersh.trust.credentials import CA_FILE, CERTIFICATE_FILE, KEY_FILE
from clustersh.trust.identity import Identity, Role, fingerprint
from clustersh.trust.keys import generate
from clustersh.wire.ids import UuidMaker
from clustersh.wire.jobs import Command, Outcome, OutputSummary, State
from clustersh.wire.units import timestamp

BATCH = 5000
PRINTED = b"what it said\n"
SUMMARY = OutputSummary(stdout_bytes=len(PRINTED))
ENDED = Outcome(State.COMPLETED, exit_code=0)
COMMAND = Command(shell="make test")


def append(folder: Path, records: Iterable[Record]) -> None:
    """Append *records* to the ledger of the stopped coordinator in *folder*."""
    ledger = Ledger(None, folder / "ledger", time.time)
    ledger.open()
    while batch := list(itertools.islice(records := iter(records), BATCH)):
        ledger._write_batch(batch)
    ledger._close()


def uuids(count: int) -> list[str]:
    """Return *count* uuids of runs."""
    make = UuidMaker(lambda: time.time_ns() // 1_000_000)
    return [make() for _ in range(count)]


def runs(names: Iterable[str], machine: MachineRef, client: str, client_id: str) -> Iterator[Record]:
    """Yield two records for each run: that it was asked for, and how it ended."""
    for uuid in names:
        digest = secrets.token_hex(32)
        yield RunRequested(uuid, client, client_id, uuid, digest, machine.name, (machine,), COMMAND)
        yield JobEnded(uuid, machine.name, machine.id, ENDED, SUMMARY, 0.1, timestamp(time.time()))


def store(folder: Path, names: Iterable[str], client: str) -> None:
    """File the jobs *names* in the agent's store in *folder*."""
    files = JobFiles(folder / "jobs", Disk())
    now = time.time()
    runs = b"\x00" + bytes([len(PRINTED)])
    for uuid in names:
        end = StoredEnd(ENDED, now, SUMMARY, 0.1, PRINTED, runs)
        files.write(StoredJob(uuid, JobRecord(uuid, client, COMMAND, now), None, end))


def machine_name(number: int) -> str:
    """Return what the agent of that number is called."""
    return f"many-{number:04}"


def machine_names(count: int) -> str:
    """Return the target that names the first *count* of them."""
    return f"many-[0000-{count - 1:04}]"


def agents(coordinator: Path, folder: Path, count: int) -> Iterator[Record]:
    """Make *count* agents' credentials under *folder*; yield the records that let them in.

    The files are not put on the disk, as a real agent's are: they go with the benchmark.
    """
    authority, now = Authority.load(coordinator), datetime.now(UTC)
    for number in range(count):
        name, key, machine_id = machine_name(number), generate(), str(uuid4())
        certificate = authority.issue(Identity(Role.AGENT, name, machine_id), key.public_key(), now)
        home = folder / name
        home.mkdir(mode=0o700, parents=True)
        for file, content in (
            (KEY_FILE, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
            (CERTIFICATE_FILE, certificate.public_bytes(Encoding.PEM)),
            (CA_FILE, authority.certificate_pem),
        ):
            (home / file).write_bytes(content)
            (home / file).chmod(0o600)
        yield Enrolled(Role.AGENT.value, name, machine_id, fingerprint(key.public_key()), "127.0.0.1", "admin")
