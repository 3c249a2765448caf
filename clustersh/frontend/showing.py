"""Which form a run is shown in: one machine's output as it is, or that of many in sections."""

from __future__ import annotations

from ..wire.rest import Run
from .attend import Attendant, Showing


def is_one(run: Run) -> bool:
    """Whether the output of *run* is printed as it is: one machine was asked for by its name."""
    return run.raw and len(run.jobs) == 1


def showing(attendant: Attendant, run: Run) -> Showing:
    """Return how *run* is shown."""
    if is_one(run):
        from .one_job import OneJob

        return OneJob(attendant)
    from .many.attend import ManyJobs

    return ManyJobs(attendant, run)
