"""The benchmarks run and say what they promise; how fast things are is no test."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from benchmarks import latency

from .conftest import ROOT

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")


def test_the_table_ends_with_the_ratio_of_the_medians() -> None:
    shown = latency.table(
        {
            "clustersh run": [10.0, 30.0, 20.0],
            "ssh (new connection)": [100.0, 50.0, 40.0],
            "ssh (kept connection)": [5.0, 5.0, 5.0],
        }
    )
    assert shown.splitlines()[-1] == "ratio to ssh (new connection): 0.40"
    assert re.search(r"^clustersh run +10\.0 +20\.0 +30\.0 +3$", shown, re.MULTILINE)


def test_runs_are_interleaved_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []
    measured = latency.measure({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 1, 2)
    assert order == ["a", "b"] * 3
    assert [len(times) for times in measured.values()] == [2, 2]


@pytest.mark.real
@pytest.mark.skipif(SSHD is None, reason="OpenSSH's sshd is not installed")
def test_latency_is_measured_against_a_real_sshd() -> None:
    ran = subprocess.run(
        [sys.executable, "benchmarks/latency.py", "--runs", "2", "--warm-up", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"ratio to ssh \(new connection\): \d+\.\d\d", ran.stdout.splitlines()[-1])
