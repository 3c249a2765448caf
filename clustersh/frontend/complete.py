"""``clustersh __complete machines|groups|uuids [PREFIX]``: what a shell offers at the Tab key, one a line.

It never says what is wrong, and never takes long: whoever types is waiting.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from ..address import parse_address
from ..cli.invocation import Invocation
from ..home import read_json
from ..wire.codec import decode_json
from ..wire.fleet import RESERVED_GROUPS, Groups, TargetView
from ..wire.ids import SHORT_LENGTH, short
from ..wire.rest import JobPage
from .blocking import connect_blocking
from .state import LOGIN_FILE, Login, client_folder

T = TypeVar("T")
WITHIN_S = 0.7
"""Looking up a host's name can't be bounded otherwise: the thread that does is left behind."""
RECENT = 50
_ANSWER_LIMIT = 4 << 20
_MACHINES = "/v1/targets?target=all,@new"
"""All of them by name, new ones too: of thousands, what else is known is more than anybody waits for at the Tab key."""
_LAST_OPERAND = re.compile(r"(.*[,!&^])?(.*)", re.DOTALL)


class CompleteStart:
    """One look, ready to start. It needs no reactor."""

    def __init__(self, home: Path, words: tuple[str, ...], out: Callable[[str], None]) -> None:
        self._home = home
        self._words = words
        self._out = out

    def at_once(self) -> int:
        """Print what fits, or nothing; the exit status is 0 either way."""
        found: list[str] = []
        thread = threading.Thread(target=self._look_into, args=(found,), daemon=True)
        thread.start()
        thread.join(WITHIN_S)
        self._out("".join(f"{word}\n" for word in tuple(found)))
        return 0

    def __call__(self, reactor: Any) -> Coroutine[Any, Any, int]:
        """Needed for a command's type; `at_once` is always enough."""
        raise AssertionError("completion needs no reactor")

    def _look_into(self, found: list[str]) -> None:
        kind, prefix = (*self._words, "", "")[:2]
        try:
            words = {"machines": self._targets, "groups": self._groups, "uuids": self._uuids}[kind](prefix)
        except Exception:  # whatever it is, a message in the midst of someone's command line helps nobody
            return
        found += [word for word in words if word.startswith(prefix)]

    def _targets(self, prefix: str) -> list[str]:
        """Complete the last word of a target: a machine's name, or a group after an @."""
        before, last = _LAST_OPERAND.fullmatch(prefix).groups("")  # type: ignore[union-attr]  # it fits any text
        if last.startswith("@"):
            found = self._ask("/v1/groups", Groups)
            groups = sorted({*(group.name for group in found.groups), *RESERVED_GROUPS} - {"all"})
            words = [*groups, *(f"{source}:{value}" for source, values in found.values.items() for value in values)]
            return [f"{before}@{word}" for word in words]
        return [f"{before}{name}" for name in self._ask(_MACHINES, TargetView).machines]

    def _groups(self, prefix: str) -> list[str]:
        return [group.name for group in self._ask("/v1/groups", Groups).groups]

    def _uuids(self, prefix: str) -> list[str]:
        jobs = self._ask(f"/v1/jobs?limit={RECENT}", JobPage).jobs
        whole = list(dict.fromkeys(job.uuid for job in jobs))
        # What tables show, unless more of it was typed than that: then it is a whole one.
        return whole if len(prefix) > SHORT_LENGTH else [short(uuid) for uuid in whole]

    def _ask(self, path: str, answer: type[T]) -> T:
        folder = client_folder(self._home)
        login = read_json(folder / LOGIN_FILE, Login)
        if login is None:
            raise LookupError("not logged in")
        connection = connect_blocking(parse_address(login.coordinator), folder, connect_s=WITHIN_S, answer_s=WITHIN_S)
        connection.request("GET", path)
        response = connection.getresponse()
        return decode_json(response.read(_ANSWER_LIMIT), answer)


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> CompleteStart:
    """Take the arguments as they are: there is nobody to tell that they are wrong."""
    return CompleteStart(invocation.home, arguments, invocation.console.out_now)
