"""Programs that run another one, whose words come after their own."""

from __future__ import annotations

import re
from typing import NamedTuple

from .calls import Call, Program
from .options import Options, parse
from .values import split_words


class Wrapper(NamedTuple):
    """How a program takes the words of another one.

    *values* has the letters, and *names* the long names, of options that take a value; *skip* operands come before the
    other program, with *assigns* also any number of ``NAME=value``; with an option of *not_run* there is none.
    """

    values: str = ""
    names: str = ""
    skip: int = 0
    not_run: str = ""
    assigns: bool = False

    def unwrap(self, call: Call) -> tuple[Options, list[str]]:
        """Return the options of *call*, and the words of what it runs."""
        options = parse(call.words, self.values, self.names, until=True)
        rest = options.operands[self.skip :]
        while self.assigns and rest and (rest[0] == "-" or _ASSIGNMENT.match(rest[0])):
            rest = rest[1:]
        return options, [] if options.has(*self.not_run.split()) else rest


_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_SUDO = Wrapper(
    "CDghpRrTtUu",
    "user group host prompt chdir chroot role type other-user close-from command-timeout",
    not_run="e edit l list V version help K remove-timestamp",
    assigns=True,
)
_ENV = Wrapper("uCaS", "unset chdir argv0 split-string", assigns=True)
_WATCH = Wrapper("nq", "interval equexit")
_PLAIN = {
    "doas": Wrapper("aCu", not_run="C L"),
    "run0": Wrapper("uDg", "unit property description slice user group nice chdir setenv background machine"),
    "pkexec": Wrapper("", "user"),
    "nice": Wrapper("n", "adjustment"),
    "ionice": Wrapper("cn", "class classdata", not_run="p P u pid pgid uid"),
    "chrt": Wrapper("TPD", "sched-runtime sched-period sched-deadline", skip=1, not_run="p pid m max"),
    "taskset": Wrapper("", skip=1, not_run="p pid"),
    "numactl": Wrapper("iNCmpl", "interleave cpunodebind physcpubind membind preferred", not_run="s show H hardware"),
    "prlimit": Wrapper("po", "pid output", not_run="p pid"),
    "cgexec": Wrapper("g"),
    "sshpass": Wrapper("fdpP"),
    **dict.fromkeys(("gosu", "su-exec"), Wrapper(skip=1)),
    "timeout": Wrapper("ks", "kill-after signal", skip=1),
    "time": Wrapper("fo", "format output"),
    "stdbuf": Wrapper("ioe", "input output error"),
    "command": Wrapper(),
    "exec": Wrapper("a"),
    "strace": Wrapper("abeEIoOpPsSuUX"),
    "ltrace": Wrapper("aeFlnopsuwx"),
    "systemd-run": Wrapper(
        "putMHE",
        "unit property description slice service-type uid gid nice working-directory setenv machine host "
        "on-active on-boot on-startup on-unit-active on-calendar timer-property path-property socket-property",
    ),
    "systemd-inhibit": Wrapper("", "what who why mode", not_run="list"),
    "caffeinate": Wrapper("tw"),
    "setpriv": Wrapper("", "reuid regid groups inh-caps ambient-caps bounding-set securebits"),
    "unshare": Wrapper("RwSG", "root wd setuid setgid map-user map-group"),
    "nsenter": Wrapper("tSGrw", "target setuid setgid root wd"),
    "fakeroot": Wrapper(not_run="v h"),
    **dict.fromkeys(
        ("nohup", "setsid", "builtin", "coproc", "unbuffer", "busybox", "toybox", "chronic", "{"), Wrapper()
    ),
}


def _plain(call: Call) -> str:
    return call.run(_PLAIN[call.name].unwrap(call)[1])


def _command(call: Call) -> str:
    """``command -v NAME`` only tells where a program is."""
    return call.words[-1] + "\n" if call.words[:1] in (["-v"], ["-V"]) else _plain(call)


def _sudo(call: Call) -> str:
    options, rest = _SUDO.unwrap(call)
    call = call.inside(options.value("D", "chdir"))
    if not options.has("s", "i", "shell", "login"):
        return call.run(rest)
    return call.run_in_shell(" ".join(rest)) if rest else call.read_in_shell(call.stdin)


def _env(call: Call) -> str:
    options, rest = _ENV.unwrap(call)
    line = options.value("S", "split-string")
    return call.inside(options.value("C", "chdir")).run(split_words(line) + rest)


def _watch(call: Call) -> str:
    options, rest = _WATCH.unwrap(call)
    return call.run(rest) if options.has("x", "exec") else call.run_in_shell(" ".join(rest))


def _ip(call: Call) -> str:
    """``ip netns exec NAME program``."""
    at = call.words.index("exec") if "exec" in call.words else len(call.words)
    return call.run(call.words[at + 2 :])


PROGRAMS: dict[str, Program] = {
    **dict.fromkeys(_PLAIN, _plain),
    "command": _command,
    "sudo": _sudo,
    "env": _env,
    "watch": _watch,
    "ip": _ip,
}
