"""What ends all that runs on a machine, and what lets things in that only somebody at the coordinator may let in."""

from __future__ import annotations

from .calls import Call, Program, for_all, silent
from .options import parse


def _kill(call: Call) -> None:
    """``kill -9 -1``: the first word may be a signal, all others are processes."""
    words = call.words
    if words[:1] in (["-s"], ["-n"]):
        words = words[2:]
    elif words and words[0].startswith("-") and words[0] != "--":
        words = words[1:]
    if "-1" in words and "-l" not in call.words:
        call.report("kill-all")


def _killall5(call: Call) -> None:
    call.report("kill-all")


def _clusterd(call: Call) -> None:
    """Whoever must ask for an approval would give it to itself, where the coordinator's host is a machine, too."""
    if parse(call.words, "", "home", until=True).operands[:1] == ["approve"] and not {"-h", "--help"} & {*call.words}:
        call.report("approval")


PROGRAMS: dict[str, Program] = {
    "kill": silent(_kill),
    "killall5": silent(_killall5),
    **for_all("clusterd", silent(_clusterd)),
}
