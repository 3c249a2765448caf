"""Which of a run's jobs a target means: the coordinator says, which knows machines by more than their names."""

from __future__ import annotations

from urllib.parse import quote

from ..cli.target_words import target_query
from ..rest_client import RestClient
from ..wire.rest import Run


async def run_on(client: RestClient, uuid: str, target: str) -> Run:
    """Return the run *uuid* without output, and of its jobs those on the machines of *target* (all if that is "").

    Raises ProblemError where there is none, or the target means nothing.
    """
    only = target_query(target) if target else []
    return await client.call(
        "GET", f"/v1/runs/{quote(uuid, safe='')}", answer=Run, query=[("limit", "0"), ("fold", "true"), *only]
    )
