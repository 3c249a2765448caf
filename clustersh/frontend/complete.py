"""``clustersh __complete machines|groups|uuids [PREFIX]``: what a shell offers at the Tab key, one a line.

It never says what is wrong, and never takes long: whoever types is waiting.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Awaitable, Iterable
from typing import Any, Protocol, TypeVar

from ..address import parse_address
from ..cli.invocation import Invocation
from ..home import read_json
from ..wire.codec import decode_json
from ..wire.fleet import RESERVED_GROUPS, Groups, TargetView
from ..wire.ids import SHORT_LENGTH, short
from ..wire.rest import JobPage
from .blocking import connect_blocking, without_reactor
from .state import LOGIN_FILE, Login, client_folder

T = TypeVar("T")
WITHIN_S = 0.7
"""Looking up a host's name can't be bounded otherwise: the thread that does is left behind."""
RECENT = 50
_ANSWER_LIMIT = 4 << 20
_MACHINES = "/v1/targets?target=all,@new"
"""All of them by name, new ones too: of thousands, what else is known is more than anybody waits for at the Tab key."""
_LAST_OPERAND = re.compile(r"(.*[,!&^])?(.*)", re.DOTALL)


class Ask(Protocol):
    """Asks the coordinator for what is at *path*."""

    def __call__(self, path: str, answer: type[T]) -> Awaitable[T]: ...


class CompleteStart:
    """One look, ready to start."""

    def __init__(self, invocation: Invocation, words: tuple[str, ...]) -> None:
        self._invocation = invocation
        self._home = invocation.home
        self._words = words

    def at_once(self) -> int:
        """Print what fits, or nothing, without a reactor; the exit status is 0 either way."""
        found: list[str] = []
        thread = threading.Thread(target=self._look_into, args=(found,), daemon=True)
        thread.start()
        thread.join(WITHIN_S)
        self._invocation.console.out_now(_lines(tuple(found)))
        return 0

    async def __call__(self, reactor: Any) -> int:
        """Do the same in a process that has the way to the coordinator open."""
        from ..rest_client import RestClient
        from .client import connect

        async def ask(path: str, answer: type[T]) -> T:
            client: RestClient = await connect(reactor, self._invocation)
            return await client.call("GET", path, answer=answer, timeout_s=WITHIN_S)

        found: list[str] = []
        await self._look(found, ask)
        await self._invocation.console.out(_lines(found))
        return 0

    def _look_into(self, found: list[str]) -> None:
        without_reactor(self._look(found, self._ask))

    async def _look(self, found: list[str], ask: Ask) -> None:
        kind, prefix = (*self._words, "", "")[:2]
        try:
            words = await {"machines": _targets, "groups": _groups, "uuids": _uuids}[kind](prefix, ask)
        except Exception:  # whatever it is, a message in the midst of someone's command line helps nobody
            return
        found += [word for word in words if word.startswith(prefix)]

    async def _ask(self, path: str, answer: type[T]) -> T:
        folder = client_folder(self._home)
        login = read_json(folder / LOGIN_FILE, Login)
        if login is None:
            raise LookupError("not logged in")
        connection = connect_blocking(parse_address(login.coordinator), folder, connect_s=WITHIN_S, answer_s=WITHIN_S)
        connection.request("GET", path)
        response = connection.getresponse()
        return decode_json(response.read(_ANSWER_LIMIT), answer)


async def _targets(prefix: str, ask: Ask) -> list[str]:
    """Complete the last word of a target: a machine's name, or a group after an @."""
    before, last = _LAST_OPERAND.fullmatch(prefix).groups("")  # type: ignore[union-attr]  # it fits any text
    if last.startswith("@"):
        found = await ask("/v1/groups", Groups)
        groups = sorted({*(group.name for group in found.groups), *RESERVED_GROUPS} - {"all"})
        words = [*groups, *(f"{source}:{value}" for source, values in found.values.items() for value in values)]
        return [f"{before}@{word}" for word in words]
    return [f"{before}{name}" for name in (await ask(_MACHINES, TargetView)).machines]


async def _groups(prefix: str, ask: Ask) -> list[str]:
    return [group.name for group in (await ask("/v1/groups", Groups)).groups]


async def _uuids(prefix: str, ask: Ask) -> list[str]:
    jobs = (await ask(f"/v1/jobs?limit={RECENT}", JobPage)).jobs
    whole = list(dict.fromkeys(job.uuid for job in jobs))
    # What tables show, unless more of it was typed than that: then it is a whole one.
    return whole if len(prefix) > SHORT_LENGTH else [short(uuid) for uuid in whole]


def _lines(words: Iterable[str]) -> str:
    return "".join(f"{word}\n" for word in words)


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> CompleteStart:
    """Take the arguments as they are: there is nobody to tell that they are wrong."""
    return CompleteStart(invocation, arguments)
