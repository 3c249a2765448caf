"""What the commands about targets, groups and labels say alike, whoever gives them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from ..rest_client import Query, RestClient
from ..wire.queries import MAX_ASKED_TARGET
from .errors import UsageError
from .invocation import Invocation
from .text import printable

T = TypeVar("T")
_SHOWN = 10


class Ask(Protocol):
    """How a program asks the coordinator."""

    async def __call__(self, reactor: Any, invocation: Invocation, question: Callable[[RestClient], Awaitable[T]]) -> T:
        """Return what *question* gets. Raises CliError or ProblemError."""


def target_query(target: str, exclude: str = "") -> Query:
    """Return what asks for the machines of a target in an address. Raises UsageError where it can't stand in one."""
    for text in (target, exclude):
        if not (text.isascii() and text.isprintable()):
            raise UsageError(f"{text[:80]!r} is no target: names are of a-z, 0-9, '.', '_' and '-'")
        if len(text) > MAX_ASKED_TARGET:
            raise UsageError(
                f"that target has {len(text)} characters, and at most {MAX_ASKED_TARGET} can be asked about",
                ("make a group of them: clustersh groups add NAME TARGET",),
            )
    return [("target", target), *([("exclude", exclude)] if exclude else [])]


def restricted_query(target: str, exclude: str) -> Query:
    """Return what leaves only the machines of *target* ("": all), without those of *exclude*. Raises UsageError."""
    return [(name, text) for name, text in target_query(target, exclude) if text]


def joined(names: Sequence[str]) -> str:
    """Return *names* in a row, the last ones only as a number where they are many."""
    shown = ", ".join(map(printable, names[:_SHOWN]))
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def machines(number: int) -> str:
    """Return ``1 machine`` or ``5 machines``."""
    return "1 machine" if number == 1 else f"{number} machines"


async def show(invocation: Invocation, document: msgspec.Struct, text: str) -> None:
    """Print *document* where JSON is wanted, else *text*."""
    await invocation.console.out(msgspec.json.encode(document) + b"\n" if invocation.json else text)
