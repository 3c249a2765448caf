"""``clustersh cat``: a job's stored output, byte for byte."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from ..cli.commands import Start
from ..cli.errors import NOTHING_RAN, UNCERTAIN, CliError, UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads
from ..config import load
from ..rest_client import RestClient
from ..wire import units
from ..wire.output import Stream
from ..wire.rest import Job, Run
from .client import connect
from .identifiers import job_words
from .output import OutputReader
from .retry import GaveUp, Retry
from .show import Form, OutputKeeper, printer_for

_NO_OUTPUT = [("limit", "0")]


class Part(NamedTuple):
    """Which part of the output: *tail* lines from its end, or *length* bytes from *offset* on."""

    stream: Stream
    tail: int | None
    offset: int
    length: int | None


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``cat``."""
    examples = (
        "clustersh cat ws1 c41f9a02 | tail -n10",
        "clustersh cat ws1 c41f9a02 --stderr --tail 100",
        "clustersh cat ws1 c41f9a02 --offset 1MiB --length 64KiB",
    )
    parser = Parser(
        "clustersh cat",
        "Print a job's output, stdout to stdout and stderr to stderr; one alone goes to stdout.",
        examples,
    )
    parser.usage = "clustersh cat [options] [MACHINE] UUID"
    parser.add_argument(
        "words", nargs="+", metavar="[MACHINE] UUID", help="the machine, and the run or its last digits"
    )
    parser.add_argument("--stdout", action="store_true", help="only what it wrote to stdout")
    parser.add_argument("--stderr", action="store_true", help="only what it wrote to stderr")
    parser.add_argument("--tail", type=reads(_lines), metavar="LINES", help="only its last lines")
    parser.add_argument("--offset", type=reads(units.parse_size), default=0, metavar="BYTES", help="begin here")
    parser.add_argument("--length", type=reads(units.parse_size), metavar="BYTES", help="this many bytes at most")
    options = parser.read(invocation, arguments)
    machine, uuid = job_words(options.words)
    if options.tail is not None and (options.offset or options.length is not None):
        raise UsageError("--tail counts from the end: leave out --offset and --length")
    stream = Stream.BOTH
    if options.stdout is not options.stderr:
        stream = Stream.STDOUT if options.stdout else Stream.STDERR
    part = Part(stream, options.tail, options.offset, options.length)
    return lambda reactor: cat(reactor, invocation, machine, uuid, part)


async def cat(reactor: Any, invocation: Invocation, machine: str, uuid: str, part: Part) -> int:
    """Print that part of the output of *uuid* on *machine*."""
    retry = Retry(reactor, load(invocation.home).client.retry_for)
    client = await connect(reactor, invocation)
    machine, uuid = await _which(client, machine, uuid)
    # One stream alone goes to stdout, whichever it is: that is what a pipe behind `cat --stderr` reads.
    printer = printer_for(invocation, Form(None, combined=part.stream is Stream.STDERR and not invocation.json))
    reader = OutputReader(
        client,
        retry,
        machine,
        uuid,
        printer,
        stream=part.stream,
        offset=part.offset,
        length=part.length,
        tail=part.tail,
    )
    try:
        if part.tail != 0:
            await reader.read()
    except GaveUp as gave_up:
        raise CliError(
            f"the output is not complete: {gave_up}",
            (f"the rest: clustersh cat {machine} {uuid} --offset {reader.position}",) if part.tail is None else (),
            status=UNCERTAIN if reader.delivered else NOTHING_RAN,
            kind="unavailable",
            uuid=uuid,
            started=True,
        ) from gave_up
    if isinstance(printer, OutputKeeper):
        document = {"uuid": uuid, "machine": machine, "offset": reader.position - reader.delivered, **printer.fields()}
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


def _lines(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise ValueError(f"{text!r} is no number of lines")
    return int(text)
