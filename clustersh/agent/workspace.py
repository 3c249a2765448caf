"""The folders of jobs on this machine: the files that came with a job, its script, and where it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from ..blobs import BlobStore
from ..home import private_folder
from ..unreachable import Unreachable
from ..wire.codec import WireError
from ..wire.files import MAX_MANIFEST, EntryKind, Manifest, decode_manifest
from ..wire.jobs import MAX_SCRIPT, BlobRef
from ..wire.link import Start
from ..wire.problems import ProblemError
from .executors import Task
from .fetch import BlobFetcher, InThread
from .files import FilesError, remove_tree, unpack

_AT_ONCE = 4
WORK = "work"
"""The name of the folder that a machine's workspaces are in."""
_KEEP = "keep"

log = Logger()


class WorkspaceError(Exception):
    """The job can't be given what it needs, so it doesn't start; the message says why."""


class Workspaces:
    """Makes a workspace a job in *folder*. *user_home* is where commands run unless told otherwise.

    *elsewhere*: they don't run here, so where a command is to run can't be looked at.
    """

    def __init__(
        self, folder: Path, user_home: Path, fetcher: BlobFetcher, in_thread: InThread, *, elsewhere: bool = False
    ) -> None:
        self.folder = folder
        self.user_home = user_home
        self.fetcher = fetcher
        self.in_thread = in_thread
        self.elsewhere = elsewhere

    def of(self, start: Start, wanted: Callable[[], bool]) -> Workspace:
        """Return the workspace of a job; *wanted* says whether it may still start."""
        return Workspace(self, start, wanted)

    def remove_leftovers(self, but: frozenset[str]) -> None:
        """Remove what an agent that was killed left, but for the jobs in *but*. Blocks.

        A job whose processes may live on would go on writing there: see `remove_leftover`.
        """
        if not self.folder.is_dir():
            return
        for leftover in self.folder.iterdir():
            if leftover.name not in but:
                self.remove_leftover(leftover.name)

    async def clear(self, uuid: str) -> None:
        """Remove what is left of the job *uuid*, whose processes are ended, unless its files were to be kept."""
        await self.in_thread(self.remove_leftover, uuid)

    def remove_leftover(self, uuid: str) -> None:
        """Remove what is left here of the job *uuid*, unless its files were to be kept. Blocks."""
        if not is_kept(self.folder, uuid):
            _remove(self.folder / uuid)


class Workspace:
    """One job's folders, under ``work/<uuid>/``: its files (``files/``), and what its executor writes."""

    def __init__(self, workspaces: Workspaces, start: Start, wanted: Callable[[], bool]) -> None:
        self._all = workspaces
        self._start = start
        self._wanted = wanted
        self._folder = workspaces.folder / start.uuid

    async def prepare(self) -> Task:
        """Fetch and unpack what the job needs; return what its executor is to run. Raises WorkspaceError, Abandoned."""
        script_content = await self._bring()
        return Task(
            self._start.command,
            await self._where(),
            self._folder,
            script_content,
            self._start.uuid,
            self._start.cwd,
            None if self._start.files is None else self._files,
            self._start.env,
            self._start.stdin,
        )

    async def _bring(self) -> bytes | None:
        """Fetch the job's script, which is returned, and unpack its files."""
        script = self._start.command.script
        pins = [blob for blob in (script, self._start.files) if blob is not None]
        cache = self._all.fetcher.cache
        for blob in pins:
            cache.pin(blob.sha256)
        try:
            script_content = None if script is None else await self._fetch_small(script, MAX_SCRIPT, "script")
            if self._start.files is not None:
                await self._unpack(self._start.files)
        except (ProblemError, FilesError, WireError) as error:
            raise WorkspaceError(f"its files can't be put in place: {error}") from error
        except Unreachable as error:
            raise WorkspaceError(f"its files can't be fetched: {error.message}") from error
        except OSError as error:
            raise WorkspaceError(f"its files can't be put in place: {error.strerror}") from error
        finally:
            for blob in pins:
                cache.unpin(blob.sha256)
        return script_content

    async def remove(self) -> None:
        """Remove the job's folders, unless it asked to keep its files."""
        kept = self._start.keep_files and self._start.files is not None
        if not kept and self._folder.exists():
            await self._all.in_thread(_remove, self._folder)

    async def _where(self) -> Path:
        if self._all.elsewhere:
            return self._all.user_home
        # A directory that somebody names may be on a server that is gone; the home is where the agent itself lives.
        named = bool(self._start.cwd) or self._start.files is not None
        return await self._all.in_thread(self._working_directory) if named else self._working_directory()

    def _working_directory(self) -> Path:
        """Return where the command runs, checked: a relative directory lies under its files, or else its home."""
        base = self._all.user_home if self._start.files is None else self._files
        asked = Path(self._start.cwd) if self._start.cwd else base
        try:
            path = base / (asked.expanduser() if self._start.cwd.startswith("~") else asked)
            is_there = path.is_dir()
        except RuntimeError as error:
            raise WorkspaceError(f"no such user: {self._start.cwd}") from error
        except OSError as error:
            raise WorkspaceError(f"can't use the directory {asked}: {error.strerror}") from error
        if not is_there:
            raise WorkspaceError(f"no such directory: {path}")
        if not os.access(path, os.X_OK):
            raise WorkspaceError(f"not allowed to enter the directory {path}")
        return path

    @property
    def _files(self) -> Path:
        return self._folder / "files"

    async def _fetch_small(self, blob: BlobRef, limit: int, what: str) -> bytes:
        if blob.size > limit:
            raise WireError(f"the {what} is over {limit} bytes")
        await self._all.fetcher.fetch(self._start.uuid, blob, self._wanted)
        content: bytes = await self._all.in_thread(lambda: self._all.fetcher.cache.path(blob.sha256).read_bytes())
        return content

    async def _unpack(self, files: BlobRef) -> None:
        content = await self._fetch_small(files, MAX_MANIFEST, "list of files")
        manifest: Manifest = await self._all.in_thread(decode_manifest, content)
        sizes = {entry.sha256: entry.size for entry in manifest.entries if entry.kind is EntryKind.FILE}
        blobs = [BlobRef(sha256, size) for sha256, size in sizes.items()]
        cache: BlobStore = self._all.fetcher.cache
        for blob in blobs:
            cache.pin(blob.sha256)
        try:
            await self._fetch_all(blobs)
            await self._all.in_thread(self._place, manifest, cache)
        finally:
            for blob in blobs:
                cache.unpin(blob.sha256)

    async def _fetch_all(self, blobs: list[BlobRef]) -> None:
        """Fetch *blobs*, a few at a time; the first failure ends them all."""
        todo = iter(blobs)
        failed: list[Exception] = []

        async def fetch_some() -> None:
            for blob in todo:
                try:
                    await self._all.fetcher.fetch(self._start.uuid, blob, lambda: self._wanted() and not failed)
                except Exception as error:
                    failed.append(error)

        await gatherResults([Deferred.fromCoroutine(fetch_some()) for _ in range(_AT_ONCE)])
        if failed:
            raise failed[0]

    def _place(self, manifest: Manifest, cache: BlobStore) -> None:
        private_folder(self._files)
        if self._start.keep_files:
            (self._folder / _KEEP).touch(mode=0o600)
        unpack(manifest, self._files, cache.path)


def is_kept(folder: Path, uuid: str) -> bool:
    """Whether the files of the job *uuid*, whose folder is in *folder*, were to be kept."""
    return (folder / uuid / _KEEP).exists()


def _remove(folder: Path) -> None:
    try:
        remove_tree(folder)
    except FilesError as error:
        log.warn("a job's files stay behind: {reason}", reason=str(error))
