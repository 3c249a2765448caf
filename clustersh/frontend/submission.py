"""Sending a run, as often as need be, and staying with it."""

from __future__ import annotations

from typing import Any

from ..cli.invocation import Invocation
from ..config import load
from ..rest_client import RestClient
from ..wire.rest import Run
from .asking import Asking
from .attend import Attendant, Manner
from .client import connect
from .retry import Retry
from .run_arguments import RunOptions
from .run_request import read_request
from .show import Form, OutputKeeper, print_document
from .showing import is_one, showing
from .upload import send


async def run(
    reactor: Any, invocation: Invocation, options: RunOptions, *, asked: bool = False, known: Run | None = None
) -> int:
    """Do what *options* ask for and return the exit status.

    *asked*: a request with that key was sent before; *known*: what was answered to it, if anything.
    """
    retry = Retry(reactor, load(invocation.home).client.retry_for, unanswered=asked)
    client = await connect(reactor, invocation)
    submission = Submission(client, retry, invocation, options)
    await submission.prepare()
    if options.detach:
        return await _detach(invocation, submission, options)
    attendant = Attendant(
        reactor,
        invocation,
        client,
        retry,
        submission.send,
        Manner(
            Form(None if options.full else options.limit, combined=options.combined),
            follow=options.follow,
            wait_s=options.wait_s,
            feed=options.stdin,
            confirmed=True,
            layout=options.layout,
        ),
        showing,
        otherwise=f"the same clustersh run with --key {submission.key} gives its result, and never runs it twice",
        known=known,
    )
    return await attendant.attend()


class Submission:
    """One request, sent as often as need be with one *key*: it runs once."""

    def __init__(self, client: RestClient, retry: Retry, invocation: Invocation, options: RunOptions) -> None:
        self._client = client
        self._retry = retry
        self._invocation = invocation
        self._options = options
        self._asking: Asking | None = None
        self.key = options.key

    async def prepare(self) -> None:
        """Read and upload the script and the files. Raises CliError; nothing runs then."""
        read = await read_request(self._invocation, self._options)
        fold = self._options.layout.folds
        self._asking = Asking(self._client, self._retry, self._invocation, read.request, self.key, fold=fold)
        if read.contents:
            await send(self._client, self._retry, read.contents, self._invocation.in_thread)

    async def send(self, wait_s: float) -> Run:
        """Ask the coordinator to run it, or for the run it already is; wait up to *wait_s* for its end."""
        assert self._asking is not None
        return await self._asking(wait_s)


async def _detach(invocation: Invocation, submission: Submission, options: RunOptions) -> int:
    run = await submission.send(0.0)
    if not invocation.json:
        await invocation.console.out(run.uuid + "\n")
        return 0
    if not is_one(run):
        from .many.show import ManyForm, print_outputs

        await print_outputs(invocation.console, run, ManyForm(options.layout, 0))
        return 0
    for job in run.jobs:
        await print_document(invocation, job, OutputKeeper(combined=options.combined))
    return 0
