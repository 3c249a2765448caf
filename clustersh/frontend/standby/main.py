"""The standby's own process: ``python -m clustersh.frontend.standby.main LOCK`` (the descriptor of its lock)."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
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
_LAUNCHER_S = ("main", "standby.relay")
"""What else a launcher imports. It is compiled with the rest then, also for callers whose environment keeps Python from
that (PYTHONDONTWRITEBYTECODE), whose every call would do it again: it takes as long as Python's own start."""
THREADS = 64
"""How many callers may wait for their files at once: one that is a pipe may never come, and whoever asked be gone."""
_LIFTED = (
    *(resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_DATA),
    *(resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE),
)


def main() -> None:
    """Stand by until it is time to go."""
    let_go()
    where = find(os.environ)
    lock = int(sys.argv[1])
    import_all()
    from twisted.internet import reactor

    from ...clocks import use_boot_clock
    from ...heap import keep_freed_memory
    from .log import keep_log
    from .standby import Standby as Made

    use_boot_clock(reactor)
    keep_freed_memory()
    keep_log(where.log)
    gc.collect()
    gc.freeze()
    standby = Made(reactor, where, lock)
    reactor.suggestThreadPoolSize(THREADS)  # type: ignore[attr-defined]
    reactor.callWhenRunning(begin, standby)
    reactor.run(installSignalHandlers=False)  # type: ignore[call-arg]


def begin(standby: Standby) -> None:
    """Have it take calls, or end: it is nobody's concern why there is none."""
    try:
        standby.begin()
    except Exception:
        os._exit(1)


def let_go() -> None:
    """Be nobody's: of no session, no folder, no terminal, and under no limit of the caller's that can be lifted."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    lift_limits()


def lift_limits() -> None:
    """Do away with what the first caller's shell was restricted to, as far as may be; how cores are kept stays."""
    for number in _LIFTED:
        with contextlib.suppress(OSError, ValueError):
            most = resource.getrlimit(number)[1]
            resource.setrlimit(number, (most, most))
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
        with contextlib.suppress(OSError):
            protection = Path("/proc/self/oom_score_adj")
            if int(protection.read_text()) < 0:
                protection.write_text("0")


def import_all() -> None:
    """Import what the commands need."""
    for command in (BARE, COMPLETE, *(each for name, each in COMMANDS.items() if name not in IN_PROCESS)):
        command.load()
    for name in (*_MORE, *_LAUNCHER_S):
        importlib.import_module(f"clustersh.frontend.{name}")
    importlib.import_module("treq.client")


if __name__ == "__main__":
    main()
