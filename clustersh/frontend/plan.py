"""``clustersh run --dry-run``: what would run, as what and where. Nothing is sent but the question."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PureWindowsPath
from typing import Any

import msgspec

from ..cli.errors import NOTHING_RAN
from ..cli.invocation import Invocation
from ..cli.tables import render_table
from ..cli.text import printable
from ..rest_client import RestClient
from ..wire.files import EntryKind, decode_manifest
from ..wire.fleet import Plan
from ..wire.jobs import Command
from ..wire.problems import ProblemError
from ..wire.rest import RunRequest
from ..wire.units import format_size, format_timeout
from . import left_out
from .client import connect
from .machine_status import status
from .many.names import counted
from .run_arguments import RunOptions
from .run_request import read_request
from .upload import Tree

SHOWN_FILES = 20
"""Files that are named; of more, only how many and how large."""
Files = list[tuple[str, int]]


async def plan(reactor: Any, invocation: Invocation, options: RunOptions) -> int:
    """Show what *options* would do: see `show_plan`."""
    client = await connect(reactor, invocation)
    read = await read_request(invocation, options)
    hint = "" if options.raw else "; --skip-offline leaves such machines out"
    return await show_plan(client, invocation, read.request, _files(read.tree), hint)


async def show_plan(
    client: RestClient, invocation: Invocation, request: RunRequest, files: Files, also: str = ""
) -> int:
    """Show what *request* would do with its *files*, and return 0 if it would start on every machine.

    *also* goes on with the hint about those that are offline. Raises ProblemError: what it would be refused for.
    """
    planned = await client.call("POST", "/v1/plans", request, answer=Plan, timeout_s=60.0)
    if planned.problem is not None:
        raise ProblemError.received(planned.problem)
    console = invocation.console
    await console.err("".join(f"{printable(words)}\n" for words in planned.selected))
    if invocation.json:
        await console.out(msgspec.json.encode(_document(planned, files)) + b"\n")
    else:
        await console.out(_text(planned, files, invocation.now(), console.width))
    if planned.left_out:
        await console.hint(left_out.hint(planned.left_out))
    if planned.would_start:
        return 0
    away: dict[str, list[str]] = {}
    for machine in planned.machines:
        if machine.status != "online":
            away.setdefault("unreachable" if machine.unreached else "offline", []).append(machine.name)
    where = "; ".join(f"{counted(names)}: {why}" for why, names in sorted(away.items()))
    await console.error(f"it would not start on {where}", (f"clustersh machines shows what is online{also}",))
    return NOTHING_RAN


def _files(tree: Tree | None) -> Files:
    if tree is None:
        return []
    assert isinstance(tree.manifest.source, bytes)
    entries = decode_manifest(tree.manifest.source).entries
    return [
        (entry.path.decode(errors="backslashreplace"), entry.size) for entry in entries if entry.kind is EntryKind.FILE
    ]


def _document(planned: Plan, files: Files) -> dict[str, object]:
    fields: dict[str, object] = {name: getattr(planned, name) for name in planned.__struct_fields__}
    return {**fields, "files": [{"path": path, "size": size} for path, size in files]}


def _text(planned: Plan, files: Files, now: float, width: int | None) -> str:
    groups: dict[tuple[int, str], list[str]] = {}
    for machine in planned.machines:
        groups.setdefault((machine.batch, status(machine, now)), []).append(machine.name)
    paced = len({batch for batch, _ in groups}) > 1
    rows = [(*((str(batch),) if paced else ()), counted(names), words) for (batch, words), names in groups.items()]
    table = render_table((*(("batch",) if paced else ()), "machines", "status"), rows, width)
    return table + "".join(f"{label}: {words}\n" for label, words in _lines(planned, files))


def _lines(planned: Plan, files: Files) -> Iterator[tuple[str, str]]:
    """Yield what would run, and how: a label and its words each."""
    lines = [printable(line) for line in planned.command.text.split("\n")]
    yield _command_label(planned.command), "\n  ".join(lines)
    base = "a temporary directory that holds the files" if planned.files else "the agent user's home"
    relative = not planned.cwd.startswith(("/", "~")) and not PureWindowsPath(planned.cwd).drive
    yield "in", printable(planned.cwd) + (f" of {base}" if relative else "") if planned.cwd else base
    if planned.env:
        yield "with the variables", printable(", ".join(planned.env))
    if files:
        named = [f"{path} ({format_size(size)})" for path, size in files[:SHOWN_FILES]]
        more = files[SHOWN_FILES:]
        if more:
            named.append(f"and {len(more)} more ({format_size(sum(size for _, size in more))})")
        yield "with the files", printable(", ".join(named)) + ("; they are kept" if planned.keep_files else "")
    if planned.stdin:
        yield "with", "standard input"
    yield "ends after", format_timeout(planned.timeout_s) if planned.timeout_s else "no time-out"
    if planned.idle_timeout_s:
        yield "ends without output for", format_timeout(planned.idle_timeout_s)
    if planned.skipped:
        yield "leaves out", f"{counted(planned.skipped)}: offline"
    if planned.left_out:
        yield "leaves out", f"{left_out.names(planned.left_out)}: new"
    yield "dry run", "nothing was done"


def _command_label(command: Command) -> str:
    if command.shell is not None:
        return "shell line"
    return "program and arguments" if command.argv is not None else "script"
