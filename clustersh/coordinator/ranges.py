"""Byte ranges of an output (RFC 9110, section 14): one range of one stream; several at once are answered whole."""

from __future__ import annotations

from typing import NamedTuple

from werkzeug.http import parse_range_header

from ..wire.problems import Kind, ProblemError
from .http import Request

UNIT = "bytes"


class Span(NamedTuple):
    """Which bytes are sent: *length* of them from *offset*."""

    offset: int
    length: int

    def content_range(self, size: int | None) -> str:
        """Return the answer's ``Content-Range``; *size* is None while the output still grows."""
        return f"{UNIT} {self.offset}-{self.offset + self.length - 1}/{'*' if size is None else size}"


def asks_for_range(request: Request) -> bool:
    """Whether *request* asks for one range that can be read. (Nothing here has a validator that ``If-Range`` meets.)"""
    wanted = parse_range_header(request.getHeader("Range"))
    return (
        wanted is not None
        and wanted.units == UNIT
        and len(wanted.ranges) == 1
        and request.getHeader("If-Range") is None
    )


def span_of(request: Request, size: int) -> Span:
    """Return what the range of *request* means in a stream of *size* bytes.

    Raises ProblemError where there is none of it, and says in the answer how much there is.
    """
    wanted = parse_range_header(request.getHeader("Range"))
    found = wanted.range_for_length(size) if wanted is not None else None
    if found is None:
        request.setHeader("Content-Range", f"{UNIT} */{size}")
        raise ProblemError(Kind.RANGE_NOT_SATISFIABLE, f"the stream has {size} bytes, none in that range")
    start, stop = found
    return Span(start, stop - start)
