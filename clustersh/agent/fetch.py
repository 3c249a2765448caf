"""Blobs of this machine's open jobs, fetched from the coordinator over HTTPS into the agent's own cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater

from ..blobs import BlobStore, BlobWriter
from ..unreachable import Unreachable
from ..wire.jobs import BlobRef

if TYPE_CHECKING:
    from ..rest_client import RestClient

_ATTEMPTS = 3
_PAUSE_S = 1.0

InThread = Callable[..., Deferred[Any]]
"""Runs a function with its arguments in a thread."""


class Abandoned(Exception):
    """The job was ended before its files were here."""


class BlobFetcher:
    """Gets what *cache* lacks for a job of *machine*; two jobs that need the same blob fetch it once.

    *client* is called for each fetch: an agent whose jobs bring no files never has one.
    """

    def __init__(
        self, reactor: Any, client: Callable[[], RestClient], cache: BlobStore, machine: str, in_thread: InThread
    ) -> None:
        self._reactor = reactor
        self._client = client
        self._machine = machine
        self._in_thread = in_thread
        self._locks: dict[str, DeferredLock] = {}
        self.cache = cache

    async def fetch(self, uuid: str, blob: BlobRef, wanted: Callable[[], bool]) -> None:
        """See that *blob*, which the job *uuid* names and the caller has pinned, is in the cache.

        Raises Abandoned once *wanted* says no, BlobError, ProblemError, and Unreachable after three attempts.
        """
        lock = self._locks.setdefault(blob.sha256, DeferredLock())
        try:
            async with lock:
                if not await self._in_thread(self.cache.has, blob.sha256):
                    await self._fetch_patiently(uuid, blob, wanted)
        finally:
            if not lock.locked and not lock.waiting:
                self._locks.pop(blob.sha256, None)

    async def _fetch_patiently(self, uuid: str, blob: BlobRef, wanted: Callable[[], bool]) -> None:
        for attempt in range(_ATTEMPTS):
            if attempt:
                await deferLater(self._reactor, _PAUSE_S)
            try:
                await self._fetch_once(uuid, blob, wanted)
            except Unreachable:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    async def _fetch_once(self, uuid: str, blob: BlobRef, wanted: Callable[[], bool]) -> None:
        path = f"/v1/jobs/{quote(self._machine)}/{uuid}/blobs/{blob.sha256}"
        writer: BlobWriter = await self._in_thread(self.cache.writer, blob.sha256, blob.size)

        async def keep(piece: bytes) -> None:
            if not wanted():
                raise Abandoned
            await self._in_thread(writer.write, piece)

        try:
            if not wanted():
                raise Abandoned
            await self._client().stream("GET", path, keep)
            await self._in_thread(writer.commit)
        finally:
            await self._in_thread(writer.abort)
