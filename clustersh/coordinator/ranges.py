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


def asked_range(request: Request) -> tuple[int, int | None] | None:
    """Return the one range that *request* asks for: its first byte (negative: from the end) and the end after its last.

    None where it asks for none, or for what may be answered whole. (Nothing here meets an ``If-Range``.)
    """
    wanted = parse_range_header(request.getHeader("Range"))
    if wanted is None or wanted.units != UNIT or len(wanted.ranges) != 1 or request.getHeader("If-Range") is not None:
        return None
    first, end = wanted.ranges[0]
    return first, end


def span_of(request: Request, asked: tuple[int, int | None], size: int) -> Span:
    """Return what the range *asked* for means in a stream of *size* bytes.

    Raises ProblemError where there is none of it; the answer to *request* says how much there is.
    """
    first, end = asked
    start = first if first >= 0 else max(0, size + first)
    stop = size if end is None else min(end, size)
    if start >= stop:
        request.setHeader("Content-Range", f"{UNIT} */{size}")
        raise ProblemError(Kind.RANGE_NOT_SATISFIABLE, f"the stream has {size} bytes, none in that range")
    return Span(start, stop - start)
