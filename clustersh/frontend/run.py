"""``clustersh run``: one command on one machine.

The common case is asked for at once, without a reactor (see quick.py). What that can't finish is taken up by
submission.py under the same idempotency key, so it is the same run.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from ..cli.invocation import Invocation
from ..wire.rest import Run
from .run_arguments import RunOptions, read_run_options


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> RunStart:
    """Read the arguments of ``run``."""
    options = read_run_options(invocation, arguments)
    return RunStart(invocation, options._replace(key=options.key or invocation.key))


class RunStart:
    """One `run`, ready to start."""

    def __init__(self, invocation: Invocation, options: RunOptions) -> None:
        self._invocation = invocation
        self._options = options
        self._asked = False
        self._known: Run | None = None

    def at_once(self) -> int | None:
        """Run it without a reactor and return its exit status; None where it takes one after all."""
        if self._options.dry_run:
            return None
        from .quick import QuickRun

        quick = QuickRun(self._invocation, self._options)
        try:
            return quick.run()
        finally:
            self._asked, self._known = quick.asked, quick.known

    def __call__(self, reactor: Any) -> Coroutine[Any, Any, int]:
        """Run it with everything that may be needed."""
        if self._options.dry_run:
            from .plan import plan

            return plan(reactor, self._invocation, self._options)
        from .submission import run

        return run(reactor, self._invocation, self._options, asked=self._asked, known=self._known)
