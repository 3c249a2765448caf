"""Which program a service starts, on which state, as whom."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from clustersh.services import AGENT, COORDINATOR, Scope, ServiceError, make_spec, users
from clustersh.services.choice import choose
from clustersh.services.commands import Commands
from clustersh.services.hands import Hands
from clustersh.services.manager import last_error, remove_logs
from clustersh.services.spec import find_executable
from clustersh.services.watch import Watch

from ..faults.services import workplace

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="paths here are POSIX's")
needs_root = pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can give files away")


def venv(prefix: Path) -> Path:
    """Make as much of a venv as is looked at."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python").symlink_to(sys.executable)
    for name in ("clusteragent", "clusterd", "twistd"):
        (prefix / "bin" / name).write_text("#!/bin/sh\n")
    return prefix


def test_the_link_to_the_current_version_is_started_not_the_version(tmp_path: Path) -> None:
    prefix = venv(tmp_path / "versions" / "0.1.0")
    assert find_executable("clusteragent", prefix) == prefix / "bin" / "clusteragent"
    (tmp_path / "current").symlink_to("versions/0.1.0")
    assert find_executable("clusteragent", prefix) == tmp_path / "current" / "bin" / "clusteragent"
    other = venv(tmp_path / "versions" / "0.2.0")
    assert find_executable("clusteragent", other) == other / "bin" / "clusteragent"
    with pytest.raises(ServiceError, match=r"^there is no .*/bin/nothing$"):
        find_executable("nothing", other)


def test_a_user_has_the_usual_state_and_the_system_another(tmp_path: Path) -> None:
    prefix = venv(tmp_path / "venv")
    mine = make_spec(AGENT, Scope.USER, {"HOME": "/home/me"}, prefix=prefix)
    assert mine.home == Path("/home/me/.config/clustersh") and mine.folder == mine.home / "agent"
    theirs = make_spec(AGENT, Scope.SYSTEM, {}, prefix=prefix)
    assert (theirs.home, theirs.user) == (Path("/var/lib/clustersh-agent"), "root")
    chosen = make_spec(COORDINATOR, Scope.SYSTEM, {"CLUSTERSH_HOME": "/srv/x"}, prefix=prefix)
    assert (chosen.home, chosen.user) == (Path("/srv/x"), "clusterd")


@needs_root
def test_an_installed_service_keeps_the_user_whose_state_it_is(tmp_path: Path) -> None:
    prefix, environ = venv(tmp_path / "venv"), {"CLUSTERSH_HOME": str(tmp_path / "state")}
    (tmp_path / "state").mkdir()
    assert make_spec(COORDINATOR, Scope.SYSTEM, environ, prefix=prefix).user == "clusterd"
    ids = users.account("nobody")
    assert ids is not None
    os.chown(tmp_path / "state", *ids)
    assert make_spec(COORDINATOR, Scope.SYSTEM, environ, prefix=prefix).user == "nobody"
    assert make_spec(COORDINATOR, Scope.SYSTEM, environ, run_as="root", prefix=prefix).user == "root"


@pytest.mark.parametrize("name", ["-x", "a b", "a\nUser=root", "$(id)", "a;b"])
def test_what_is_no_users_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ServiceError, match="no user's name"):
        make_spec(AGENT, Scope.SYSTEM, {}, run_as=name, prefix=venv(tmp_path / "venv"))


def test_a_users_service_runs_as_that_user(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="--run-as is for --system"):
        make_spec(AGENT, Scope.USER, {}, run_as="root", prefix=venv(tmp_path / "venv"))


def test_a_path_can_add_no_line_to_a_definition(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="control characters"):
        make_spec(AGENT, Scope.USER, {"CLUSTERSH_HOME": "/x\nUser=root"}, prefix=venv(tmp_path / "venv"))


@needs_root
def test_a_program_that_the_services_user_cannot_reach_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    environ = {"CLUSTERSH_HOME": str(tmp_path / "state")}
    spec = make_spec(COORDINATOR, Scope.SYSTEM, environ, run_as="nobody", prefix=venv(closed / "venv"))
    closed.chmod(0o700)
    with pytest.raises(ServiceError, match=r"nobody can't run .* is closed to it") as refused:
        users.prepare(spec, Commands({}))
    assert "/opt/clustersh/bin/clusterd service install --system" in refused.value.hints[0]
    assert not (tmp_path / "state").exists()


@needs_root
def test_the_strict_unit_is_not_made_for_a_program_that_it_hides(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    spec = make_spec(COORDINATOR, Scope.SYSTEM, {}, prefix=venv(tmp_path / "venv"))
    manager = choose({}, Scope.SYSTEM, platform="linux", root=tmp_path, uid=0)
    with pytest.raises(ServiceError, match=r"clusterd can't run /home/.*: /home is closed to it"):
        manager.install(spec._replace(executable=Path("/home/me/venv/bin/clusterd")))
    assert not (tmp_path / "etc").exists()


@needs_root
def test_a_system_service_for_a_user_that_is_not_there_is_refused(tmp_path: Path) -> None:
    spec = make_spec(AGENT, Scope.SYSTEM, {}, run_as="no-such-user", prefix=venv(tmp_path / "venv"))
    with pytest.raises(ServiceError, match=r"^there is no user called no-such-user$"):
        users.prepare(spec, Commands({}))


@needs_root
def test_root_looks_into_a_services_state_as_its_user_only(tmp_path: Path) -> None:
    """Commands run as that user: a link that they leave there must not lead root anywhere."""
    ids = users.account("nobody")
    assert ids is not None
    with workplace() as place:
        environ = {"CLUSTERSH_HOME": str(place / "state")}
        spec = make_spec(AGENT, Scope.SYSTEM, environ, run_as="nobody", prefix=venv(tmp_path / "venv"))
        seen: list[tuple[int, int, list[int]]] = []
        before = (os.geteuid(), os.getegid(), os.getgroups())
        watch = Watch(look=lambda folder: seen.append((os.geteuid(), os.getegid(), os.getgroups())))
        assert watch.running(spec) is None
        assert seen == [(*ids, [])]
        assert (os.geteuid(), os.getegid(), os.getgroups()) == before

        spec.folder.mkdir(parents=True)
        os.chown(spec.folder, *ids)
        secret = place / "secret"
        secret.write_text("ERROR: what only root may read\n")
        secret.chmod(0o600)
        spec.log.symlink_to(secret)
        assert last_error(spec, spec.log) == ""
        remove_logs(Hands(Commands({})), spec)
        assert secret.exists() and not spec.log.is_symlink()

        elsewhere = place / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "log").touch()
        spec.folder.rmdir()
        spec.folder.symlink_to(elsewhere)
        with pytest.raises(ServiceError, match="can't remove"):
            remove_logs(Hands(Commands({})), spec)
        assert (elsewhere / "log").exists()
