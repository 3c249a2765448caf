"""What this machine was told of the ledger's head, job by job: proof against a history that is written anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..wire.link import Failed, FromAgent, Witness, Witnesses, WitnessList
from ..wire.problems import Kind
from .disk import explain

PAGE = 1000
"""Jobs on one page."""


class _Told(msgspec.Struct):
    """The part of a journal entry or of a ``job.json`` that holds a witness: it, or its record."""

    witness: Witness | None = None
    record: _Told | None = None


_decoder = msgspec.json.Decoder(_Told)


class WitnessReader:
    """Reads the witnesses in the job store *folder*; *in_thread* runs what blocks."""

    def __init__(self, folder: Path, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._folder = folder
        self._in_thread = in_thread

    async def answer(self, asked: Witnesses) -> FromAgent:
        """Return a page: the first holds the journal's, each those of some jobs."""
        try:
            witnesses, following = await self._in_thread(self._page, asked.after)
        except OSError as error:
            return Failed(asked.request, Kind.STORAGE.value, explain(error))
        return WitnessList(asked.request, tuple(witnesses), following)

    def _page(self, after: str) -> tuple[set[Witness], str]:
        found = set() if after else set(self._journalled())
        read = 0
        for uuid, path in self._jobs(after):
            if read == PAGE:
                return found, after
            found.update(_witness(path.read_bytes()) if path.exists() else ())
            read, after = read + 1, uuid
        return found, ""

    def _journalled(self) -> Iterator[Witness]:
        for name in ("journal.old", "journal"):
            path = self._folder / name
            for line in path.read_bytes().splitlines() if path.exists() else ():
                yield from _witness(line)

    def _jobs(self, after: str) -> Iterator[tuple[str, Path]]:
        """Yield the jobs that follow *after*: the folders' names are in the order of the jobs' times."""
        jobs = self._folder / "jobs"
        for day in sorted(jobs.iterdir()):
            for job in sorted(day.iterdir()) if day.is_dir() else ():
                if job.name > after:
                    yield job.name, job / "job.json"


def _witness(content: bytes) -> Iterator[Witness]:
    try:
        told = _decoder.decode(content)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return  # a damaged file witnesses nothing
    for each in (told, told.record):
        if each is not None and each.witness is not None:
            yield each.witness
