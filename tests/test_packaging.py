"""The sample units are ones that systemd accepts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

UNITS = ROOT / "packaging" / "systemd"
ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")
@pytest.mark.parametrize(("unit", "scope"), [("clusterd.service", "--system"), ("clusteragent.service", "--user")])
def test_systemd_accepts_the_unit(tmp_path: Path, unit: str, scope: str) -> None:
    assert ANALYZE is not None
    program = tmp_path / unit.removesuffix(".service")
    program.symlink_to(sys.executable)  # verify insists that ExecStart names a program that is there
    copy = tmp_path / unit
    copy.write_text((UNITS / unit).read_text().replace("/usr/local/bin", str(tmp_path)))
    verified = subprocess.run(
        [ANALYZE, "verify", scope, "--man=no", str(copy)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in verified.stderr.splitlines() if unit in line]
    assert complaints == []


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")
def test_a_bad_unit_would_be_noticed(tmp_path: Path) -> None:
    assert ANALYZE is not None
    copy = tmp_path / "bad.service"
    copy.write_text("[Service]\nExecStart=/bin/true\nKillMod=process\n")
    verified = subprocess.run(
        [ANALYZE, "verify", "--user", "--man=no", str(copy)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "KillMod" in verified.stderr
