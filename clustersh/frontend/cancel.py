"""``clustersh cancel``: end a running command."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

import msgspec

from ..cli.commands import Start
from ..cli.errors import CliError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, add_exclude
from ..config import load
from ..rest_client import RestClient
from ..wire.rest import Cancelled, Job
from .client import connect
from .identifiers import JobWords, job_words
from .jobs_on_target import run_on
from .many.names import counted, node_set
from .retry import GaveUp, Retry
from .together import together

AT_ONCE = 8
"""Machines that one `cancel` tells at the same time."""


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``cancel``."""
    examples = (
        "clustersh cancel ws1 c41f9a02",
        "clustersh cancel c41f9a02   (on every machine of that run)",
        "clustersh cancel --dry-run @web -x web03 c41f9a02",
    )
    parser = Parser("clustersh cancel", "End a running command and all its processes.", examples)
    parser.usage = "clustersh cancel [--json] [--dry-run] [-x EXPR] [TARGET] UUID"
    parser.add_argument("--dry-run", action="store_true", help="only show where it would be ended")
    parser.add_argument(
        "words", nargs="+", metavar="[TARGET] UUID", help="the machines, and the run or its last digits"
    )
    add_exclude(parser)
    given = parser.read(invocation, arguments)
    words = job_words(given.words, given.exclude)
    return lambda reactor: (would_cancel if given.dry_run else cancel)(reactor, invocation, words)


async def cancel(reactor: Any, invocation: Invocation, words: JobWords) -> int:
    """Cancel it on the machines that *words* mean."""
    retry = Retry(reactor, load(invocation.home).client.retry_for)
    client = await connect(reactor, invocation)
    try:
        if words.machine or words.all:
            done = await _cancel(client, retry, words.machine, words.uuid)
        else:
            done = await _cancel_on(client, retry, words)
    except GaveUp as gave_up:
        hint = f"asking again is safe: clustersh cancel {words.typed}"
        raise CliError(f"the cancel may not have arrived: {gave_up}", (hint,), kind="unavailable") from gave_up
    if not done.cancelled:
        raise _nothing(done.uuid, done.ended)
    text: bytes | str = _words(done)
    await invocation.console.out(msgspec.json.encode(done) + b"\n" if invocation.json else text)
    return 0


async def _cancel(client: RestClient, retry: Retry, machine: str, uuid: str) -> Cancelled:
    """Cancel one job, or the whole run where no machine is named."""
    job = f"/v1/jobs/{quote(machine, safe='')}" if machine else "/v1/runs"
    path = f"{job}/{quote(uuid, safe='')}/cancel"
    return await retry(lambda: client.call("POST", path, {}, answer=Cancelled))


async def _cancel_on(client: RestClient, retry: Retry, words: JobWords) -> Cancelled:
    """Cancel those jobs of the run that *words* mean."""
    run = await retry(lambda: run_on(client, words))
    jobs = deque(run.jobs)
    cancelled, ended = list[str](), list[str]()

    async def work() -> None:
        while jobs:
            done = await _cancel(client, retry, jobs.popleft().machine, run.uuid)
            cancelled.extend(done.cancelled)
            ended.extend(done.ended)

    await together(work() for _ in range(min(AT_ONCE, len(jobs))))
    return Cancelled(run.uuid, tuple(cancelled), tuple(ended))


def _words(done: Cancelled) -> str:
    if len(done.cancelled) + len(done.ended) == 1:
        return "Command cancelled.\n"
    ended = f"; it had ended on {counted(done.ended)}" if done.ended else ""
    return f"Command cancelled on {counted(done.cancelled)}{ended}.\n"


async def would_cancel(reactor: Any, invocation: Invocation, words: JobWords) -> int:
    """Show what `cancel` would end."""
    client = await connect(reactor, invocation)
    jobs: Collection[Job]
    if words.machine:
        path = f"/v1/jobs/{quote(words.machine, safe='')}/{quote(words.uuid, safe='')}"
        jobs = [await client.call("GET", path, answer=Job, query=[("limit", "0")])]
    else:
        jobs = (await run_on(client, words)).jobs
    uuid = next((job.uuid for job in jobs), words.uuid)
    running = [job.machine for job in jobs if not job.status.ended]
    ended = [job.machine for job in jobs if job.status.ended]
    if not running:
        raise _nothing(uuid, ended)
    text = f"This would cancel {uuid} on {counted(running)}; dry run: nothing was done.\n"
    document = msgspec.json.encode({"uuid": uuid, "would_cancel": running, "ended": ended}) + b"\n"
    await invocation.console.out(document if invocation.json else text)
    return 0


def _nothing(uuid: str, ended: Collection[str]) -> CliError:
    where = f" on {node_set(ended)}" if ended else ""
    hint = f"how it ended: clustersh wait {uuid}"
    return CliError(f"nothing to cancel: the command had ended{where}", (hint,), kind="not-running", uuid=uuid)
