"""The options of ``clustersh run`` that are about many machines: which ones, in which batches, and how it is told."""

from __future__ import annotations

import argparse
import re
from typing import NamedTuple

from ..cli.errors import UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, add_exclude, reads
from ..wire.fleet import MAX_TARGET, Pace, Placement, is_plain
from .layouts import Layout

MAX_MACHINES = 100_000
"""More than any ``--canary``, ``--pick`` or batch can mean."""
_SHARE = re.compile(r"([0-9]{1,6})(%?)")
_HELP = "clustersh run --help"
_LAYOUTS = ", ".join(layout.value for layout in Layout)


class FleetOptions(NamedTuple):
    """What was asked for beside the target; *layout* is None where nothing was said."""

    exclude: str = ""
    skip_offline: bool = False
    pace: Pace | None = None
    placement: Placement | None = None
    layout: Layout | None = None

    def raw(self, target: str) -> bool:
        """Whether one machine is asked for, whose output is printed as it is."""
        return self.placement.raw if self.placement else is_plain(target, self.exclude)


def add_fleet_options(parser: Parser) -> None:
    """Add them to *parser*."""
    add = parser.add_argument
    add_exclude(parser)
    add("--skip-offline", action="store_true", help="leave out the machines that are offline")
    add("--rolling", type=reads(_batch), metavar="N|N%", help="in batches of so many machines")
    add("--canary", type=reads(_count), metavar="N", help="on so many machines first, and alone")
    add("--max-failures", type=reads(_share), metavar="N|N%", help="batches go on after so many (0)")
    add("--least-loaded", action="store_true", help="on the one machine of the target with the least load")
    add("--pick", type=reads(_count), metavar="N", help="on the N machines of the target with the least load")
    add("--placement", metavar="POLICY", help="choose by this policy instead, which a plugin of the coordinator brings")
    add_layout(parser, f"how many machines' output is shown: {_LAYOUTS}")


def add_layout(parser: Parser, text: str) -> None:
    """Add ``-o``."""
    parser.add_argument("-o", "--output", type=reads(_layout), metavar="FORM", help=text)


def read_fleet_options(invocation: Invocation, given: argparse.Namespace, target: str) -> FleetOptions:
    """Return what was *given*, and note whether JSON is wanted. Raises UsageError for what makes no sense together."""
    if len(given.exclude) > MAX_TARGET:
        raise UsageError(f"--exclude is at most {MAX_TARGET} characters", ("make a group of them: clustersh groups",))
    options = FleetOptions(
        given.exclude, given.skip_offline, _pace(given), _placement(given), chosen_layout(invocation, given)
    )
    if options.raw(target):
        _check_one(given, options, target)
    else:
        check_many(given, options.layout)
        if given.stdin:
            raise UsageError(
                "--stdin is for one machine, by its name", ("--file sends a file to all, for the command to read",)
            )
    return options


def chosen_layout(invocation: Invocation, given: argparse.Namespace) -> Layout | None:
    """Return the layout that ``-o`` and ``--json`` ask for, and note whether it is JSON. Raises UsageError."""
    layout: Layout | None = given.output
    if given.json and layout not in (None, Layout.JSON):
        raise UsageError(f"--json is -o json: leave out one of --json and -o {layout}", (_HELP,))
    if given.json:
        layout = Layout.JSON
    invocation.json = layout is not None and layout.documents
    return layout


def check_many(given: argparse.Namespace, layout: Layout | None) -> None:
    """Check how output is to be shown that comes from many machines. Raises UsageError."""
    if given.combined:
        raise UsageError(
            "--combined is for one machine: many machines' output stands in sections, stdout before stderr",
            ("--follow prints the lines of both in the order in which they come",),
        )
    if given.follow and layout not in (None, Layout.FOLDED):
        raise UsageError(
            f"--follow prints lines as they come, there is no -o {layout} of that",
            ("-o jsonl prints each machine's document as soon as it ends",),
        )
    if given.full and layout not in (None, Layout.FOLDED, Layout.EACH):
        raise UsageError(
            f"--full streams, and -o {layout} needs outputs as a whole: use --limit", ("--limit 100MB, for example",)
        )


def _check_one(given: argparse.Namespace, options: FleetOptions, target: str) -> None:
    if options.layout not in (None, Layout.JSON):
        raise UsageError(
            f"-o {options.layout} is for many machines: one machine's output is printed as it is",
            ("-o json (or --json) prints its document",),
        )
    for name in ("rolling", "canary", "max_failures"):
        if getattr(given, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for many machines, and {target} is one", (_HELP,))


def _pace(given: argparse.Namespace) -> Pace | None:
    if given.max_failures is not None and not (given.rolling or given.canary):
        raise UsageError(
            "--max-failures says when batches stop: it goes with --rolling or --canary",
            ("without those, all machines begin at once",),
        )
    if not given.rolling and not given.canary:
        return None
    return Pace(given.rolling or "", given.canary or 0, given.max_failures or "")


def _placement(given: argparse.Namespace) -> Placement | None:
    if given.least_loaded and given.placement not in (None, Placement().policy):
        raise UsageError(f"--least-loaded is a placement too: leave out one of it and --placement {given.placement}")
    policy = given.placement or Placement().policy
    if given.pick is not None:
        return Placement(policy, given.pick)
    return Placement(policy, raw=True) if given.least_loaded or given.placement else None


def _layout(text: str) -> Layout:
    try:
        return Layout(text.strip().lower())
    except ValueError:
        raise ValueError(f"there is no form {text!r}: use {_LAYOUTS}") from None


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= MAX_MACHINES:
        raise ValueError(f"{text!r} is no number of machines: 1 to {MAX_MACHINES}")
    return int(text)


def _share(text: str) -> str:
    found = _SHARE.fullmatch(text)
    if not found or (found[2] and int(found[1]) > 100):
        raise ValueError(f"{text!r} is no part of the machines: write a number, or a percentage such as 25%")
    return f"{int(found[1])}{found[2]}"


def _batch(text: str) -> str:
    share = _share(text)
    if share in ("0", "0%"):
        raise ValueError("a batch has at least one machine")
    return share
