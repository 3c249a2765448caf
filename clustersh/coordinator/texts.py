"""What jobs printed, put into answers: out of memory, or fetched from the machines, and no more than fits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import msgspec
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..wire.jobs import HEAD_LIMIT
from ..wire.link import MAX_CHUNK
from ..wire.output import Stream
from ..wire.problems import ProblemError
from ..wire.rest import Job, text_or_base64
from .fleet import Fleet
from .folding import fair_shares, twins
from .heads import Head, cut_head, whole_characters
from .outputs import Outputs, Wanted
from .printed import Printed

MAX_TEXT = 8 << 20
"""Bytes of output that one answer holds, whatever is asked for."""
MAX_FETCHES = 32
"""Machines that one answer asks for output at the same time."""
MAX_TWINS = 3
"""Machines that are asked for what all of them printed, one after the other, until one gives it."""
FETCH_S = 20.0
"""Seconds that an answer waits for what machines are asked for."""

_Share: TypeAlias = tuple[Printed, int, list[Printed]]
"""A job, the bytes of output that it gets, and the other jobs that printed the same."""


class Texts:
    """Gives jobs their texts. Machines that are offline leave theirs without one, reconnecting ones are waited for."""

    def __init__(self, outputs: Outputs, fleet: Fleet, clock: IReactorTime) -> None:
        self._outputs = outputs
        self._fleet = fleet
        self._clock = clock

    async def shared(self, jobs: Sequence[Printed], limit: int, *, fold: bool = False) -> list[Job]:
        """Return *jobs* with *limit* bytes of output shared fairly among their texts.

        To *fold* is to give each text once: the other jobs that printed it name that one.
        """
        firsts = twins(jobs) if fold else list(range(len(jobs)))
        speaking = [place for place, first in enumerate(firsts) if place == first and jobs[place].job.output_bytes]
        shares = fair_shares([_available(jobs[place]) for place in speaking], min(limit, MAX_TEXT))
        others: dict[int, list[Printed]] = {}
        for place, first in enumerate(firsts):
            if place != first:
                others.setdefault(first, []).append(jobs[place])
        texts = await self._texts(
            [(jobs[place], share, others.get(place, [])) for place, share in zip(speaking, shares, strict=True)]
        )
        told = [each.job for each in jobs]
        for place, job in zip(speaking, texts, strict=True):
            told[place] = job
        for place, first in enumerate(firsts):
            if place != first:
                told[place] = msgspec.structs.replace(
                    told[place], same_as=told[first].machine, truncated=told[first].truncated
                )
        return told

    async def own(self, jobs: Sequence[Printed], limit: int) -> list[Job]:
        """Return the first of *jobs*, as many as the answer has room for (at least one), *limit* bytes of each."""
        wanted, room = list[_Share](), MAX_TEXT
        for each in jobs:
            share = min(limit, _available(each))
            if share > room and wanted:
                break
            wanted.append((each, min(share, room), []))
            room -= share
        return await self._texts(wanted)

    async def _texts(self, wanted: list[_Share]) -> list[Job]:
        """Return each job with its share of bytes; those that printed the same may stand in for it."""
        told = [_with_text(each.job, each.head, share) for each, share, _ in wanted]
        missing = [place for place, (each, share, _) in enumerate(wanted) if each.head is None and share]
        for place, head in zip(missing, await self._fetch_all([wanted[place] for place in missing]), strict=True):
            told[place] = _with_text(wanted[place][0].job, head, wanted[place][1])
        return told

    async def _fetch_all(self, wanted: list[_Share]) -> list[Head | None]:
        """Fetch from MAX_FETCHES machines at once; what has not come within FETCH_S is left out."""
        if not wanted:
            return []
        turns, deadline = DeferredSemaphore(MAX_FETCHES), self._clock.seconds() + FETCH_S

        def begin(share: _Share) -> Deferred[Head | None]:
            fetching = Deferred.fromCoroutine(self._fetch(*share))
            fetching.addTimeout(max(0.0, deadline - self._clock.seconds()), self._clock)
            return fetching.addErrback(_left_out)

        fetching = [turns.run(begin, share) for share in wanted]
        try:
            return await gatherResults(fetching)
        except BaseException:
            for each in fetching:
                each.addErrback(lambda _: None)
                each.cancel()
            raise

    async def _fetch(self, each: Printed, share: int, others: list[Printed]) -> Head | None:
        """Return the start of an output from its machine, or another's that printed the same; None without any.

        What stands for several is fetched whole, and is what was summed up when it was printed.
        """
        length = min(each.job.output_bytes, HEAD_LIMIT) if others else share
        for source in (each, *others[: MAX_TWINS - 1]):
            await self._fleet.until_back(source.machine_id)
            wanted = Wanted(source.machine_id, source.job.uuid, Stream.BOTH, 0, length)
            try:
                chunk = await anext(self._outputs.chunks(wanted))
            except ProblemError:
                continue
            head = Head(chunk.data, chunk.runs)
            if not others or _sums(head) == each.sums:
                return head
        return None


def _available(each: Printed) -> int:
    if not each.job.output_bytes:
        return 0
    return min(each.job.output_bytes, MAX_CHUNK) if each.head is None else len(each.head)


def _with_text(job: Job, head: Head | None, length: int) -> Job:
    if head is None or not head:
        return job
    stdout, stderr = cut_head(head, length)
    truncated = len(stdout) + len(stderr) < job.output_bytes
    if truncated:
        stdout, stderr = whole_characters(stdout), whole_characters(stderr)
    return msgspec.structs.replace(
        job, stdout=text_or_base64(stdout), stderr=text_or_base64(stderr), truncated=truncated
    )


def _sums(head: Head) -> tuple[str, str]:
    stdout, stderr = cut_head(head, len(head))
    return hashlib.sha256(stdout).hexdigest(), hashlib.sha256(stderr).hexdigest()


def _left_out(failure: Failure) -> None:
    failure.trap(TimeoutError)
