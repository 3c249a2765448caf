"""Why ``ssh`` did not get there: one clear line, made of what it said."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

from ...cli.text import printable, shortened

_SHOWN = 300
_LOOKED_THROUGH = 8 << 10
"""Characters, from the end: what a machine's start-up files say may be long, and made to be."""


class _Known(NamedTuple):
    pattern: re.Pattern[str]
    words: Callable[[str, str, re.Match[str]], str]
    """Of the destination, the gateway's host name, and what was found."""


def _known(pattern: str, words: Callable[[str, str, re.Match[str]], str]) -> _Known:
    return _Known(re.compile(pattern, re.IGNORECASE), words)


def _changed(there: str, here: str, name: str) -> str:
    """Return what to do about the host that is called *name* in ``known_hosts``."""
    return (
        f"its host key has changed; check that it is the right machine, then on {here}: "
        f"ssh-keygen -R {shlex.quote(name)}, and ssh {there} once"
    )


_KNOWN = (
    _known(r"host key for (\S+) has changed", lambda there, here, found: _changed(there, here, found[1])),
    _known(r"remote host identification has changed", lambda there, here, _: _changed(there, here, there)),
    _known(
        r"host key verification failed|no \S+ host key is known",
        lambda there, here, _: f"its host key is not known; on {here}, check it by hand: ssh {there}",
    ),
    _known(
        r"permission denied \(((?!publickey)[^)]+)\)",
        lambda there, here, found: (
            f"it takes no key (only: {found[1]}), and nobody is there to type a password; allow keys there "
            f"(PubkeyAuthentication), then on {here}: ssh-copy-id {there}"
        ),
    ),
    _known(
        r"permission denied(?: \(([^)]*)\))?",
        lambda there, here, found: (
            f"it refuses every key that {here} offers (it takes: {found[1] or 'none'}); there must be a key "
            f"that needs no passphrase, or an ssh-agent; on {here}, try: ssh -o BatchMode=yes {there} true"
        ),
    ),
    _known(
        r"too many authentication failures",
        lambda there, here, _: f"too many keys were offered; on {here}, give it one in ~/.ssh/config: IdentityFile",
    ),
    _known(r"could not resolve hostname (\S+?):", lambda _, here, found: f"{here} finds no host called {found[1]}"),
    _known(
        r"connect to host (\S+) port (\d+): connection refused",
        lambda _, here, found: f"nothing listens on {found[1]} port {found[2]}: is its sshd running?",
    ),
    _known(
        r"connect to host (\S+) port (\d+): (.+)",
        lambda _, here, found: f"{found[1]} port {found[2]} can't be reached from {here}: {found[3].strip().lower()}",
    ),
    _known(
        r"banner exchange|kex_exchange_identification|banner line contains invalid",
        lambda *_: "it takes the connection, but does not answer as an sshd does",
    ),
    _known(
        r"command-line.*bad configuration option",
        lambda _, here, __: f"the ssh on {here} is too old: it takes OpenSSH 8.7 or newer",
    ),
    _known(r"bad configuration option|terminating, \d+ bad configuration", lambda t, h, found: _config(h)),
    _known(r"identity file .* not accessible|no such identity", lambda t, here, _: f"a key is missing on {here}"),
)


def _config(here: str) -> str:
    return f"~/.ssh/config on {here} can't be read; see there: ssh -G localhost"


def explain(said: str, destination: str, here: str) -> str:
    """Return why *destination* was not reached from the host *here*, by what ssh *said*."""
    said = said[-_LOOKED_THROUGH:]
    for known in _KNOWN:
        if found := known.pattern.search(said):
            return f"ssh {destination}: {shortened(printable(known.words(destination, here, found)), 2 * _SHOWN)}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = shortened(printable(lines[-1]), _SHOWN) if lines else "it ended without a word"
    return f"ssh {destination}: {last}"
