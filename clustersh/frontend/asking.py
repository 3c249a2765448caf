"""Asking the coordinator for a run, as often as need be."""

from __future__ import annotations

from ..cli.invocation import Invocation
from ..rest_client import RestClient, Unreachable
from ..wire.problems import ProblemError
from ..wire.rest import Run, RunRequest
from .retry import Retry


class Asking:
    """Asks for *request* with one *key*: it runs once. *fold*: what several machines print is answered once."""

    def __init__(
        self,
        client: RestClient,
        retry: Retry,
        invocation: Invocation,
        request: RunRequest,
        key: str,
        *,
        fold: bool = False,
    ) -> None:
        self._client = client
        self._retry = retry
        self._invocation = invocation
        self._request = request
        self._key = key
        self._fold = fold

    async def __call__(self, wait_s: float) -> Run:
        """Return the new run, or the one that it already is; wait up to *wait_s* for its end."""
        self._invocation.started = None
        try:
            return await self._retry(lambda: self._post(wait_s))
        except ProblemError as problem:
            self._invocation.started = problem.problem.started
            raise
        except Unreachable:
            # Retry lets it through only where nothing was ever sent.
            self._invocation.started = False
            raise

    async def _post(self, wait_s: float) -> Run:
        headers = {"Idempotency-Key": self._key}
        query = [("fold", "true")] if self._fold else []
        return await self._client.call(
            "POST", "/v1/runs", self._request, answer=Run, query=query, headers=headers, wait_s=wait_s
        )
