"""``clustersh groups`` and ``clusterd groups``: the groups that people make of machines."""

from __future__ import annotations

from argparse import Namespace
from typing import Any
from urllib.parse import quote

from ..rest_client import RestClient
from ..wire.fleet import ChangeGroup, DeleteGroup, GroupChanged, Groups, group_name
from .commands import Start
from .dry_run import add_dry_run
from .errors import UsageError
from .invocation import Invocation
from .parser import Parser, add_exclude
from .tables import render_table
from .target_words import Ask, joined, machines, show

EXAMPLES = ("", "add web web[01-10]", "add gpu ws1,ws3 --dry-run", "remove web web03", "delete web")
VERBS = ("list", "add", "remove", "delete")
_DONE = {"add": ("added", "to", "in"), "remove": ("removed", "from", "not in")}


def groups_parser(program: str, *more: str) -> Parser:
    """Return the parser of *program*'s command, with *more* verbs, which take a file."""
    name = f"{program} groups"
    examples = tuple(f"{name} {example}".rstrip() for example in (*EXAMPLES, *more))
    parser = Parser(name, "List and change groups of machines: @web in a target is one.", examples)
    others = "".join(f" | {verb} [FILE]" for verb in more)
    parser.usage = f"{name} [list | add GROUP EXPR | remove GROUP EXPR | delete GROUP{others}]"
    verbs = (*VERBS, *more)
    parser.add_argument("verb", nargs="?", choices=verbs, default="list", metavar="VERB", help=", ".join(verbs))
    words = "the group, and which machines" + ("; or a file" if more else "")
    parser.add_argument("words", nargs="*", metavar="GROUP EXPR", help=words)
    add_exclude(parser)
    add_dry_run(parser)
    return parser


def groups_start(program: str, ask: Ask, invocation: Invocation, options: Namespace) -> Start:
    """Return the start of what *options* ask for. Raises UsageError."""
    words: list[str] = options.words
    _check(program, options)
    if options.verb == "list":
        return lambda reactor: show_groups(reactor, ask, invocation, program)
    group = _group(words[0])
    if options.verb == "delete":
        return lambda reactor: delete(reactor, ask, invocation, group, DeleteGroup(options.dry_run))
    body = ChangeGroup(",".join(words[1:]), options.exclude, options.dry_run)
    return lambda reactor: change(reactor, ask, invocation, options.verb, group, body)


def _check(program: str, options: Namespace) -> None:
    needed, least, most = {
        "list": ("nothing more", 0, 0),
        "delete": ("a group", 1, 1),
        "add": ("a group and which machines", 2, 1000),
        "remove": ("a group and which machines", 2, 1000),
    }[options.verb]
    if not least <= len(options.words) <= most:
        raise UsageError(f"groups {options.verb} takes {needed}", (f"{program} groups --help",))


def _group(text: str) -> str:
    try:
        return group_name(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


async def show_groups(reactor: Any, ask: Ask, invocation: Invocation, program: str) -> int:
    """Print the groups."""
    found = await ask(reactor, invocation, lambda client: client.call("GET", "/v1/groups", answer=Groups))
    rows = [(f"@{group.name}", str(len(group.machines)), _members(group.folded, group.new)) for group in found.groups]
    table = render_table(("group", "machines", "which"), rows, invocation.console.width)
    await show(invocation, found, table)
    if not rows and not invocation.json:
        await invocation.console.hint(f"there is no group yet: {program} groups add NAME MACHINES")
    return 0


def _members(folded: str, new: tuple[str, ...]) -> str:
    return f"{folded} (new: {joined(new)})" if new else folded


async def change(reactor: Any, ask: Ask, invocation: Invocation, verb: str, group: str, body: ChangeGroup) -> int:
    """Add machines to a group, or remove them, and say which."""
    changed = await ask(reactor, invocation, lambda client: send_change(client, verb, group, body))
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


async def delete(reactor: Any, ask: Ask, invocation: Invocation, group: str, body: DeleteGroup) -> int:
    """End a group and say what was in it."""
    path = f"/v1/groups/{quote(group, safe='')}/delete"
    ended = await ask(reactor, invocation, lambda client: client.call("POST", path, body, answer=GroupChanged))
    said = "Would delete" if ended.dry_run else "Deleted"
    await show(invocation, ended, f"{said} @{ended.group}, which had {machines(len(ended.changed))}.\n")
    return 0
