"""Which program a command line calls, and what is known of that one."""

from __future__ import annotations

from collections.abc import Sequence

from . import builtins, disks, downloads, power, processes, removal, repeating, shells, terminals, wrappers
from .calls import Call, Program, Shell
from .state import State
from .values import FETCHED, UNKNOWN, base_name

PROGRAMS: dict[str, Program] = {
    **wrappers.PROGRAMS,
    **shells.PROGRAMS,
    **terminals.PROGRAMS,
    **repeating.PROGRAMS,
    **builtins.PROGRAMS,
    **downloads.PROGRAMS,
    **removal.PROGRAMS,
    **disks.PROGRAMS,
    **power.PROGRAMS,
    **processes.PROGRAMS,
}
"""By name; ``mkfs.*`` stands for all that begin so."""


def call(shell: Shell, words: Sequence[str], state: State, stdin: str) -> str:
    """Judge the call *words*; return what it prints."""
    shell.case.spend()
    if not words or words[0] == "":
        return ""
    first = words[0]
    if FETCHED in first:
        shell.case.report_fetched(words)
    if FETCHED in first or UNKNOWN in first:
        return UNKNOWN
    known = Call(shell, base_name(first), list(words[1:]), state, stdin)
    content = state.read(first) if "/" in first else UNKNOWN
    if content != UNKNOWN:
        return shells.run_file(known, content)
    program = PROGRAMS.get(known.name) or PROGRAMS.get(known.name.partition(".")[0] + ".*")
    with shell.case.deeper():
        return program(known) if program is not None else known.fetched()
