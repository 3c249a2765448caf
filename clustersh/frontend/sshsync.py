"""``clustersh groups import-sshsync``: the groups that sshsync keeps, made here too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from ..cli.commands import Start
from ..cli.errors import CliError, UsageError
from ..cli.groups import change_text, send_change
from ..cli.invocation import Invocation
from ..cli.target_words import joined, show
from ..cli.text import printable
from ..wire.fleet import ChangeGroup, GroupChanged, group_name
from ..wire.rest import Machines
from .client import connect

MAX_FILE = 1 << 20
_PLACES = ("config.yml", "config.yaml")
_FORM = "sshsync's file looks like:  groups: {web: [web01, web02]}"


class Imported(msgspec.Struct, frozen=True):
    """What was made of *file*: the *groups* and what that changed in each; what was left out of them, and why."""

    file: str
    groups: tuple[GroupChanged, ...]
    unknown: dict[str, tuple[str, ...]]
    left_out: dict[str, str]
    dry_run: bool = False


class _Texts(yaml.SafeLoader):
    """Makes texts, lists and mappings, nothing else: ``no`` and ``007`` may be machines."""


_Texts.yaml_implicit_resolvers = {}


def prepare_import(invocation: Invocation, words: Sequence[str], *, dry_run: bool) -> Start:
    """Find the file, which may be named. Raises CliError where there is none."""
    if len(words) > 1:
        raise UsageError("groups import-sshsync takes one file", ("clustersh groups --help",))
    path = invocation.cwd / words[0] if words else _default(invocation)
    return lambda reactor: import_groups(reactor, invocation, path, dry_run=dry_run)


def read_groups(path: Path) -> dict[str, list[str]]:
    """Return the groups in *path* as they are called there; blocks. Raises CliError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise _unusable(path, f"can't be read: {error.strerror}") from error
    if len(content) > MAX_FILE:
        raise _unusable(path, "is larger than 1 MiB")
    try:
        document = yaml.load(content, Loader=_Texts)  # noqa: S506 - it is a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise _unusable(
            path, f"is no YAML{where}: {getattr(error, 'problem', None) or 'it is nested too deep'}"
        ) from error
    groups = document.get("groups") if isinstance(document, dict) else None
    if not isinstance(groups, dict):
        raise _unusable(path, "has no groups")
    return {name: _aliases(path, name, aliases) for name, aliases in groups.items() if isinstance(name, str)}


def _aliases(path: Path, name: str, aliases: object) -> list[str]:
    if aliases in ("", None):
        return []
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise _unusable(path, f"has a group {name!r} that is no list of names")
    return aliases


def _default(invocation: Invocation) -> Path:
    folder = Path(invocation.environ.get("HOME", "")).expanduser() / ".config" / "sshsync"
    found = [folder / name for name in _PLACES if (folder / name).exists()]
    if not found:
        raise CliError(
            f"there is no {' or '.join(_PLACES)} in {folder}",
            ("name the file: clustersh groups import-sshsync FILE",),
            kind="not-found",
        )
    return found[0]


def _unusable(path: Path, why: str) -> CliError:
    return CliError(f"{path} {why}", (_FORM,), kind="bad-request")


async def import_groups(reactor: Any, invocation: Invocation, path: Path, *, dry_run: bool) -> int:
    """Add the machines that are known to their groups, and say what was left out."""
    groups = await invocation.in_thread(lambda: read_groups(path))
    client = await connect(reactor, invocation)
    known = {machine.name for machine in (await client.call("GET", "/v1/machines", answer=Machines)).machines}
    changed: list[GroupChanged] = []
    unknown: dict[str, tuple[str, ...]] = {}
    left_out: dict[str, str] = {}
    for name, aliases in groups.items():
        try:
            group = group_name(name)
        except ValueError as error:
            left_out[name] = str(error)
            continue
        wanted = list(dict.fromkeys(alias.strip().lower() for alias in aliases))
        there = [alias for alias in wanted if alias in known]
        if len(there) < len(wanted):
            unknown[group] = tuple(alias for alias in wanted if alias not in known)
        if there:
            changed.append(await send_change(client, "add", group, ChangeGroup(",".join(there), dry_run=dry_run)))
    imported = Imported(str(path), tuple(changed), unknown, left_out, dry_run)
    await show(invocation, imported, "".join(f"{change_text('add', each)}\n" for each in changed))
    if not invocation.json:
        await _tell(invocation, imported)
    return 0


async def _tell(invocation: Invocation, imported: Imported) -> None:
    console = invocation.console
    for group, names in imported.unknown.items():
        await console.err(f"@{group}: no machine is called {joined(names)}\n")
    for name, why in imported.left_out.items():
        await console.err(f"{printable(name)} was left out: {printable(why)}\n")
    if imported.unknown:
        await console.hint("machines have the names that they joined under: clustersh machines")
    if not imported.groups:
        await console.hint(f"nothing was imported from {imported.file}")
