"""Records that must be written, whatever the disk has to say now."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..wire.problems import ProblemError
from .ledger import Ledger
from .ledger_files import Entry
from .records import JobEnded, RunStopped

RETRY_S = (1.0, 30.0)
"""Seconds between attempts to write a record: the first, and the longest."""

_log = Logger()


async def record_at_last(clock: IReactorTime, ledger: Ledger, record: JobEnded | RunStopped) -> Entry:
    """Return once *record* is durable, however often that takes to try."""
    delay, longest = RETRY_S
    while True:
        try:
            return await ledger.append(record)
        except ProblemError as error:
            _log.error("{uuid}: its end waits to be recorded: {reason}", uuid=record.uuid, reason=str(error))
            await deferLater(clock, delay)
            delay = min(delay * 2, longest)
