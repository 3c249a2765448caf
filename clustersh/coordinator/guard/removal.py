"""What removes a system, or changes the owner or the mode of all of it."""

from __future__ import annotations

from .calls import Call, Program, for_all, silent
from .options import parse
from .paths import is_all_of_root, root_of

REMOVES = {"root": "remove-root", "system": "remove-system", "home": "remove-system"}
"""The rule that is broken by removing a place of such a kind."""
_CHANGES = "chmod chown chgrp setfacl chattr"
RECURSIVE = frozenset(["rm", *_CHANGES.split()])
"""Programs with an option ``-R``."""
_ALL_BELOW = "/**"


_RSYNC_NAMES = (
    "rsh rsync-path exclude include filter exclude-from include-from files-from backup-dir suffix temp-dir log-file "
    "compare-dest copy-dest link-dest bwlimit timeout max-delete chmod chown usermap groupmap "
    "out-format partial-dir port"
)


def _rm(call: Call) -> None:
    options = parse(call.words)
    recursive = (options.has("r", "R") or options.has_long("recursive")) and not options.has("help", "version")
    for path in options.operands:
        found = root_of(path, call.state.folder)
        if found and (recursive or path.endswith(_ALL_BELOW) or is_all_of_root(path, call.state.folder)):
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
    recursive = options.has("R") or options.has_long("recursive")
    paths = [path for path in options.operands if recursive or path.endswith(_ALL_BELOW)]
    if any(root_of(path, call.state.folder) in ("root", "system") for path in paths):
        call.report("permissions")


def _rsync(call: Call) -> None:
    """``rsync --delete`` removes what the source doesn't have."""
    options = parse(call.words, "efBTM", _RSYNC_NAMES)
    deletes = any(name.startswith("del") for name in options.given) and not options.has("n", "dry-run")
    if deletes and root_of((options.operands or [""])[-1], call.state.folder) in ("root", "system"):
        call.report("remove-system")


PROGRAMS: dict[str, Program] = {
    "rm": silent(_rm),
    "mv": silent(_mv),
    "rsync": silent(_rsync),
    **for_all(_CHANGES, silent(_change)),
}
