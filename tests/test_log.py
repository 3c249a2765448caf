"""The services' log lines, and what starts the services."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure

from clustersh.log import json_line, logfile_of, text_line


def event(text: str = "{who} ran it", /, **fields: Any) -> LogEvent:
    made: LogEvent = {
        "log_time": 1_763_634_667.123,
        "log_level": LogLevel.info,
        "log_namespace": "clustersh.coordinator.door",
        "log_format": text,
        "log_logger": Logger(),
        "who": "joshua",
        **fields,
    }
    return made


def failed() -> Failure:
    try:
        raise OSError(28, "No space left")
    except OSError:
        return Failure()


def test_a_text_line_has_time_room_and_message() -> None:
    assert text_line(event()) == "2025-11-20T10:31:07.123Z coordinator.door: joshua ran it\n"
    assert " coordinator.door warn: " in text_line(event(log_level=LogLevel.warn))
    assert " twisted.web: " in text_line(event(log_namespace="twisted.web"))


def test_a_failure_is_told_in_the_line_and_its_traceback_follows() -> None:
    first, *rest = text_line(event("can't write", log_failure=failed(), log_level=LogLevel.critical)).splitlines()
    assert first.endswith("coordinator.door critical: can't write: OSError: [Errno 28] No space left")
    assert rest
    assert all(line.startswith("  | ") for line in rest)


def test_a_json_line_has_the_simple_fields() -> None:
    fields = {"code": 3, "share": 0.5, "gone": None, "odd": object(), "isError": 0, "_x": "y"}
    assert json.loads(json_line(event(**fields))) == {
        "time": "2025-11-20T10:31:07.123Z",
        "level": "info",
        "logger": "coordinator.door",
        "message": "joshua ran it",
        "who": "joshua",
        "code": 3,
        "share": 0.5,
        "gone": None,
        "_x": "y",
    }
    assert "Traceback" in json.loads(json_line(event(log_failure=failed())))["traceback"]


def test_the_event_can_not_replace_the_lines_own_fields() -> None:
    document = json.loads(json_line(event(message="forged", time=1, level="debug", logger="x")))
    assert (document["message"], document["level"], document["logger"]) == ("joshua ran it", "info", "coordinator.door")


@given(st.text(st.characters()), st.one_of(st.text(st.characters()), st.integers(), st.floats()))
def test_no_text_breaks_a_line_or_reaches_a_terminal_raw(who: str, other: object) -> None:
    for line in (text_line(event(who=who, other=other)), json_line(event(who=who, other=other))):
        assert line.endswith("\n")
        assert line[:-1].isprintable()
    assert json.loads(json_line(event(who="é😀\u2028")))["who"] == "é😀\u2028"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], None),
        (["--logfile", "-"], None),
        (["--logfile=/var/log/x"], Path("/var/log/x")),
        (["-n", "-l", "/var/log/x", "clusterd"], Path("/var/log/x")),
        (["--logfile"], None),
    ],
)
def test_twistds_logfile_is_found(arguments: list[str], expected: Path | None) -> None:
    assert logfile_of(arguments) == expected


PLUGIN = """
from twisted.application.service import ServiceMaker
probe = ServiceMaker("probe", "probe_service", "for a test", "probe")
"""
SERVICE = """
import os
from twisted.application.service import Service
from twisted.internet import reactor
from twisted.logger import Logger
from twisted.python.usage import Options as Base
from clustersh.daemon import stop_because
from clustersh.home import HomeError

class Options(Base):
    optParameters = [["fail", None, "", "how to fail"]]

class Probe(Service):
    def __init__(self, fail):
        self.fail = fail

    def startService(self):
        if self.fail == "late":
            raise HomeError("the folder is in use")
        if self.fail == "async":
            stop_because(reactor, HomeError("port 5672 is taken"))
            return
        Logger(namespace="clustersh.probe").info("home {home} in {cwd}", home=os.environ["CLUSTERSH_HOME"],
                                                 cwd=os.getcwd())
        Logger(namespace="clustersh.probe").debug("not shown")
        reactor.callWhenRunning(reactor.stop)

def makeService(options):
    if options["fail"] == "early":
        raise HomeError("the folder is \\x1b[31mloose")
    return Probe(options["fail"])
"""


@pytest.fixture
def probe(tmp_path: Path) -> Any:
    plugins = tmp_path / "path" / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "probe_plugin.py").write_text(PLUGIN)
    (tmp_path / "path" / "probe_service.py").write_text(textwrap.dedent(SERVICE))
    script = tmp_path / "probe.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom clustersh.daemon import run_twistd\n"
        "from probe_service import Options\n"
        f"run_twistd('probe', sys.argv[1:], Options(), rundir=Path({str(tmp_path)!r}))\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "path"), str(Path.cwd())])}
        return subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True, env=environment, timeout=60
        )

    return run


@pytest.mark.real
def test_a_service_logs_to_stderr_and_knows_its_home(probe: Any, tmp_path: Path) -> None:
    done = probe("--home", str(tmp_path / "h"))
    assert done.returncode == 0, done.stderr
    assert f" probe: home {tmp_path / 'h'} in {tmp_path}\n" in done.stderr
    assert "not shown" not in done.stderr


@pytest.mark.real
def test_a_service_logs_json_to_a_private_file(probe: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = probe("--home", str(tmp_path), "--log-format", "json", "--logfile", str(log))
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["cwd"] for line in lines if line["logger"] == "probe"] == [str(tmp_path)]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.real
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fail", "early"), r"ERROR: the folder is \x1b[31mloose"),
        (("--fail", "late"), "ERROR: the folder is in use"),
        (("--fail", "async"), "ERROR: port 5672 is taken"),
        (("--log-format", "xml"), "ERROR: --log-format takes text or json, not 'xml'"),
    ],
)
def test_what_keeps_a_service_from_starting_is_one_line(probe: Any, arguments: tuple[str, ...], words: str) -> None:
    done = probe("--home", "/nowhere", *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.real
@pytest.mark.parametrize("words", [("--nonsense",), ("extra",)])
def test_a_mistyped_option_is_one_line_not_twistds_help(probe: Any, words: tuple[str, ...]) -> None:
    done = probe(*words)
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("ERROR: ") and hint == "hint: probe --help"
