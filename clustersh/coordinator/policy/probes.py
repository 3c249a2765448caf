"""The shell lines in a probe of ``clustersh check``: they are run as any other command, so they are judged as such."""

from __future__ import annotations

from ...wire.jobs import PROBE, Command


def lines_of_probe(command: Command) -> tuple[Command, ...]:
    """Return what *command* would have a shell run, where it is a probe: pairs of a kind of check and its text."""
    words = command.argv or ()
    if words[: len(PROBE)] != PROBE:
        return ()
    checks = words[len(PROBE) :]
    pairs = zip(checks[::2], checks[1::2], strict=False)
    return tuple(Command(shell=text) for option, text in pairs if option == "--command" and text)
