"""What is done with memory that isn't needed any more, in processes of their own: it counts for all of a process."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
from clustersh.heap import keep_freed_memory
if sys.argv[1:]:
    keep_freed_memory()
began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    pieces = [sys.argv[0][:1].encode() * (256 << 10) for _ in range(6)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began)
"""


def faults(*words: str) -> int:
    """Return how many pages a process that uses pieces of 256 KiB had to be given."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, check=True)
    return int(done.stdout)


def test_pieces_use_the_same_memory_again() -> None:
    given_back, kept = faults(), faults("kept")
    assert kept <= given_back
    if platform.libc_ver()[0] == "glibc":
        assert kept * 4 < given_back


SERVICE = """
import gc, importlib, sys
from clustersh.heap import start_without_collections
start_without_collections()
plugin = importlib.import_module(f"clustersh.{sys.argv[1]}.plugin")
options = plugin.Options()
options.parseOptions(["--home", sys.argv[2]])
print(gc.isenabled())
try:
    plugin.makeService(options)
except SystemExit:
    pass  # an agent that was never enrolled
print(gc.isenabled(), gc.get_freeze_count() > 10_000)
"""


@pytest.mark.parametrize("room", ["coordinator", "agent"])
def test_a_service_looks_for_garbage_once_it_is_imported(room: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SERVICE, room, tmp_path], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["False", "True", "True"]
