"""Files that go with a run: a manifest of the trees, and whichever contents the coordinator lacks."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..cli.descriptors import InThread
from ..cli.errors import CliError
from ..rest_client import RestClient
from ..wire.codec import WireError
from ..wire.files import MAX_ENTRIES, Entry, EntryKind, Manifest, check_manifest, encode_manifest
from ..wire.jobs import BlobRef
from ..wire.rest import BlobNames
from .retry import Retry

PIECE = 256 << 10
NAMES_AT_ONCE = 10_000


class Content(NamedTuple):
    """What a blob holds: *source* is a file, or the bytes themselves."""

    sha256: str
    size: int
    source: Path | bytes

    @classmethod
    def of(cls, data: bytes) -> Content:
        """The content that *data* is."""
        return cls(hashlib.sha256(data).hexdigest(), len(data), data)

    def reference(self, name: str = "") -> BlobRef:
        """How a request names it."""
        return BlobRef(self.sha256, self.size, name)


class Tree(NamedTuple):
    """A manifest, and the contents it names."""

    manifest: Content
    contents: tuple[Content, ...]


class UploadError(CliError):
    """A file can't be sent; nothing was."""

    def __init__(self, message: str, hints: tuple[str, ...] = ()) -> None:
        super().__init__(message, hints, kind="bad-request")


def scan(paths: Sequence[Path]) -> Tree:
    """Read what *paths* (files and directories) hold; blocks. Raises UploadError for what can't be sent."""
    entries: list[Entry] = []
    contents: dict[str, Content] = {}
    for name, path in _base_names(paths):
        for entry, content in _walk(name, path):
            entries.append(entry)
            if content is not None:
                contents[content.sha256] = content
            if len(entries) > MAX_ENTRIES:
                raise UploadError(f"more than {MAX_ENTRIES} files: send an archive instead")
    manifest = Manifest(tuple(entries))
    try:
        check_manifest(manifest)
    except WireError as error:
        raise UploadError(
            f"can't send the files: {error}", ("as it is: tar c DIR | clustersh run --stdin MACHINE 'tar x'",)
        ) from error
    return Tree(Content.of(encode_manifest(manifest)), tuple(contents.values()))


async def send(client: RestClient, retry: Retry, contents: Iterable[Content], in_thread: InThread) -> None:
    """Upload those of *contents* that the coordinator lacks."""
    wanted = {content.sha256: content for content in contents}
    names = list(wanted)

    async def missing(asked: BlobNames) -> BlobNames:
        return await client.call("POST", "/v1/blobs/missing", asked, answer=BlobNames)

    async def put(content: Content) -> None:
        await client.upload(f"/v1/blobs/{content.sha256}", content.size, _pieces(content.source, in_thread))

    for first in range(0, len(names), NAMES_AT_ONCE):
        asked = BlobNames(tuple(names[first : first + NAMES_AT_ONCE]))
        answer = await retry(functools.partial(missing, asked))
        for sha256 in answer.sha256:
            if sha256 in wanted:
                await retry(functools.partial(put, wanted[sha256]))


async def _pieces(source: Path | bytes, in_thread: InThread) -> AsyncIterator[bytes]:
    if isinstance(source, bytes):
        for first in range(0, len(source), PIECE):
            yield source[first : first + PIECE]
        return
    try:
        file = await in_thread(lambda: source.open("rb"))
        try:
            while piece := await in_thread(lambda: file.read(PIECE)):
                yield piece
        finally:
            file.close()
    except OSError as error:
        raise _unreadable(source, error) from error


def _base_names(paths: Sequence[Path]) -> Iterator[tuple[bytes, Path]]:
    seen: dict[bytes, Path] = {}
    for path in paths:
        name = os.fsencode(os.path.basename(os.path.abspath(path)))  # noqa: PTH100, PTH119 - Path can't do `..` so
        if not name:
            raise UploadError(f"{path}: name a directory in it, the whole file system can't be sent")
        if name in seen:
            raise UploadError(
                f"--file {path} and --file {seen[name]} have one name", ("they would be one file on the other side",)
            )
        seen[name] = path
        yield name, path


def _walk(name: bytes, top: Path) -> Iterator[tuple[Entry, Content | None]]:
    """Yield *top* as *name*, and all that is below it, folders first. A symlink that was named is followed."""
    waiting = [(name, top)]
    while waiting:
        name, path = waiting.pop()
        try:
            status = path.stat() if path is top else path.lstat()
            mode = stat.S_IMODE(status.st_mode) & 0o777
            if stat.S_ISDIR(status.st_mode):
                yield Entry(name, EntryKind.FOLDER, mode), None
                below = sorted(os.listdir(os.fsencode(path)), reverse=True)  # noqa: PTH208 - Path has no bytes
                waiting += [(name + b"/" + child, path / os.fsdecode(child)) for child in below]
            elif stat.S_ISLNK(status.st_mode):
                yield Entry(name, EntryKind.SYMLINK, target=os.readlink(os.fsencode(path))), None  # noqa: PTH115
            elif stat.S_ISREG(status.st_mode):
                content = _read(path)
                yield Entry(name, EntryKind.FILE, mode, content.sha256, content.size), content
            else:
                raise UploadError(
                    f"{path} is {_kind(status.st_mode)}: only files, directories and symlinks can be sent"
                )
        except OSError as error:
            raise _unreadable(path, error) from error


def _read(path: Path) -> Content:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            size += len(piece)
    return Content(digest.hexdigest(), size, path)


def _kind(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a device"


def _unreadable(path: Path, error: OSError) -> UploadError:
    return UploadError(f"can't read {path}: {error.strerror}")
