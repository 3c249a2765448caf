"""The one place where a console program's reactor runs, and where exceptions become exit statuses."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from ..heap import begin_collections, keep_freed_memory, start_without_collections
from ..home import default_home
from ..standard_descriptors import open_standard_descriptors
from .commands import AtOnce, Start
from .console import Console
from .errors import (
    CANCELLED,
    NOTHING_RAN,
    OUTPUT_CLOSED,
    UNCERTAIN,
    Answer,
    CliError,
    OutputClosed,
    UsageError,
    from_problem,
)
from .invocation import Invocation, Signals, StdinReader

Choose: TypeAlias = Callable[[Invocation], Start]
"""Reads the arguments, before anything else is imported, and returns what to start."""

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_COLLECT_AFTER_S = 2.0


def run_program(name: str, choose: Choose, *, key: str = "", at_end: Callable[[], None] = lambda: None) -> NoReturn:
    """Run the console program *name* and end this process with its exit status.

    *key* is the idempotency key of this call, where there is one already; *at_end* is done when all was printed.
    No traceback reaches the user, unless CLUSTERSH_DEBUG is set.
    """
    # Most commands end before a collection would find anything; those that don't begin with them later.
    start_without_collections()
    open_standard_descriptors()
    invocation = this_process(name, key)
    if not _debugging(invocation):
        warnings.simplefilter("ignore")
    try:
        start = choose(invocation)
        status = _try_at_once(invocation, start)
        if status is None:
            from twisted.internet import reactor
    except KeyboardInterrupt:
        _leave(CANCELLED)
    except BaseException as error:
        status = _tell_now(invocation, error)
    if status is not None:
        _leave(status, at_end)
    _run_reactor(reactor, invocation, start, at_end)


def this_process(name: str, key: str = "") -> Invocation:
    """Return the invocation that this process itself is."""
    environ = dict(os.environ)
    return Invocation(
        program=name,
        argv=sys.argv[1:],
        cwd=_working_directory(),
        environ=environ,
        home=default_home(environ),
        console=Console.on(1, 2, environ, _in_thread),
        stdin=StdinReader(0, _in_thread),
        signals=Signals(lambda number: _leave(128 + number)),
        in_thread=_in_thread,
        key=key,
    )


async def supervise(invocation: Invocation, start: Start, reactor: Any) -> int:
    """Do what *start* does; whatever it raises is told and becomes an exit status."""
    try:
        try:
            return await start(reactor)
        except Exception as error:
            return await _tell(invocation, error)
    except OutputClosed:
        return OUTPUT_CLOSED


def _run_reactor(reactor: Any, invocation: Invocation, start: Start, at_end: Callable[[], None]) -> NoReturn:
    from twisted.internet.defer import Deferred

    from ..clocks import use_boot_clock

    use_boot_clock(reactor)

    def begin() -> None:
        _install_signals(reactor, invocation.signals)
        done = Deferred.fromCoroutine(supervise(invocation, start, reactor))
        done.addCallbacks(lambda status: _leave(status, at_end), lambda _: _leave(UNCERTAIN))

    _configure_logging(invocation)
    keep_freed_memory()
    reactor.callWhenRunning(begin)
    reactor.callLater(_COLLECT_AFTER_S, begin_collections)
    reactor.run()
    _leave(NOTHING_RAN)


def _try_at_once(invocation: Invocation, start: Start) -> int | None:
    """Do without a reactor what *start* can do so; None where it needs one."""
    if not isinstance(start, AtOnce):
        return None
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: invocation.signals.note(number))
    return start.at_once()


def _install_signals(reactor: Any, signals: Signals) -> None:
    """Deliver signals in the reactor's own time; those the caller ignores (nohup, a job in the background) stay so."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: reactor.callFromThread(signals.deliver, number))


async def _tell(invocation: Invocation, error: BaseException) -> int:
    if isinstance(error, Answer):
        await invocation.console.out(error.text)
        return 0
    shown = _as_cli_error(invocation, error)
    if invocation.json:
        await invocation.console.out(_document(shown))
    await invocation.console.error(shown.message, shown.hints)
    return shown.status


def _tell_now(invocation: Invocation, error: BaseException) -> int:
    """As `_tell`, before there is a reactor."""
    try:
        if isinstance(error, Answer):
            invocation.console.out_now(error.text)
            return 0
        shown = _as_cli_error(invocation, error)
        if invocation.json:
            invocation.console.out_now(_document(shown))
        invocation.console.error_now(shown.message, shown.hints)
    except OutputClosed:
        return OUTPUT_CLOSED
    except CliError as failed:
        return failed.status
    return shown.status


def _as_cli_error(invocation: Invocation, error: BaseException) -> CliError:
    if isinstance(error, OutputClosed):
        raise error
    if isinstance(error, CliError):
        if isinstance(error, UsageError) and not error.hints:
            command = next((word for word in invocation.argv[:1] if not word.startswith("-")), "")
            error.hints = (" ".join(filter(None, (invocation.program, command, "--help"))),)
        return error
    expected = _expected(invocation, error)
    if expected is not None:
        return expected
    if _debugging(invocation):
        import traceback

        traceback.print_exception(error)
    kind = type(error).__name__
    return CliError(
        f"internal error ({kind}): this is a bug in {invocation.program}",
        ("CLUSTERSH_DEBUG=1 in the environment shows where it is",),
        status=NOTHING_RAN if invocation.started is False else UNCERTAIN,
        uuid=invocation.uuid,
        started=invocation.started,
    )


def _expected(invocation: Invocation, error: BaseException) -> CliError | None:
    """Return what to say of the other rooms' errors, whose messages are for people."""
    if _is(error, "clustersh.wire.problems", "ProblemError"):
        return _of_running(invocation, from_problem(error.problem))  # type: ignore[attr-defined]
    if _is(error, "clustersh.rest_client", "Unreachable"):
        status = NOTHING_RAN if invocation.started is False else UNCERTAIN
        hints = (error.hint,) if error.hint else ()  # type: ignore[attr-defined]
        return CliError(
            str(error), hints, status=status, kind="unavailable", uuid=invocation.uuid, started=invocation.started
        )
    if _is(error, "clustersh.trust.errors", "TrustError"):
        return CliError(str(error), kind="no-certificate")
    if _is(error, "clustersh.config", "ConfigError"):
        return CliError(str(error), kind="bad-request")
    if _is(error, "clustersh.home", "HomeError"):
        hint: str = error.hint  # type: ignore[attr-defined]
        return CliError(str(error), (hint,) if hint else (), kind="storage")
    return None


def _of_running(invocation: Invocation, error: CliError) -> CliError:
    """Return *error*, which says that its own request started nothing, as one of a command that runs or may run."""
    if invocation.started is not False and error.status == NOTHING_RAN:
        error.status, error.started = UNCERTAIN, invocation.started
        error.uuid = error.uuid or invocation.uuid
    return error


def _is(error: BaseException, module: str, name: str) -> bool:
    """Whether *error* is of that class, without importing it: what was raised was imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(error, kind)


def _document(error: CliError) -> bytes:
    import msgspec

    return msgspec.json.encode(error.document()) + b"\n"


def _debugging(invocation: Invocation) -> bool:
    return bool(invocation.environ.get("CLUSTERSH_DEBUG"))


def _configure_logging(invocation: Invocation) -> None:
    """Keep Twisted's log, tracebacks included, off the user's terminal."""
    from twisted.logger import globalLogBeginner, textFileLogObserver

    observers = [textFileLogObserver(sys.stderr)] if _debugging(invocation) else []
    globalLogBeginner.beginLoggingTo(observers, discardBuffer=True, redirectStandardIO=False)


def _in_thread(function: Callable[[], Any]) -> Awaitable[Any]:
    from twisted.internet.threads import deferToThread

    return deferToThread(function)


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError:
        return Path(os.environ.get("PWD", "/"))


def _leave(status: int, at_end: Callable[[], None] = lambda: None) -> NoReturn:
    """End at once: a reactor that winds down and an interpreter that clears up cost the caller time."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(Exception):
        at_end()
    os._exit(status)
