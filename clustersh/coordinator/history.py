"""Questions about runs that the index answers. Each takes a connection, as `Index.ask` gives it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from ..folding import node_set
from ..wire.fleet import LeftOut
from ..wire.ids import is_run_uuid, uuid_ending
from ..wire.jobs import Outcome, OutputSummary, State
from ..wire.problems import Kind, Problem, ProblemError
from ..wire.queries import MAX_PAGE
from ..wire.rest import Job, JobPage
from .open_runs import JobEnd, OpenJob, OpenRun
from .printed import MAX_LISTED_COMMAND, Printed, listed
from .recent_runs import JOB_WEIGHT
from .records import MachineRef

_JOB = (
    f"SELECT jobs.*, substr(runs.command, 1, {MAX_LISTED_COMMAND + 1}) AS command, runs.cwd, runs.requested,"  # noqa: S608
    " runs.timeout_s FROM jobs JOIN runs ON runs.uuid = jobs.uuid"
)

NAMED = 100
"""Machines of a run that an error names."""


@dataclass(frozen=True)
class KnownRun:
    """A run as the index knows it; *problem* is there when it was refused."""

    uuid: str
    digest: str
    problem: Problem | None


@dataclass
class LoadedRun:
    """An open run read after a start, and the blobs that it names ("" is none)."""

    open: OpenRun
    script: str
    manifest: str


@dataclass(frozen=True)
class Filter:
    """Which jobs to list; empty parts don't restrict. *machine_ids* are those of a target, *without_ids* those that
    are left out of all, *since* is in seconds since 1970, *before* a uuid."""

    machine: str = ""
    machine_ids: tuple[str, ...] = ()
    without_ids: tuple[str, ...] = ()
    client: str = ""
    states: tuple[State, ...] = ()
    since: float = 0.0
    before: str = ""
    limit: int = 100


def run_of_key(connection: sqlite3.Connection, client_id: str, key: str) -> KnownRun | None:
    """Return the run that a client asked for under *key*."""
    row = connection.execute(
        "SELECT uuid, digest, problem FROM runs WHERE client_id = ? AND key = ?", (client_id, key)
    ).fetchone()
    if row is None:
        return None
    problem = msgspec.json.decode(row["problem"], type=Problem) if row["problem"] else None
    return KnownRun(row["uuid"], row["digest"], problem)


def find_uuid(connection: sqlite3.Connection, text: str) -> str:
    """Return the uuid of the run that *text* (whole, or 8 or more digits from its end) means.

    Raises ProblemError (bad-request, unknown-run, ambiguous-id).
    """
    try:
        digits = uuid_ending(text)
    except ValueError as error:
        raise ProblemError(Kind.BAD_REQUEST, str(error)) from error
    low = digits[::-1]
    rows = connection.execute(
        "SELECT uuid FROM runs WHERE ending >= ? AND ending < ? LIMIT 4", (low, low + "g")
    ).fetchall()
    if not rows:
        raise ProblemError(Kind.UNKNOWN_RUN, f"no run {text!r} is known", hint="see: clustersh history")
    if len(rows) > 1:
        some = ", ".join(row["uuid"] for row in rows[:3])
        raise ProblemError(Kind.AMBIGUOUS_ID, f"several runs end in {text!r}", hint=f"give more digits: {some}")
    return str(rows[0]["uuid"])


def run_row(connection: sqlite3.Connection, uuid: str, machine_id: str = "") -> tuple[sqlite3.Row, list[Printed]]:
    """Return a run's row and its jobs (or the one on that machine); the uuid must be known."""
    run = _run(connection, uuid)
    rows = connection.execute(
        "SELECT * FROM jobs WHERE uuid = ? AND (? = '' OR machine_id = ?) ORDER BY place",
        (uuid, machine_id, machine_id),
    ).fetchall()
    return run, _all_printed(rows, run)


def ended_jobs(connection: sqlite3.Connection, uuid: str, after: int, limit: int) -> tuple[list[Printed], bool]:
    """Return those of a run's jobs that have ended, from the *after*-th on, and whether these are the last."""
    rows = connection.execute(
        "SELECT * FROM jobs WHERE uuid = ? AND ended > 0 ORDER BY ended LIMIT ? OFFSET ?", (uuid, limit, after)
    ).fetchall()
    (left,) = connection.execute("SELECT count(*) FROM jobs WHERE uuid = ?", (uuid,)).fetchone()
    return _all_printed(rows, _run(connection, uuid)), after + len(rows) >= left


def _run(connection: sqlite3.Connection, uuid: str) -> sqlite3.Row:
    row: sqlite3.Row = connection.execute("SELECT * FROM runs WHERE uuid = ?", (uuid,)).fetchone()
    return row


def _all_printed(rows: list[sqlite3.Row], run: sqlite3.Row) -> list[Printed]:
    """Return jobs whose output is on their machines."""
    command = listed(run["command"]) if len(rows) > 1 else run["command"]
    return [
        Printed(_job(row, run, command), row["machine_id"], (row["stdout_sha256"], row["stderr_sha256"]), None)
        for row in rows
    ]


def machine_of(connection: sqlite3.Connection, uuid: str, machine: str, machine_id: str = "") -> MachineRef:
    """Return the machine that was called *machine* when the run was made, or else the one with that id.

    Raises ProblemError (unknown-run).
    """
    row = connection.execute(
        "SELECT machine, machine_id FROM jobs WHERE uuid = ? AND (machine = ? OR machine_id = ?)"
        " ORDER BY machine = ? DESC LIMIT 1",
        (uuid, machine, machine_id, machine),
    ).fetchone()
    if row is None:
        names = [each.name for each in machines(connection, uuid)]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        hint = f"it was for {node_set(names[:NAMED])}{more}" if names else ""
        raise ProblemError(Kind.UNKNOWN_RUN, f"{uuid} did not run on {machine!r}", hint=hint)
    return MachineRef(row["machine"], row["machine_id"])


def machines(connection: sqlite3.Connection, uuid: str) -> list[MachineRef]:
    """Return the machines that a run was for, in order."""
    rows = connection.execute("SELECT machine, machine_id FROM jobs WHERE uuid = ? ORDER BY place", (uuid,))
    return [MachineRef(row["machine"], row["machine_id"]) for row in rows]


def last_uuid(connection: sqlite3.Connection) -> str:
    """Return the greatest uuid of a run; "" where there is none."""
    (uuid,) = connection.execute("SELECT max(uuid) FROM runs").fetchone()
    return uuid or ""


def was_machine(connection: sqlite3.Connection, name: str) -> bool:
    """Whether a job was ever for a machine called *name*."""
    return connection.execute("SELECT 1 FROM jobs WHERE machine = ? LIMIT 1", (name,)).fetchone() is not None


def machines_of(connection: sqlite3.Connection, uuid: str) -> set[str] | None:
    """Return the ids of the machines that a run was for; None where the uuid is unknown."""
    if not is_run_uuid(uuid) or connection.execute("SELECT 1 FROM runs WHERE uuid = ?", (uuid,)).fetchone() is None:
        return None
    return {row["machine_id"] for row in connection.execute("SELECT machine_id FROM jobs WHERE uuid = ?", (uuid,))}


def jobs(connection: sqlite3.Connection, wanted: Filter) -> JobPage:
    """Return a page of jobs, newest first. No run is torn: the last one's jobs are there beyond the limit, too."""
    limit = max(1, min(wanted.limit, MAX_PAGE))
    rows = _select(connection, wanted, limit + 1)
    if len(rows) <= limit:
        return JobPage(tuple(map(to_job, rows)))
    last = str(rows[limit - 1]["uuid"])
    page = [*(row for row in rows[:limit] if row["uuid"] != last), *_select(connection, wanted, -1, only=last)]
    more = rows[limit]["uuid"] != last or _select(connection, replace(wanted, before=last), 1)
    return JobPage(tuple(map(to_job, page)), last if more else None)


def _select(connection: sqlite3.Connection, wanted: Filter, limit: int, only: str = "") -> list[sqlite3.Row]:
    """Return the rows of jobs that fit, newest first: at most *limit* (-1: all), of that run *only*."""
    conditions, values = _conditions(wanted)
    if only:
        conditions, values = [*conditions, "jobs.uuid = ?"], [*values, only]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return connection.execute(
        f"{_JOB}{where} ORDER BY jobs.uuid DESC, jobs.machine LIMIT ?", (*values, limit)
    ).fetchall()


def _conditions(wanted: Filter) -> tuple[list[str], list[str]]:
    conditions: list[str] = []
    values: list[str] = []
    for condition, value in (
        ("jobs.machine = ?", wanted.machine),
        ("jobs.machine_id IN (SELECT value FROM json_each(?))", _as_json(wanted.machine_ids)),
        ("jobs.machine_id NOT IN (SELECT value FROM json_each(?))", _as_json(wanted.without_ids)),
        ("jobs.client = ?", wanted.client),
        ("jobs.uuid >= ?", _first_uuid(wanted.since) if wanted.since > 0 else ""),
        ("jobs.uuid < ?", wanted.before),
    ):
        if value:
            conditions.append(condition)
            values.append(value)
    states = _with_kinds(wanted.states)
    if states:
        conditions.append(f"jobs.state IN ({', '.join('?' * len(states))})")
        values.extend(states)
    return conditions, values


def _as_json(words: Sequence[str]) -> str:
    """Return *words* as one value: SQLite takes only so many."""
    return msgspec.json.encode(words).decode() if words else ""


def _first_uuid(seconds: float) -> str:
    """Return what the UUIDv7s made from then on begin with, or are greater than."""
    digits = f"{int(seconds * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def _with_kinds(states: Sequence[State]) -> list[str]:
    """An interrupted job is a kind of failed one."""
    wanted = list(states)
    if State.FAILED in wanted and State.INTERRUPTED not in wanted:
        wanted.append(State.INTERRUPTED)
    if State.RUNNING in wanted and State.REQUESTED not in wanted:
        wanted.append(State.REQUESTED)
    return [state.value for state in wanted]


def to_job(row: sqlite3.Row) -> Job:
    """Return a row of the list of jobs as REST tells it, without its output."""
    return _job(row, row, listed(row["command"]))


def _job(row: sqlite3.Row, run: sqlite3.Row, command: str) -> Job:
    return Job(
        uuid=row["uuid"],
        machine=row["machine"],
        client=row["client"],
        command=command,
        cwd=run["cwd"],
        status=State(row["state"]),
        requested=run["requested"],
        started=row["started"] or None,
        finished=row["finished"] or None,
        duration_s=row["duration_s"],
        exit_code=row["exit_code"],
        signal=row["signal"],
        reason=row["reason"],
        truncated=bool(row["stdout_bytes"] + row["stderr_bytes"]),
        output_bytes=row["stdout_bytes"] + row["stderr_bytes"],
        stdout_bytes=row["stdout_bytes"],
        stderr_bytes=row["stderr_bytes"],
        timeout_s=run["timeout_s"],
    )


def open_runs(connection: sqlite3.Connection) -> list[LoadedRun]:
    """Return the runs that have a job without an outcome, with all of their jobs."""
    uuids = connection.execute("SELECT DISTINCT uuid FROM jobs WHERE state = 'requested' ORDER BY uuid").fetchall()
    loaded = []
    for (uuid,) in uuids:
        run = _run(connection, uuid)
        rows = connection.execute("SELECT * FROM jobs WHERE uuid = ? ORDER BY ended", (uuid,)).fetchall()
        loaded.append(LoadedRun(_reopened(run, rows), run["script"], run["manifest"]))
    return loaded


def _reopened_job(row: sqlite3.Row) -> OpenJob:
    """Return a job from before a restart: one whose batch had not begun was sent nowhere yet."""
    machine, epoch = MachineRef(row["machine"], row["machine_id"]), 0 if row["begun"] else None
    job = OpenJob(row["uuid"], machine, epoch, row["started"], cancelled=bool(row["cancelled"]))
    if row["state"] != State.REQUESTED:
        outcome = Outcome(State(row["state"]), row["exit_code"], row["signal"], row["reason"])
        sums = (row["stdout_sha256"], row["stderr_sha256"])
        output = OutputSummary(row["stdout_bytes"], row["stderr_bytes"], *sums)
        job.ending, job.end, job.finished = True, JobEnd(outcome, output, row["duration_s"], None), row["finished"]
    return job


def left_out(row: sqlite3.Row) -> LeftOut | None:
    """Return which new machines the target of the run *row* did not mean."""
    return msgspec.json.decode(row["left_out"], type=LeftOut | None)


def _reopened(row: sqlite3.Row, jobs: list[sqlite3.Row]) -> OpenRun:
    opened = {each["machine_id"]: _reopened_job(each) for each in jobs}
    return OpenRun(
        uuid=row["uuid"],
        client=row["client"],
        client_id=row["client_id"],
        target=row["target"],
        command=row["command"],
        cwd=row["cwd"],
        timeout_s=row["timeout_s"],
        requested=row["requested"],
        jobs={each["machine_id"]: opened[each["machine_id"]] for each in sorted(jobs, key=lambda row: row["place"])},
        raw=bool(row["raw"]),
        exclude=row["exclude"],
        skipped=msgspec.json.decode(row["skipped"], type=tuple[str, ...]),
        selected=msgspec.json.decode(row["selected"], type=tuple[str, ...]),
        stopped=row["stopped"],
        left_out=left_out(row),
        order=[machine_id for machine_id, job in opened.items() if job.end is not None],
        weight=len(row["command"]) + JOB_WEIGHT * len(opened),
    )
