"""The package index: which files there are, and the pages (PEP 503 and PEP 691) that pip reads to find them.

A request only ever chooses from this list; nothing of it becomes a path.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from .own_wheel import PROJECT, OwnWheel
from .wheelhouse import Contents, Wheelhouse

HTML = "application/vnd.pypi.simple.v1+html"
JSON = "application/vnd.pypi.simple.v1+json"
_META = {"api-version": "1.0"}


class Package(NamedTuple):
    """A file that is handed out: *source* is its content, or where that lies."""

    name: str
    project: str
    sha256: str
    size: int
    requires_python: str
    source: bytes | Path


class PackageIndex:
    """All packages, by file name."""

    def __init__(self, packages: Iterable[Package]) -> None:
        self._packages = {package.name: package for package in packages}

    def find(self, name: str) -> Package | None:
        """Return the file of that very name; None where there is none."""
        return self._packages.get(name)

    def has(self, project: str) -> bool:
        """Whether there is a file of *project*, a normalised name."""
        return project in self._projects()

    def projects_html(self) -> bytes:
        """Return the page that lists all projects."""
        return _page(f'<a href="{html.escape(name)}/">{html.escape(name)}</a><br>' for name in self._projects())

    def projects_json(self) -> bytes:
        """Return the same as JSON."""
        return msgspec.json.encode({"meta": _META, "projects": [{"name": name} for name in self._projects()]})

    def files_html(self, project: str) -> bytes:
        """Return the page that lists the files of *project*."""
        return _page(_link(package) for package in self._files(project))

    def files_json(self, project: str) -> bytes:
        """Return the same as JSON."""
        files = [
            {
                "filename": package.name,
                "url": f"../../packages/{package.name}",
                "hashes": {"sha256": package.sha256},
                "size": package.size,
                **({"requires-python": package.requires_python} if package.requires_python else {}),
            }
            for package in self._files(project)
        ]
        return msgspec.json.encode({"meta": _META, "name": project, "files": files})

    def _projects(self) -> list[str]:
        return sorted({package.project for package in self._packages.values()})

    def _files(self, project: str) -> list[Package]:
        return sorted(package for package in self._packages.values() if package.project == project)


def index_of(own: OwnWheel, wheelhouse: Wheelhouse, contents: Contents) -> PackageIndex:
    """Return the index of *contents*, and of the coordinator's *own* wheel: no other wheel is under its name."""
    held = [
        Package(wheel.name, wheel.project, wheel.sha256, wheel.size, wheel.requires_python, wheelhouse.path(wheel))
        for wheel in contents.wheels().values()
        if wheel.project != PROJECT
    ]
    ours = Package(own.name, PROJECT, own.sha256, len(own.content), own.requires_python, own.content)
    return PackageIndex([ours, *held])


def _link(package: Package) -> str:
    name = html.escape(package.name)
    python = f' data-requires-python="{html.escape(package.requires_python)}"' if package.requires_python else ""
    return f'<a href="../../packages/{name}#sha256={package.sha256}"{python}>{name}</a><br>'


def _page(lines: Iterable[str]) -> bytes:
    return ("<!DOCTYPE html>\n<title>clustersh</title>\n" + "\n".join(lines) + "\n").encode()
