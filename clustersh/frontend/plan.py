"""``clustersh run --dry-run``: what would run, as what and where. Only a script is sent, for the policy to judge it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PureWindowsPath
from typing import Any

import msgspec

from ..cli.errors import NOTHING_RAN, from_problem
from ..cli.invocation import Invocation
from ..cli.tables import render_table
from ..cli.text import printable
from ..config import load
from ..rest_client import RestClient
from ..wire.files import EntryKind, decode_manifest
from ..wire.fleet import Plan
from ..wire.jobs import Command
from ..wire.problems import Kind, ProblemError
from ..wire.rest import RunRequest
from ..wire.units import format_size, format_timeout
from . import left_out
from .client import connect
from .machine_status import status
from .many.names import counted
from .retry import Retry
from .run_arguments import RunOptions
from .run_request import read_request
from .upload import Tree, send

SHOWN_FILES = 20
"""Files that are named; of more, only how many and how large."""
Files = list[tuple[str, int]]
_DOES = {"self": "--force passes it", "approve": "--force passes it: an admin has allowed it, once"}
_WOULD = {
    "self": "--force would pass it",
    "approve": "--force passes it once an admin has allowed it",
    "never": "you may not pass it",
}


async def plan(reactor: Any, invocation: Invocation, options: RunOptions) -> int:
    """Show what *options* would do: see `show_plan`."""
    read = await read_request(invocation, options)
    client = await connect(reactor, invocation)
    if read.script is not None:
        retry = Retry(reactor, load(invocation.home).client.retry_for)
        await send(client, retry, (read.script,), invocation.in_thread)
    hint = "" if options.raw else "; --skip-offline leaves such machines out"
    return await show_plan(client, invocation, read.request, _files(read.tree), hint)


async def show_plan(
    client: RestClient, invocation: Invocation, request: RunRequest, files: Files, also: str = ""
) -> int:
    """Show what *request* would do with its *files*, and return 0 if it would start on every machine.

    *also* goes on with the hint about those that are offline. Raises ProblemError where there is nothing to show: the
    target is no machine.
    """
    planned = await client.call("POST", "/v1/plans", request, answer=Plan, timeout_s=60.0)
    if planned.problem is not None and not planned.machines:
        raise ProblemError.received(planned.problem)
    console = invocation.console
    await console.err("".join(f"{printable(words)}\n" for words in planned.selected))
    if invocation.json:
        await console.out(msgspec.json.encode(_document(planned, files)) + b"\n")
    else:
        await console.out(_text(planned, files, invocation.now(), console.width))
    if planned.left_out:
        await console.hint(left_out.hint(planned.left_out))
    if planned.problem is not None:
        refused = from_problem(planned.problem)
        await console.error(refused.message, refused.hints)
        return refused.status
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
    yield from _policy(planned)
    yield "dry run", "nothing was done"


def _policy(planned: Plan) -> Iterator[tuple[str, str]]:
    """Yield what the policy says of it, in few words where it passes; an older coordinator does not tell."""
    if planned.unjudged:
        yield "policy", "has not seen the script"
        return
    stops = [verdict for verdict in planned.verdicts if verdict.verdict != "pass"]
    if planned.verdicts and not stops:
        yield "policy", "passes"
    for stop in stops:
        partly = f" on {counted(stop.machines)}" if len(planned.verdicts) > 1 else ""
        verb = "denies" if stop.verdict == "deny" else "blocks"
        where = f" ({stop.where})" if stop.where else ""
        yield "policy", printable(f"{stop.rule} {verb} it{partly}: {stop.why}{where}")
    refused = planned.problem is not None and planned.problem.kind is Kind.POLICY
    if refused and not stops:
        yield "policy", "allows this client no such run"
    if stops:
        denied = any(stop.verdict == "deny" for stop in stops)
        yield "force", "nothing passes it" if denied else (_WOULD if refused else _DOES).get(planned.force, "")


def _command_label(command: Command) -> str:
    if command.shell is not None:
        return "shell line"
    return "program and arguments" if command.argv is not None else "script"
