"""``clustersh cancel``: end a running command."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from ..cli.commands import Start
from ..cli.errors import CliError
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..config import load
from ..wire.rest import Cancelled
from .client import connect
from .identifiers import job_words
from .retry import GaveUp, Retry


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``cancel``."""
    examples = ("clustersh cancel ws1 c41f9a02", "clustersh cancel c41f9a02   (on every machine of that run)")
    parser = Parser("clustersh cancel", "End a running command and all its processes.", examples)
    parser.usage = "clustersh cancel [--json] [MACHINE] UUID"
    parser.add_argument(
        "words", nargs="+", metavar="[MACHINE] UUID", help="the machine, and the run or its last digits"
    )
    machine, uuid = job_words(parser.read(invocation, arguments).words)
    return lambda reactor: cancel(reactor, invocation, machine, uuid)


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
        where = f" on {', '.join(done.ended)}" if done.ended else ""
        hint = f"how it ended: clustersh wait {done.uuid}"
        raise CliError(f"nothing to cancel: the command had ended{where}", (hint,), kind="not-running", uuid=done.uuid)
    text: bytes | str = "Command cancelled.\n"
    await invocation.console.out(msgspec.json.encode(done) + b"\n" if invocation.json else text)
    return 0
