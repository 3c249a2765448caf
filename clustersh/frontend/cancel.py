"""``clustersh cancel``: end a running command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from ..cli.commands import Start
from ..cli.errors import CliError
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..config import load
from ..wire.rest import Cancelled, Job, Run
from .client import connect
from .identifiers import job_words
from .many.names import counted
from .retry import GaveUp, Retry


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``cancel``."""
    examples = (
        "clustersh cancel ws1 c41f9a02",
        "clustersh cancel c41f9a02   (on every machine of that run)",
        "clustersh cancel --dry-run c41f9a02",
    )
    parser = Parser("clustersh cancel", "End a running command and all its processes.", examples)
    parser.usage = "clustersh cancel [--json] [--dry-run] [MACHINE] UUID"
    parser.add_argument("--dry-run", action="store_true", help="only show where it runs")
    parser.add_argument(
        "words", nargs="+", metavar="[MACHINE] UUID", help="the machine, and the run or its last digits"
    )
    given = parser.read(invocation, arguments)
    machine, uuid = job_words(given.words)
    return lambda reactor: (would_cancel if given.dry_run else cancel)(reactor, invocation, machine, uuid)


async def cancel(reactor: Any, invocation: Invocation, machine: str, uuid: str) -> int:
    """Cancel it on *machine*, or on all of the run's if that is empty."""
    retry = Retry(reactor, load(invocation.home).client.retry_for)
    client = await connect(reactor, invocation)
    job = f"/v1/jobs/{quote(machine, safe='')}" if machine else "/v1/runs"
    path = f"{job}/{quote(uuid, safe='')}/cancel"
    try:
        done = await retry(lambda: client.call("POST", path, {}, answer=Cancelled))
    except GaveUp as gave_up:
        hint = f"asking again is safe: clustersh cancel {machine} {uuid}".replace("  ", " ")
        raise CliError(f"the cancel may not have arrived: {gave_up}", (hint,), kind="unavailable") from gave_up
    if not done.cancelled:
        raise _nothing(done.uuid, done.ended)
    text: bytes | str = "Command cancelled.\n"
    await invocation.console.out(msgspec.json.encode(done) + b"\n" if invocation.json else text)
    return 0


async def would_cancel(reactor: Any, invocation: Invocation, machine: str, uuid: str) -> int:
    """Show what `cancel` would end."""
    client = await connect(reactor, invocation)
    run = quote(uuid, safe="")
    query = [("limit", "0")]
    if machine:
        job = await client.call("GET", f"/v1/jobs/{quote(machine, safe='')}/{run}", answer=Job, query=query)
        uuid, jobs = job.uuid, (job,)
    else:
        found = await client.call("GET", f"/v1/runs/{run}", answer=Run, query=query)
        uuid, jobs = found.uuid, found.jobs
    running = [job.machine for job in jobs if not job.status.ended]
    ended = [job.machine for job in jobs if job.status.ended]
    if not running:
        raise _nothing(uuid, ended)
    text = f"This would cancel {uuid} on {counted(running)}; dry run: nothing was done.\n"
    document = msgspec.json.encode({"uuid": uuid, "would_cancel": running, "ended": ended}) + b"\n"
    await invocation.console.out(document if invocation.json else text)
    return 0


def _nothing(uuid: str, ended: Sequence[str]) -> CliError:
    where = f" on {', '.join(ended)}" if ended else ""
    hint = f"how it ended: clustersh wait {uuid}"
    return CliError(f"nothing to cancel: the command had ended{where}", (hint,), kind="not-running", uuid=uuid)
