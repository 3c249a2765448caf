"""A job's output and end, as ``run`` and ``wait`` show them."""

from __future__ import annotations

import msgspec

from ..cli.console import Console
from ..cli.invocation import Invocation
from ..cli.text import printable
from ..wire.jobs import HEAD_LIMIT
from ..wire.output import Stream
from ..wire.rest import Base64, Job, Run, text_or_base64, to_bytes
from .outcome import Verdict, verdict


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

    async def __call__(self, stream: Stream, data: bytes | memoryview) -> None:
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
        self._bytes = {Stream.STDOUT: 0, Stream.STDERR: 0}
        self.printed = 0

    async def __call__(self, stream: Stream, data: bytes | memoryview) -> None:
        """Keep *data*."""
        self._streams[Stream.STDOUT if self._combined else stream] += data
        self._bytes[stream] += len(data)
        self.printed += len(data)

    def counts(self) -> dict[str, int]:
        """What is known of the sizes while the job runs: the bytes that were kept."""
        out, err = (self._bytes[stream] for stream in (Stream.STDOUT, Stream.STDERR))
        return {"output_bytes": out + err, "stdout_bytes": out, "stderr_bytes": err}

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


def heads_suffice(job: Job, form: Form, printed: int = 0) -> bool:
    """Whether what came with *job* is all of its output that is wanted and not printed yet."""
    there = len(to_bytes(job.stdout)) + len(to_bytes(job.stderr))
    wanted = wanted_bytes(job, form)
    cut = job.output_bytes > wanted
    return not printed and (there == wanted or (cut and there > 0 and wanted - _CUT_CHARACTERS <= there < wanted))


def order_matters(job: Job, form: Form, printer: Printer, console: Console) -> bool:
    """Whether both streams go to one place, and there is something of both: heads don't tell how they alternate."""
    together = form.combined or (isinstance(printer, OutputPrinter) and console.same_destination)
    return bool(job.stdout and job.stderr) and together


def wanted_bytes(job: Job, form: Form) -> int:
    """Return how much of the output of *job* is to be printed."""
    return job.output_bytes if form.limit is None else min(job.output_bytes, form.limit)


async def print_heads(job: Job, form: Form, printer: Printer) -> None:
    """Print the output that came with *job*."""
    for stream, text in ((Stream.STDOUT, job.stdout), (Stream.STDERR, job.stderr)):
        await printer(stream, to_bytes(text)[: wanted_bytes(job, form)])


async def print_end(invocation: Invocation, job: Job, printer: Printer, unread: str = "") -> Verdict:
    """Say how *job* ended, and print its document where JSON is wanted. *unread* is why output can't be read."""
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
        if not job.status.ended:
            document |= printer.counts()
        await invocation.console.out(msgspec.json.encode(document) + b"\n")


def job_document(job: Job, output: dict[str, str | Base64], *, truncated: bool) -> dict[str, object]:
    """Return *job* as ``--json`` prints it, with *output* in place of its heads."""
    fields: dict[str, object] = {name: getattr(job, name) for name in job.__struct_fields__}
    for name in ("stdout", "stderr"):
        del fields[name]
    return {**fields, **output, "truncated": truncated}


def selected_lines(run: Run) -> str:
    """Return why the machines of *run* were chosen, a line each."""
    return "".join(f"{printable(line)}\n" for line in run.selected)
