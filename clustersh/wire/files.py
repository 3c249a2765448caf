"""A file tree on the wire: its manifest (itself a blob, MessagePack) names every entry and the blob it holds."""

from __future__ import annotations

import enum
import re

import msgspec

from .codec import WireError
from .jobs import SHA256_PATTERN

MAX_ENTRIES = 100_000
MAX_MANIFEST = 64 << 20
MAX_MODE = 0o7777


class EntryKind(enum.StrEnum):
    """What an entry is; nothing else can be sent."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """*path* is relative, in bytes (names need not be UTF-8); *mode* its permission bits; *target* a symlink's."""

    path: bytes
    kind: EntryKind
    mode: int = 0o600
    sha256: str = ""
    size: int = 0
    target: bytes = b""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries in an order in which they can be made: a folder before what it holds."""

    entries: tuple[Entry, ...]


def encode_manifest(manifest: Manifest) -> bytes:
    """Return *manifest* as its blob's content."""
    return msgspec.msgpack.encode(manifest)


def decode_manifest(content: bytes) -> Manifest:
    """Return the manifest in *content*, checked: nothing in it leads out of its directory. Raises WireError."""
    try:
        manifest = msgspec.msgpack.decode(content, type=Manifest)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise WireError(str(error)) from error
    check_manifest(manifest)
    return manifest


def check_manifest(manifest: Manifest) -> None:
    """Raise WireError unless every entry, and what each symlink points at, stays inside, and no path comes twice."""
    if len(manifest.entries) > MAX_ENTRIES:
        raise WireError(f"more than {MAX_ENTRIES} files")
    kinds: dict[bytes, EntryKind] = {}
    for entry in manifest.entries:
        parts = entry.path.split(b"/")
        shown = entry.path.decode(errors="backslashreplace")
        if entry.path.startswith(b"/") or b"\0" in entry.path or any(part in (b"", b".", b"..") for part in parts):
            raise WireError(f"the path {shown!r} leads out of its directory")
        if entry.path in kinds:
            raise WireError(f"the path {shown!r} comes twice")
        if len(parts) > 1 and kinds.get(b"/".join(parts[:-1])) is not EntryKind.FOLDER:
            raise WireError(f"the folder of {shown!r} does not come before it")
        if entry.kind is EntryKind.SYMLINK and not _stays_inside(parts, entry.target):
            raise WireError(f"the symlink {shown!r} leads out of its directory")
        if entry.kind is EntryKind.FILE and (entry.size < 0 or not re.search(SHA256_PATTERN, entry.sha256)):
            raise WireError(f"the file {shown!r} has no content")
        if not 0 <= entry.mode <= MAX_MODE:
            raise WireError(f"the mode of {shown!r} can't be")
        kinds[entry.path] = entry.kind


def _stays_inside(parts: list[bytes], target: bytes) -> bool:
    """Whether a symlink at *parts* can't lead out, through other symlinks either.

    Its own folders are real, so leading ``..`` can be counted; one after a name could be a symlink's parent.
    """
    if not target or target.startswith(b"/") or b"\0" in target:
        return False
    steps = [step for step in target.split(b"/") if step not in (b"", b".")]
    upwards = next((index for index, step in enumerate(steps) if step != b".."), len(steps))
    return upwards <= len(parts) - 1 and b".." not in steps[upwards:]
