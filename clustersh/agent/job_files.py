"""Where each job's files are: ``jobs/<utc date of its UUIDv7>/<uuid>/``, with ``job.json``. All of it blocks."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import msgspec

from ..home import sync_folder
from ..wire.ids import is_run_uuid, uuid_time
from ..wire.problems import Kind
from .disk import Disk, explain
from .output_file import make_job_folder
from .output_index import Sizes
from .output_read import FileOutput, InlineOutput, Output
from .records import JobDamagedError, JobEnd, StoredJob, StoreError


class JobFiles:
    """The jobs under *folder*."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self._disk = disk

    def of(self, uuid: str) -> Path:
        """Return the job's folder, made or not. Raises StoreError where *uuid* is no UUIDv7."""
        try:
            if is_run_uuid(uuid):
                return self.folder / uuid_time(uuid).strftime("%Y-%m-%d") / uuid
        except (ValueError, OverflowError, OSError):
            pass
        raise StoreError(Kind.BAD_REQUEST, "a job is named by a UUIDv7")

    def has(self, uuid: str) -> bool:
        """Whether the job has its ``job.json``."""
        return (self.of(uuid) / "job.json").exists()

    def load(self, uuid: str) -> StoredJob:
        """Return what is kept of the job. Raises StoreError: UNKNOWN_RUN, or STORAGE where it is damaged."""
        path = self.of(uuid) / "job.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=StoredJob)
        except FileNotFoundError:
            raise StoreError(Kind.UNKNOWN_RUN, f"this machine has no job {uuid}", uuid=uuid) from None
        except OSError as error:
            detail = f"{path} can't be read: {explain(error)}"
            raise StoreError(Kind.STORAGE, detail, uuid=uuid, started=None) from error
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise JobDamagedError(path, uuid) from error

    def write(self, job: StoredJob) -> None:
        """Replace the job's ``job.json`` in one step, without waiting for the disk. Raises OSError."""
        folder = self.of(job.uuid)
        new = folder / "job.json.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(new, flags, 0o600)
        except FileNotFoundError:
            make_job_folder(folder)
            descriptor = os.open(new, flags, 0o600)
        with io.FileIO(descriptor, "w") as file:
            self._disk.write(file, msgspec.json.encode(job) + b"\n")
        new.replace(folder / "job.json")

    def repair(self, job: StoredJob) -> None:
        """Write the ended job's ``job.json`` unless it is there and says the same. Raises OSError."""
        with contextlib.suppress(StoreError):
            if self.load(job.uuid).end == job.end:
                return
        self.write(job)

    def last_trace(self, uuid: str) -> float:
        """Return when the job's output was last written to (wall-clock seconds), 0 where there is none."""
        try:
            return (self.of(uuid) / "output").stat().st_mtime
        except OSError:
            return 0.0

    def output(self, uuid: str, end: JobEnd) -> Output:
        """Return the ended job's output, to be read."""
        if end.inline:
            return InlineOutput(end.data, end.runs)
        return FileOutput(self.of(uuid), Sizes(end.output.stdout_bytes, end.output.stderr_bytes))

    def ended_output(self, uuid: str) -> Output:
        """Return the output of a job that is not open any more. Raises StoreError as `load`."""
        end = self.load(uuid).end
        assert end is not None
        return self.output(uuid, end)

    def make_durable(self, uuids: list[str]) -> None:
        """Put the ``job.json`` of each job on the disk. Raises OSError."""
        folders = [self.of(uuid) for uuid in uuids]
        for folder in folders:
            with contextlib.suppress(FileNotFoundError), io.FileIO(folder / "job.json", "r+b") as file:
                self._disk.sync(file)
                sync_folder(folder)
        for path in (*{folder.parent for folder in folders}, self.folder):
            with contextlib.suppress(FileNotFoundError):
                sync_folder(path)
