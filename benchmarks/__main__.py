"""Benchmarks, one after the other; what they print becomes their parts of docs/benchmarks.md.

Usage: python -m benchmarks [NAME ...] (all, where none is named)
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from .programs import ROOT

NAMES = (
    *("latency", "launch", "throughput", "bulk", "intake", "history", "memory"),
    *("fleet_size", "fleet_idle", "fleet_peers", "ssh_machines", "guard"),
)
PAGE = ROOT / "docs" / "benchmarks.md"
HEADING = """\
# Benchmarks

Made by `make bench`; nothing here was written by hand. Each table is one command's; the first lines of its
module in `benchmarks/` say what it does and how. Medians of so many turns or runs, interleaved.
"""


def main(names: Sequence[str]) -> int:
    unknown = set(names) - set(NAMES)
    if unknown:
        sys.stderr.write(f"ERROR: no benchmark {', '.join(sorted(unknown))}\nhint: there are {', '.join(NAMES)}\n")
        return 2
    sections, failed = read_sections(PAGE.read_text()), 0
    for name in names or NAMES:
        sys.stderr.write(f"{name} ...\n")
        where = machine()
        ran = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, capture_output=True, text=True)
        failed += ran.returncode != 0
        printed = ran.stdout or f"it failed: {ran.stderr.strip().splitlines()[-1]}\n"
        sections[name] = section(name, where, printed)
        PAGE.write_text("\n".join((HEADING, *(sections[each] for each in NAMES if each in sections))))
        sys.stdout.write(sections[name])
    return 1 if failed else 0


def read_sections(page: str) -> dict[str, str]:
    """Return the page's parts by their benchmarks' names."""
    parts = re.split(r"^(?=## )", page, flags=re.M)[1:]
    return {part.partition("\n")[0].removeprefix("## "): part.rstrip("\n") + "\n" for part in parts}


def machine() -> str:
    """Return what the figures depend on, and when it is."""
    info = dict(
        (part.strip() for part in line.partition(":")[::2]) for line in Path("/proc/cpuinfo").read_text().splitlines()
    )
    cores = Path("/proc/cpuinfo").read_text().count("processor\t:")
    total = int(Path("/proc/meminfo").read_text().split()[1]) / (1 << 20)
    load = Path("/proc/loadavg").read_text().split()[0]
    python = f"Python {platform.python_version()}, Twisted {version('twisted')}"
    return (
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, on {info.get('model name', platform.machine())} "
        f"({cores} cores, {total:.0f} GiB), Linux {platform.release()}, {python}; load average at the beginning {load}"
    )


def section(name: str, where: str, printed: str) -> str:
    """Return one benchmark's part of the page."""
    return f"## {name}\n\n`make bench-{name.replace('_', '-')}`, run on {where}\n\n```\n{printed}```\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
