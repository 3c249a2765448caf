"""Stored output, with everything that printing it may need: another attempt, what to do next, JSON, many machines."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from ..cli.errors import NOTHING_RAN, UNCERTAIN, CliError
from ..cli.invocation import Invocation
from ..config import load
from ..rest_client import RestClient
from ..wire.rest import Job, Run
from .client import connect
from .identifiers import JobWords
from .jobs_on_target import run_on
from .layouts import Layout
from .output import OutputReader
from .reading import Part, Reading
from .retry import GaveUp, Retry
from .show import Form, OutputKeeper, printer_for


class Words(NamedTuple):
    """What `cat` was asked for."""

    jobs: JobWords
    part: Part
    layout: Layout


async def cat(reactor: Any, invocation: Invocation, words: Words, reached: Reading | None = None) -> int:
    """Print the part of the output that *words* ask for, from where *reached* has come."""
    retry = Retry(reactor, load(invocation.home).client.retry_for, unanswered=reached is not None)
    client = await connect(reactor, invocation)
    reading = reached
    if reading is None:
        found = await _which(client, words)
        if isinstance(found, Run):
            from .many.cat import cat_many

            return await cat_many(invocation, client, retry, found, words)
        reading = words.part.of(found.machine, found.uuid)
    return await _cat_one(invocation, client, retry, reading, words.part)


async def _cat_one(invocation: Invocation, client: RestClient, retry: Retry, reading: Reading, part: Part) -> int:
    printer = printer_for(invocation, Form(None, combined=part.to_stdout and not invocation.json))
    try:
        if part.tail != 0:
            await OutputReader(client, retry, reading, printer).read()
    except GaveUp as gave_up:
        rest = f"the rest: clustersh cat {reading.machine} {reading.uuid} --offset {reading.position}"
        raise CliError(
            f"the output is not complete: {gave_up}",
            (rest,) if part.tail is None else (),
            status=UNCERTAIN if reading.delivered else NOTHING_RAN,
            kind="unavailable",
            uuid=reading.uuid,
            started=True,
        ) from gave_up
    if isinstance(printer, OutputKeeper):
        document = cat_document(reading.machine, reading, printer)
        await invocation.console.out(msgspec.json.encode(document) + b"\n")
    return 0


def cat_document(machine: str, reading: Reading, keeper: OutputKeeper) -> dict[str, object]:
    """Return what `cat --json` prints of the job on *machine*, whose output may have been read from another."""
    begun = reading.position - reading.delivered
    return {"uuid": reading.uuid, "machine": machine, "offset": begun, **keeper.fields()}


async def _which(client: RestClient, words: Words) -> Job | Run:
    """Return the one job that is meant, or the run on many machines."""
    jobs = words.jobs
    if jobs.machine:
        path = f"/v1/jobs/{quote(jobs.machine, safe='')}/{quote(jobs.uuid, safe='')}"
        return await client.call("GET", path, answer=Job, query=[("limit", "0")])
    run = await run_on(client, jobs)
    return run.jobs[0] if len(run.jobs) == 1 and jobs.all else run
