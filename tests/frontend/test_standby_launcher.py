"""What a launcher costs before its call is on its way: each module takes as long as a tenth of all the rest."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """\
import sys
before = set(sys.modules)
import clustersh.frontend.main
print(*sorted(set(sys.modules) - before))
"""
PACKAGES = ("clustersh", "clustersh.frontend", "clustersh.frontend.standby")
OURS = ("frames", "launcher", "peer", "place")


@pytest.mark.real
def test_it_imports_little() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, timeout=60)
    own = {
        *PACKAGES,
        "clustersh.standard_descriptors",
        "clustersh.frontend.main",
        *(f"clustersh.frontend.standby.{name}" for name in OURS),
    }
    assert set(done.stdout.split()) == {"_socket", *own}
