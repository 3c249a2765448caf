"""Which call a path is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .routes import Route


class Place(NamedTuple):
    """What a path leads to: the routes there, by method, and the variables that the path gives."""

    routes: Mapping[str, Route]
    parts: Mapping[str, str]

    def route(self, method: str) -> Route | None:
        """Return the route for *method*; HEAD is a GET whose body nobody wants."""
        return self.routes.get("GET" if method == "HEAD" else method)

    @property
    def methods(self) -> list[str]:
        """The methods that are taken there."""
        return sorted({*self.routes, *(["HEAD"] if "GET" in self.routes else ())})


class Router:
    """Routes by their paths, in which ``<name>`` stands for one segment that is not empty."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: dict[int, list[tuple[list[str], dict[str, Route]]]] = {}

    def add(self, route: Route) -> None:
        """Enter *route*."""
        known = self._exact.get(route.path)
        if known is None:
            known = self._exact[route.path] = {}
            segments = route.path.split("/")
            if "<" in route.path:
                self._patterns.setdefault(len(segments), []).append((segments, known))
        known[route.method] = route

    def find(self, path: str) -> Place | None:
        """Return what *path*, unquoted, leads to; None where that is nothing."""
        exact = self._exact.get(path)
        if exact is not None and "<" not in path:
            return Place(exact, {})
        segments = path.split("/")
        for pattern, routes in self._patterns.get(len(segments), ()):
            parts = _fitted(pattern, segments)
            if parts is not None:
                return Place(routes, parts)
        return None


def _fitted(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    parts: dict[str, str] = {}
    for wanted, given in zip(pattern, segments, strict=True):
        if wanted.startswith("<") and given:
            parts[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return parts
