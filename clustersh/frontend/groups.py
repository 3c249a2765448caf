"""``clustersh groups``: the groups that people make of machines."""

from __future__ import annotations

from argparse import Namespace
from typing import Any
from urllib.parse import quote

from ..cli.commands import Start
from ..cli.errors import UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..cli.tables import render_table
from ..rest_client import RestClient
from ..wire.fleet import ChangeGroup, DeleteGroup, GroupChanged, Groups, group_name
from .client import connect
from .target_words import add_dry_run, add_exclude, joined, machines, show

EXAMPLES = (
    "clustersh groups",
    "clustersh groups add web web[01-10]",
    "clustersh groups add gpu ws1,ws3 --dry-run",
    "clustersh groups remove web web03",
    "clustersh groups delete web",
    "clustersh groups import-sshsync",
)
_VERBS = ("list", "add", "remove", "delete", "import-sshsync")
_DONE = {"add": ("added", "to", "in"), "remove": ("removed", "from", "not in")}


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``groups``."""
    parser = Parser("clustersh groups", "List and change groups of machines: @web in a target is one.", EXAMPLES)
    parser.usage = "clustersh groups [list | add GROUP EXPR | remove GROUP EXPR | delete GROUP | import-sshsync [FILE]]"
    parser.add_argument("verb", nargs="?", choices=_VERBS, default="list", metavar="VERB", help=", ".join(_VERBS))
    parser.add_argument("words", nargs="*", metavar="GROUP EXPR", help="the group, and which machines; or a file")
    add_exclude(parser)
    add_dry_run(parser)
    options = parser.read(invocation, arguments)
    words: list[str] = options.words
    if options.verb == "import-sshsync":
        from .sshsync import prepare_import

        return prepare_import(invocation, words, dry_run=options.dry_run)
    _check(options)
    if options.verb == "list":
        return lambda reactor: show_groups(reactor, invocation)
    group = _group(words[0])
    if options.verb == "delete":
        return lambda reactor: delete(reactor, invocation, group, DeleteGroup(options.dry_run))
    body = ChangeGroup(",".join(words[1:]), options.exclude, options.dry_run)
    return lambda reactor: change(reactor, invocation, options.verb, group, body)


def _check(options: Namespace) -> None:
    needed, least, most = {
        "list": ("nothing more", 0, 0),
        "delete": ("a group", 1, 1),
        "add": ("a group and which machines", 2, 1000),
        "remove": ("a group and which machines", 2, 1000),
    }[options.verb]
    number = len(options.words)
    if number < least or (most is not None and number > most):
        raise UsageError(f"groups {options.verb} takes {needed}", ("clustersh groups --help",))


def _group(text: str) -> str:
    try:
        return group_name(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


async def show_groups(reactor: Any, invocation: Invocation) -> int:
    """Print the groups."""
    client = await connect(reactor, invocation)
    found = await client.call("GET", "/v1/groups", answer=Groups)
    rows = [(f"@{group.name}", str(len(group.machines)), _members(group.folded, group.new)) for group in found.groups]
    table = render_table(("group", "machines", "which"), rows, invocation.console.width)
    await show(invocation, found, table)
    if not rows and not invocation.json:
        await invocation.console.hint("there is no group yet: clustersh groups add NAME MACHINES")
    return 0


def _members(folded: str, new: tuple[str, ...]) -> str:
    return f"{folded} (new: {joined(new)})" if new else folded


async def change(reactor: Any, invocation: Invocation, verb: str, group: str, body: ChangeGroup) -> int:
    """Add machines to a group, or remove them, and say which."""
    client = await connect(reactor, invocation)
    changed = await send_change(client, verb, group, body)
    await show(invocation, changed, f"{change_text(verb, changed)}\n")
    return 0


async def send_change(client: RestClient, verb: str, group: str, body: ChangeGroup) -> GroupChanged:
    """Have the coordinator *verb* (add, remove) the machines; return what that changed."""
    return await client.call("POST", f"/v1/groups/{quote(group, safe='')}/{verb}", body, answer=GroupChanged)


def change_text(verb: str, changed: GroupChanged) -> str:
    """Return what was changed in words, or would be."""
    done, where, there = _DONE[verb]
    if not changed.changed:
        return f"Nothing to change: {joined(changed.unchanged)} {_are(changed.unchanged)} {there} @{changed.group}."
    said = f"Would be {done} {where}" if changed.dry_run else f"{done.capitalize()} {where}"
    rest = f" ({len(changed.unchanged)} {_are(changed.unchanged)} {there} it)" if changed.unchanged else ""
    return f"{said} @{changed.group}: {joined(changed.changed)}{rest}."


def _are(names: tuple[str, ...]) -> str:
    return "is" if len(names) == 1 else "are"


async def delete(reactor: Any, invocation: Invocation, group: str, body: DeleteGroup) -> int:
    """End a group and say what was in it."""
    client = await connect(reactor, invocation)
    path = f"/v1/groups/{quote(group, safe='')}/delete"
    ended = await client.call("POST", path, body, answer=GroupChanged)
    said = "Would delete" if ended.dry_run else "Deleted"
    await show(invocation, ended, f"{said} @{ended.group}, which had {machines(len(ended.changed))}.\n")
    return 0
