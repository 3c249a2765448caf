"""A run's request, made of what was typed and of the files that it names; nothing is sent here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..cli.invocation import Invocation, Stdin
from ..wire.jobs import MAX_SCRIPT, Command
from ..wire.rest import RunRequest
from .run_arguments import RunOptions, run_request
from .upload import Content, Tree, UploadError, scan


class ReadRequest(NamedTuple):
    """The request, the *contents* that the coordinator needs for it, and the *tree* of its files, if it has any.

    *script* is that of the contents which the policy looks into.
    """

    request: RunRequest
    contents: tuple[Content, ...]
    tree: Tree | None
    script: Content | None


async def read_request(invocation: Invocation, options: RunOptions) -> ReadRequest:
    """Read the script and the files, and return the request. Raises CliError for what can't be sent."""
    command, contents = options.command, list[Content]()
    script, tree = None, None
    if options.script is not None:
        command, script = await _script(invocation, options.script)
        contents.append(script)
    if options.files:
        paths = [invocation.path(name) for name in options.files]
        tree = await invocation.in_thread(lambda: scan(paths))
        assert tree is not None
        contents += [*tree.contents, tree.manifest]
    assert command is not None
    files = tree.manifest.reference() if tree is not None else None
    return ReadRequest(run_request(options, command, files), tuple(contents), tree, script)


async def _script(invocation: Invocation, name: str) -> tuple[Command, Content]:
    if name == "-":
        data = await _read_all(invocation.stdin)
    else:
        path = invocation.path(name)
        try:
            data = await invocation.in_thread(lambda: _read_bounded(path))
        except OSError as error:
            raise UploadError(f"can't read the script {name}: {error.strerror}") from error
    if not data:
        raise UploadError("the script is empty")
    if len(data) > MAX_SCRIPT:
        raise UploadError(
            f"the script is larger than {MAX_SCRIPT >> 20} MiB", ("send what it needs with --file, and run that",)
        )
    content = Content.of(data)
    shown = "" if name == "-" else invocation.path(name).name
    return Command(script=content.reference(shown.encode(errors="replace").decode())), content


async def _read_all(stdin: Stdin) -> bytes:
    data = bytearray()
    while len(data) <= MAX_SCRIPT and (piece := await stdin.read(1 << 16)):
        data += piece
    return bytes(data)


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_SCRIPT + 1)
