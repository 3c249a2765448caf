"""The benchmarks run and say what they promise; how fast things are is no test."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from benchmarks import (
    bulk,
    fleet_idle,
    fleet_peers,
    fleet_size,
    guard,
    intake,
    latency,
    launch,
    memory,
    tables,
    throughput,
)

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
    assert shown.splitlines()[-2:] == ["ratio to ssh (new connection): 0.40", "ratio to ssh (kept connection): 4.00"]
    assert re.search(r"^clustersh run +10\.0 +20\.0 +30\.0 +3$", shown, re.MULTILINE)


def test_medians_are_held_against_what_they_should_be() -> None:
    medians = {
        "clustersh run": 26.0,
        "clustersh machines": 25.0,
        "clustersh history": 25.1,
        "clustersh run (no standby)": 100.0,
        "clustersh run (leaves one)": 106.0,
        "ssh (new connection)": 174.0,
        "ssh (kept connection)": 6.4,
    }
    assert [line.rpartition(": ")[2] for line in latency.aims(medians).splitlines()] == (
        ["MISSED", "met", "MISSED", "met", "MISSED", "MISSED"]
    )


def test_runs_are_interleaved_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []
    measured = latency.measure({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 1, 2)
    assert order == ["a", "b"] * 3
    assert [len(times) for times in measured.values()] == [2, 2]


@pytest.mark.real
@pytest.mark.skipif(SSHD is None, reason="OpenSSH's sshd is not installed")
def test_latency_is_measured_against_a_real_sshd() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.latency", "--runs", "1", "--warm-up", "1", "--loop", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    *_, to_new, to_kept, ours, theirs, memory = (
        line for line in ran.stdout.splitlines() if not line.startswith("aim: ")
    )
    assert re.fullmatch(r"ratio to ssh \(new connection\): \d+\.\d\d", to_new)
    assert re.fullmatch(r"ratio to ssh \(kept connection\): \d+\.\d\d", to_kept)
    rate = r" +\d+\.\d calls/s in one loop, \d+\.\d in 20 at once"
    assert re.fullmatch("clustersh run" + rate, ours) and re.fullmatch(r"ssh \(kept connection\)" + rate, theirs)
    assert re.fullmatch(r"the standby's memory, idle: \d+\.\d MiB", memory)


def test_a_parts_time_is_what_it_adds_to_the_one_before() -> None:
    shown = launch.table({"a": [10.0, 30.0, 20.0], "b": [25.0], "c": [24.0]}).splitlines()
    assert [line.split() for line in shown[1:]] == [["a", "20.0", "20.0"], ["b", "5.0", "25.0"], ["c", "-1.0", "24.0"]]


@pytest.mark.real
def test_the_parts_of_a_short_command_are_measured() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.launch", "--runs", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 6 and "records, link, spawn" in ran.stdout


def test_a_table_has_columns_and_an_aim_says_whether_it_was_met() -> None:
    assert tables.table(["what", "ms"], [("one", "1.0"), ("another", "22.5")]).splitlines() == [
        "what       ms",
        "one       1.0",
        "another  22.5",
    ]
    assert tables.aim("under 3", met=True) == "aim: under 3: met\n"
    assert tables.aim("under 3", met=False) == "aim: under 3: MISSED\n"


def test_each_report_holds_its_figures_against_the_aims() -> None:
    figures = {f"clustersh, {how}": [throughput.Figures(100.0, 2.5, (2.0, 2.0))] for how in _WAYS}
    figures |= {f"bare spawnProcess, {flying} in flight": [throughput.Figures(600.0, 0.5)] for flying in (1, 50)}
    shown = throughput.report(figures, {})
    assert "beyond the bare process (here 2.00): met" in shown
    assert "2 syncs a job on the coordinator, 2 on the agent (here 2.0, 2.0): met" in shown

    read = bulk.Reading([60.0], (1.0, 33.0), [10.0], [21.0])
    shown = bulk.report(read, [100.0], {"clustersh cat, agent 25 ms away": [30.0, 19.0, 10.0], "nearer": [25.0]})
    assert re.findall(r": (met|MISSED)$", shown, re.MULTILINE) == ["met", "MISSED", "MISSED", "MISSED"]

    each = {"unique": 30.0, "resident": 50.0}
    shown = memory.report(each, each, {"unique": 60.0, "resident": 80.0}, 500)
    assert re.findall(r": (met|MISSED)$", shown, re.MULTILINE) == ["met", "met", "met"]

    assert re.search(r"^clustersh +134 +1$", intake.report(256, [2.0], [1.0], 8.0), re.MULTILINE)


def test_the_fleet_s_reports_hold_their_figures_against_the_aims() -> None:
    size = {500: [fleet_size.Figures(0.8, 0.5)], 2000: [fleet_size.Figures(4.8, 0.5)]}
    shown = fleet_size.report(size)
    assert re.findall(r": (met|MISSED)$", shown, re.MULTILINE) == ["met", "MISSED"]
    assert "(here 1.50)" in shown

    idle = fleet_idle.Figures(61.0, 0.05, 12.0, 8.0, [0.1], [0.2, 1.3, 0.3])
    shown = fleet_idle.report(idle, 5000)
    assert re.findall(r": (met|MISSED)$", shown, re.MULTILINE) == ["MISSED", "met", "MISSED"]
    idle.runs_meanwhile = []
    assert fleet_idle.report(idle, 5000).endswith("MISSED\n"), "where nothing was run, nothing was quick"

    times = {fleet_peers.OURS: [500.0], "clush, new connections": [5000.0], "clush, kept connections": [900.0]}
    shown = fleet_peers.report({100: times}, {"salt": "it is not here"}, 20, 100)
    assert re.findall(r": (met|MISSED)$", shown, re.MULTILINE) == ["met", "MISSED"]
    assert "20 real agents, 80 simulated ones" in shown and "left out: salt: it is not here" in shown


def test_the_guard_s_report_holds_its_median_against_the_aim() -> None:
    shown = guard.report({"bash": {"ls": 60.0, "rm -rf /": 80.0, "true": 600.0}}, {"a script": 5000.0}, 12.0, 34.0)
    assert re.search(r"^3 commands of bash +80 +600$", shown, re.MULTILINE)
    assert shown.endswith("(here 80): met\n") and "12.0 MiB unique when it is ready, 34.0 after" in shown
    assert guard.report({"bash": {"ls": 501.0}}, {}, 12.0, 34.0).endswith("(here 501): MISSED\n")


_WAYS = ("one at a time", "50 in flight", "50 connections")


@pytest.mark.real
@pytest.mark.parametrize(
    "words",
    [
        ("history", "--few", "3", "--many", "9", "--records", "30", "--turns", "1"),
        ("intake", "--size", "1", "--turns", "1"),
        ("memory", "--agents", "2"),
        ("fleet_size", "--few", "2", "--many", "4", "--turns", "1"),
        ("fleet_idle", "--agents", "3", "--idle", "0.2"),
        ("guard", "--turns", "1"),
    ],
    ids=lambda words: words[0],
)
def test_a_benchmark_measures_the_real_programs(words: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr


@pytest.mark.real
@pytest.mark.skipif(SSHD is None, reason="OpenSSH's sshd is not installed")
def test_the_fleet_is_measured_beside_clush_over_a_real_sshd() -> None:
    words = ("--machines", "3", "--real", "2", "--ansible", "0", "--salt", "0", "--turns", "1")
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.fleet_peers", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    for way in ("new", "kept"):
        assert re.search(rf"^clush, {way} connections, 3 +\d+\.\d\d +\d+\.\d +1$", ran.stdout, re.MULTILINE), ran.stdout
    assert "2 real agents, 1 simulated ones" in ran.stdout
