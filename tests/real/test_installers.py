"""The installers as a machine meets them: real curl, bash and pip, and wheels from the coordinator alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from clustersh.coordinator.own_wheel import pack_installed

from .programs import Home, Result, end, eventually, make_home

pytestmark = pytest.mark.timeout(300)
NAMES = ("install.sh", "install_client.sh", "install.ps1", "install_client.ps1")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that clustersh needs here, fetched once; stands for the package index that an admin's pip knows."""
    folder = tmp_path_factory.mktemp("wheels")
    needs = [each for each in pack_installed().requires if ";" not in each]
    words = ("-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--dest", folder)
    subprocess.run([sys.executable, *words, *needs], check=True, capture_output=True)
    return folder


def fill(home: Home, wheels: Path, *words: str) -> Result:
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    return home.run("clusterd", "wheelhouse", "fill", *words, environ=index, seconds=120)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[Home]:
    """A coordinator whose wheelhouse is filled for this machine."""
    home = make_home(tmp_path_factory.mktemp("installers"), "coordinator")
    home.start("clusterd", "--listen", "127.0.0.1:0")
    home.address()
    filled = fill(home, wheels)
    assert filled.status == 0, filled
    yield home
    home.stop()


def shell(line: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Type *line* on a machine whose user's home is *home*, and which reaches no package index."""
    return subprocess.run(
        ["/bin/bash", "-c", line],
        env={
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_RETRIES": "0",
            **environ,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def invited(home: Home, *words: str) -> dict[str, object]:
    answer = home.run("clusterd", "invite", "--address", home.address(), "--json", *words)
    assert answer.status == 0, answer
    return dict(answer.json)


def test_the_invitations_line_makes_a_machine_of_the_coordinators_version(coordinator: Home, tmp_path: Path) -> None:
    line = str(invited(coordinator)["line"])
    pin, url = r"'sha256//[A-Za-z0-9+/]{43}='", r"https://\S+/install\.sh"
    assert re.fullmatch(rf"curl -fsSk --pinnedpubkey {pin} {url} \| bash", line)
    done = shell(f"{line} -s -- --no-service --name invited", tmp_path)
    assert done.returncode == 0, (done, (tmp_path / ".local/share/clustersh/install.log").read_text())
    program = tmp_path / ".local/bin/clusteragent"
    assert program.resolve().is_relative_to(tmp_path / ".local/share/clustersh/versions")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["clusteragent", pack_installed().version]
    assert done.stdout.startswith("invited has joined ")
    machines = coordinator.run("clusterd", "machines", "--json")
    assert [each["name"] for each in machines.json["machines"]] == ["invited"]
    assert not list((tmp_path / ".local/share/clustersh").glob("install.*/"))
    [site] = (tmp_path / ".local/share/clustersh/versions").glob("*/lib/python*/site-packages")
    assert [*site.glob("twisted/internet/__pycache__/tcp.*.pyc")] and [*site.glob("clustersh/__pycache__/config.*.pyc")]
    assert (site / "twisted/test").is_dir() and not [*site.glob("**/twisted/**/test/__pycache__")]


def test_what_can_not_be_compiled_is_installed_as_it_is(coordinator: Home, tmp_path: Path) -> None:
    script = shell(f"curl -fsS http://{coordinator.address()}/install.sh", tmp_path).stdout
    [function] = re.findall(r"^compile_version\(\) \{\n.*?^\}$", script, re.MULTILINE | re.DOTALL)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "broken.py").write_text("def")
    (tmp_path / "lib" / "whole.py").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    done = shell(f"set -euo pipefail; venv={tmp_path} log={tmp_path}/log; {function}; compile_version", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "broken.py" in (tmp_path / "log").read_text()
    assert [each.name.partition(".")[0] for each in (tmp_path / "lib" / "__pycache__").iterdir()] == ["whole"]


@pytest.mark.parametrize("name", ["install.sh", "install_client.sh"])
def test_a_machine_without_python_is_told_so(coordinator: Home, tmp_path: Path, name: str) -> None:
    programs, user = tmp_path / "programs", tmp_path / "user"
    programs.mkdir()
    user.mkdir()
    for program in ("bash", "curl", "df", "mkdir", "mktemp", "rm", "rmdir", "sort"):
        (programs / program).symlink_to(str(shutil.which(program)))
    done = shell(f"curl -fsS http://{coordinator.address()}/{name} | bash", user, PATH=str(programs))
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR: no Python >= 3.11 with venv was found\nhint: ")


def test_pip_installs_from_the_index_alone_and_checks_sums(coordinator: Home, tmp_path: Path) -> None:
    address, own = coordinator.address(), pack_installed()
    (tmp_path / "requirements.txt").write_text(f"clustersh=={own.version} --hash=sha256:{own.sha256}\n")
    pip = (sys.executable, "-m", "pip", "--isolated", "download", "--no-deps", "--require-hashes", "--quiet")
    words = ("--index-url", f"http://{address}/simple/", "--dest", "got", "-r", "requirements.txt")
    environ = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}
    run = {"cwd": tmp_path, "env": environ, "capture_output": True, "text": True, "check": False}
    done = subprocess.run([*pip, *words], **run)  # type: ignore[call-overload]
    assert done.returncode == 0, done
    assert (tmp_path / "got" / own.name).read_bytes() == own.content
    (tmp_path / "requirements.txt").write_text(f"clustersh=={own.version} --hash=sha256:{'0' * 64}\n")
    refused = subprocess.run([*pip, *words, "--no-cache-dir"], **run)  # type: ignore[call-overload]
    assert refused.returncode != 0 and "DO NOT MATCH" in refused.stderr


def test_a_machine_that_the_wheelhouse_has_nothing_for_asks_its_own_index(coordinator: Home, tmp_path: Path) -> None:
    fetched = shell(f"curl -fsS http://{coordinator.address()}/install.sh", tmp_path).stdout
    script = re.sub(r"^kinds='.*?'$", "kinds=''", fetched, flags=re.MULTILINE | re.DOTALL)
    assert script != fetched
    (tmp_path / "script").write_text(script)
    done = shell(f"bash {tmp_path}/script", tmp_path, PIP_CONFIG_FILE=os.devnull)
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR: can't install what clustersh needs from this user's package index")
    assert "wheelhouse fill" in done.stderr


def test_its_own_index_is_asked_in_the_users_way_but_installed_from_in_ours(
    coordinator: Home, wheels: Path, tmp_path: Path
) -> None:
    home, other = tmp_path / "a user's home", tmp_path / "other"
    home.mkdir()
    fetched = shell(f"curl -fsS http://{coordinator.address()}/install.sh", home).stdout
    script = re.sub(r"^kinds='.*?'$", "kinds=''", fetched, flags=re.MULTILINE | re.DOTALL)
    assert script != fetched
    (tmp_path / "script").write_text(script)
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    theirs = {"PIP_TARGET": str(other), "PIP_USER": "1", "PYTHONHOME": str(other), "PYTHONPATH": str(other)}
    done = shell(f"bash '{tmp_path}/script' --no-service --name own-index", home, **index, **theirs)
    assert done.returncode == 0, (done, (home / ".local/share/clustersh/install.log").read_text())
    assert done.stdout.startswith("own-index has joined ")
    assert not other.exists()
    gone = shell(f"bash '{tmp_path}/script' --uninstall", home, **theirs)
    assert (gone.returncode, gone.stdout) == (0, "own-index has left, and clusteragent is removed.\n"), gone
    assert not {".local", ".config"} & {path.name for path in home.iterdir()}


def test_half_a_script_does_nothing(coordinator: Home, tmp_path: Path) -> None:
    script = shell(f"curl -fsS http://{coordinator.address()}/install.sh", tmp_path).stdout
    lines = script.splitlines(keepends=True)
    for half in (script[: len(script) // 2], "".join(lines[:-1]), script.rstrip()[:-1]):
        ran = subprocess.run(
            ["/bin/bash"],
            input=half,
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode != 0
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".sh")])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_shellcheck_finds_nothing_in_what_is_served(coordinator: Home, tmp_path: Path, name: str, scheme: str) -> None:
    script = shell(f"curl -fsSk {scheme}://{coordinator.address()}/{name}", tmp_path).stdout
    (tmp_path / name).write_text(script)
    checked = subprocess.run(["shellcheck", tmp_path / name], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")
    assert f"scheme='{scheme}'" in script


def test_an_impostors_script_is_never_run(tmp_path: Path) -> None:
    coordinator, impostor = make_home(tmp_path, "coordinator"), make_home(tmp_path, "impostor")
    process = coordinator.start("clusterd", "--listen", "127.0.0.1:0")
    address, line = coordinator.address(), str(invited(coordinator)["line"])
    end(process)
    assert "https" in line
    try:
        impostor.start("clusterd", "--listen", address)
        assert impostor.address() == address
        user = tmp_path / "user"
        user.mkdir()
        without = shell(line.replace("| bash", "| wc -c"), user)
        assert without.stdout.strip() == "0"
        done = shell(f"set -o pipefail; {line}", user)
        assert done.returncode == 90, done  # curl's status for another key
        assert "curl: (90)" in done.stderr
        assert list(user.iterdir()) == []
        believed = shell(re.sub(r"--pinnedpubkey '.*?'", "", line).replace("| bash", "| wc -c"), user)
        assert int(believed.stdout) > 1000, "the impostor serves no script: the test shows nothing"
    finally:
        impostor.stop()


def test_the_sums_of_an_invitation_are_those_of_what_is_served(coordinator: Home, tmp_path: Path) -> None:
    told = invited(coordinator)
    scripts = told["scripts"]
    assert isinstance(scripts, dict) and set(scripts) == set(NAMES)
    for name, promised in scripts.items():
        fetched = subprocess.run(
            ["curl", "-fsS", f"http://{coordinator.address()}/{name}"], capture_output=True, check=True
        ).stdout
        assert hashlib.sha256(fetched).hexdigest() == promised
    assert scripts["install.ps1"] in str(told["powershell"])


def _pip_at_work(folder: Path, besides: set[Path]) -> bool:
    return any((path / "0" / "0").exists() for path in set(folder.glob(".fill-*")) - besides)


def test_a_fill_that_is_killed_leaves_the_wheelhouse_as_it_was(coordinator: Home, wheels: Path) -> None:
    folder = coordinator.path / "coordinator" / "wheelhouse"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    left = set[Path]()
    for how, status, leaves in ((signal.SIGKILL, -9, 1), (signal.SIGTERM, 143, 0)):
        process = coordinator.open("clusterd", "wheelhouse", "fill", "--platform", "manylinux_2_35_x86_64")
        eventually(partial(_pip_at_work, folder, left), what="pip at work")
        pips = psutil.Process(process.pid).children(recursive=True)
        assert end(process, how) == status
        assert {name: (folder / name).read_bytes() for name in before} == before
        for pip in pips:  # one whose fill was killed goes on, and would make its folder again when that is removed
            with contextlib.suppress(psutil.NoSuchProcess):
                pip.kill()
                pip.wait(30)
        left = set(folder.glob(".fill-*"))
        assert len(left) == leaves, "a new fill removes what a killed one left, and one that is asked to end its own"
    listed = coordinator.run("clusterd", "wheelhouse", "list", "--json")
    assert len(listed.json["fills"]) == 1
    again = fill(coordinator, wheels)
    assert again.status == 0, again
    assert not list(folder.glob(".fill-*"))
    assert {path.name for path in folder.glob("*.whl")} == {name for name in before if name.endswith(".whl")}


def test_a_fill_that_fails_says_what_pip_said(coordinator: Home, tmp_path: Path) -> None:
    before = coordinator.run("clusterd", "wheelhouse", "list").out
    (tmp_path / "empty").mkdir()
    failed = fill(coordinator, tmp_path / "empty")
    assert failed.status == 125
    assert re.search(r"^ERROR: pip can't fetch the wheels for \S+, Python 3\.\d+: No matching distribution", failed.err)
    assert "hint: the wheelhouse is as it was" in failed.err
    assert coordinator.run("clusterd", "wheelhouse", "list").out == before


def test_a_second_fill_waits_for_no_one(coordinator: Home, wheels: Path) -> None:
    folder = coordinator.path / "coordinator" / "wheelhouse"
    first = coordinator.open("clusterd", "wheelhouse", "fill")
    try:
        eventually(partial(_pip_at_work, folder, set()), what="pip at work")
        second = fill(coordinator, wheels)
        assert (second.status, second.err.splitlines()[0]) == (125, "ERROR: the wheelhouse is being filled already")
    finally:
        end(first)
