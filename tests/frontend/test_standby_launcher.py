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


@pytest.mark.real
def test_a_standby_has_all_of_it_compiled() -> None:
    code = "import sys, clustersh.frontend.standby.main as made; made.import_all(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    names = ("clustersh.frontend.main", "clustersh.standard_descriptors", "clustersh.frontend.standby.relay")
    assert {*names, *(f"clustersh.frontend.standby.{name}" for name in OURS)} <= set(done.stdout.split())
