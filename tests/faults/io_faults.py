"""Services whose writes and syncs fail when a test says so: syncs by libfiu, writes by write_faults.c. For Linux."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..real.programs import Home
from .users import give

FIU = Path("/usr/lib/fiu")
needs_fiu = pytest.mark.skipif(
    sys.platform != "linux" or None in (shutil.which("fiu-ctrl"), shutil.which("gcc")),
    reason="needs Debian's fiu-utils, and gcc",
)


def build(folder: Path) -> Path:
    """Build what fails writes, in *folder*, and return it."""
    library, source = folder / "write_faults.so", Path(__file__).with_name("write_faults.c")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def with_faults(home: Home, library: Path) -> tuple[str, ...]:
    """Return the words that start a program of *home* whose writes and syncs can be made to fail."""
    preloaded = [FIU / "fiu_run_preload.so", FIU / "fiu_posix_preload.so", library]
    return (
        "env",
        f"LD_PRELOAD={' '.join(map(str, preloaded))}",
        f"FIU_CTRL_FIFO={_pipes(home)}",
        f"WRITE_FAULTS={_writes(home)}",
    )


@contextmanager
def failing_syncs(home: Home, service: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let every sync of the *service* in *home* fail with an I/O error, for as long as this lasts."""
    _control(home, service, "enable name=posix/io/sync/*,failinfo=5")
    try:
        yield
    finally:
        _control(home, service, "disable name=posix/io/sync/*")


@contextmanager
def failing_writes(home: Home, part: str) -> Iterator[None]:
    """Let every write to a file with *part* in its path fail with an I/O error, for as long as this lasts."""
    written = _writes(home).with_suffix(".new")
    written.write_text(part)
    give(written).replace(_writes(home))
    try:
        yield
    finally:
        _writes(home).unlink()


def _control(home: Home, service: subprocess.Popen[bytes], command: str) -> None:
    subprocess.run(["fiu-ctrl", "-f", _pipes(home), "-c", command, str(service.pid)], check=True, timeout=30)


def _pipes(home: Home) -> Path:
    return home.log.parent / "fiu"


def _writes(home: Home) -> Path:
    return home.log.parent / "failing-writes"
