"""The store's folder as a whole: ``store.json``, ``journal`` and ``jobs`` belong together."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from ..home import private_folder, read_json, write_json
from .job_files import JobFiles
from .journal import Journal
from .records import Entry


class StoreFile(msgspec.Struct, frozen=True):
    """``store.json``: the store's random id."""

    id: str


def open_folder(folder: Path, files: JobFiles, journal: Journal) -> tuple[str, list[Entry]]:
    """Return the store's id and what the last agent's journal says; the id is new where a part of it is gone.

    Blocks. Raises HomeError, StoreError.
    """
    private_folder(folder)
    path = folder / "store.json"
    stored = read_json(path, StoreFile)
    whole = files.folder.is_dir() and journal.exists
    private_folder(files.folder)
    entries = journal.open()
    if stored is None or not whole:
        stored = StoreFile(secrets.token_hex(16))
        write_json(path, stored)
    return stored.id, entries
