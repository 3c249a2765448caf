"""Calls that need no certificate: the package index that machines are installed from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

from twisted.internet.threads import deferToThread

from ..wire.problems import Kind, ProblemError
from .api import Api
from .http import Request
from .package_index import HTML, JSON
from .packages import Packages
from .ranges import UNIT, Span, asked_range, span_of
from .routes import OCTETS, RANGE, Answer

PIECE = 256 << 10
"""Bytes that are read in one go."""


class PackageCalls:
    """``/simple/`` and ``/packages/``."""

    def __init__(self, packages: Packages) -> None:
        self._packages = packages

    def add_to(self, api: Api) -> None:
        """Add the calls."""
        pages = {200: (HTML, JSON)}
        api.add_open("GET", "/simple/", self.projects, answers=pages, problems=(Kind.UNAVAILABLE,))
        api.add_open("GET", "/simple/<project>/", self.project, answers=pages, problems=(Kind.UNAVAILABLE,))
        api.add_open(
            "GET",
            "/packages/<file>",
            self.file,
            answers={200: (OCTETS,), 206: (OCTETS,)},
            headers=(RANGE,),
            problems=(Kind.UNAVAILABLE, Kind.RANGE_NOT_SATISFIABLE),
        )

    async def projects(self, request: Request) -> Answer:
        """List the projects that machines can be installed from here (PEP 503; PEP 691 where JSON is accepted)."""
        index = await self._packages.index()
        return _page(request, index.projects_json() if _wants_json(request) else index.projects_html())

    async def project(self, request: Request, project: str) -> Answer:
        """List a project's files."""
        index = await self._packages.index()
        if not index.has(project):
            raise _missing("project")
        return _page(request, index.files_json(project) if _wants_json(request) else index.files_html(project))

    async def file(self, request: Request, file: str) -> Answer:
        """Send a file, or a range of it."""
        index = await self._packages.index()
        package = index.find(file)
        if package is None:
            raise _missing("file")
        asked = asked_range(request)
        span = Span(0, package.size) if asked is None else span_of(request, asked, package.size)
        headers = {"Accept-Ranges": UNIT, "Content-Length": str(span.length)}
        if asked is not None:
            headers["Content-Range"] = span.content_range(package.size)
        return Answer(await _content(package.source, span), 200 if asked is None else 206, OCTETS, headers)


def _page(request: Request, page: bytes) -> Answer:
    return Answer(page, content_type=JSON if _wants_json(request) else HTML, headers={"Vary": "Accept"})


def _wants_json(request: Request) -> bool:
    """Whether *request* accepts JSON: whoever knows that form prefers it."""
    return JSON in (request.getHeader("Accept") or "")


def _missing(what: str) -> ProblemError:
    return ProblemError(Kind.NOT_FOUND, f"this index has no such {what}", hint="GET /simple/ lists the projects")


async def _content(source: bytes | Path, span: Span) -> bytes | AsyncGenerator[bytes, None]:
    if isinstance(source, bytes):
        return source[span.offset : span.offset + span.length]
    if not await deferToThread(source.exists):
        raise _missing("file")
    return _read(source, span)


async def _read(path: Path, span: Span) -> AsyncGenerator[bytes, None]:
    with path.open("rb") as file:
        file.seek(span.offset)
        left = span.length
        while left:
            piece = await deferToThread(file.read, min(PIECE, left))
            if not piece:
                raise EOFError(f"{path} is shorter than it was")
            left -= len(piece)
            yield piece
