"""The standby's own process: ``python -m clustersh.frontend.standby.main LOCK`` (the descriptor of its lock)."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..commands import BARE, COMMANDS, COMPLETE
from .launcher import IN_PROCESS
from .place import find

if TYPE_CHECKING:
    from .standby import Standby

_MORE = ("submission", "run_request", "one_job", "showing", "plan", "stored_output", "many.attend", "many.show")
"""What commands import only once they know that they need it."""


def main() -> None:
    """Stand by until it is time to go."""
    let_go()
    where = find(os.environ)
    lock = int(sys.argv[1])
    import_all()
    from twisted.internet import reactor

    from ...clocks import use_boot_clock
    from ...heap import keep_freed_memory
    from .standby import Standby as Made

    use_boot_clock(reactor)
    keep_freed_memory()
    keep_log(Path(where.log))
    gc.collect()
    gc.freeze()
    standby = Made(reactor, where, lock)
    reactor.callWhenRunning(begin, standby)
    reactor.run()
    os._exit(0)


def begin(standby: Standby) -> None:
    """Have it take calls, or end: it is nobody's concern why there is none."""
    try:
        standby.begin()
    except Exception:
        os._exit(1)


def let_go() -> None:
    """Be nobody's: of no session, no folder, no terminal."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def import_all() -> None:
    """Import what the commands need."""
    for command in (BARE, COMPLETE, *(each for name, each in COMMANDS.items() if name not in IN_PROCESS)):
        command.load()
    for name in _MORE:
        importlib.import_module(f"clustersh.frontend.{name}")
    importlib.import_module("treq.client")


def keep_log(path: Path) -> None:
    """Keep what goes wrong in a file of its own, anew each time."""
    from twisted.logger import FilteringLogObserver, LogLevel, LogLevelFilterPredicate, globalLogBeginner
    from twisted.logger import textFileLogObserver as observer

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    file = open(descriptor, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
    level = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(observer(file), [level])], discardBuffer=True, redirectStandardIO=False
    )


if __name__ == "__main__":
    main()
