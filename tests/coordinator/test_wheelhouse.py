"""What a wheelhouse tells pip to install where; which machines an admin names; and what is fetched for them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from clustersh.coordinator.wheel_fetch import FetchError, PipRun, read_wheel
from clustersh.coordinator.wheel_targets import own_platform, target_of
from clustersh.coordinator.wheelhouse import Contents, Wheelhouse
from clustersh.coordinator.wheelhouse_fill import fill as fill_wheelhouse

from .test_package_index import fill, held

LINUX = target_of("manylinux_2_28_x86_64", "3.11")
MUSL = target_of("musllinux_1_2_x86_64", "3.11")
WINDOWS = target_of("win_amd64", "3.11")


class Pip:
    """Stands for pip and an index: *wheels* by what is asked for, each with its conditions' requirements."""

    def __init__(self, **wheels: tuple[str, ...]) -> None:
        self.wheels = wheels
        self.asked: list[list[str]] = []
        self.constraints: list[str] = []
        self.version = "1.0"

    def __call__(self, words: Sequence[str], folder: Path) -> PipRun:
        into = Path(words[words.index("--dest") + 1])
        self.constraints.append(Path(words[words.index("--constraint") + 1]).read_text())
        last = max(number for number, word in enumerate(words) if word == "--platform") + 2
        self.asked.append(list(words[last:]))
        todo = [Requirement(word) for word in words[last:]]
        while todo:
            asked = todo.pop()
            if asked.name not in self.wheels:
                return PipRun(1, f"WARNING: so\nERROR: No matching distribution found for {asked.name}\n")
            make_wheel(into / f"{asked.name}-{self.version}-py3-none-any.whl", *self.wheels[asked.name])
            needs = [Requirement(text) for text in self.wheels[asked.name]]
            # As pip does: conditions are those of the machine that it runs on.
            todo += [each for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
        return PipRun(0, "")


def make_wheel(path: Path, *requires: str) -> None:
    name = path.name.split("-")[0]
    with zipfile.ZipFile(path, "w") as archive:
        lines = "".join(f"Requires-Dist: {each}\n" for each in requires)
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nRequires-Python: >=3.8\n{lines}")
        archive.writestr("vendored/other-1.0.dist-info/METADATA", "Name: other\n")


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Wheelhouse:
    return Wheelhouse(tmp_path)


def names(contents: Contents, platform: str) -> set[str]:
    (found,) = (each for each in contents.fills if each.platform == platform)
    return {wheel.project for wheel in found.wheels}


def test_what_another_platform_needs_is_fetched_although_pip_does_not_see_it(wheelhouse: Wheelhouse) -> None:
    conditional = ("b ; sys_platform == 'win32'", "c ; sys_platform != 'win32'", "d[x] ; sys_platform == 'win32'")
    pip = Pip(a=conditional, b=("e ; os_name == 'nt'",), c=(), d=("f ; extra == 'x'", "g ; extra == 'y'"), e=(), f=())
    contents = fill_wheelhouse(wheelhouse, [LINUX, WINDOWS], ["a", "h ; extra == 'test'"], pip, 0.0)
    assert names(contents, "win_amd64") == {"a", "b", "d", "e", "f"}
    assert names(contents, "manylinux_2_28_x86_64") == {"a", "c"}
    assert pip.asked[1:] == [["a"], ["a", "b", "d[x]"], ["a", "b", "d[x]", "e", "f"]]


def test_what_is_filled_is_on_the_disk_under_its_sum_and_nothing_else(wheelhouse: Wheelhouse) -> None:
    contents = fill_wheelhouse(wheelhouse, [LINUX], ["a"], Pip(a=("b",), b=()), 0.0)
    assert wheelhouse.read() == contents
    kept = {path.name for path in wheelhouse.folder.iterdir()} - {"lock"}
    assert kept == {"wheelhouse.json", *(f"{wheel.sha256}.whl" for wheel in contents.wheels().values())}
    assert all(path.stat().st_mode & 0o077 == 0 for path in wheelhouse.folder.iterdir())


def test_a_fill_that_fails_changes_nothing(wheelhouse: Wheelhouse) -> None:
    fill_wheelhouse(wheelhouse, [LINUX], ["a"], Pip(a=()), 0.0)
    before = {path: path.read_bytes() for path in wheelhouse.folder.iterdir()}
    with pytest.raises(FetchError, match=r"for win_amd64, Python 3\.11: No matching distribution found for b$"):
        fill_wheelhouse(wheelhouse, [LINUX, WINDOWS], ["a", "b ; os_name == 'nt'"], Pip(a=()), 0.0)
    assert {path: path.read_bytes() for path in wheelhouse.folder.iterdir()} == before


def test_a_new_fill_takes_the_place_of_the_old_one_and_its_wheels_go(wheelhouse: Wheelhouse) -> None:
    pip = Pip(a=(), b=())
    first = fill_wheelhouse(wheelhouse, [LINUX], ["a"], pip, 0.0)
    second = fill_wheelhouse(wheelhouse, [LINUX], ["b"], pip, 0.0)
    assert second.wheels().keys() == {"b-1.0-py3-none-any.whl"}
    assert not wheelhouse.path(*first.wheels().values()).exists()


def test_machines_that_requirements_can_t_tell_apart_get_the_same_versions(wheelhouse: Wheelhouse) -> None:
    pip = Pip(a=())
    fill_wheelhouse(wheelhouse, [LINUX], ["a"], pip, 0.0)
    fill_wheelhouse(wheelhouse, [MUSL, WINDOWS], ["a"], pip, 0.0)
    fill_wheelhouse(wheelhouse, [LINUX, MUSL], ["a"], pip, 0.0)
    assert pip.constraints == ["", "a==1.0\n", "", "", "a==1.0\n"]


def test_each_version_is_required_where_it_is_needed() -> None:
    apple = fill(held("a-1.0-py3-none-any.whl"), held("b-2.0-py3-none-any.whl", b"b"), system="darwin", machine="arm64")
    linux = fill(held("a-1.0-py3-none-any.whl"), held("b-3.0-py3-none-any.whl", b"c"))
    lines = Contents((apple, linux)).requirements().splitlines()
    assert [line.partition(" --hash=")[0] for line in lines] == [
        "a==1.0",
        "b==2.0 ; (sys_platform == 'darwin' and platform_machine == 'arm64' and python_version == '3.11')",
        "b==3.0 ; (sys_platform == 'linux' and platform_machine == 'x86_64' and python_version == '3.11')",
    ]
    wanted = Requirement(lines[1].partition(" --hash=")[0]).marker
    assert wanted is not None
    machine = {"sys_platform": "darwin", "platform_machine": "arm64", "python_version": "3.11"}
    assert wanted.evaluate(machine)
    assert not wanted.evaluate({**machine, "python_version": "3.12"})
    assert lines[0].count("--hash=sha256:") == 1
    assert Contents().requirements() == ""


@pytest.mark.parametrize(
    ("platform", "some", "machine"),
    [
        ("manylinux_2_28_x86_64", ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"], "x86_64"),
        ("manylinux2014_aarch64", ["manylinux_2_17_aarch64", "manylinux2014_aarch64"], "aarch64"),
        ("musllinux_1_2_aarch64", ["musllinux_1_2_aarch64", "musllinux_1_1_aarch64"], "aarch64"),
        ("macosx_14_0_arm64", ["macosx_14_0_arm64", "macosx_11_0_universal2"], "arm64"),
        ("win_amd64", ["win_amd64"], "AMD64"),
    ],
)
def test_a_platform_takes_the_wheels_of_older_ones(platform: str, some: list[str], machine: str) -> None:
    target = target_of(platform, "3.13")
    assert [tag for tag in target.tags if tag in some] == some
    assert target.machine == machine
    assert "manylinux_2_29_x86_64" not in target.tags


@pytest.mark.parametrize(
    ("platform", "python"),
    [
        ("linux_x86_64", "3.11"),
        ("amiga", "3.11"),
        ("win_amd64\n", "3.11"),
        ("manylinux_2_9999_x86_64", "3.11"),
        ("win_amd64", "3.10"),
        ("win_amd64", "2.7"),
        ("win_amd64", "3.11.2"),
    ],
)
def test_what_is_no_kind_of_machine_is_refused(platform: str, python: str) -> None:
    with pytest.raises(ValueError, match="is no "):
        target_of(platform, python)


def test_this_machine_is_one() -> None:
    assert target_of(own_platform(), "3.11").system == sys.platform


def test_what_is_no_wheel_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a-1.0-py3-none-any.whl"
    path.write_bytes(b"PK but not really")
    with pytest.raises(FetchError, match="no wheel that can be read"):
        read_wheel(path)
    make_wheel(path, "not a requirement !")
    with pytest.raises(FetchError, match="no wheel that can be read"):
        read_wheel(path)


@pytest.mark.real
def test_every_tag_that_pip_takes_here_is_one_of_this_platform() -> None:
    words = (sys.executable, "-m", "pip", "debug", "--verbose")
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    here = {line.split("-")[2].strip() for line in shown.splitlines() if line.strip().startswith(f"{python}-{python}-")}
    public = {tag for tag in here if tag.startswith(("manylinux", "musllinux", "macosx", "win"))}
    assert public
    assert public <= set(target_of(own_platform(), "3.11").tags)
