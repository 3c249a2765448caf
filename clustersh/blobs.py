"""File content named by its SHA-256: verified when it comes in, kept within a quota, least recently used goes first."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import re
import shutil
import tempfile
import threading
from collections import Counter, OrderedDict
from pathlib import Path
from types import TracebackType

from .home import private_folder
from .wire.problems import Kind, ProblemError

_NAME = re.compile(r"[0-9a-f]{64}")
MAX_PINS = 100_000
"""Distinct blobs that may be pinned at a time."""


class BlobError(ProblemError):
    """A blob can't be kept: it is too large, is not what its name says, or there is no space."""


class BlobWriter:
    """One blob on its way in; made by `BlobStore.writer`. As a context manager it aborts unless committed."""

    def __init__(self, store: BlobStore, sha256: str, size: int, descriptor: int, temporary: Path) -> None:
        self._store = store
        self._sha256 = sha256
        self._size = size
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._temporary = temporary
        self._hash = hashlib.sha256()
        self._written = 0
        self._open = True

    def write(self, chunk: bytes) -> None:
        """Append *chunk*; blocks on the disk.

        Raises BlobError where there is more than was announced, or no space.
        """
        if self._written + len(chunk) > self._size:
            raise BlobError(Kind.TOO_LARGE, f"the file is longer than the {self._size} bytes that were announced")
        self._store._check_space(len(chunk))
        try:
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise _storage_error(error) from error
        self._hash.update(chunk)
        self._written += len(chunk)

    def commit(self) -> Path:
        """Check size and SHA-256, keep the blob, and return its file. Raises BlobError; nothing is kept then."""
        try:
            if self._written != self._size:
                detail = f"the file has {self._written} bytes, not the {self._size} that were announced"
                raise BlobError(Kind.BAD_REQUEST, detail)
            if not hmac.compare_digest(self._hash.hexdigest(), self._sha256):
                raise BlobError(Kind.BAD_REQUEST, "the file's SHA-256 is not the one that was announced")
            try:
                os.fsync(self._file.fileno())
                self._file.close()
                path = self._store._keep(self._sha256, self._size, self._temporary)
            except OSError as error:
                raise _storage_error(error) from error
        except BaseException:
            self.abort()
            raise
        self._open = False
        return path

    def abort(self) -> None:
        """Drop what came so far; nothing happens after a commit."""
        if not self._open:
            return
        self._open = False
        self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()
        self._store._release(self._size)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class BlobStore:
    """The blobs in *folder* (``<2 digits>/<sha256>``), at most *quota* bytes of them. Any thread may use it.

    What is being written counts against the quota from the start. A blob's modification time is when it was last used,
    so that the order outlives a restart. *reserve* bytes of the disk are left free for what else is on it.
    """

    def __init__(self, folder: Path, quota: int, reserve: int = 0) -> None:
        self._folder = private_folder(folder)
        self._reserve = reserve
        self._incoming = private_folder(folder / "incoming")
        self._quota = quota
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._pins: Counter[str] = Counter()
        self._used = 0
        self._reserved = 0
        self._scan()

    @property
    def used(self) -> int:
        """Bytes that the blobs take."""
        return self._used

    def has(self, sha256: str) -> bool:
        """Whether the blob is here; looking counts as using it."""
        with self._lock:
            return self._use(sha256)

    def path(self, sha256: str) -> Path:
        """Return the blob's file, to be read only. Raises BlobError UNKNOWN_BLOB. Pin it while it is needed."""
        with self._lock:
            if not self._use(sha256):
                raise BlobError(Kind.UNKNOWN_BLOB, f"there is no blob {sha256[:64]!r} here")
        return self._path(sha256)

    def writer(self, sha256: str, size: int) -> BlobWriter:
        """Make room and begin to take in *size* bytes. Raises BlobError: BAD_REQUEST, TOO_LARGE or STORAGE."""
        if not _NAME.fullmatch(sha256) or size < 0:
            raise BlobError(Kind.BAD_REQUEST, "a blob is named by 64 lower-case hex digits")
        if size > self._quota:
            raise BlobError(Kind.TOO_LARGE, f"a file of {size} bytes is over the quota of {self._quota}")
        self._check_space(size)
        with self._lock:
            self._make_room(size)
            self._reserved += size
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self._incoming)
        except OSError as error:
            self._release(size)
            raise _storage_error(error) from error
        return BlobWriter(self, sha256, size, descriptor, Path(temporary))

    def pin(self, sha256: str) -> None:
        """Keep the blob (here already or not yet) from eviction, until as many `unpin`. Raises BlobError."""
        with self._lock:
            if sha256 not in self._pins and len(self._pins) >= MAX_PINS:
                raise BlobError(Kind.TOO_LARGE, f"more than {MAX_PINS} files are needed at once")
            self._pins[sha256] += 1

    def unpin(self, sha256: str) -> None:
        """Take one `pin` back."""
        with self._lock:
            self._pins[sha256] -= 1
            if self._pins[sha256] <= 0:
                del self._pins[sha256]

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _use(self, sha256: str) -> bool:
        if sha256 not in self._sizes:
            return False
        try:
            os.utime(self._path(sha256))
        except OSError:
            self._used -= self._sizes.pop(sha256)
            return False
        self._sizes.move_to_end(sha256)
        return True

    def _keep(self, sha256: str, size: int, temporary: Path) -> Path:
        path = self._path(sha256)
        with self._lock:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.replace(path)
            self._reserved -= size
            self._used += size - self._sizes.pop(sha256, 0)
            self._sizes[sha256] = size
        return path

    def _check_space(self, size: int) -> None:
        """Raise BlobError where *size* more bytes would not leave the reserve free."""
        if self._reserve and shutil.disk_usage(self._folder).free < self._reserve + size:
            raise BlobError(Kind.STORAGE, "too little space is left on the disk for the file")

    def _release(self, size: int) -> None:
        with self._lock:
            self._reserved -= size

    def _make_room(self, size: int) -> None:
        for sha256 in list(self._sizes):
            if self._used + self._reserved + size <= self._quota:
                return
            if sha256 in self._pins:
                continue
            try:
                self._path(sha256).unlink(missing_ok=True)
            except OSError:
                continue
            self._used -= self._sizes.pop(sha256)
        if self._used + self._reserved + size > self._quota:
            raise BlobError(Kind.STORAGE, f"the quota of {self._quota} bytes for files is taken by running jobs")

    def _scan(self) -> None:
        """Find what is there, by names, sizes and times alone; what was left half-written goes."""
        found: list[tuple[int, str, int]] = []
        for entry in os.scandir(self._incoming):
            with contextlib.suppress(OSError):
                Path(entry.path).unlink()
        for folder in os.scandir(self._folder):
            if len(folder.name) != 2 or not folder.is_dir(follow_symlinks=False):
                continue
            for entry in os.scandir(folder.path):
                if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    stat = entry.stat(follow_symlinks=False)
                    found.append((stat.st_mtime_ns, entry.name, stat.st_size))
        for _, name, size in sorted(found):
            self._sizes[name] = size
            self._used += size


def _storage_error(error: OSError) -> BlobError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BlobError(Kind.STORAGE, "the disk is full: the file was not kept")
    return BlobError(Kind.STORAGE, f"the file can't be kept: {error.strerror}")
