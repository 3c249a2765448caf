"""``clustersh label`` and ``clusterd label``: what people say of machines.

It is KEY=VALUE; @KEY:VALUE in a target asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..wire.fleet import ChangeLabels, Labels, LabelsChanged, label_key, label_value
from .commands import Start
from .dry_run import add_dry_run
from .errors import UsageError
from .invocation import Invocation
from .parser import Parser, add_exclude
from .tables import render_table
from .target_words import Ask, joined, show, target_query

EXAMPLES = ("ws1 gpu=yes rack=7", "@web rack-", "all -x @web tier=test --dry-run", "ws1", "")


def prepare_label(program: str, ask: Ask, invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of *program*'s ``label``."""
    name = f"{program} label"
    examples = tuple(f"{name} {example}".rstrip() for example in EXAMPLES)
    parser = Parser(name, "Set, take away and list labels of machines.", examples)
    parser.usage = f"{name} [--json] [MACHINE-OR-TARGET [KEY=VALUE | KEY-] ...]"
    parser.add_argument("target", nargs="?", default="all", metavar="TARGET", help="which machines (all)")
    parser.add_argument("changes", nargs="*", metavar="CHANGE", help="KEY=VALUE sets a label, KEY- takes one away")
    add_exclude(parser)
    add_dry_run(parser)
    options = parser.read(invocation, arguments)
    if not options.changes:
        if "=" in options.target:
            raise UsageError(f"which machine is {options.target} for?", (f"{name} MACHINE {options.target}",))
        return lambda reactor: show_labels(reactor, ask, invocation, options.target, options.exclude)
    body = ChangeLabels(options.target, _changes(options.changes), options.exclude, options.dry_run)
    return lambda reactor: change(reactor, ask, invocation, body)


def _changes(words: Sequence[str]) -> dict[str, str | None]:
    changes: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals and not word.endswith("-"):
            raise UsageError(f"{word!r} is no change: KEY=VALUE sets a label, KEY- takes one away")
        try:
            key = label_key(key if equals else word[:-1])
            change = label_value(value) if equals else None
        except ValueError as error:
            raise UsageError(str(error)) from error
        if key in changes:
            raise UsageError(f"{key} is there twice")
        changes[key] = change
    return changes


async def show_labels(reactor: Any, ask: Ask, invocation: Invocation, target: str, exclude: str) -> int:
    """Print the labels of the target's machines."""
    query = target_query(target, exclude)
    found = await ask(reactor, invocation, lambda client: client.call("GET", "/v1/labels", answer=Labels, query=query))
    rows = [(each.machine, _listed(each.labels) or "-") for each in found.machines]
    await show(invocation, found, render_table(("name", "labels"), rows, invocation.console.width))
    return 0


def _listed(labels: Mapping[str, str | None]) -> str:
    return " ".join(f"{key}-" if value is None else f"{key}={value}" for key, value in labels.items())


async def change(reactor: Any, ask: Ask, invocation: Invocation, body: ChangeLabels) -> int:
    """Change labels and say of which machines."""
    changed = await ask(
        reactor, invocation, lambda client: client.call("POST", "/v1/labels", body, answer=LabelsChanged)
    )
    words = _listed(changed.labels)
    if changed.changed:
        said = "Would be labelled" if changed.dry_run else "Labelled"
        text = f"{said} {words}: {joined(changed.changed)}."
    else:
        text = f"Nothing to change: {words} holds for {joined(changed.unchanged)}."
    await show(invocation, changed, f"{text}\n")
    return 0
