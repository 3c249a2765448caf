"""Sections on stdout: a header that names the machines, then what they printed, stdout before stderr."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from ...cli.console import Console
from ...cli.text import printable
from ...wire.output import Stream
from ...wire.rest import Job, to_bytes
from .folding import Group, majority
from .names import node_set

_CUT_CHARACTERS = 6
"""Bytes that heads may be short of their share: neither stream ends in the middle of a UTF-8 character."""


class Source(Protocol):
    """Where output is read that didn't come with the answer."""

    async def read(self, job: Job, length: int, sink: Callable[[Stream, bytes | memoryview], Awaitable[None]]) -> str:
        """Give *sink* the first *length* bytes, stdout before stderr; return why they can't be read ("": they were)."""


class Gap(NamedTuple):
    """Output of *machines* that was not shown: *job* has it all; *unread* says why it can't be read now."""

    machines: tuple[str, ...]
    job: Job
    unread: str


def head_of(job: Job, share: int) -> tuple[bytes, bytes]:
    """Return what came of each stream of *job*, at most *share* bytes."""
    out = to_bytes(job.stdout)[:share]
    return out, to_bytes(job.stderr)[: share - len(out)]


def suffices(job: Job, share: int) -> bool:
    """Whether what came with *job* is all of its output that is to be shown."""
    there = len(to_bytes(job.stdout)) + len(to_bytes(job.stderr))
    slack = _CUT_CHARACTERS if there and job.output_bytes > share else 0
    return there + slack >= min(job.output_bytes, share)


class Section:
    """One section as it is written: nothing in it glues to what follows.

    *ordered*: both streams come in the order in which they were printed, so that one may go on in another's line.
    """

    def __init__(self, console: Console, header: str, *, ordered: bool = False) -> None:
        self._console = console
        self._ordered = ordered
        self._begun = f"{printable(header)}\n".encode()
        self._stream = Stream.STDOUT
        self._line_open = False
        self.printed = 0

    async def __call__(self, stream: Stream, data: bytes | memoryview) -> None:
        """Write *data*, which *stream* had."""
        if not data:
            return
        if stream is not self._stream and self.printed and not self._ordered:
            await self.end()
        self._stream = stream
        await self._console.out(self._begun + bytes(data) if self._begun else data)
        self._begun, self._line_open = b"", data[-1] != 0x0A
        self.printed += len(data)

    async def end(self) -> None:
        """Write the header, if that wasn't yet, and end the last line."""
        text = self._begun or (b"\n" if self._line_open else b"")
        self._begun, self._line_open = b"", False
        await self._console.out(text)


class Sections:
    """Prints groups, at most *share* bytes of each one's output; *gaps* are left by what is not shown."""

    def __init__(self, console: Console, share: int, source: Source | None = None) -> None:
        self._console = console
        self._share = share
        self._source = source
        self.gaps: list[Gap] = []

    async def print_all(self, groups: list[Group]) -> None:
        """Print each of *groups*."""
        for group in groups:
            await self._print(group)

    async def print_diff(self, groups: list[Group]) -> None:
        """Print what most machines printed, and how the others differ from it."""
        if not groups:
            return
        from .diff import unified  # which imports more than a short command has time for

        most = majority(groups)
        alike = [group for group in groups if _has(group, most)]
        names = node_set([name for group in alike for name in group.machines])
        usual = await self._whole(alike[0])
        await self._write(Section(self._console, alike[0].header), usual)
        for group in groups:
            if group is alike[0]:
                continue
            if group in alike:
                await self._console.out(printable(f"{group.header}, same output as {names}") + "\n")
                continue
            section = Section(self._console, group.header)
            for stream, before, after in zip(Stream, usual, await self._whole(group), strict=False):
                if before != after and group.text.output_bytes:
                    label = "" if stream is Stream.STDOUT else " stderr"
                    named = (f"{names}{label}", f"{node_set(group.machines)}{label}")
                    await section(Stream.STDOUT, unified(before, after, named))
            await section.end()

    async def _print(self, group: Group) -> None:
        section, unread = Section(self._console, group.header), ""
        if self._source is not None and not suffices(group.text, self._share):
            unread = await self._source.read(group.text, self._wanted(group), section)
        await self._write(section, (b"", b"") if section.printed else head_of(group.text, self._share))
        self._note(group, section.printed, unread)

    async def _write(self, section: Section, streams: tuple[bytes, bytes]) -> None:
        await section(Stream.STDOUT, streams[0])
        await section(Stream.STDERR, streams[1])
        await section.end()

    async def _whole(self, group: Group) -> tuple[bytes, bytes]:
        """Return both streams of what *group* printed, as far as the limit allows."""
        kept = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        unread = ""

        async def keep(stream: Stream, data: bytes | memoryview) -> None:
            kept[stream] += data

        if self._source is not None and not suffices(group.text, self._share):
            unread = await self._source.read(group.text, self._wanted(group), keep)
        if not any(kept.values()):
            for stream, data in zip(kept, head_of(group.text, self._share), strict=True):
                await keep(stream, data)
        self._note(group, sum(map(len, kept.values())), unread)
        return bytes(kept[Stream.STDOUT]), bytes(kept[Stream.STDERR])

    def _wanted(self, group: Group) -> int:
        return min(group.text.output_bytes, self._share)

    def _note(self, group: Group, shown: int, unread: str) -> None:
        if shown < group.text.output_bytes:
            self.gaps.append(Gap(group.machines, group.text, unread))


def _has(group: Group, text: str) -> bool:
    return (group.text.machine if group.text.output_bytes else "") == text
