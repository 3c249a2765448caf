"""Which of a run's jobs a target means: the coordinator says, which knows machines by more than their names."""

from __future__ import annotations

from urllib.parse import quote

from ..cli.target_words import restricted_query
from ..rest_client import RestClient
from ..wire.rest import Run
from .identifiers import JobWords


async def run_on(client: RestClient, words: JobWords) -> Run:
    """Return the run that *words* name without output, and of its jobs those that they mean.

    Raises ProblemError where there is none, or they mean no machine of it.
    """
    only = restricted_query(words.target, words.exclude)
    return await client.call(
        "GET", f"/v1/runs/{quote(words.uuid, safe='')}", answer=Run, query=[("limit", "0"), ("fold", "true"), *only]
    )
