"""Why ``ssh`` did not get there: one clear line, made of what it said, and another one on what to do about it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

from ...cli.text import printable, shortened
from ..executors import ExecutorError

_SHOWN = 300
_LOOKED_THROUGH = 8 << 10
"""Characters, from the end: what a machine's start-up files say may be long, and made to be."""


class HostError(ExecutorError):
    """A host is not reached: *why*, and what to *do* about it, for people. *away*: no sshd there was asked anything."""

    def __init__(self, why: str, do: str = "", *, away: bool = False) -> None:
        super().__init__(f"{why}; {do}" if do else why)
        self.why = why
        self.do = do
        self.away = away


class _Known(NamedTuple):
    pattern: re.Pattern[str]
    words: Callable[[str, str, re.Match[str]], tuple[str, str]]
    """Of the destination, the gateway's host name, and what was found: why, and what to do."""
    away: bool = False


def _known(pattern: str, words: Callable[[str, str, re.Match[str]], tuple[str, str]], *, away: bool = False) -> _Known:
    return _Known(re.compile(pattern, re.IGNORECASE), words, away)


def _changed(there: str, here: str, name: str) -> tuple[str, str]:
    """Return what is said of the host that is called *name* in ``known_hosts``."""
    return (
        "its host key has changed",
        f"check that it is the right machine, then on {here}: ssh-keygen -R {shlex.quote(name)}, and ssh {there} once",
    )


_KNOWN = (
    _known(r"host key for (\S+) has changed", lambda there, here, found: _changed(there, here, found[1])),
    _known(r"remote host identification has changed", lambda there, here, _: _changed(there, here, there)),
    _known(
        r"host key verification failed|no \S+ host key is known",
        lambda there, here, _: ("its host key is not known", f"on {here}, check it by hand: ssh {there}"),
    ),
    _known(
        r"permission denied \(((?!publickey)[^)]+)\)",
        lambda there, here, found: (
            f"it takes no key (only: {found[1]}), and nobody is there to type a password",
            f"allow keys there (PubkeyAuthentication), then on {here}: ssh-copy-id {there}",
        ),
    ),
    _known(
        r"permission denied(?: \(([^)]*)\))?",
        lambda there, here, found: (
            f"it refuses every key that {here} offers (it takes: {found[1] or 'none'})",
            "put one into its authorized_keys that needs no passphrase, or is in an ssh-agent; "
            f"on {here}, try: ssh -o BatchMode=yes {there} true",
        ),
    ),
    _known(
        r"too many authentication failures",
        lambda _, here, __: ("too many keys were offered", f"on {here}, give it one in ~/.ssh/config: IdentityFile"),
    ),
    _known(
        r"could not resolve hostname (\S+?):",
        lambda _, here, found: (f"{here} finds no host called {found[1]}", f"see to ~/.ssh/config on {here}"),
        away=True,
    ),
    _known(
        r"connect to host (\S+) port (\d+): connection refused",
        lambda _, here, found: (
            f"nothing listens on {found[1]} port {found[2]}",
            f"start its sshd, or see to its Port in ~/.ssh/config on {here}",
        ),
        away=True,
    ),
    _known(
        r"connect to host (\S+) port (\d+): (.+)",
        lambda _, here, found: (
            f"{found[1]} port {found[2]} can't be reached from {here}: {found[3].strip().lower()}",
            "see whether it is on, and to the network",
        ),
        away=True,
    ),
    _known(
        r"banner exchange|kex_exchange_identification|banner line contains invalid",
        lambda _, here, __: (
            "it takes the connection, but does not answer as an sshd does",
            f"see to its sshd, and to its Port in ~/.ssh/config on {here}",
        ),
    ),
    _known(
        r"command-line.*bad configuration option",
        lambda _, here, __: (f"the ssh on {here} is too old", "it takes OpenSSH 8.7 or newer"),
    ),
    _known(
        r"bad configuration option|terminating, \d+ bad configuration",
        lambda _, here, __: (f"~/.ssh/config on {here} can't be read", "see there: ssh -G localhost"),
    ),
    _known(
        r"identity file .* not accessible|no such identity",
        lambda _, here, __: (f"a key is missing on {here}", "see to its IdentityFile in ~/.ssh/config there"),
    ),
)


def explain(said: str, destination: str, here: str) -> HostError:
    """Return why *destination* was not reached from the host *here*, by what ssh *said*."""
    said = said[-_LOOKED_THROUGH:]
    for known in _KNOWN:
        if found := known.pattern.search(said):
            why, do = (shortened(printable(words), 2 * _SHOWN) for words in known.words(destination, here, found))
            return HostError(f"ssh {destination}: {why}", do, away=known.away)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = shortened(printable(lines[-1]), _SHOWN) if lines else "it ended without a word"
    return HostError(f"ssh {destination}: {last}", f"on {here}, try: ssh -o BatchMode=yes {destination} true")
