"""Local standard input for a remote command: numbered bytes, sent again from what the process last took."""

from __future__ import annotations

from urllib.parse import quote

from ..cli.invocation import Stdin
from ..rest_client import RestClient, Unreachable
from ..wire.problems import Kind, ProblemError
from ..wire.rest import Job, StdinProgress
from .retry import Retry

PIECE = 64 << 10
TAKEN_WITHIN_S = 90.0
SOON_S = 0.1
_PASSING = (Kind.NOT_RUNNING, Kind.OUTPUT_UNAVAILABLE, Kind.UNAVAILABLE, Kind.RATE_LIMITED, Kind.TOO_LARGE)
"""Not yet started, the machine away for a moment, or busy."""


class StdinSender:
    """Sends one job its standard input until that ends or the command takes no more.

    Only the piece that was not yet taken is kept. It never gives up on a lost connection: who waits for the job does.
    """

    def __init__(self, client: RestClient, retry: Retry, stdin: Stdin, machine: str, uuid: str) -> None:
        self._client = client
        self._retry = retry
        self._stdin = stdin
        self._job = f"/v1/jobs/{quote(machine, safe='')}/{quote(uuid, safe='')}"
        self._taken = 0

    async def send(self) -> None:
        """Send all of it. Raises UsageError where it can't be read, ProblemError where it can't be sent."""
        while True:
            piece = await self._stdin.read(PIECE)
            if not await self._hand_over(piece) or not piece:
                return

    async def _hand_over(self, piece: bytes) -> bool:
        """Send *piece* (the end if empty) until the process took it all; False once it takes no more."""
        until = self._taken + len(piece)
        while True:
            rest = piece[len(piece) - (until - self._taken) :] if piece else b""
            try:
                progress = await self._put(rest)
            except Unreachable:
                await self._retry.pause(1.0)
                continue
            except ProblemError as problem:
                if problem.problem.kind not in _PASSING:
                    raise
                if await self._has_ended():
                    return False
                await self._retry.pause(SOON_S if problem.problem.kind is Kind.NOT_RUNNING else 1.0)
                continue
            moved = progress.offset > self._taken
            self._taken = min(max(self._taken, progress.offset), until)
            if progress.closed:
                return False
            if self._taken == until:
                return True
            if not moved:
                await self._retry.pause()

    async def _put(self, rest: bytes) -> StdinProgress:
        query = [("offset", str(self._taken)), ("end", "false" if rest else "true")]
        return await self._client.call(
            "PUT", f"{self._job}/stdin", rest, answer=StdinProgress, query=query, timeout_s=TAKEN_WITHIN_S
        )

    async def _has_ended(self) -> bool:
        try:
            job = await self._client.call("GET", self._job, answer=Job, query=[("limit", "0")])
        except Unreachable:
            return False
        except ProblemError as problem:
            if problem.problem.kind not in _PASSING:
                raise
            return False
        return job.status.ended
