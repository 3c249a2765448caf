"""Every benchmark, one after the other; what they print becomes docs/benchmarks.md. Usage: python -m benchmarks"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from .programs import ROOT

NAMES = (
    *("latency", "launch", "throughput", "bulk", "intake", "history", "memory"),
    *("fleet_size", "fleet_idle", "fleet_peers", "guard"),
)
PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> int:
    parts, failed = [heading()], 0
    for name in NAMES:
        sys.stderr.write(f"{name} ...\n")
        ran = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, capture_output=True, text=True)
        failed += ran.returncode != 0
        parts.append(section(name, ran.stdout or f"it failed: {ran.stderr.strip().splitlines()[-1]}\n"))
    PAGE.write_text("\n".join(parts))
    sys.stdout.write(PAGE.read_text())
    return 1 if failed else 0


def heading() -> str:
    """Return the page's beginning: when and where it was measured."""
    return (
        "# Benchmarks\n\n"
        "Made by `make bench`; nothing here was written by hand. Each table is one command's; the first lines of its\n"
        "module in `benchmarks/` say what it does and how. Medians of so many turns or runs, interleaved.\n\n"
        f"Run on {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, on {machine()}.\n"
    )


def machine() -> str:
    """Return what the figures depend on."""
    info = dict(
        (part.strip() for part in line.partition(":")[::2]) for line in Path("/proc/cpuinfo").read_text().splitlines()
    )
    cores = Path("/proc/cpuinfo").read_text().count("processor\t:")
    total = int(Path("/proc/meminfo").read_text().split()[1]) / (1 << 20)
    load = Path("/proc/loadavg").read_text().split()[0]
    python = f"Python {platform.python_version()}, Twisted {version('twisted')}"
    return (
        f"{info.get('model name', platform.machine())} ({cores} cores, {total:.0f} GiB), Linux {platform.release()}, "
        f"{python}; load average at the beginning {load}"
    )


def section(name: str, printed: str) -> str:
    """Return one benchmark's part of the page."""
    return f"## {name}\n\n`make bench-{name.replace('_', '-')}`\n\n```\n{printed}```\n"


if __name__ == "__main__":
    sys.exit(main())
