"""What the other side's greeter says (scripts.GREETER), as facts and vitals."""

from __future__ import annotations

import contextlib

from ...wire.link import Facts, Vitals
from ..facts import ARCHITECTURES

_LONGEST = 200
_MOST = 1e10
"""Of what is no share: more can't be."""


def _words(said: str) -> dict[str, str]:
    """Return the last line of each kind."""
    pairs = (line.partition(" ") for line in said.splitlines())
    return {kind: rest.strip()[:_LONGEST] for kind, _, rest in pairs}


def read_facts(said: str) -> Facts:
    """Return the machine's facts."""
    words = _words(said)
    system, machine = words.get("system", "").lower(), words.get("machine", "").lower()
    machine = ARCHITECTURES.get(machine, machine)
    return Facts(
        platform=f"{system}/{machine}",
        hostname=words.get("hostname", ""),
        user=words.get("user", ""),
        home=words.get("home", ""),
        os=system,
        arch=machine,
        distribution=words.get("distribution", "").strip("-"),
        kernel=words.get("kernel", ""),
        cpus=_number(words.get("cpus", "")),
        memory=1024 * _number(words.get("MemTotal:", "")),
        executor="bash",  # by which commands are judged: a shell gets them there
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 16 else 0


class VitalsReader:
    """Makes vitals of what is said at each look; the processors' share is that since the one before."""

    def __init__(self) -> None:
        self._before: tuple[int, int] | None = None

    def read(self, said: str, jobs: int) -> Vitals | None:
        """Return them; None where what is needed isn't told there, or not yet."""
        words = _words(said)
        with contextlib.suppress(ValueError, LookupError, ArithmeticError):
            times = [int(each) for each in words.get("stat", "").split()[1:9]]
            total, idle = sum(times), times[3] + times[4]
            before, self._before = self._before or (0, 0), (total, idle)
            passed = total - before[0]
            cpu = 100 * (1 - (idle - before[1]) / passed) if passed > 0 else 0.0
            all_memory, free = int(words["MemTotal:"]), int(words["MemAvailable:"])
            load = [_figure(each) for each in words["load"].split()[:3]]
            return Vitals(
                cpu=_percent(cpu),
                memory=_percent(100 * (1 - free / all_memory)),
                disk_root=_disk(said, "/"),
                disk_home=_disk(said, None),
                jobs=jobs,
                uptime_s=round(_figure(words["uptime"].split()[0])),
                load=(load[0], load[1], load[2]),
            )
        return None


def _percent(value: float) -> float:
    return round(min(max(value, 0.0), 100.0), 1)


def _figure(text: str) -> float:
    """Return the number in *text*. Raises ValueError where none can be there."""
    value = float(text)
    if not 0 <= value <= _MOST:
        raise ValueError
    return value


def _disk(said: str, folder: str | None) -> float | None:
    """Return what df said of *folder*; None: of the one that is not the root."""
    for line in said.splitlines():
        kind, _, rest = line.partition(" ")
        where, _, figures = rest.partition(" ")
        if kind == "disk" and (where == folder if folder else where != "/"):
            shares = [word[:-1] for word in figures.split() if word.endswith("%")]
            return _percent(float(shares[0])) if shares and shares[0].isdecimal() else None
    return None
