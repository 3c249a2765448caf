"""A short soak, and that the soak would notice what it looks for."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from .check import Check, Findings, check_left_behind
from .cluster import LINKS, MACHINES, SERVICES
from .plan import Kind, make_faults, make_noise, make_work, ran_file
from .soak import Soak, Wanted

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def soaked() -> Iterator[tuple[Soak, int]]:
    """A soak that is over, and its exit status; outside of pytest's folders, which only root may enter."""
    with tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        soak = Soak(Path(folder), Wanted(seed=4, seconds=8.0, raw=3, programs=1))
        yield soak, soak.run()


def test_nothing_is_lost_twice_missing_or_leaked(soaked: tuple[Soak, int]) -> None:
    soak, status = soaked
    assert status == 0, vars(soak.findings)
    figures = re.fullmatch(r"jobs (\d+), faults (\d+), lost 0, twice 0, missing 0, leaked 0", soak.figures)
    assert figures and int(figures[1]) > 50 and int(figures[2]) >= 5, soak.figures


def _run_again(soak: Soak) -> None:
    ran = ran_file(soak.folder, "ws1")
    ran.write_text(ran.read_text() + ran.read_text().splitlines()[0] + "\n")


def _drop_an_outcome(soak: Soak) -> None:
    [ledger] = (soak.cluster.homes["coordinator"].path / "coordinator" / "ledger").glob("*.jsonl")
    lines = ledger.read_bytes().splitlines(keepends=True)
    lines.remove(next(line for line in lines if b'"is":"ended"' in line))
    ledger.write_bytes(b"".join(lines))


def _drop_a_byte(soak: Soak) -> None:
    outputs = (soak.cluster.homes["ws1"].path / "agent" / "jobs").glob("*/*/output")
    output = next(path for path in outputs if path.stat().st_size)
    output.write_bytes(output.read_bytes()[:-1])


def _leave_a_folder(soak: Soak) -> None:
    (soak.cluster.homes["ws2"].path / "agent" / "work" / "left").mkdir(parents=True)


@pytest.mark.parametrize(
    ("break_it", "name"),
    [(_run_again, "twice"), (_drop_an_outcome, "lost"), (_drop_a_byte, "missing"), (_leave_a_folder, "leaked")],
)
def test_what_the_soak_looks_for_is_found(
    soaked: tuple[Soak, int], break_it: Callable[[Soak], None], name: str
) -> None:
    soak, _ = soaked
    break_it(soak)
    findings = Findings()
    Check(soak.cluster, soak.memory, findings).all()
    check_left_behind(soak.cluster, findings)
    assert getattr(findings, name), vars(findings)


def test_restarts_in_a_loop() -> None:
    words = ["--restart", "coordinator", "--times", "3", "--seed", "1", "--raw", "2", "--programs", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.soak", *words], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\njobs \d+, faults 3, lost 0, twice 0, missing 0, leaked 0\n\Z", done.stdout)


def test_a_seed_repeats_the_schedule_and_the_work() -> None:
    assert make_faults(1, 60.0, SERVICES, LINKS) == make_faults(1, 60.0, SERVICES, LINKS)
    assert make_faults(1, 60.0, SERVICES, LINKS) != make_faults(2, 60.0, SERVICES, LINKS)
    works = [make_work(1, number, MACHINES, program=True) for number in range(300)]
    assert works == [make_work(1, number, MACHINES, program=True) for number in range(300)]
    assert {work.kind for work in works} == set(Kind)


def test_faults_of_a_target_do_not_overlap() -> None:
    faults = make_faults(3, 600.0, SERVICES, LINKS)
    for target in (*SERVICES, *LINKS):
        mine = [fault for fault in faults if fault.target == target]
        assert mine and all(one.at + one.seconds < two.at for one, two in pairwise(mine))


def test_a_command_prints_what_is_expected_of_it(tmp_path: Path) -> None:
    noise = make_noise(1)
    (tmp_path / "noise").write_bytes(noise)
    (tmp_path / "ran").mkdir()
    for number in range(30):
        work = make_work(1, number, MACHINES, program=True)
        if work.kind not in (Kind.PLAIN, Kind.STDIN):
            continue
        given = work.input(noise) or b""
        done = subprocess.run(["bash", "-c", work.shell(tmp_path)], input=given, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (work.exit_code, *work.expected(noise))
        assert ran_file(tmp_path, work.machine).read_text().splitlines()[-1] == work.id
