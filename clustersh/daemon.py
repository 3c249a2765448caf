"""The services in the foreground: ``clusterd`` and ``clusteragent`` without a command are twistd with our log."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from twisted.internet.error import ReactorNotRunning
from twisted.python.usage import Options
from twisted.python.usage import UsageError as TwistedUsageError

from .cli.errors import CliError, UsageError
from .cli.parser import Parser
from .cli.text import printable
from .config import ConfigError
from .home import HomeError
from .trust.errors import TrustError

EXPECTED = (CliError, ConfigError, HomeError, TrustError)
"""Errors whose message is for people: one line, no traceback."""
_failures: list[BaseException] = []
_LOGGERS = {"text": "clustersh.log.text_log", "json": "clustersh.log.json_log"}


def run_twistd(plugin: str, argv: Sequence[str], options: Options, *, rundir: Path | None = None) -> NoReturn:
    """Run the twistd *plugin*, named like its program, in this process until it is told to stop.

    *argv* may hold ``--home DIR``, ``--logfile FILE`` and ``--log-format text|json``; the rest is for the plugin's
    *options*. The service runs in *rundir*. What keeps it from starting is one ``ERROR:`` line on stderr and exit
    status 1.
    """
    stderr = sys.stderr  # taken now: twistd puts something else in its place, which logs
    try:
        ours, rest = _options(plugin).parse_known_args(list(argv))
        if ours.home is not None:
            os.environ["CLUSTERSH_HOME"] = os.fspath(Path(ours.home).absolute())
        _check(plugin, options, rest)
        words = ["--nodaemon", "--pidfile=", f"--logger={_LOGGERS[ours.log_format]}"]
        words += [f"--logfile={Path(ours.logfile).absolute()}"] if ours.logfile is not None else []
        words += [f"--rundir={rundir}"] if rundir is not None else []
        # twistd reads the process's own arguments: there is no other public way in.
        sys.argv = [plugin, *words, plugin, *rest]
        from twisted.application.app import run
        from twisted.scripts.twistd import runApp

        run(runApp, _server_options(plugin, type(options).__module__))
    except EXPECTED as error:
        _failures.append(error)
    for problem in _failures:
        stderr.write(told(problem) + "\n")
        stderr.flush()
    raise SystemExit(1 if _failures else 0)


def _server_options(plugin: str, module: str) -> type[Any]:
    """Return twistd's options, which know this one service: it would import others' plugins to find it."""
    from twisted.application.service import ServiceMaker
    from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]

    maker = ServiceMaker(plugin, module, "", plugin)

    class OneService(ServerOptions):
        subCommands = [(plugin, None, lambda: maker.options(), "")]  # noqa: RUF012 - Twisted's way
        loadedPlugins = {plugin: maker}  # noqa: RUF012

    return OneService


def stop_when_interrupted(reactor: Any) -> None:
    """Once *reactor* runs, have SIGINT stop it: it leaves handlers alone, as that of the console scripts."""
    reactor.callWhenRunning(_take_interrupts, reactor)


def _take_interrupts(reactor: Any) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, reactor.sigInt)


def stop_because(reactor: Any, problem: BaseException | None) -> None:
    """Stop the service that runs in this process: it can't start. `run_twistd` tells the *problem*."""
    _failures.append(problem or RuntimeError("it could not start"))
    reactor.callWhenRunning(_stop, reactor)


def _stop(reactor: Any) -> None:
    with contextlib.suppress(ReactorNotRunning):  # a signal was faster
        reactor.stop()


def told(problem: BaseException) -> str:
    """Return the ``ERROR:`` line of *problem*, and the hint that some errors have."""
    hints = problem.hints if isinstance(problem, CliError) else (getattr(problem, "hint", ""),)
    return "\n".join([f"ERROR: {printable(str(problem))}", *(f"hint: {printable(hint)}" for hint in hints if hint)])


def _check(program: str, options: Options, words: Sequence[str]) -> None:
    """Raise UsageError for what twistd would answer with its own help."""
    try:
        options.parseOptions(list(words))
    except TwistedUsageError as error:
        raise UsageError(str(error), (f"{program} --help",)) from error


def _options(program: str) -> Parser:
    parser = Parser(program, "", (), json=False)
    parser.add_argument("--home")
    parser.add_argument("--logfile")
    parser.add_argument("--log-format", choices=tuple(_LOGGERS), default="text")
    return parser
