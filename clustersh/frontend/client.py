"""The way to the coordinator: who we are there, and where it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ..address import parse_address
from ..cli.errors import CliError
from ..cli.invocation import Invocation
from ..home import HomeError, read_json
from ..rest_client import RestClient
from ..trust.errors import MissingCredentialsError
from ..trust.tls import load_client_policy
from .state import LOGIN_FILE, PENDING_FILE, Login, client_folder

T = TypeVar("T")


class NotLoggedIn(CliError):
    """There is no certificate yet, or no coordinator."""

    def __init__(self) -> None:
        super().__init__(
            "not logged in",
            ("clustersh login http://HOST:5672 (HOST is where clusterd runs; clustersh up tries it out here)",),
            kind="no-certificate",
        )


async def connect(reactor: Any, invocation: Invocation) -> RestClient:
    """Return a client of the coordinator this user is logged in to.

    A login that was left pending is taken up. Raises NotLoggedIn, NotApproved where it still waits, and TrustError or
    HomeError where what is stored can't be used.
    """
    kept = invocation.kept
    if kept is not None and kept.rest is not None:
        shared: RestClient = kept.rest
        return shared
    folder = client_folder(invocation.home)
    read_json(folder / LOGIN_FILE, Login)  # says it where the folder can't be read, which exists() would not
    if (folder / PENDING_FILE).exists():
        from .session import take_up_pending

        await take_up_pending(reactor, invocation)
    login = read_json(folder / LOGIN_FILE, Login)
    if login is None:
        raise NotLoggedIn
    try:
        address = parse_address(login.coordinator)
    except ValueError as error:
        raise HomeError(f"{folder / LOGIN_FILE} is damaged: {error}") from error
    try:
        policy = load_client_policy(folder)
    except MissingCredentialsError:
        raise NotLoggedIn from None
    client = RestClient(reactor, address, policy)
    if kept is not None:
        kept.rest = client
    return client


async def ask(reactor: Any, invocation: Invocation, question: Callable[[RestClient], Awaitable[T]]) -> T:
    """Return what *question* gets from the coordinator. Raises as `connect`, and ProblemError."""
    return await question(await connect(reactor, invocation))
