"""The blobs of open runs: held in the store until no job needs them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from twisted.internet.threads import deferToThread

from ..blobs import BlobStore
from ..wire.codec import WireError
from ..wire.files import MAX_MANIFEST, EntryKind, decode_manifest
from ..wire.problems import Kind, ProblemError


class HeldBlobs:
    """Pins what runs need in *store*."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    async def hold(self, script: str, manifest: str) -> frozenset[str]:
        """Pin a script's blob, a manifest's, and all that the manifest names ("" is none); return their names.

        Raises ProblemError where one is missing, or the manifest is not one.
        """
        named = [name for name in (script, manifest) if name]
        return await deferToThread(self._hold, named, manifest) if named else frozenset()

    def _hold(self, named: list[str], manifest: str) -> frozenset[str]:
        """In a thread: there may be very many."""
        held: set[str] = set()
        try:
            self._pin(named, held)
            if manifest:
                self._pin(sorted(_named_in(self._store.path(manifest))), held)
        except BaseException:
            self.let_go(frozenset(held))
            raise
        return frozenset(held)

    def _pin(self, names: Iterable[str], held: set[str]) -> None:
        """Pin each of *names* once; pinned first, none can be evicted between the look and the pin."""
        for name in names:
            if name in held:
                continue
            self._store.pin(name)
            held.add(name)
            if not self._store.has(name):
                raise ProblemError(
                    Kind.UNKNOWN_BLOB, f"the coordinator does not have the file {name[:12]}…", hint="send it again"
                )

    def let_go(self, blobs: frozenset[str]) -> None:
        """Take the pins away."""
        for name in blobs:
            self._store.unpin(name)


def _named_in(path: Path) -> set[str]:
    """Return the blobs that the manifest at *path* names. Raises ProblemError."""
    if path.stat().st_size > MAX_MANIFEST:
        raise ProblemError(Kind.TOO_LARGE, "the list of files is too large")
    try:
        manifest = decode_manifest(path.read_bytes())
    except WireError as error:
        raise ProblemError(Kind.BAD_REQUEST, f"the files can't be used: {error}") from error
    return {entry.sha256 for entry in manifest.entries if entry.kind is EntryKind.FILE}
