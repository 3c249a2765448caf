"""Files: clients send what the coordinator lacks, agents fetch what their open jobs name."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

from twisted.internet.threads import deferToThread

from ..blobs import BlobStore, BlobWriter
from ..wire.problems import Kind, ProblemError
from ..wire.rest import BlobNames
from .api import Api
from .bodies import BodyStream
from .callers import Caller
from .http import Request
from .routes import AGENTS, CLIENTS, OCTETS, Answer, Pieces

PIECE = 256 << 10
"""Bytes that are read or written in one go."""
MAX_NAMES = 50_000


class JobBlobs(Protocol):
    """Which blobs belong to which open jobs."""

    def may_read_blob(self, machine_id: str, uuid: str, sha256: str) -> bool:
        """Whether the open job *uuid* of that machine names the blob."""


class BlobCalls:
    """``/v1/blobs``, and a job's blobs for its agent."""

    def __init__(self, store: BlobStore, jobs: JobBlobs) -> None:
        self._store = store
        self._jobs = jobs

    def add_to(self, api: Api) -> None:
        """Add the calls."""
        api.add("POST", "/v1/blobs/missing", self.missing_blobs, CLIENTS, BlobNames)
        api.add("PUT", "/v1/blobs/<sha256>", self.put_blob, CLIENTS, Pieces(), problems=(Kind.STORAGE,))
        api.add(
            "GET",
            "/v1/jobs/<machine>/<uuid>/blobs/<sha256>",
            self.blob,
            AGENTS,
            answers={200: (OCTETS,)},
            problems=(Kind.UNKNOWN_BLOB,),
        )

    async def missing_blobs(self, request: Request, caller: Caller, body: BlobNames) -> BlobNames:
        """Tell which of these the coordinator lacks."""
        if len(body.sha256) > MAX_NAMES:
            raise ProblemError(Kind.TOO_LARGE, f"at most {MAX_NAMES} names at once")
        has = self._store.has
        return await deferToThread(lambda: BlobNames(tuple(name for name in body.sha256 if not has(name))))

    async def put_blob(self, request: Request, caller: Caller, sha256: str, body: BodyStream) -> None:
        """Keep a file's content, which is written to the disk as it comes."""
        writer: BlobWriter = await deferToThread(self._store.writer, sha256, body.size)
        try:
            async for piece in _joined(body):
                await deferToThread(writer.write, piece)
            await deferToThread(writer.commit)
        finally:
            await deferToThread(writer.abort)

    async def blob(self, request: Request, caller: Caller, machine: str, uuid: str, sha256: str) -> Answer:
        """Send a blob to the machine whose certificate asks; the machine's name in the path is not asked."""
        if not self._jobs.may_read_blob(caller.identity.id, uuid, sha256):
            raise ProblemError(Kind.UNKNOWN_BLOB, "no open job of this machine names that file")
        path = self._store.path(sha256)
        size = path.stat().st_size
        return Answer(_read(path), content_type=OCTETS, headers={"Content-Length": str(size)})


async def _joined(body: BodyStream) -> AsyncGenerator[bytes, None]:
    """Yield *body* in larger pieces: each costs a visit to a thread."""
    gathered = bytearray()
    async for piece in body:
        gathered += piece
        if len(gathered) >= PIECE:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


async def _read(path: Path) -> AsyncGenerator[bytes, None]:
    with path.open("rb") as file:
        while piece := await deferToThread(file.read, PIECE):
            yield piece
