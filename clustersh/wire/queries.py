"""The query parameters of the REST calls. Each call takes its own and no others."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

import msgspec

from .ids import MAX_MILLISECONDS
from .jobs import HEAD_LIMIT, Count, State
from .output import Stream

MAX_PAGE = 1000
"""Jobs or records on one page, whatever is asked for."""

MAX_ASKED_TARGET = 2000
"""Characters of a target as a part of an address, which has no room for longer ones."""
AskedTarget: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_ASKED_TARGET, pattern="^[ -~]*$")]
Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True, examples=["2026-11-20T10:31:07Z"])]
Fold: TypeAlias = Annotated[bool, msgspec.Meta(description="Give what several jobs printed only once (`same_as`).")]
PageSize: TypeAlias = Annotated[int, msgspec.Meta(ge=0, description=f"At most so many, and at most {MAX_PAGE}.")]


def seconds_since_1970(moment: datetime) -> float:
    """Return *moment* in seconds, moved into the years 1970 to 9999."""
    return min(max(0.0, moment.timestamp()), MAX_MILLISECONDS / 1000)


class _Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class NoQuery(_Query, frozen=True):
    """For calls that take none."""


class JobQuery(_Query, frozen=True):
    """GET /v1/jobs/{machine}/{id}."""

    limit: Annotated[Count, msgspec.Meta(description="Bytes of output that the answer may hold, shared fairly.")] = (
        HEAD_LIMIT
    )
    fold: Fold = False


class RunQuery(JobQuery, frozen=True):
    """GET /v1/runs/{id}."""

    target: Annotated[
        AskedTarget, msgspec.Meta(description="Only the jobs on these machines, as they are called now.")
    ] = ""
    exclude: Annotated[AskedTarget, msgspec.Meta(description="Without the jobs on these.")] = ""


class RequestQuery(_Query, frozen=True):
    """POST /v1/runs."""

    fold: Fold = False


class EndsQuery(_Query, frozen=True):
    """GET /v1/runs/{id}/ends."""

    after: Annotated[Count, msgspec.Meta(description="Only those after so many: the last answer's `next`.")] = 0
    limit: Annotated[Count, msgspec.Meta(description="Bytes of each job's output that the answer may hold.")] = 0


class MachinesQuery(_Query, frozen=True):
    """GET /v1/machines: empty parts don't restrict."""

    target: AskedTarget = ""
    exclude: AskedTarget = ""
    fresh: Annotated[bool, msgspec.Meta(description="Ask the machines for their vitals now.")] = False


class ViaQuery(_Query, frozen=True):
    """GET /v1/adopt/hosts: of which machine; as in AdoptMachine."""

    via: str = ""


class TargetQuery(_Query, frozen=True):
    """GET /v1/targets and /v1/labels."""

    target: AskedTarget
    exclude: AskedTarget = ""


class InviteQuery(_Query, frozen=True):
    """GET /v1/admin/invite."""

    address: Annotated[str, msgspec.Meta(max_length=300, description="Where machines reach the coordinator.")]


class JobsQuery(_Query, frozen=True):
    """GET /v1/jobs: empty parts don't restrict. *machine* is a name, forgotten ones too; *target* as it is now."""

    machine: str = ""
    target: AskedTarget = ""
    exclude: AskedTarget = ""
    client: str = ""
    status: tuple[State, ...] = ()
    since: Moment | None = None
    before: Annotated[str, msgspec.Meta(description="Only runs older than this one: the last page's `next`.")] = ""
    limit: PageSize = 100


class OutputQuery(_Query, frozen=True):
    """GET /v1/jobs/{machine}/{id}/output; *offset* and *length* in bytes, *tail* in lines."""

    stream: Stream = Stream.BOTH
    offset: Count = 0
    length: Count | None = None
    tail: Annotated[Count, msgspec.Meta(description="Begin with the last so many lines, in place of an offset.")] = 0
    follow: Annotated[bool, msgspec.Meta(description="Go on until the job has ended.")] = False


class StdinQuery(_Query, frozen=True):
    """PUT /v1/jobs/{machine}/{id}/stdin."""

    offset: Annotated[Count, msgspec.Meta(description="Where this piece begins in the stream.")] = 0
    end: Annotated[bool, msgspec.Meta(description="No piece follows this one.")] = False


class VerifyQuery(_Query, frozen=True):
    """GET /v1/admin/verify."""

    witness: Annotated[bool, msgspec.Meta(description="Compare with what the machines were told of the ledger.")] = (
        False
    )


class AuditQuery(_Query, frozen=True):
    """GET /v1/admin/audit: empty parts don't restrict."""

    client: str = ""
    machine: str = ""
    since: Moment | None = None
    after: Annotated[Count, msgspec.Meta(description="Only records after this number: the last page's `next`.")] = 0
    limit: PageSize = MAX_PAGE
