"""A thread for what may never end: none of the reactor's, which are waited for when the agent stops."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def in_lone_thread(reactor: Any, function: Callable[..., Any], *words: Any) -> Deferred[Any]:
    """Return what *function* does with *words*, as deferToThread does."""
    done: Deferred[Any] = Deferred()

    def run() -> None:
        try:
            result = function(*words)
        except BaseException:
            result = Failure()
        reactor.callFromThread(done.callback, result)

    Thread(target=run, name="lone", daemon=True).start()
    return done
