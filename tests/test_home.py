"""Private folders, atomic writes, and a service's lock."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from clustersh import home
from clustersh.home import HomeError, RunningService, ServiceLock

posix = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


class Thing(msgspec.Struct):
    number: int


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def loose_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


def test_the_home_is_where_the_environment_says(tmp_path: Path) -> None:
    assert home.default_home({"CLUSTERSH_HOME": str(tmp_path)}) == tmp_path
    assert home.default_home({"HOME": str(tmp_path)}) == tmp_path / ".config" / "clustersh"
    assert home.default_home({"CLUSTERSH_HOME": "", "HOME": str(tmp_path)}) == tmp_path / ".config" / "clustersh"
    assert home.default_home({"CLUSTERSH_HOME": "here"}) == Path.cwd() / "here"


@posix
def test_folders_and_their_new_parents_are_private(tmp_path: Path, loose_umask: None) -> None:
    made = home.private_folder(tmp_path / "a" / "b" / "c")
    assert [mode(path) for path in (made, made.parent, made.parent.parent)] == [0o700] * 3


@posix
def test_a_loose_folder_is_tightened(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o755)
    loose.chmod(0o755)
    assert mode(home.private_folder(loose)) == 0o700


def test_a_file_in_the_way_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(HomeError, match="can't use the folder"):
            home.private_folder(path)


@posix
@pytest.mark.parametrize("durable", [True, False])
def test_written_files_are_private_and_whole(tmp_path: Path, loose_umask: None, durable: bool) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    path.chmod(0o644)
    home.write_private(path, b"new", durable=durable)
    assert (path.read_bytes(), mode(path), os.listdir(tmp_path)) == (b"new", 0o600, ["state.json"])  # noqa: PTH208


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        home.write_private(path, b"new")
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["state.json"])  # noqa: PTH208


def test_json_round_trips(tmp_path: Path) -> None:
    home.write_json(tmp_path / "x.json", Thing(3))
    assert home.read_json(tmp_path / "x.json", Thing) == Thing(3)
    assert home.read_json(tmp_path / "none.json", Thing) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"number": "x"}', b'"\xff"', b"[" * 100_000])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(HomeError, match=r"x\.json is damaged"):
        home.read_json(path, Thing if content.startswith(b"{") else list)  # type: ignore[arg-type]


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="can't read"):
        home.read_json(tmp_path, Thing)


HOLDER = """
import sys
from pathlib import Path
from clustersh.home import ServiceLock
lock = ServiceLock(Path(sys.argv[1]))
lock.take()
lock.announce("127.0.0.1:1", "9.9")
print("held", flush=True)
sys.stdin.read()
"""

ASKER = """
import sys
from pathlib import Path
from clustersh.home import read_running
running = read_running(Path(sys.argv[1]))
print(running.pid, [name for name in ("filelock", "psutil") if name in sys.modules])
"""


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1, 2**70])
def test_what_is_no_process_does_not_run(pid: int) -> None:
    assert not home._is_alive(pid)


def test_a_folder_has_one_service_and_a_second_one_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert home.read_running(folder) == RunningService(pid=holder.pid, address="127.0.0.1:1", version="9.9")
        with pytest.raises(HomeError, match=f"in use by process {holder.pid}"):
            ServiceLock(folder).take()
        assert home._is_file_locked(folder)
        asked = subprocess.run([sys.executable, "-c", ASKER, str(folder)], capture_output=True, text=True, check=True)
        assert asked.stdout == f"{holder.pid} {[] if os.name == 'posix' else ['filelock', 'psutil']}\n"
        holder.kill()
        holder.wait()
    assert not home._is_file_locked(folder)
    assert (folder / "run.json").exists()  # left behind by the kill, and not believed
    assert home.read_running(folder) is None
    lock = ServiceLock(folder)
    lock.take()
    assert home.read_running(folder) == RunningService(pid=os.getpid())
    lock.release()


def test_a_released_folder_says_that_nothing_runs(tmp_path: Path) -> None:
    lock = ServiceLock(tmp_path / "coordinator")
    lock.take()
    lock.release()
    assert home.read_running(tmp_path / "coordinator") is None
    assert not (tmp_path / "coordinator" / "run.json").exists()
    again = ServiceLock(tmp_path / "coordinator")
    again.take()
    again.release()


def test_a_folder_that_cannot_be_written_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "agent"
    with monkeypatch.context() as patched:
        patched.setattr(home, "write_json", full)
        with pytest.raises(HomeError, match=r"can't write to .*No space"):
            ServiceLock(folder).take()
    lock = ServiceLock(folder)
    lock.take()
    lock.release()


def test_a_missing_folder_runs_nothing(tmp_path: Path) -> None:
    assert home.read_running(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_what_a_killed_service_had_half_written_is_removed(tmp_path: Path) -> None:
    for name in (".run.json.abcd1234", ".status.json.x", ".agent.json.x", "run.json", ".run.json"):
        (tmp_path / name).touch()
    home.remove_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".agent.json.x", "run.json", ".run.json"}
    home.remove_temporaries(tmp_path / "not there")


def test_what_a_killed_service_left_is_not_believed_while_another_starts(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    lock = ServiceLock(tmp_path)
    lock.take()
    home.write_json(tmp_path / "run.json", RunningService(dead.pid))
    assert home.read_running(tmp_path) is None
    lock.announce("there:1", "1")
    assert home.read_running(tmp_path) == RunningService(os.getpid(), "there:1", "1")
    lock.release()
