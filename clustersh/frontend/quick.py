"""The quick way: one request over a blocking connection, with nothing imported that one request doesn't need.

Most commands end within two seconds and print little. For those a process needs no reactor, whose import takes
several times as long as the command. Whatever is different (a longer command, an error, a signal) is left to the full
way, which asks again with the same idempotency key: it is the same run, and runs once.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from ..cli.console import Console
from ..cli.invocation import Interrupted, Invocation
from ..wire.codec import WireError, decode_json, encode_json
from ..wire.problems import Problem
from ..wire.rest import JSON, Job, Run
from .blocking import ANSWER_LIMIT, FAILURES, connect, without_reactor
from .run_arguments import RunOptions, run_request
from .show import Form, heads_suffice, order_matters, print_end, print_heads, printer_for, selected_lines

WAIT_S = 2
ANSWER_S = 15.0


class QuickRun:
    """One attempt at a run.

    *asked* says afterwards that a request was sent which was not refused: it may run. *known* is the run, where the
    answer told it.
    """

    def __init__(self, invocation: Invocation, options: RunOptions) -> None:
        self._invocation = invocation
        self._options = options
        self._form = Form(options.limit, combined=options.combined)
        self.asked = False
        self.known: Run | None = None

    def run(self) -> int | None:
        """Return the exit status, with everything printed; None where the full way is needed."""
        if not self._fits():
            return None
        try:
            with self._invocation.signals.breaking_in():
                run = self.known = self._ask()
        except (Interrupted, *FAILURES):
            return None
        if run is None or not run.ended:
            return None
        if not run.raw:
            return self._many(run)
        if len(run.jobs) != 1 or not self._can_print(run.jobs[0]):
            return None
        return self._show(run, lambda _: self._print(run.jobs[0]))

    def _fits(self) -> bool:
        options = self._options
        special = (options.files, options.stdin, options.detach, options.full, options.follow)
        patient = options.wait_s is None or options.wait_s > WAIT_S
        return options.command is not None and patient and not any(special)

    def _ask(self) -> Run | None:
        assert self._options.command is not None
        body = encode_json(run_request(self._options, self._options.command))
        headers = {"Content-Type": JSON, "Idempotency-Key": self._options.key, "Prefer": f"wait={WAIT_S}"}
        connection = connect(self._invocation.home, WAIT_S + ANSWER_S)
        if connection is None:
            return None
        try:
            self.asked = True
            connection.request(
                "POST", "/v1/runs?fold=true" if self._options.layout.folds else "/v1/runs", body, headers
            )
            response = connection.getresponse()
            content = response.read(ANSWER_LIMIT + 1)
        except ssl.SSLError as error:
            # An alert: the coordinator did not let us in, so it never read the request.
            self.asked = isinstance(error, ssl.SSLEOFError)
            raise
        finally:
            connection.close()
        if response.status not in (200, 202) or len(content) > ANSWER_LIMIT:
            self.asked = not _started_nothing(response.status, content)
            return None
        return decode_json(content, Run)

    def _can_print(self, job: Job) -> bool:
        printer = printer_for(self._invocation, self._form)
        ordered = order_matters(job, self._form, printer, self._invocation.console)
        return not ordered and heads_suffice(job, self._form)

    def _many(self, run: Run) -> int | None:
        from .many.show import ManyForm, can_show_heads, present

        form = ManyForm(self._options.layout, self._options.limit)
        if not can_show_heads(run, form):
            return None
        return self._show(run, lambda console: present(console, run, form))

    def _show(self, run: Run, print_it: Callable[[Console], Coroutine[Any, Any, int]]) -> int:
        console = self._invocation.console = self._invocation.console.direct()
        try:
            with self._invocation.signals.breaking_in():
                console.err_now(selected_lines(run))
                return without_reactor(print_it(console))
        except Interrupted as interrupted:
            return 128 + interrupted.number

    async def _print(self, job: Job) -> int:
        printer = printer_for(self._invocation, self._form)
        await print_heads(job, self._form, printer)
        return (await print_end(self._invocation, job, printer)).status


def _started_nothing(status: int, content: bytes) -> bool:
    """Whether the coordinator says that the request it answers so has started nothing, and won't."""
    if 400 <= status < 500:
        return True
    try:
        return decode_json(content, Problem).started is False
    except WireError:
        return False
