"""A job's stored output, with everything that printing it may need: another attempt, what to do next, JSON."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from ..cli.errors import NOTHING_RAN, UNCERTAIN, CliError, UsageError
from ..cli.invocation import Invocation
from ..config import load
from ..rest_client import RestClient
from ..wire.rest import Job, Run
from .client import connect
from .output import OutputReader
from .reading import Part, Reading
from .retry import GaveUp, Retry
from .show import Form, OutputKeeper, printer_for

_NO_OUTPUT = [("limit", "0")]


async def cat(
    reactor: Any, invocation: Invocation, machine: str, uuid: str, part: Part, reached: Reading | None = None
) -> int:
    """Print *part* of the output of *uuid* on *machine*, from where *reached* has come."""
    retry = Retry(reactor, load(invocation.home).client.retry_for, unanswered=reached is not None)
    client = await connect(reactor, invocation)
    reading = reached or part.of(*await _which(client, machine, uuid))
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
        begun = reading.position - reading.delivered
        document = {"uuid": reading.uuid, "machine": reading.machine, "offset": begun, **printer.fields()}
        await invocation.console.out(msgspec.json.encode(document) + b"\n")
    return 0


async def _which(client: RestClient, machine: str, uuid: str) -> tuple[str, str]:
    """Return the machine and the whole uuid of the job that is meant."""
    if machine:
        path = f"/v1/jobs/{quote(machine, safe='')}/{quote(uuid, safe='')}"
        return machine, (await client.call("GET", path, answer=Job, query=_NO_OUTPUT)).uuid
    run = await client.call("GET", f"/v1/runs/{quote(uuid, safe='')}", answer=Run, query=_NO_OUTPUT)
    names = [job.machine for job in run.jobs]
    if len(names) != 1:
        hint = f"clustersh cat {names[0]} {run.uuid}"
        raise UsageError(f"{run.uuid} ran on {', '.join(names)}: name the machine", (hint,))
    return names[0], run.uuid
