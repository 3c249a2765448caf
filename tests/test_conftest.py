"""The rule that a skipped test fails CI unless docs/platforms.md lists it, the order of the files, and their time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from .conftest import (
    LONG_FILES,
    NOT_REAL,
    REAL_FOLDERS,
    ROOT,
    allowed_skips,
    pytest_collection_modifyitems,
    unlisted,
)

PAGE = """
| test | platform | why |
|---|---|---|
| `tests/test_a.py::test_one` | win32 | needs modes |
| `tests/test_b.py` | any | needs sshd |
| tests/test_c.py | any | not in backquotes |
"""


def test_the_list_is_read_by_platform() -> None:
    assert allowed_skips(PAGE, "linux") == {"tests/test_b.py"}
    assert allowed_skips(PAGE, "win32") == {"tests/test_a.py::test_one", "tests/test_b.py"}


def test_a_listed_test_covers_its_parameters_and_a_listed_file_its_tests() -> None:
    skipped = {"tests/test_a.py::test_one[x]", "tests/test_b.py::test_x", "tests/test_a.py::test_two"}
    assert unlisted(skipped, allowed_skips(PAGE, "win32")) == ["tests/test_a.py::test_two"]


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "shared"])
def test_an_unlisted_skip_fails_the_run_in_ci(tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "platforms.md").write_text(PAGE)
    (tmp_path / "tests" / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "tests" / "test_x.py").write_text("import pytest\ndef test_x():\n    pytest.skip('no')\n")
    outcomes = {}
    for value in ("true", "false"):
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)),
                *(*workers, str(tmp_path)),
            ],
            env={"CI": value, "PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        outcomes[value] = (ran.returncode, "does not list it: tests/test_x.py::test_x" in ran.stdout)
    assert outcomes == {"true": (1, True), "false": (0, False)}


WAITING = """
import pytest_twisted
from twisted.internet.defer import Deferred, succeed

@pytest_twisted.ensureDeferred
async def test_that_waits_without_end():
    await Deferred()

@pytest_twisted.ensureDeferred
async def test_that_comes_afterwards():
    await succeed(None)

def test_that_has_no_coroutine():
    while True:
        pass
"""


def test_a_test_that_waits_without_end_is_ended_and_the_others_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_x.py").write_text(WAITING)
    options = ("-rA", "--tb=line", "--timeout=1", "--rootdir", str(tmp_path), str(tmp_path))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:schemathesis", *options],
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ended = re.findall(r"^(PASSED|FAILED) .*test_x\.py::test_(\w+)", ran.stdout, re.MULTILINE)
    assert {test: outcome for outcome, test in ended} == {
        "that_waits_without_end": "FAILED",
        "that_comes_afterwards": "PASSED",
        "that_has_no_coroutine": "FAILED",
    }, ran.stdout
    assert "waited in a coroutine for 1 s" in ran.stdout


def test_the_list_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8")
    listed = set().union(*(allowed_skips(page, platform) for platform in ("linux", "darwin", "win32")))
    assert listed
    for test in listed:
        file, *names = test.split("::")
        content = (ROOT / file).read_text(encoding="utf-8")
        assert [name for name in names if name not in content] == []


def test_what_starts_real_programs_is_marked_by_its_folder() -> None:
    names = ["tests/real/test_a.py::x", "tests/test_a.py::x", "tests/hostile/test_a.py::x", f"{NOT_REAL}::x"]
    marked: list[tuple[str, str]] = []
    items = [
        SimpleNamespace(nodeid=name, add_marker=lambda mark, name=name: marked.append((name, mark.name)))
        for name in names
    ]
    pytest_collection_modifyitems(cast("list[pytest.Item]", items))
    assert marked == [(names[0], "real"), (names[2], "real")]
    assert (ROOT / NOT_REAL).is_file() and all((ROOT / folder).is_dir() for folder in REAL_FOLDERS)


def test_the_files_that_take_longest_are_begun_first_and_the_rest_stays_in_order() -> None:
    assert len(set(LONG_FILES)) == len(LONG_FILES)
    assert [file for file in LONG_FILES if not (ROOT / file).is_file()] == []
    names = ["tests/a.py::two", "tests/a.py::one", f"{LONG_FILES[1]}::x", "tests/b.py::x", f"{LONG_FILES[0]}::x"]
    items = [SimpleNamespace(nodeid=name, add_marker=lambda mark: None) for name in names]
    pytest_collection_modifyitems(cast("list[pytest.Item]", items))
    assert [item.nodeid for item in items] == [names[at] for at in (4, 2, 0, 1, 3)]
