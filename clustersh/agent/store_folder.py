"""The store's folder as a whole: ``store.json``, ``journal`` and ``jobs`` belong together."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec
from twisted.logger import Logger

from ..home import HomeError, private_folder, read_json, write_json
from .job_files import JobFiles
from .journal import Journal
from .records import Entry

_log = Logger()


class StoreFile(msgspec.Struct, frozen=True):
    """``store.json``: the store's random id."""

    id: str


def open_folder(folder: Path, files: JobFiles, journal: Journal) -> tuple[str, list[Entry]]:
    """Return the store's id and what the last agent's journal says; the id is new where a part of it is gone.

    Blocks. Raises HomeError, StoreError.
    """
    private_folder(folder)
    path = folder / "store.json"
    try:
        stored = read_json(path, StoreFile)
    except HomeError as error:
        _log.error("{reason}; the store gets a new id: jobs that were open count as lost", reason=str(error))
        stored = None
    whole = files.folder.is_dir() and journal.exists
    private_folder(files.folder)
    entries = journal.open()
    if stored is None or not whole:
        stored = StoreFile(secrets.token_hex(16))
        write_json(path, stored)
    return stored.id, entries
