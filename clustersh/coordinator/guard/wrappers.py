"""Programs that run another one, whose words come after their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .options import Options, parse


class Wrapper(NamedTuple):
    """How a program takes the words of another one.

    *values* are letters, and *long_values* names, of options that take a value; *skip* so many operands come first; with
    *not_run* among the options nothing is run; *assigns* means that ``NAME=value`` may come before.
    """

    values: str = ""
    long_values: frozenset[str] = frozenset()
    skip: int = 0
    not_run: tuple[str, ...] = ()
    assigns: bool = False


def _long(names: str) -> frozenset[str]:
    return frozenset(names.split())


_SUDO = Wrapper(
    "CDghpRrTtUu",
    _long("user group host prompt chdir chroot role type other-user close-from command-timeout"),
    not_run=("e", "edit", "l", "list", "V", "version", "help"),
    assigns=True,
)
WRAPPERS = {
    "sudo": _SUDO,
    "doas": Wrapper("aCu", not_run=("C", "L")),
    "pkexec": Wrapper("", _long("user")),
    "env": Wrapper("uCa", _long("unset chdir argv0"), assigns=True),
    "nice": Wrapper("n", _long("adjustment")),
    "ionice": Wrapper("cn", _long("class classdata"), not_run=("p", "P", "u", "pid")),
    "chrt": Wrapper("TPD", skip=1, not_run=("p", "pid", "m", "max")),
    "taskset": Wrapper("", skip=1, not_run=("p", "pid")),
    "nohup": Wrapper(),
    "setsid": Wrapper(),
    "timeout": Wrapper("ks", _long("kill-after signal"), skip=1),
    "time": Wrapper("fo", _long("format output")),
    "stdbuf": Wrapper("ioe", _long("input output error")),
    "unbuffer": Wrapper(),
    "command": Wrapper(not_run=("v", "V")),
    "builtin": Wrapper(),
    "exec": Wrapper("a"),
    "coproc": Wrapper(),
    "noglob": Wrapper(),
    "watch": Wrapper("nq", _long("interval equexit")),
    "strace": Wrapper("abeEIoOpPsSuUX"),
    "ltrace": Wrapper("aeFlnopsuwx"),
    "systemd-run": Wrapper(
        "putMHE",
        _long(
            "unit property description slice service-type uid gid nice working-directory setenv machine host "
            "on-active on-boot on-startup on-unit-active on-calendar timer-property path-property socket-property"
        ),
    ),
    "systemd-inhibit": Wrapper("", _long("what who why mode"), not_run=("list",)),
    "caffeinate": Wrapper("tw"),
    "setpriv": Wrapper("", _long("reuid regid groups inh-caps ambient-caps bounding-set securebits")),
    "unshare": Wrapper("RwSG", _long("root wd setuid setgid map-user map-group")),
    "nsenter": Wrapper("tSGrw", _long("target setuid setgid root wd")),
    "capsh": Wrapper(),
    "busybox": Wrapper(),
    "toybox": Wrapper(),
    "run-one": Wrapper(),
    "chronic": Wrapper(),
    "lxc-attach": Wrapper("n"),
    "fakeroot": Wrapper(not_run=("v", "h")),
}
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


def inner_words(name: str, words: Sequence[str]) -> tuple[Options, list[str]]:
    """Return the options of the wrapper *name*, called with *words*, and the words of what it runs."""
    wrapper = WRAPPERS[name]
    options = parse(words, wrapper.values, wrapper.long_values, until=True)
    if options.has(*wrapper.not_run):
        return options, []
    rest = options.operands[wrapper.skip :]
    if wrapper.assigns:
        while rest and _ASSIGNMENT.match(rest[0]):
            rest = rest[1:]
    return options, rest
