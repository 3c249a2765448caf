"""What restarts a machine or switches it off."""

from __future__ import annotations

from .case import Case
from .options import parse
from .state import State

_SHOWS = ("help", "version", "show")
_TARGETS = frozenset(f"{name}.target" for name in "reboot poweroff halt kexec shutdown".split()) | {
    "runlevel0.target",
    "runlevel6.target",
    "ctrl-alt-del.target",
    *(f"systemd-{name}.service" for name in "reboot poweroff halt kexec".split()),
}
_STATES = frozenset("reboot poweroff halt kexec soft-reboot".split())


def _check_shutdown(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    options = parse(words, "t")
    if not options.has(*_SHOWS, "c", "k"):
        case.report("power", [name, *words])


def _check_reboot(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    if not parse(words).has(*_SHOWS, "w", "wtmp-only"):
        case.report("power", [name, *words])


def _check_init(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    if parse(words, "te").operands[:1] in (["0"], ["6"]):
        case.report("power", [name, *words])


def _check_systemctl(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    long_values = frozenset("host machine property root type state signal job-mode output lines".split())
    options = parse(words, "HMptsno", long_values)
    verb, *units = [*options.operands, ""]
    starts = verb in ("start", "restart", "isolate", "reload-or-restart") and _TARGETS & {
        unit if "." in unit else f"{unit}.{'target' if verb == 'isolate' else 'service'}" for unit in units
    }
    if (verb in _STATES or starts) and not options.has("help", "dry-run"):
        case.report("power", [name, *words])


def _check_kexec(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    if parse(words).has("e", "exec"):
        case.report("power", [name, *words])


CHECKS = {
    "shutdown": _check_shutdown,
    **dict.fromkeys(("reboot", "halt", "poweroff"), _check_reboot),
    **dict.fromkeys(("init", "telinit"), _check_init),
    **dict.fromkeys(("systemctl", "loginctl"), _check_systemctl),
    "kexec": _check_kexec,
}
