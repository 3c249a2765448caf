"""That memory which is freed is kept, in a process of its own: what was ever freed there counts for good."""

from __future__ import annotations

import platform
import subprocess
import sys

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
