"""What restarts a machine, switches it off or puts it to sleep."""

from __future__ import annotations

from .calls import Call, Program, for_all, silent
from .options import parse

_STATES = frozenset(
    [
        *("reboot", "poweroff", "halt", "kexec", "soft-reboot", "rescue", "emergency"),
        *("suspend", "hibernate", "hybrid-sleep", "suspend-then-hibernate", "sleep"),
    ]
)
_TARGETS = (
    *("reboot", "poweroff", "halt", "kexec", "shutdown", "runlevel0", "runlevel6", "rescue", "emergency"),
    *("sleep", "suspend", "hibernate"),
)
_UNITS = frozenset(
    [f"{name}.target" for name in _TARGETS]
    + [f"systemd-{name}.service" for name in ("reboot", "poweroff", "halt", "kexec")]
)
_SYSTEMCTL_VALUES = "host machine property root type state signal job-mode output lines"


def _shutdown(call: Call) -> None:
    if not parse(call.words, "t").has("help", "version", "show", "c", "k"):
        call.report("power")


def _reboot(call: Call) -> None:
    if not parse(call.words).has("help", "version", "w", "wtmp-only"):
        call.report("power")


def _init(call: Call) -> None:
    if parse(call.words, "te").operands[:1] in (["0"], ["6"], ["1"], ["s"], ["S"]):
        call.report("power")


def _systemctl(call: Call) -> None:
    options = parse(call.words, "HMptsno", _SYSTEMCTL_VALUES)
    verb, *units = options.operands or [""]
    kind = "target" if verb == "isolate" else "service"
    started = {unit if "." in unit else f"{unit}.{kind}" for unit in units}
    starts = verb in ("start", "restart", "isolate") and bool(started & _UNITS)
    if (verb in _STATES or starts) and not options.has("help", "dry-run"):
        call.report("power")


def _rtcwake(call: Call) -> None:
    mode = parse(call.words, "dmst", "mode device seconds time date").value("m", "mode")
    if mode not in ("no", "on", "disable", "show") and not {"-n", "--dry-run", "--list-modes", "-h", "--help"} & {
        *call.words
    }:
        call.report("power")


def _launchctl(call: Call) -> None:
    if call.words[:1] == ["reboot"]:
        call.report("power")


def _kexec(call: Call) -> None:
    if parse(call.words).has("e", "exec"):
        call.report("power")


PROGRAMS: dict[str, Program] = {
    "shutdown": silent(_shutdown),
    **for_all("reboot halt poweroff", silent(_reboot)),
    **for_all("init telinit runit-init", silent(_init)),
    "openrc-shutdown": silent(_shutdown),
    "rtcwake": silent(_rtcwake),
    "launchctl": silent(_launchctl),
    **for_all("pm-suspend pm-hibernate", silent(_reboot)),
    **for_all("systemctl loginctl", silent(_systemctl)),
    "kexec": silent(_kexec),
}
