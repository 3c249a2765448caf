"""File content named by its SHA-256: verified when it comes in, kept within a quota, least recently used goes first."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from .wire.problems import ProblemError


class BlobError(ProblemError):
    """A blob can't be kept: it is too large, is not what its name says, or there is no space."""


class BlobWriter:
    """One blob on its way in; made by `BlobStore.writer`. As a context manager it aborts unless committed."""

    def write(self, chunk: bytes) -> None:
        """Append *chunk*; blocks on the disk. Raises BlobError where it gets larger than announced or can't be written."""
        raise NotImplementedError

    def commit(self) -> Path:
        """Check size and SHA-256, and keep the blob. Raises BlobError; nothing is kept then."""
        raise NotImplementedError

    def abort(self) -> None:
        """Drop what came so far; nothing happens after a commit."""
        raise NotImplementedError

    def __enter__(self) -> BlobWriter:
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError


class BlobStore:
    """The blobs in *folder*, at most *quota* bytes of them. Any thread may use it."""

    def __init__(self, folder: Path, quota: int) -> None:
        raise NotImplementedError

    def has(self, sha256: str) -> bool:
        """Whether the blob is here; looking counts as using it."""
        raise NotImplementedError

    def path(self, sha256: str) -> Path:
        """Return the blob's file, to be read only. Raises BlobError UNKNOWN_BLOB. Pin it while it is needed."""
        raise NotImplementedError

    def writer(self, sha256: str, size: int) -> BlobWriter:
        """Make room and begin to take in *size* bytes. Raises BlobError: BAD_REQUEST, TOO_LARGE or STORAGE."""
        raise NotImplementedError

    def pin(self, sha256: str) -> None:
        """Keep the blob (here already or not yet) from eviction, until as many `unpin`."""
        raise NotImplementedError

    def unpin(self, sha256: str) -> None:
        """Take one `pin` back."""
        raise NotImplementedError
