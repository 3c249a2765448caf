"""A job's output and end, as ``run`` and ``wait`` show them."""

from __future__ import annotations

import msgspec

from ..cli.console import Console
from ..cli.invocation import Invocation
from ..rest_client import RestClient, Unreachable
from ..wire.jobs import HEAD_LIMIT
from ..wire.output import Stream
from ..wire.problems import ProblemError
from ..wire.rest import Base64, Job, text_or_base64, to_bytes
from .outcome import Verdict, verdict
from .output import OutputReader
from .retry import GaveUp, Retry


class Form:
    """How output is to be shown: at most *limit* bytes (None: all), both streams *combined* on stdout or not."""

    def __init__(self, limit: int | None = HEAD_LIMIT, *, combined: bool = False) -> None:
        self.limit = limit
        self.combined = combined


class OutputPrinter:
    """A sink that prints each stream where it belongs."""

    def __init__(self, console: Console, form: Form) -> None:
        self._console = console
        self._form = form
        self.printed = 0

    async def __call__(self, stream: Stream, data: bytes) -> None:
        """Print *data*."""
        if stream is Stream.STDERR and not self._form.combined:
            await self._console.err(data)
        else:
            await self._console.out(data)
        self.printed += len(data)


class OutputKeeper:
    """A sink that keeps the output for a JSON document."""

    def __init__(self, *, combined: bool) -> None:
        self._combined = combined
        self._streams = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        self.printed = 0

    async def __call__(self, stream: Stream, data: bytes) -> None:
        """Keep *data*."""
        self._streams[Stream.STDOUT if self._combined else stream] += data
        self.printed += len(data)

    def fields(self) -> dict[str, str | Base64]:
        """The document's fields: ``stdout`` and ``stderr``, or one ``output``."""
        out, err = (text_or_base64(bytes(self._streams[stream])) for stream in (Stream.STDOUT, Stream.STDERR))
        return {"output": out} if self._combined else {"stdout": out, "stderr": err}


_CUT_CHARACTERS = 6
"""Bytes that heads may be short of the limit: neither stream ends in the middle of a UTF-8 character."""
Printer = OutputPrinter | OutputKeeper


def printer_for(invocation: Invocation, form: Form) -> Printer:
    """Return where the output goes: to the console, or into the JSON document."""
    if invocation.json:
        return OutputKeeper(combined=form.combined)
    return OutputPrinter(invocation.console, form)


async def print_output(
    client: RestClient, retry: Retry, console: Console, job: Job, form: Form, printer: Printer
) -> str:
    """Print the output of *job* up to the limit, from where *printer* stands; return why some of it can't be read.

    It takes what came with the job, or reads from the machine what that doesn't tell: more of it, or its order.
    """
    heads = {Stream.STDOUT: to_bytes(job.stdout), Stream.STDERR: to_bytes(job.stderr)}
    there = sum(map(len, heads.values()))
    wanted = job.output_bytes if form.limit is None else min(job.output_bytes, form.limit)
    begun, unread = printer.printed, ""
    cut = job.output_bytes > wanted
    suffices = not begun and (there == wanted or (cut and there > 0 and wanted - _CUT_CHARACTERS <= there < wanted))
    mixed = all(heads.values()) and (form.combined or (isinstance(printer, OutputPrinter) and console.same_destination))
    if wanted > begun and (mixed or not suffices):
        reader = OutputReader(client, retry, job.machine, job.uuid, printer, offset=begun, length=wanted - begun)
        try:
            await reader.read()
        except (GaveUp, ProblemError, Unreachable) as error:
            unread = str(error)
    if wanted and not printer.printed:
        for stream, data in heads.items():
            await printer(stream, data[:wanted])
        return "" if suffices else unread
    return unread


async def print_end(invocation: Invocation, job: Job, printer: Printer, unread: str = "") -> Verdict:
    """Say how *job* ended, and print its document where JSON is wanted. *unread* is what `print_output` returned."""
    truncated = printer.printed < job.output_bytes
    ended = verdict(job, truncated=truncated, unread=unread)
    await print_document(invocation, job, printer)
    for message in ended.messages:
        await invocation.console.error(message.text, message.hints)
    return ended


async def print_document(invocation: Invocation, job: Job, printer: Printer) -> None:
    """Print the JSON document of *job* with the output that *printer* kept; nothing where it isn't wanted."""
    if isinstance(printer, OutputKeeper):
        document = job_document(job, printer.fields(), truncated=printer.printed < job.output_bytes)
        await invocation.console.out(msgspec.json.encode(document) + b"\n")


def job_document(job: Job, output: dict[str, str | Base64], *, truncated: bool) -> dict[str, object]:
    """Return *job* as ``--json`` prints it, with *output* in place of its heads."""
    fields: dict[str, object] = {name: getattr(job, name) for name in job.__struct_fields__}
    for name in ("stdout", "stderr"):
        del fields[name]
    return {**fields, **output, "truncated": truncated}
