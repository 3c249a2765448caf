"""The built wheel, installed where there is nothing else: its programs and its twistd plugins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOT

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "clustersh", "twisted")


def run(*command: str | Path, cwd: Path) -> str:
    """Run *command* with nothing of this checkout in its way; return its stdout."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CLUSTERSH_"))}
    environ["HOME"] = str(cwd)
    ran = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, so that no earlier build in the checkout can slip in."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("*.pyc", "dropin.cache")
            )
        else:
            shutil.copy(ROOT / name, folder / "source")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder / "dist", folder / "source", cwd=folder)
    (built,) = (folder / "dist").glob("clustersh-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh venv that holds the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = (sys.executable, "-m", "pip", "--python", programs / "python")
    run(*pip, "install", "--quiet", "--no-compile", wheel, cwd=folder)
    return programs


def test_the_wheel_adds_plugins_to_twisted_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    plugins = [name for name in names if name.startswith("twisted/")]
    assert plugins
    assert all(name.startswith("twisted/plugins/") and name.endswith(".py") for name in plugins)
    assert not [name for name in plugins if name.endswith("__init__.py")]
    assert "clustersh/py.typed" in names
    packaged = {path.relative_to(ROOT).as_posix() for path in (ROOT / "clustersh" / "packaging").glob("*/*")}
    assert {name for name in packaged if "__pycache__" not in name} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_twistd_lists_both_services(installed: Path, tmp_path: Path) -> None:
    shown = run(installed / "twistd", "--help", cwd=tmp_path)
    assert {"clusterd", "clusteragent"} <= set(shown.split())


@pytest.mark.parametrize("program", ["clusterd", "clusteragent", "clustersh"])
def test_each_program_shows_its_help_and_leaves_nothing_behind(installed: Path, tmp_path: Path, program: str) -> None:
    shown = run(installed / program, "--help", cwd=tmp_path)
    assert program in shown
    assert list(tmp_path.iterdir()) == []
