"""``clustersh policy``: what the policy allows this user; ``policy test``: whether a command passes, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..cli.commands import Start
from ..cli.errors import REFUSED, UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..cli.tables import render_table
from ..cli.target_words import joined, show
from ..cli.text import printable
from ..config import load
from ..wire.policy import MachinesVerdict, PolicyTest, PolicyView
from .client import ask, connect
from .many.names import counted
from .retry import Retry
from .run_arguments import RunOptions, read_run_options
from .run_request import read_request
from .upload import send

EXAMPLES = (
    "clustersh policy",
    "clustersh policy test ws1 'rm -rf /'",
    "clustersh policy test @web --script setup.sh",
)
_FORCE = {
    "self": "you may, with --force",
    "approve": "with --force, once somebody has typed its clusterd approve line",
    "never": "nobody may",
}


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``policy``."""
    if arguments[:1] == ("test",):
        if any(word in ("-h", "--help") for word in arguments[1:2]):
            _parser().read(invocation, ("--help",))
        options = _read_test(invocation, arguments[1:])
        return lambda reactor: test(reactor, invocation, options)
    if words := _parser().read(invocation, arguments).words:
        raise UsageError(f"policy takes nothing, or: test TARGET COMMAND, not {words[0]!r}", EXAMPLES)
    return lambda reactor: view(reactor, invocation)


def _read_test(invocation: Invocation, arguments: tuple[str, ...]) -> RunOptions:
    """Read what ``run`` takes; what is wrong with it is told in the words of ``policy test``."""
    try:
        return read_run_options(invocation, arguments)
    except UsageError as error:
        hints = tuple(hint.replace("clustersh run ", "clustersh policy test ") for hint in error.hints)
        raise UsageError(str(error), hints) from error


def _parser() -> Parser:
    parser = Parser("clustersh policy", "What the policy allows here, and whether a command passes.", EXAMPLES)
    parser.usage = "clustersh policy [--json] [test [options as of run] TARGET COMMAND ...]"
    parser.add_argument("words", nargs="*", metavar="test ...", help="ask of a command; nothing is run")
    return parser


async def test(reactor: Any, invocation: Invocation, options: RunOptions) -> int:
    """Print what is said of the command on each kind of machine; return 126 where it would be refused."""
    read = await read_request(invocation, options)
    client = await connect(reactor, invocation)
    if read.script is not None:
        retry = Retry(reactor, load(invocation.home).client.retry_for)
        await send(client, retry, (read.script,), invocation.in_thread)
    found = await client.call("POST", "/v1/policy/test", read.request, answer=PolicyTest)
    rows = [_row(each) for each in found.verdicts]
    table = render_table(("machines", "platform", "verdict", "why"), rows, invocation.console.width)
    await show(invocation, found, table if rows else "")
    if found.force:
        await invocation.console.err(f"force: {_FORCE[found.force]}\n")
    if found.problem is None:
        return 0
    await invocation.console.error(found.problem.detail, tuple(found.problem.hint.splitlines()))
    return REFUSED


def _row(verdict: MachinesVerdict) -> tuple[str, str, str, str]:
    why = f"{verdict.rule}: {verdict.why}" if verdict.rule else ""
    return counted(verdict.machines), verdict.platform, verdict.verdict, why


async def view(reactor: Any, invocation: Invocation) -> int:
    """Print what holds."""
    found = await ask(reactor, invocation, lambda client: client.call("GET", "/v1/policy", answer=PolicyView))
    lines = "".join(f"{label}: {printable(words)}\n" for label, words in _lines(found))
    rows = [(rule.rule, rule.action, rule.why) for rule in found.rules]
    await show(invocation, found, lines + render_table(("rule", "action", "why"), rows, invocation.console.width))
    return 0


def _lines(found: PolicyView) -> Iterator[tuple[str, str]]:
    yield "client", f"{found.client} (an AI agent's)" if found.ai else found.client
    yield "who may force", _FORCE[found.force]
    yield "may run on", " and in ".join(found.targets) or "every machine"
    if found.machines_at_once is not None:
        yield "machines at once", f"{found.machines_at_once} ({found.under_way} now)"
    if found.jobs_per_minute is not None:
        yield "jobs a minute", str(found.jobs_per_minute)
    for each in found.on:
        force = [f"force {each.force}"] if each.force else []
        rules = ", ".join([*force, *(f"{rule} {action}" for rule, action in each.rules.items())])
        yield f"on {printable(each.target)}", f"{rules or 'nothing else'} ({joined(each.machines) or 'no machine now'})"
    if found.unknown:
        yield "not here", joined(found.unknown)
