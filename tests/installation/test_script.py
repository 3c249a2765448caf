"""The first half of an installer alone, where no coordinator answers: where it goes, and what it leaves alone."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from clustersh.coordinator.installers import InstallerFacts, render

from ..real.programs import eventually

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]
NOWHERE = "127.0.0.1:9"
FACTS = InstallerFacts(
    address=NOWHERE,
    scheme="http",
    ca_sha256="ab" * 32,
    ca_pem="",
    server_pin="",
    version="1.2.3",
    wheel_name="clustersh-1.2.3-py3-none-any.whl",
    wheel_sha256="cd" * 32,
    requirements="",
    kinds="",
)
UNREACHED = f"ERROR: can't reach the coordinator at {NOWHERE}\n"


def start(
    home: Path, *words: str, facts: InstallerFacts = FACTS, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the installer for a user whose home is *home*."""
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        ["/bin/bash", "-c", render("install.sh", facts), "bash", *words],
        env={"HOME": str(home), "PATH": os.environ["PATH"], **(environ or {})},
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(home: Path, *words: str, **environ: str) -> tuple[int, str, str]:
    """As `start`, to its end."""
    with start(home, *words, environ=environ) as process:
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, out, err


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a 'user' \"of\" $HOME"


def data_of(home: Path) -> Path:
    return home / ".local/share/clustersh"


def test_a_folder_that_is_no_whole_path_is_not_used(home: Path) -> None:
    status, out, err = run(home, XDG_DATA_HOME="some/where")
    assert (status, out) == (1, "") and err.startswith(UNREACHED)
    assert {path.name for path in home.iterdir()} == {".local"}
    status, out, err = run(home, HOME="some/where")
    assert (status, out, err) == (1, "", "ERROR: HOME is no whole path, so there is no place to install to\n")


def test_what_is_not_the_installers_stays_in_its_folder(home: Path) -> None:
    other = data_of(home) / "bin" / "clusterd"
    other.parent.mkdir(parents=True)
    other.write_text("another installation's")
    (data_of(home) / "versions" / "1.killed").mkdir(parents=True)
    (data_of(home) / "lock").touch()
    said = f"There is no installation in {data_of(home)}.\n"
    assert run(home, "--uninstall") == (0, said, "")
    assert {path.name for path in data_of(home).iterdir()} == {"bin"}
    assert other.read_text() == "another installation's"


def programs(folder: Path, *more: str) -> Path:
    """Return a folder with no more than what every system has, and *more*."""
    made = folder / "programs"
    made.mkdir()
    for name in ("bash", "df", "mkdir", "mktemp", "rm", "rmdir", "sort", *more):
        (made / name).symlink_to(next(p for p in (Path("/usr/bin", name), Path("/bin", name)) if p.exists()))
    return made


def test_that_there_is_no_curl_is_said_first(home: Path) -> None:
    status, out, err = run(home, PATH=str(programs(home.parent)))
    assert (status, out, err.partition("\n")[0]) == (1, "", "ERROR: there is no curl")
    assert list(home.iterdir()) == []


@pytest.fixture
def reached(tmp_path: Path) -> InstallerFacts:
    """What a script carries that reaches somebody who has the CA's certificate, and no wheel."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "ca.pem").write_text("the CA")
    return FACTS._replace(scheme="file", address=str(served))


def open_files(pid: int) -> set[str]:
    """Return the paths of the files that process *pid* has open."""
    return {file.path for file in psutil.Process(pid).open_files()}


def after_another(home: Path, facts: InstallerFacts, other: Callable[[], None]) -> str:
    """Run the installer while another one is at work, which does *other* at its end; return what the first says."""
    data_of(home).mkdir(parents=True)
    with (data_of(home) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(home, facts=facts)
        try:
            eventually(lambda: lock.name in open_files(process.pid), 30, "it waits")
            other()
            fcntl.flock(lock, fcntl.LOCK_UN)
            return process.communicate(timeout=60)[1]
        finally:
            process.kill()
            process.wait()


def test_one_that_waits_for_another_keeps_its_own_folder(home: Path, reached: InstallerFacts) -> None:
    def other() -> None:
        for folder in data_of(home).glob("install.??????"):
            folder.rmdir()

    said = after_another(home, reached, other)
    assert said.startswith(f"ERROR: can't fetch {FACTS.wheel_name} from {reached.address}\n"), said


def test_one_that_waits_for_what_uninstalls_says_so(home: Path, reached: InstallerFacts) -> None:
    said = after_another(home, reached, lambda: shutil.rmtree(data_of(home)))
    assert said == f"ERROR: what is in {data_of(home)} was uninstalled meanwhile\nhint: run the line again\n"
    assert not data_of(home).exists()
