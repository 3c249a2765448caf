"""What removes a system, or changes the owner or the mode of all of it."""

from __future__ import annotations

from .calls import Call, Program, for_all, silent
from .options import parse
from .paths import is_all_of_root, root_of

REMOVES = {"root": "remove-root", "system": "remove-system", "home": "remove-system"}
"""The rule that is broken by removing a place of such a kind."""
_CHANGES = "chmod chown chgrp setfacl"
RECURSIVE = frozenset(["rm", *_CHANGES.split()])
"""Programs with an option ``-R``."""


def _rm(call: Call) -> None:
    options = parse(call.words)
    recursive = options.has("r", "R", "recursive") and not options.has("help", "version")
    for path in options.operands:
        found = root_of(path, call.state.folder)
        if found and (recursive or is_all_of_root(path, call.state.folder)):
            return call.report(REMOVES[found])
    return None


def _mv(call: Call) -> None:
    options = parse(call.words, "tS", "target-directory suffix")
    sources = options.operands if options.has("t", "target-directory") else options.operands[:-1]
    for path in sources:
        if (found := root_of(path, call.state.folder)) in ("root", "system"):
            return call.report(REMOVES[found])
    return None


def _change(call: Call) -> None:
    options = parse(call.words, "mxM" if call.name == "setfacl" else "", "reference from")
    paths = options.operands if options.has("R", "recursive") else []
    if any(root_of(path, call.state.folder) in ("root", "system") for path in paths):
        call.report("permissions")


PROGRAMS: dict[str, Program] = {"rm": silent(_rm), "mv": silent(_mv), **for_all(_CHANGES, silent(_change))}
